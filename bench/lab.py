"""The place where the measurements happen: its directory, its rings, its workers. All of it goes at the end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import count as counter
from pathlib import Path
from typing import Any, NamedTuple, cast

from bench import proc
from bench.measure import TimedSide, nothing
from s4raw.client import Ring
from s4raw.local import LocalRing
from s4raw.ring import CONF_VARIABLE

CHECKOUT = Path(__file__).parent.parent
RUN_SECONDS = 600.0  # that one run of anything may take
STOP_SECONDS = 5.0
SERVERS = 3
BUCKET = "bench"
SMALL_SIZE = 4096
SMALL_COUNT = 1000
DISK_FACTOR = 8  # copies of the large file that may exist at once, small ones that stay, some room

Arguments = Sequence[str] | Callable[[int], Sequence[str]]


class LeftOut(Exception):
    """A row that cannot be measured here, and why."""


class Worker:
    """A process of ``bench.worker`` with one target; each ``run`` is one run of its action."""

    def __init__(self, target: str, **arguments: object) -> None:
        """Raises RuntimeError when the target cannot be set up."""
        self._target = target
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker"],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # with all that it runs, so that it can be stopped with all that it runs
        )
        try:
            self._ask({"target": target, "arguments": arguments})
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def run(self, **arguments: object) -> Mapping[str, Any]:
        """Run the action once. Raises RuntimeError when it fails, TimeoutError when it takes too long."""
        return self._ask(arguments)

    def _ask(self, order: Mapping[str, object]) -> Mapping[str, Any]:
        self.order(order)
        return self.answer()

    def order(self, order: Mapping[str, object]) -> None:
        """Have the action run; ``answer`` waits for it."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self) -> Mapping[str, Any]:
        """What the run that was ordered has found; raises as ``run`` does."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], RUN_SECONDS)[0]:
            raise TimeoutError(f"{self._target} took more than {RUN_SECONDS:g} s")
        answer = json.loads(self._process.stdout.readline() or b'{"error": "the worker has died"}')
        if "error" in answer:
            raise RuntimeError(f"{self._target}: {answer['error']}")
        return cast(Mapping[str, Any], answer)

    def close(self) -> None:
        """End the process, which stops at the end of its stdin, unless it is in the middle of something."""
        with self._process as process:
            assert process.stdin
            process.stdin.close()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


class Workers:
    """Several workers that run their actions at the same time."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers

    def run(self, **arguments: object) -> Mapping[str, Any]:
        """Run them all; seconds until the last has ended, CPU seconds of all, the largest one's peak, and ``each``."""
        started = time.perf_counter()
        for worker in self._workers:
            worker.order(arguments)
        found = [worker.answer() for worker in self._workers]
        seconds = time.perf_counter() - started
        cpu, peak = sum(one["cpu"] for one in found), max(one["peak"] for one in found)
        return {"seconds": seconds, "cpu": cpu, "peak": peak, "each": found}


class Large(NamedTuple):
    """The large file: its path, its key, the key's file in the ring, its size in bytes."""

    path: str
    key: str
    stored: str
    size: int


class Lab:
    """What the rows need. ``quick`` makes the large file smaller and the samples fewer."""

    def __init__(self, directory: str, quick: bool) -> None:
        self.quick = quick
        self._exits = ExitStack()
        self._row_exits = ExitStack()
        self._clients: dict[str, Ring] = {}
        self._rings: dict[int, LocalRing] = {}
        self._block = os.urandom(1 << 20)
        self._numbers = counter()
        self.directory = tempfile.mkdtemp(dir=os.path.abspath(directory), prefix="bench-")
        self._exits.callback(shutil.rmtree, self.directory, ignore_errors=True)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        with self._exits:
            self.end_row()

    def end_row(self) -> None:
        """Stop what the row that is done had started."""
        self._row_exits.close()

    def at_row_end(self, action: Callable[..., object], *arguments: object) -> None:
        """Do this when the row is done."""
        self._row_exits.callback(action, *arguments)

    def samples(self, full: int, quick: int) -> int:
        """How many samples a row takes."""
        return quick if self.quick else full

    def path(self, name: str) -> str:
        """A path below the lab's directory."""
        return os.path.join(self.directory, name)

    def warm(self, size: int) -> None:
        """Take up so much of the page cache and give it back, so that whoever comes next finds memory that is warm.

        On a virtual machine that hands free memory back to its host, a page's first use may cost ten times its second,
        and a second later it is a first use again.
        """
        path = self.path("warm")
        with open(path, "wb", buffering=0) as file:
            for _ in range(size >> 20):
                file.write(self._block)
        os.unlink(path)

    def new_number(self) -> int:
        """A number that nobody else has."""
        return next(self._numbers)

    # Rings

    def ring(self, count: int = SERVERS) -> LocalRing:
        """A ring of so many servers, kept for the next row."""
        if count not in self._rings:
            self._rings[count] = self._start(self._exits, count)
        return self._rings[count]

    def fresh_ring(self, count: int = SERVERS, *options: str) -> LocalRing:
        """A ring for this row alone, whose servers have done nothing yet. Its data stays until the end."""
        return self._start(self._row_exits, count, *options)

    def _start(self, exits: ExitStack, count: int, *options: str) -> LocalRing:
        ring = LocalRing(count, self.path(f"ring-{self.new_number()}"), options)
        exits.callback(ring.stop)
        ring.start()
        return ring

    def client(self, ring: LocalRing | None = None) -> Ring:
        """A client of a ring (None: that of SERVERS servers), to prepare and to tidy up."""
        ring = ring or self.ring()
        if ring.conf not in self._clients:
            self._clients[ring.conf] = self._exits.enter_context(ring.client())
        return self._clients[ring.conf]

    def stored(self, key: str, ring: LocalRing | None = None) -> str:
        """The path of a key's file in a ring's data."""
        ring = ring or self.ring()
        index = ring.servers.index(self.client(ring).stat(key).server)
        return os.path.join(str(ring.data), str(index), key.removeprefix("s4://"))

    # Files

    @cached_property
    def large(self) -> Large:
        """The large file and its key: written just now, so in the page cache."""
        size = (128 << 20) if self.quick else (1 << 30)
        if shutil.disk_usage(self.directory).free < DISK_FACTOR * size:
            raise OSError(f"the disk behind {self.directory} needs {DISK_FACTOR * size >> 20} MiB of free space")
        path, key = self.path("large"), f"s4://{BUCKET}/large"
        self.random_file(path, size)
        self.client().put_file(key, path)
        return Large(path, key, self.stored(key), size)

    def drop_large(self) -> None:
        """Remove the large file and its key."""
        if "large" in self.__dict__:
            os.unlink(self.large.path)
            self.client().remove(self.large.key)
            del self.__dict__["large"]

    def random_file(self, path: str, size: int) -> None:
        """Make a file of so many random bytes."""
        with open(path, "wb") as file:
            for offset in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - offset)))

    @cached_property
    def small(self) -> str:
        """A directory of small files that are named by number."""
        directory = self.path("small")
        os.mkdir(directory)
        for number in range(SMALL_COUNT):
            with open(os.path.join(directory, f"{number:04}"), "wb") as file:
                file.write(os.urandom(SMALL_SIZE // 2).hex().encode())
        return directory

    # Sides

    def worker(self, target: str, **arguments: object) -> Worker:
        """A worker that lives as long as the row."""
        worker = Worker(target, **arguments)
        self.at_row_end(worker.close)
        return worker

    @cached_property
    def commands(self) -> Worker:
        """The worker that runs commands."""
        worker = Worker("bench.worker:commands")
        self._exits.callback(worker.close)
        return worker

    def command(
        self,
        name: str,
        argv: Arguments,
        servers: Sequence[int] = (),
        after: Callable[[int], None] = nothing,
        **options: object,
    ) -> TimedSide:
        """A side that is a command. ``argv`` may depend on the turn; ``options`` are those of ``run_command``."""

        def arguments(turn: int) -> Mapping[str, object]:
            return {"argv": list(argv(turn) if callable(argv) else argv), **options}

        return TimedSide(name, self.commands, servers, arguments, after)

    def s4raw(
        self,
        name: str,
        argv: Arguments,
        ring: LocalRing | None = None,
        after: Callable[[int], None] = nothing,
        stdout: str = os.devnull,
    ) -> TimedSide:
        """A side that is the command line of s4raw, against a ring (None: that of SERVERS servers)."""
        ring = ring or self.ring()

        def whole(turn: int) -> Sequence[str]:
            return [*s4raw_command(), *(argv(turn) if callable(argv) else argv)]

        env = {CONF_VARIABLE: ring.conf}
        return self.command(name, whole, pids(ring), after, env=env, cwd=str(CHECKOUT), stdout=stdout)


def s4raw_command() -> list[str]:
    """How to start s4raw: by its script, as a user does, if this interpreter has one beside it."""
    script = os.path.join(os.path.dirname(sys.executable), "s4raw")
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "s4raw"]


def pids(ring: LocalRing) -> list[int]:
    """The process ids of a ring's servers, and of their workers."""
    servers = [process.pid for process in ring.processes]
    return [*servers, *(child for pid in servers for child in proc.children(pid))]


def expect(found: object, wanted: object, what: str) -> None:
    """Fail the benchmark when a run did not do its work."""
    if found != wanted:
        raise RuntimeError(f"{what}: expected {wanted}, got {found}")
