"""The S3 daemon as a process that can be killed, limited and looked at, and raw HTTP to it."""

import gc
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from conftest import children, descriptors, rss, socket_inodes, tcp_ends, thread_count, wait_for

from s4raw.connection import MAX_IDLE

ACCESS_KEY, SECRET_KEY = "AKIDOFTHETESTSEXAMPLE", "the-secret-of-the-tests/EXAMPLE+KEY"
IMPATIENT = "import s4raw.s3.head as h; h.Limits.__new__.__defaults__ = h.Limits(head_seconds=1.0, stall_seconds=1.0)"
_PROGRAM = "import sys; {}; from s4raw.cli import main; sys.exit(main())"
_STARTED = re.compile(r"start https?://127\.0\.0\.1:(\d+),")
TIMEOUT = 30.0


class Reply(NamedTuple):
    """An answer: its status, its headers by their names in lower case, its body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an S3 error; empty if it is none."""
        found = re.search(rb"<Code>(\w+)</Code>", self.body)
        return found[1].decode() if found else ""


class Raw:
    """A connection that sends what it is told to, and reads answers strictly."""

    def __init__(self, port: int, timeout: float = TIMEOUT) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self._buffer = b""

    @classmethod
    def over(cls, sock: socket.socket) -> "Raw":
        """A connection over a socket that is there already."""
        raw = cls.__new__(cls)
        raw.sock, raw._buffer = sock, b""
        sock.settimeout(TIMEOUT)
        return raw

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _more(self) -> bool:
        data = self.sock.recv(1 << 18)
        self._buffer += data
        return bool(data)

    def answer(self, body: bool = True) -> Reply:
        """The next answer; 100 Continue is skipped. ConnectionError when there is none."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                raise ConnectionError(f"no answer, but {self._buffer!r}")
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        if status == 100:
            return self.answer(body)
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", "0")) if body and status not in (204, 304) else 0
        while len(self._buffer) < length:
            if not self._more():
                raise ConnectionError("the answer broke off")
        found, self._buffer = self._buffer[:length], self._buffer[length:]
        return Reply(status, headers, found)

    def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Reply:
        """One request, as it is given, and its answer."""
        self.send(request(method, target, body, **headers))
        return self.answer(method != "HEAD")

    def at_end(self) -> bool:
        """Whether the daemon has closed, and nothing more came."""
        with suppress(ConnectionError):
            return not self._buffer and not self.sock.recv(1)
        return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def request(method: str, target: str, body: bytes = b"", **headers: str) -> bytes:
    """A request's bytes; headers as in ``x_amz_date=...``."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    if method not in ("GET", "HEAD", "DELETE") or body:
        lines += f"Content-Length: {len(body)}\r\n"
    return f"{method} {target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode("latin-1") + body


class Daemon:
    """``s4raw s3 run`` with these options; whoever does not sign may do everything.

    ``tuning`` are statements that run in it before it starts; ``descriptors`` is how many it may have.
    """

    keeps_port = False  # when it is started again

    def __init__(self, directory: Path, *options: str, tuning: str = "", descriptors: int = 0) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options
        self._tuning = tuning
        self._descriptors = descriptors
        self._log = directory / "daemon.log"
        self._log_read = 0
        self._clients: list[Any] = []
        self._lifeline = -1

    def _cut_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def pids(self) -> list[int]:
        """The processes that serve."""
        return children(self.pid) or [self.pid]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "Daemon":
        """Start it, or start it again."""
        self.directory.mkdir(parents=True, exist_ok=True)
        elsewhere = {"--ring", "--remote"} & {*self._options}
        where = () if elsewhere else ("--local", str(self.data))
        program = ["-c", _PROGRAM.format(self._tuning)] if self._tuning else ["-m", "s4raw"]
        address = f"127.0.0.1:{self.port if self.keeps_port else 0}"
        arguments = [*program, "s3", "run", "--address", address, "--anonymous", *where, *self._options]
        before = self.log()
        environment = {**os.environ, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
        environment.pop("S3D_ACCESS_KEY", None)
        self._cut_lifeline()
        reader, self._lifeline = os.pipe()
        with open(self._log, "ab") as log:
            self.process = process = subprocess.Popen(
                [sys.executable, *arguments, "--lifeline-fd", str(reader)],
                pass_fds=(reader,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                process_group=0,
            )
        os.close(reader)
        if self._descriptors:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (self._descriptors, self._descriptors))
        wait_for(lambda: process.poll() is not None or _STARTED.search(self.log()[len(before) :]), "the daemon")
        started = _STARTED.search(self.log()[len(before) :])
        assert started, self.log()
        self.port = int(started[1])
        workers = int(self._options[self._options.index("--workers") + 1]) if "--workers" in self._options else 0
        wait_for(lambda: len(children(process.pid)) == workers and self.raw_health() == 200, "the daemon to serve")
        wait_for(lambda: all(self.rests(pid) for pid in self.pids), "the health check to end")
        self.at_rest = {pid: (thread_count(pid), len(descriptors(pid))) for pid in self.pids}
        return self

    def rests(self, pid: int) -> bool:
        """Whether a process that has just started waits for its first client."""
        return thread_count(pid) == 1

    def raw_health(self) -> int:
        with Raw(self.port) as raw:
            return raw.ask("GET", "/healthz", Connection="close").status

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def raw(self, timeout: float = TIMEOUT) -> Raw:
        return Raw(self.port, timeout)

    def client(self, **options: Any) -> Any:
        """A client of boto3 that asks once."""
        config = Config(
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT,
            **options,
        )
        session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
        self._clients.append(session.client("s3", endpoint_url=self.endpoint, config=config))
        return self._clients[-1]

    def kill(self) -> None:
        """kill -9 all of its processes at once."""
        assert self.process is not None
        os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.close_clients()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()
        gc.collect()  # an error that is still held may hold its connection

    def leaks(self) -> list[str]:
        """What its processes hold beyond what they held when they had just started."""
        found = []
        for pid in self.pids:
            threads, fds = self.at_rest.get(pid, (1, 0))
            if thread_count(pid) > threads:
                found.append(f"{pid} has {thread_count(pid)} threads, had {threads}")
            now = descriptors(pid)
            if len(now) > fds and len(now) > fds + self.kept(pid):
                found.append(f"{pid} has {len(now)} descriptors, had {fds}: {now}"[:3000])
        return found

    def kept(self, pid: int) -> int:
        """How many connections to servers of a ring a process keeps, at most as many as it may."""
        ends = tcp_ends()
        ports = [ends[inode] for inode in socket_inodes(pid) if inode in ends]
        return sum(
            min(MAX_IDLE, ports_to)
            for ports_to in Counter(there for here, there in ports if here != self.port and there).values()
        )

    def check_leaks(self) -> None:
        """Fail unless it comes to rest."""
        try:
            wait_for(lambda: not self.leaks())
        except AssertionError:
            raise AssertionError(f"leaked: {self.leaks()}") from None

    def check_no_traceback(self) -> None:
        """It met no error that it did not expect, since this was asked last."""
        log = self.log()[self._log_read :]
        self._log_read += len(log)
        assert not [line for line in log.splitlines() if "Traceback" in line or "InternalError" in line], log[-4000:]

    def rss(self) -> int:
        """The memory of all of its processes in bytes."""
        return sum(rss(pid) for pid in self.pids)

    def inside(self, *names: str) -> list[str]:
        """All files below some of the daemon's own directories, ``_tmp`` and ``_s3`` unless named."""
        return sorted(
            str(path.relative_to(self.data))
            for name in names or ("_tmp", "_s3")
            for path in (self.data / name).rglob("*")
            if path.is_file()
        )


@contextmanager
def s3_daemon(
    directory: Path, *options: str, tuning: str = "", descriptors: int = 0, kind: type[Daemon] = Daemon
) -> Iterator[Daemon]:
    """A started daemon; checked at the end for tracebacks and leaks, and that it stops when told to."""
    daemon = kind(directory, *options, tuning=tuning, descriptors=descriptors)
    try:
        daemon.start()
        yield daemon
        daemon.close_clients()
        daemon.check_leaks()
        daemon.check_no_traceback()
        assert daemon.stop() == 0, daemon.log()[-2000:]
    finally:
        daemon.close_clients()
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
        daemon._cut_lifeline()


@contextmanager
def serves(daemon: Daemon, target: str = "/bucket/witness") -> Iterator[None]:
    """A normal client is served before, during (over the same connection) and after what is done in the block."""
    with closing(daemon.raw()) as raw:
        assert raw.ask("PUT", target, b"witness").status == 200
        yield
        assert raw.ask("GET", target).body == b"witness"
    with closing(daemon.raw()) as raw:
        assert raw.ask("GET", target).body == b"witness"
