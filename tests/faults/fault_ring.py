"""A ring whose servers can be killed and started again, stand behind proxies, and run with shorter patience."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from conftest import CLI, SETTLE_SECONDS, TestRing, descriptors, thread_count, wait_for
from proxy import DOWN, UP, Proxy

from s4raw.disk import JOB_VARIABLE
from s4raw.keys import parse_key
from s4raw.net import Socket, listen
from s4raw.ring import Topology, split_address

SENT = "import s4raw.nearby; s4raw.nearby.is_local = lambda address: False"  # tuning: no server is on this machine
TUNED = "import sys, s4raw.net as net, s4raw.channel as channel; {}; from s4raw.cli import main; sys.exit(main())"


class FaultRing(TestRing):
    """A ring for faults.

    ``proxied`` puts a proxy before each server, at the address in the conf. ``tuning`` is run in each server before it
    starts: statements that change constants of ``net`` and ``channel``, for tests that would have to wait for long.
    """

    def __init__(self, count: int, data: str, options: tuple[str, ...], proxied: bool, tuning: str) -> None:
        super().__init__(count, data, options)
        self.proxies: list[Proxy] = []
        self.clients: list[subprocess.Popen[bytes]] = []
        self._proxied = proxied
        self._tuning = tuning
        self._lifeline_reader = -1
        self._log_read = [0] * count

    def _spawn(self, index: int, listener: Socket, lifeline: int) -> "subprocess.Popen[bytes]":
        if self._lifeline_reader < 0:
            self._lifeline_reader = os.dup(lifeline)
        if not self._proxied:
            return self._run_server(index, listener, lifeline)
        with closing(listen("127.0.0.1", 0)) as backend:
            if index == len(self.proxies):
                self.proxies.append(Proxy(socket.socket(fileno=os.dup(listener.fileno())), backend.getsockname()))
            self.proxies[index].target = backend.getsockname()
            return self._run_server(index, backend, lifeline)

    def _run_server(self, index: int, listener: Socket, lifeline: int) -> "subprocess.Popen[bytes]":
        program = ["-c", TUNED.format(self._tuning)] if self._tuning else ["-m", "s4raw"]
        arguments = ["server", "--conf", self.conf, "--port", self.servers[index].rpartition(":")[2]]
        arguments += ["--data", str(self.directory(index)), "--listen-fd", str(listener.fileno())]
        arguments += ["--lifeline-fd", str(lifeline), *self._options]
        with open(self._log(index), "ab") as log:
            return subprocess.Popen(
                [sys.executable, *program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(listener.fileno(), lifeline),
                process_group=0,
            )

    def kill(self, index: int) -> None:
        """kill -9 a server."""
        self.processes[index].kill()
        self.processes[index].wait()

    def restart(self, index: int) -> None:
        """Start a server that has ended again, on its data directory."""
        address = ("127.0.0.1", 0) if self._proxied else split_address(self.servers[index])
        with closing(listen(*address)) as listener:
            self.processes[index] = process = self._spawn(index, listener, self._lifeline_reader)
        self._wait()
        wait_for(lambda: thread_count(process.pid) == 1, "the health check to end")
        self.at_rest[process.pid] = len(descriptors(process.pid))

    def stop(self) -> None:
        for client in self.clients:
            kill(client)
        for proxy in self.proxies:
            proxy.close()
        super().stop()
        if self._lifeline_reader >= 0:
            os.close(self._lifeline_reader)
            self._lifeline_reader = -1

    def directory(self, index: int) -> Path:
        """The data directory of a server."""
        return Path(str(self.data), str(index)).resolve()

    def place(self, key: str) -> int:
        """The number of the server that keeps a key."""
        return self.servers.index(Topology(tuple(self.servers)).place(parse_key(key)))

    def stored_file(self, key: str) -> Path:
        """The file that keeps a key."""
        return self.directory(self.place(key)) / key.removeprefix("s4://")

    def published(self) -> list[str]:
        """Every file that is visible as a key, on all servers, as ``bucket/name``."""
        found = []
        for index in range(self.count):
            top = self.directory(index)
            found += [str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()]
        return sorted(path for path in found if not path.startswith("_"))

    def jobs(self) -> list[int]:
        """The processes of commands that these servers have started."""
        markers = {f"{JOB_VARIABLE}={self.directory(index)}".encode() for index in range(self.count)}
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                environment = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            found += [int(name)] if markers & set(environment) else []
        return found

    def check_no_jobs(self) -> None:
        """Wait until no command, no part of one and no temporary file is left on any server."""
        wait_for(lambda: not self.jobs() and not self.tmp_names(), "commands and temporary files to go")

    def check_no_traceback(self) -> None:
        """No server met an error that it did not expect, since this was asked last."""
        for index in range(self.count):
            log = self.log(index)[self._log_read[index] :]
            self._log_read[index] += len(log)
            assert not [line for line in log.splitlines() if "Traceback" in line or "InternalError" in line]


@contextmanager
def fault_ring(
    tmp_path: Path, count: int = 1, options: tuple[str, ...] = (), proxied: bool = False, tuning: str = ""
) -> Iterator[FaultRing]:
    """A started ring; checked at the end for tracebacks and leaks."""
    ring = FaultRing(count, str(tmp_path / "ring"), options, proxied, tuning)
    ring.start()
    try:
        yield ring
        for proxy in ring.proxies:
            wait_for(proxy.idle, "connections through the proxy to end")
        ring.check_leaks()
        ring.check_no_traceback()
    finally:
        ring.stop()


def settle(ring: FaultRing) -> None:
    """No faults, no connections, nothing counted at the first server's proxy."""
    proxy = ring.proxies[0]
    proxy.always = ()
    proxy.plan.clear()
    proxy.resume.set()
    wait_for(proxy.idle, "connections through the proxy to end")
    proxy.resume.clear()
    proxy.stalled.clear()
    proxy.passages.clear()


@contextmanager
def emptied(ring: FaultRing) -> Iterator[FaultRing]:
    """A ring behind a proxy that tests share: empty, and settled before and after."""
    with ring.client() as client:
        for bucket in list(client.list("s4://")):
            client.remove_all(f"s4://{bucket.name}")
    settle(ring)
    yield ring
    settle(ring)


def conversation(ring: FaultRing) -> dict[str, int]:
    """How many bytes went each way over the last connection to the first server."""
    wait_for(ring.proxies[0].idle, "the connection to end")
    return ring.proxies[0].passages[-1].passed


def hello_size(ring: FaultRing) -> dict[str, int]:
    """How many bytes each end sends before the first request."""
    with ring.client() as client, client.pool.lease(ring.servers[0], fresh=True):
        pass
    passed = conversation(ring)
    return {UP: passed[UP], DOWN: passed[DOWN]}


def start_cli(ring: FaultRing, cwd: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    """The command line in the background, with pipes; it ends with the ring at the latest."""
    process = subprocess.Popen(
        [*CLI, *arguments],
        cwd=cwd,
        env={**os.environ, "S4_CONF_PATH": ring.conf},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    ring.clients.append(process)
    return process


def finish(process: "subprocess.Popen[bytes]", code: int) -> bytes:
    """Wait for a command line to end as expected; what it wrote to stderr."""
    try:
        _, stderr = process.communicate(timeout=SETTLE_SECONDS)
    except subprocess.TimeoutExpired:
        kill(process)
        raise AssertionError(f"did not end: {process.args}") from None
    assert process.returncode == code, (process.args, process.returncode, stderr)
    assert b"Traceback" not in stderr, stderr.decode()
    return stderr


def kill(process: "subprocess.Popen[bytes]") -> None:
    """kill -9 a command line that we started; twice is fine."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        with suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()
