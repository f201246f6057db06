"""The servers that S3 is measured on: ours, rclone's, moto's and nginx, each on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from bench import proc
from bench.lab import CHECKOUT, Lab
from bench.nginx import Nginx

ACCESS_KEY, SECRET_KEY = (
    "AKIABENCHBENCHBENCH0",
    "bench0bench1bench2bench3bench4bench5bnch",
)  # rclone refuses shorter ones
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}
BUCKET = "bench"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
OURS, TWO, RCLONE, MOTO, NGINX = "s4raw s3", "s4raw s3 --workers 2", "rclone serve s3", "moto", "nginx"


class Server(Protocol):
    """What a side of a row talks to: whether it wants requests to be ``signed``, and its ``data`` directory."""

    name: str
    port: int
    signed: bool
    data: str

    def pids(self) -> Sequence[int]:
        """Its processes."""


class Process:
    """A server process with a data directory of its own, in which a directory is a bucket."""

    signed = True

    def __init__(self, name: str, argv: Callable[[str, int, int], list[str]], data: str, log: str) -> None:
        """``argv`` makes a command of the data directory, a port, and a listening socket's descriptor.

        The socket is bound to that port, and listens in this process only if the command takes it over. Raises OSError.
        """
        self.name = name
        self.data = data
        os.makedirs(data, exist_ok=True)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port: int = listener.getsockname()[1]
            command = argv(self.data, self.port, listener.fileno())
            adopts = str(listener.fileno()) in command
            if adopts:
                listener.listen(1024)
            else:
                listener.close()
            self._log = log
            with open(log, "ab") as output:
                self._process = subprocess.Popen(
                    command,
                    cwd=CHECKOUT,
                    env={**os.environ, **KEYS},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(listener.fileno(),) if adopts else (),
                    process_group=0,
                )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                    sock.settimeout(1)
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if sock.recv(1):  # whatever it says, it is there
                        return
            except OSError:
                time.sleep(0.02)
        self.stop()
        with open(self._log, encoding="utf-8", errors="replace") as file:
            raise OSError(f"{self.name} did not start: {file.read()[-2000:]}")

    def pids(self) -> Sequence[int]:
        """Its process, and those it has forked."""
        return [self._process.pid, *proc.children(self._process.pid)]

    def stop(self) -> None:
        """Stop it; twice is fine."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Files:
    """nginx, which serves the files of another server's data, unsigned."""

    name, signed = NGINX, False

    def __init__(self, nginx: Nginx, data: str) -> None:
        self.port = nginx.port
        self.data = data
        self._pid = nginx.pid

    def pids(self) -> Sequence[int]:
        """Its process."""
        return [self._pid]


def _ours(workers: int, data: str, _port: int, listener: int) -> list[str]:
    options = ["--local", data, "--listen-fd", str(listener), "--workers", str(workers)]
    return [sys.executable, "-m", "s4raw", "s3", "run", *options]


def _rclone(data: str, port: int, _listener: int) -> list[str]:
    return [
        program("rclone") or "rclone",
        "serve",
        "s3",
        data,
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{ACCESS_KEY},{SECRET_KEY}",
    ]


def _moto(_data: str, port: int, _listener: int) -> list[str]:
    return [program("moto_server") or "moto_server", "--host", "127.0.0.1", "--port", str(port)]


_COMMANDS: dict[str, Callable[[str, int, int], list[str]]] = {
    OURS: partial(_ours, 1),
    TWO: partial(_ours, 2),
    RCLONE: _rclone,
    MOTO: _moto,
}
_PROGRAMS = {RCLONE: "rclone", MOTO: "moto_server", NGINX: "nginx"}


def program(name: str) -> str | None:
    """Where a program is: beside this interpreter, else on the path (Debian's rclone is too old to serve S3)."""
    return shutil.which(name, path=os.path.dirname(sys.executable)) or shutil.which(name)


def missing(name: str) -> bool:
    """Whether the program of a side is not installed."""
    return name in _PROGRAMS and program(_PROGRAMS[name]) is None


def start(lab: Lab, name: str, data: str = "") -> Process:
    """Start a server for this row alone; its data, unless given, goes when the lab does."""
    directory = lab.path(f"s3-{lab.new_number()}")
    os.mkdir(directory)
    server = Process(name, _COMMANDS[name], data or os.path.join(directory, "data"), os.path.join(directory, "log"))
    lab.at_row_end(server.stop)
    return server


def start_nginx(lab: Lab, data: str) -> Files:
    """Start an nginx for this row alone."""
    nginx = Nginx(lab.path(f"nginx-{lab.new_number()}"), data)
    lab.at_row_end(nginx.stop)
    return Files(nginx, data)


def start_all(lab: Lab, *names: str) -> tuple[list[Server], list[str]]:
    """Start those that are installed, nginx on the data of the first; and a note for each that is not."""
    servers: list[Server] = []
    notes = []
    for name in names:
        if missing(name):
            notes.append(f"{name} is left out: it is not installed here")
        elif name == NGINX:
            servers.append(start_nginx(lab, servers[0].data))
        else:
            servers.append(start(lab, name))
    return servers, notes
