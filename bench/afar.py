"""An S3 server that is far away: ours behind a slow network, and what its log says of when which object was there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from bench import proc
from bench.lab import CHECKOUT, RUN_SECONDS, Lab
from bench.rows_s3 import create_bucket
from bench.s3servers import BUCKET, KEYS, Process

DELAY = 0.1  # seconds, one way
WATCH_SECONDS = 0.05
_STORED = re.compile(r"^(\S+)Z \S+ s3 access \S+ \S+ (?:put_object PUT|complete POST) /([^ ?]+)\S* 200 ", re.MULTILINE)


class Network:
    """A process of ``bench.delay`` in front of a port of 127.0.0.1."""

    def __init__(self, to: int, delay: float = DELAY) -> None:
        command = [sys.executable, "-m", "bench.delay", "--to", f"127.0.0.1:{to}", "--ms", str(delay * 1000)]
        self._process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, process_group=0)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline().removeprefix("listening on "))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def stop(self) -> None:
        """End it, with all its connections."""
        with self._process as process:
            process.kill()


class Afar:
    """Our S3 daemon with two workers, on a disk of this machine, and a ``Network`` before it."""

    def __init__(self, lab: Lab, delay: float = DELAY) -> None:
        """For this row alone. Raises OSError when the server does not start."""
        directory = lab.path(f"afar-{lab.new_number()}")
        os.mkdir(directory)
        self._log = Path(directory, "log")
        self.server = Process("s4raw s3", _command, os.path.join(directory, "data"), str(self._log))
        lab.at_row_end(shutil.rmtree, directory, True)
        lab.at_row_end(self.server.stop)
        self.network = Network(self.server.port, delay)
        lab.at_row_end(self.network.stop)
        self.endpoint = f"http://127.0.0.1:{self.network.port}"
        self.delay = delay
        create_bucket(self.server)

    def environment(self) -> Mapping[str, str]:
        """What clients find it by."""
        return {**KEYS, "AWS_ENDPOINT_URL": self.endpoint, "S3_ENDPOINT_URL": self.endpoint}

    def mark(self) -> int:
        """A place in its log: its end."""
        return self._log.stat().st_size

    def stored(self, mark: int, prefix: str) -> dict[str, float]:
        """The objects below a prefix that were stored since: when (seconds since 1970) the server had answered so."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            file.seek(mark)
            found = {match[2]: match[1] for match in _STORED.finditer(file.read())}
        below = f"{BUCKET}/{prefix}/"
        return {
            name.removeprefix(below): datetime.fromisoformat(f"{stamp}+00:00").timestamp()
            for name, stamp in found.items()
            if name.startswith(below)
        }

    def wait(self, prefix: str, count: int) -> None:
        """Wait until so many objects are below a prefix. Raises RuntimeError when they do not come."""
        directory = os.path.join(self.server.data, BUCKET, prefix)
        deadline = time.monotonic() + RUN_SECONDS
        while sum(len(names) for _, _, names in os.walk(directory)) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"there are not {count} objects below {prefix} after {RUN_SECONDS:g} s")
            time.sleep(0.05)

    def drop(self, prefix: str, count: int, size: int) -> None:
        """Throw away what is below a prefix, behind the server's back. Raises RuntimeError unless it is all there."""
        directory = os.path.join(self.server.data, BUCKET, prefix)
        sizes = [os.path.getsize(os.path.join(above, name)) for above, _, names in os.walk(directory) for name in names]
        if sizes != [size] * count:
            raise RuntimeError(f"{len(sizes)} objects of {sum(sizes)} bytes below {prefix}, not {count} of {size} each")
        shutil.rmtree(directory)


def _command(data: str, _port: int, listener: int) -> list[str]:
    options = ["--local", data, "--listen-fd", str(listener), "--workers", "2", "--access-log"]
    return [sys.executable, "-m", "s4raw", "s3", "run", *options]


class Footprint:
    """The memory that processes with all their descendants hold at once, without what they share: its peak in KiB.

    Looked at from a thread, many times a second, while it is entered.
    """

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        """``pids`` names the processes, each time anew."""
        self._pids = pids
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = 0

    def __enter__(self) -> Footprint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(WATCH_SECONDS):
            self.peak = max(self.peak, sum(map(_own_kib, self._pids())))


def descendants(pid: int) -> list[int]:
    """The process ids of all that a process has started, and those have."""
    found = []
    left = [pid]
    while left:
        try:
            children = proc.children(left.pop())
        except OSError:  # it has ended
            continue
        found += children
        left += children
    return found


def _own_kib(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            _, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):  # it has ended
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") >> 10
