"""An S3 daemon in front of another one, with a write queue or without."""

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from conftest import socket_inodes, tcp_ends, wait_for
from s3_daemon import Daemon, s3_daemon


class Back(Daemon):
    """The remote: it comes back where it was."""

    keeps_port = True

    def rests(self, pid: int) -> bool:
        return True  # a front may have been waiting for it


class Passing(Daemon):
    """A front without a queue. What it keeps open to the remote is no leak."""

    def kept(self, pid: int) -> int:
        ends = tcp_ends()
        return sum(1 for inode in socket_inodes(pid) if inode in ends and ends[inode][0] != self.port)


class Queueing(Passing):
    """A front with a queue: a thread writes its journal, and up to 25 deliver."""

    def rests(self, pid: int) -> bool:
        return True  # it delivers what it finds

    def leaks(self) -> list[str]:
        return [leak for leak in super().leaks() if " threads, had " not in leak or _count(leak) > 1 + 1 + 25]

    def queue(self) -> dict[str, Any]:
        """What it says of its queue."""
        with closing(self.raw()) as raw:
            reply = raw.ask("GET", "/?s4raw-queue=&max-keys=1000")
        assert reply.status == 200, reply
        found: dict[str, Any] = json.loads(reply.body)
        return found

    def wait_until_delivered(self) -> None:
        """Wait until nothing is left to deliver."""
        deadline = time.monotonic() + 90
        while self.queue()["s4raw-queue"]["entries"]:
            assert time.monotonic() < deadline, self.queue()
            time.sleep(0.05)


def _count(leak: str) -> int:
    return int(leak.split(" has ")[1].split(" threads", maxsplit=1)[0])


@contextmanager
def back_and_front(directory: Path, kind: type[Daemon], *options: str) -> Iterator[tuple[Back, Any]]:
    """Two daemons: the remote, and the one in front of it."""
    with s3_daemon(directory / "back", kind=Back) as back:
        where = ("--remote", back.endpoint)
        queue = ("--write-queue", "--queue", str(directory / "queue")) if issubclass(kind, Queueing) else ()
        with s3_daemon(directory / "front", *where, *queue, *options, kind=kind) as front:
            yield back, front


def restart(daemon: Daemon) -> None:
    """Start a daemon again that was stopped or killed."""
    daemon.start()
    wait_for(lambda: daemon.raw_health() == 200)
