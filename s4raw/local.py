"""An embedded ring: N server processes on free loopback ports, for one machine, for tests, for trying things out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing

from s4raw.client import Ring
from s4raw.errors import ConfError, UsageError
from s4raw.net import Socket, listen
from s4raw.ring import CONF_VARIABLE

START_SECONDS = 30.0
STOP_SECONDS = 40.0


class LocalRing:
    """A ring of server processes that lives as long as a ``with`` block (or from ``start`` to ``stop``).

    ``conf`` is the path of its conf and ``servers`` its addresses. Its data is in ``data``, or in a temporary directory
    that goes with it. The servers also stop when this process dies, however it dies.
    """

    def __init__(self, count: int = 3, data: str | None = None, options: Sequence[str] = ()) -> None:
        """``options`` are given to every server, after ``s4raw server``."""
        self.count = count
        self.servers: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self._options = options
        self._temporary = data is None
        self.data = data and os.path.abspath(data)
        self._lifeline: int | None = None
        self._started = False

    @property
    def conf(self) -> str:
        """The path of the ring's conf."""
        return os.path.join(str(self.data), "s4.conf")

    def client(self) -> Ring:
        """A client of this ring."""
        return Ring.from_conf(self.conf)

    def start(self) -> None:
        """Start the servers and wait until all are healthy. Raises ConfError, with the end of a log, if one is not."""
        if self.data is None:
            self.data = tempfile.mkdtemp(prefix="s4raw-")
        with ExitStack() as stack:
            stack.callback(self._stop_unless_started)
            os.makedirs(self.data, exist_ok=True)
            listeners = [stack.enter_context(closing(listen("127.0.0.1", 0))) for _ in range(self.count)]
            reader, self._lifeline = os.pipe()
            stack.callback(os.close, reader)
            self.servers = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
            with open(self.conf, "w", encoding="utf-8") as file:
                file.write("".join(f"{server}\n" for server in self.servers))
            for index, listener in enumerate(listeners):
                self.processes.append(self._spawn(index, listener, reader))
            self._wait()
            self._started = True

    def _stop_unless_started(self) -> None:
        if not self._started:
            self.stop()

    def _spawn(self, index: int, listener: Socket, lifeline: int) -> subprocess.Popen[bytes]:
        arguments = ["--conf", self.conf, "--port", self.servers[index].rpartition(":")[2]]
        arguments += ["--data", os.path.join(str(self.data), str(index))]
        arguments += ["--listen-fd", str(listener.fileno()), "--lifeline-fd", str(lifeline), *self._options]
        with open(self._log(index), "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "s4raw", "server", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(), lifeline),
                process_group=0,  # a Ctrl-C in the terminal is for the client; the servers drain when told to
            )

    def _log(self, index: int) -> str:
        return os.path.join(str(self.data), f"server-{index}.log")

    def _wait(self) -> None:
        """The sockets listen already, so one request to each server tells whether it has come up."""
        deadline = time.monotonic() + START_SECONDS
        with self.client() as ring:
            while True:
                for index, process in enumerate(self.processes):
                    if process.poll() is not None:
                        with open(self._log(index), encoding="utf-8", errors="replace") as file:
                            raise ConfError(
                                f"server {self.servers[index]} did not start: {file.read()[-2000:].strip()}"
                            )
                sick = [error for _, error in ring.health(0.5) if error]
                if not sick:
                    return
                if time.monotonic() > deadline:
                    raise sick[0]

    def stop(self) -> None:
        """Stop the servers, which finish what runs, and remove temporary data. Twice is fine."""
        self._started = False
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        if self._temporary and self.data is not None:
            shutil.rmtree(self.data, ignore_errors=True)
            self.data = None

    def __enter__(self) -> LocalRing:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def run_in_ring(ring: LocalRing, command: Sequence[str]) -> int:
    """Run a command with ``S4_CONF_PATH`` set to the ring's conf; returns its exit code. Raises UsageError."""
    try:
        process = subprocess.Popen(command, env={**os.environ, CONF_VARIABLE: ring.conf})
    except OSError as error:
        raise UsageError(f"cannot run {command[0]}: {error.strerror}") from None
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGINT, lambda *_: None)  # the command, in the same terminal, gets it too: its end is ours
    status = process.wait()
    return 128 - status if status < 0 else status
