"""The uploader as a process that can be stopped, killed, started again and asked, and the clients of old and new."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import wait_for

ACCESS_KEY, SECRET_KEY = "AKIDOFTHETESTSEXAMPLE", "the-secret-of-the-tests/EXAMPLE+KEY"
TIMEOUT = 30.0
_STARTED = re.compile(
    r"push start (?:127\.0\.0\.1:(\d+))?(?: and )?([^,]*?)(?:, status on http://127\.0\.0\.1:(\d+))?, queue "
)
_TRANSFER = re.compile(r"INFO (.+) __main__ - ([0-9]+.[0-9]+) ([0-9]+.[0-9]+)")  # as the reports of s3daemon have it
_OURS = ("AWS_", "S3_", "S3D", "S4_", "S4RAW_", "XDG_", "NOTIFY_", "WATCHDOG_")


def clean_environment(directory: Path, **more: str) -> dict[str, str]:
    """This process's, without what is set up on this machine, and with the keys of the tests."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(_OURS)},
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "HOME": str(directory),
        "PYTHONPATH": str(Path(__file__).parent.parent),  # a relative one would not do in another directory
        **more,
    }


class RemoteS3:
    """``s4raw s3 run`` over a directory, as the remote: it can be paused, killed, and started again on its port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._log = directory / "s3.log"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> "RemoteS3":
        """Start it, or start it again."""
        self.directory.mkdir(parents=True, exist_ok=True)
        seen = len(self._log.read_text()) if self._log.exists() else 0
        arguments = ["s3", "run", "--address", f"127.0.0.1:{self.port}", "--local", str(self.directory / "data")]
        with open(self._log, "ab") as log:
            self.process = process = subprocess.Popen(
                [sys.executable, "-m", "s4raw", *arguments, "--anonymous", "--access-log"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(self.directory),
            )
        pattern = re.compile(r"start http://127\.0\.0\.1:(\d+),")
        wait_for(lambda: process.poll() is not None or pattern.search(self._log.read_text()[seen:]), "the remote")
        started = pattern.search(self._log.read_text()[seen:])
        assert started, self._log.read_text()
        self.port = int(started[1])
        return self

    def pause(self) -> None:
        """From here on it is silent."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """And goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def log(self) -> str:
        return self._log.read_text()

    def request(self, method: str, target: str) -> tuple[int, dict[str, str], bytes]:
        """One request, unsigned: the status, headers with names in lower case, the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, target)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def make_bucket(self, name: str) -> None:
        assert self.request("PUT", f"/{name}")[0] == 200

    def get(self, bucket: str, key: str) -> bytes | None:
        """An object's bytes, None if there is none."""
        status, _, body = self.request("GET", f"/{bucket}/{urllib.parse.quote(key, safe='')}")
        assert status in (200, 404), (status, body)
        return body if status == 200 else None


@contextmanager
def remote_s3(directory: Path, *buckets: str) -> Iterator[RemoteS3]:
    """A started remote with these buckets."""
    remote = RemoteS3(directory)
    try:
        remote.start()
        for bucket in buckets:
            remote.make_bucket(bucket)
        yield remote
    finally:
        if remote.process is not None and remote.process.poll() is None:
            remote.kill()


class Client:
    """A connection to the uploader: bytes out and in, and lines of JSON. A context manager."""

    def __init__(self, where: int | str, timeout: float = TIMEOUT) -> None:
        if isinstance(where, int):
            self.sock = socket.create_connection(("127.0.0.1", where), timeout=timeout)
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            try:
                self.sock.connect(where)
            except BaseException:
                self.sock.close()
                raise
        self._buffer = b""

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def say(self, **fields: Any) -> None:
        """Send an object of JSON."""
        self.write(json.dumps(fields).encode() + b"\n")

    def heard(self) -> dict[str, Any]:
        """The next answer in JSON. ConnectionError when there is none."""
        while b"\n" not in self._buffer:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError(f"no answer, but {self._buffer!r}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.say(**fields)
        return self.heard()

    def rest(self) -> bytes:
        """All that comes until the end of the connection."""
        found = self._buffer
        while data := self.sock.recv(1 << 16):
            found += data
        return found

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def old_send(port: int, filename: str, place: str) -> str:
    """What the send.py of s3daemon does: connect, one line, one read of at most 4096 bytes, close. The answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
        sock.sendall(f"{filename} {place}\n".encode())
        return sock.recv(4096).decode()


class PushDaemon:
    """``s4raw push`` with options, whose ``queue`` (``directory/queue``) is the same over any number of starts.

    ``endpoint`` is that of the default remote; ``environment`` is added to a clean one. After ``start``: ``port`` (0:
    none), ``socket_path`` (empty: none) and ``http_port``. ``command`` is what runs in place of ``python -m s4raw``.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        endpoint: str | None = None,
        environment: dict[str, str] | None = None,
        command: list[str] | None = None,
        queue: Path | None = None,
    ) -> None:
        self.directory = directory
        self.options = options
        self.environment = clean_environment(directory, **(environment or {}))
        if endpoint:
            self.environment["S3_ENDPOINT_URL"] = endpoint
        self.queue = queue or directory / "queue"
        self.transfers_path = directory / "transfers.log"
        self.environment.setdefault("S3DAEMON_LOG", str(self.transfers_path))
        self.port = self.http_port = 0
        self.socket_path = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command or [sys.executable, "-m", "s4raw"]
        self._log = directory / "push.log"
        self._lifeline = -1

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def spawn(self) -> None:
        """Start the process, and do not wait for it: ``wait_ready`` does."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._seen = len(self.log())
        arguments = [*self._command, "push", "run", "--http", "127.0.0.1:0", "--queue", str(self.queue)]
        if "--socket" not in self.options and "S3DAEMON_PORT" not in self.environment:
            arguments += ["--address", "127.0.0.1:0"]
        self._cut_lifeline()
        reader, self._lifeline = os.pipe()
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [*arguments, *self.options, "--lifeline-fd", str(reader)],
                pass_fds=(reader,),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.directory,
            )
        os.close(reader)

    def wait_ready(self) -> "PushDaemon":
        """Wait until it serves. AssertionError with its log when it ends instead."""
        process = self.process
        assert process is not None
        wait_for(lambda: process.poll() is not None or _STARTED.search(self.log()[self._seen :]), "the uploader")
        started = _STARTED.search(self.log()[self._seen :])
        assert started, self.log()
        self.port, self.socket_path, self.http_port = int(started[1] or 0), started[2], int(started[3])
        wait_for(lambda: process.poll() is not None or self.http("/healthz")[0] == 200, "the uploader's health")
        assert process.poll() is None, self.log()
        return self

    def start(self) -> "PushDaemon":
        """Start it, or start it again, and wait until it serves."""
        self.spawn()
        return self.wait_ready()

    def fails(self) -> str:
        """Start it, and expect that it does not: what it says."""
        self.spawn()
        assert self.process is not None
        assert self.process.wait(TIMEOUT) != 0
        self._cut_lifeline()
        return self.log()[self._seen :]

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _cut_lifeline(self) -> None:
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def close(self) -> None:
        """End it however it is."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self._cut_lifeline()

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def transfers(self) -> list[str]:
        """The lines of $S3DAEMON_LOG."""
        return self.transfers_path.read_text().splitlines() if self.transfers_path.exists() else []

    def check_no_traceback(self) -> None:
        assert "Traceback" not in self.log(), self.log()[-4000:]

    # Clients

    def connect(self, timeout: float = TIMEOUT) -> Client:
        return Client(self.port or self.socket_path, timeout)

    def old(self, filename: Path | str, place: str) -> str:
        return old_send(self.port, str(filename), place)

    def ask(self, **fields: Any) -> dict[str, Any]:
        """One question on a connection of its own."""
        with self.connect() as client:
            return client.ask(**fields)

    def push(self, filename: Path | str, place: str, **fields: Any) -> dict[str, Any]:
        return self.ask(file=str(filename), to=place, **fields)

    def status(self) -> dict[str, Any]:
        return self.ask(do="status")

    def entries(self, **fields: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask(do="list", **fields)["entries"]
        return found

    def wait_empty(self, seconds: float = TIMEOUT) -> None:
        """Wait until all that is not parked has been delivered."""
        with self.connect(seconds + TIMEOUT) as client:
            assert client.ask(do="flush", wait=seconds) == {"ok": True, "empty": True}, self.entries(limit=10)

    def http(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """A request to the status port: the status (0: no answer), headers, body."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()
        except OSError:
            return 0, {}, b""


def stored_in(lines: list[str]) -> list[tuple[float, float, str]]:
    """The start, the seconds and the key of each transfer in a log, read as the reports of s3daemon do."""
    found = []
    for line in lines:
        match = _TRANSFER.match(line)
        if match:
            found.append((float(match[2]), float(match[3]), line.partition(" sec - ")[2]))
    return found


@contextmanager
def push_daemon(
    directory: Path, *options: str, endpoint: str | None = None, environment: dict[str, str] | None = None
) -> Iterator[PushDaemon]:
    """A started uploader; at the end it must stop when told to, without a traceback."""
    daemon = PushDaemon(directory, *options, endpoint=endpoint, environment=environment)
    try:
        daemon.start()
        yield daemon
        assert daemon.stop() == 0, daemon.log()[-2000:]
        daemon.check_no_traceback()
    finally:
        daemon.close()
