"""What the faults of the uploader are made with: a daemon that kills itself at a named point, proxies, and watchers."""

import os
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from conftest import descriptors, wait_for
from proxy import Fault, Proxy
from push_daemon import PushDaemon, RemoteS3

_PROGRAM = """
import os, signal, sys
def die():
    if not os.path.exists("died"):
        open("died", "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
{}
from s4raw.cli import run
run()
"""
_OPTIONS = """
from functools import partial
import s4raw.push.daemon as daemon
daemon.RemoteOptions = partial(daemon.RemoteOptions, {})
"""


def tuned(statements: str) -> list[str]:
    """The command of a daemon in which statements run first. ``die()`` is kill -9 there, once in all its starts."""
    return [sys.executable, "-c", _PROGRAM.format(statements)]


def remote_options(options: str) -> str:
    """Statements that give all remotes these options, which no flag of the daemon sets."""
    return _OPTIONS.format(options)


@contextmanager
def killable(
    directory: Path, *options: str, endpoint: str, command: list[str] | None = None, environment: dict | None = None
) -> Iterator[PushDaemon]:
    """An uploader that is not started yet, and may be killed and started as often as one likes; no defect is logged."""
    daemon = PushDaemon(directory, *options, endpoint=endpoint, command=command, environment=environment)
    try:
        yield daemon
        if daemon.process is not None and daemon.process.poll() is None:
            assert daemon.stop() == 0, daemon.log()[-2000:]
        daemon.check_no_traceback()
    finally:
        daemon.close()


@contextmanager
def proxy_to(port: int, *always: Fault) -> Iterator[Proxy]:
    """A proxy before a port; its own is in ``port``, its connections suffer ``always``."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    proxy = Proxy(listener, ("127.0.0.1", port))
    proxy.always = always
    try:
        yield proxy
    finally:
        proxy.close()


def endpoint_of(proxy: Proxy) -> str:
    """The URL of what is behind a proxy."""
    return "http://127.0.0.1:{}".format(*proxy._listener.getsockname()[1:])


def heal(proxy: Proxy, faults: Sequence[Fault] = ()) -> None:
    """From now on connections suffer these faults alone, and those that are there end."""
    proxy.always = faults
    for passage in [*proxy.passages]:
        passage.cut()  # not those that come in place of them
    proxy.resume.set()


def listed(remote: RemoteS3, bucket: str) -> list[str]:
    """The keys of a bucket."""
    status, _, body = remote.request("GET", f"/{bucket}?list-type=2&encoding-type=url")
    assert status == 200, body
    return [urllib.parse.unquote_plus(name) for name in re.findall(r"<Key>([^<]*)</Key>", body.decode())]


class Watcher:
    """Reads keys of a remote over and over, from another thread; each may have one of some contents, or not be there.

    A context manager; at its end it fails if there was anything else at any moment.
    """

    def __init__(self, remote: RemoteS3, bucket: str, contents: dict[str, Sequence[bytes]]) -> None:
        self._remote = remote
        self._bucket = bucket
        self._contents = contents
        self._stopped = threading.Event()
        self._wrong: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def look(self) -> None:
        """Read all of them once."""
        for key, contents in self._contents.items():
            found = self._remote.get(self._bucket, key)
            if found is not None and found not in contents:
                self._wrong.append(f"{key} had {len(found)} bytes that nobody stored: {found[:40]!r}...")

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            try:
                self.look()
            except OSError:
                continue  # the remote is away

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        assert not self._wrong, self._wrong[:3]


def ended(daemon: PushDaemon, seconds: float = 60.0) -> None:
    """Wait until the daemon has died of kill -9."""
    assert daemon.process is not None
    assert daemon.process.wait(seconds) == -9, daemon.log()[-2000:]


def eventually(remote: RemoteS3, bucket: str, key: str, content: bytes, seconds: float = 60.0) -> None:
    """Wait until a key has a content."""
    deadline = time.monotonic() + seconds
    while remote.get(bucket, key) != content:
        assert time.monotonic() < deadline, f"{bucket}/{key} has not arrived"
        time.sleep(0.02)


def let_go(daemon: PushDaemon, directory: Path) -> None:
    """Wait until the daemon has no file below a directory open."""
    wait_for(
        lambda: not [what for what in descriptors(daemon.pid).values() if what.startswith(str(directory))],
        "files to be closed",
    )


def spool_empty(daemon: PushDaemon) -> None:
    """Wait until nothing is left in the spool: files are deleted a moment after their entries."""
    wait_for(lambda: os.listdir(daemon.queue / "spool") == [], "the spool to be empty")
