"""Servers whose data lies on this server's own file system: what a command made here is linked there, not sent.

The file system is the index, so any process may publish a key in a data directory (``server --workers`` does). A server
says where its own is (PING), and is held to it: the directory that is found under this name must be the one it means,
on the same kernel, be ours, and take a link. Whoever does not pass, or leaves, is a server like any other: files are
sent to it, and it is told of as one of those.
"""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from typing import NamedTuple

from s4raw import wire
from s4raw.channel import Channel
from s4raw.client import Ring
from s4raw.connection import Connection
from s4raw.digest import digest
from s4raw.disk import DataDirectory
from s4raw.errors import S4Error
from s4raw.net import is_local
from s4raw.procs import Cancellation
from s4raw.ring import split_address
from s4raw.store import Store


class _Neighbour(NamedTuple):
    """A server that is there as long as the connection stands, and its data."""

    connection: Connection
    store: Store


class Nearby:
    """The neighbours of one call, found when they are first needed. Any thread may ask."""

    def __init__(self, data: DataDirectory, ring: Ring, cancellation: Cancellation) -> None:
        self._data = data
        self._ring = ring
        self._cancellation = cancellation
        self._lock = threading.Lock()
        self._found: dict[str, _Neighbour | None] = {}
        self._visited: list[DataDirectory] = []

    def store(self, server: str) -> Store | None:
        """The store of a server, if keys can be published there from here, and it runs at this moment."""
        with self._lock:
            neighbour = self._found.get(server)
            if neighbour is not None and neighbour.connection.channel.gone():
                neighbour.connection.close()  # it stopped, or the connection was idle for too long
                del self._found[server]
            if server not in self._found:
                self._found[server] = self._visit(server)
            neighbour = self._found[server]
            return neighbour.store if neighbour else None

    def _visit(self, server: str) -> _Neighbour | None:
        if not is_local(split_address(server)[0]):
            return None
        channels: list[Channel] = []

        def opened(channel: Channel) -> None:
            channels.append(channel)
            self._cancellation.check()

        def cut() -> None:
            for channel in channels:
                channel.hang_up()

        with ExitStack() as stack:
            try:
                with self._cancellation.calling(cut):
                    connection = self._ring.pool.take(server, True, opened, False)
                    stack.callback(connection.close)
                    answer = connection.call(wire.PING)
                data = self._open(answer.text("path", ""), answer.blob("digest", b""))
            except S4Error:  # whoever sends to it will say what is wrong
                return None
            if data is None:
                return None
            stack.pop_all()
            return _Neighbour(connection, Store(data))

    def _open(self, path: str, identity: bytes) -> DataDirectory | None:
        """The data directory at ``path``, if it is the one of that identity, ours, and takes a link from here."""
        try:
            for data in self._visited:
                if data.path == path and digest(data.identity()) == identity:
                    return data
            with ExitStack() as stack:
                data = DataDirectory.visit(path)
                stack.callback(data.close)
                if digest(data.identity()) != identity or not data.is_ours():
                    return None
                self._try_link(data)
                stack.pop_all()
        except OSError:
            return None
        self._visited.append(data)
        return data

    def _try_link(self, data: DataDirectory) -> None:
        """Raises OSError for a directory that is on another file system, or mounted by itself."""
        name = f"near-{os.getpid()}-{threading.get_ident()}"
        fd = os.open(self._data.path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd, dst_dir_fd=data.tmp)
            os.unlink(name, dir_fd=data.tmp)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Release what was found, once nobody asks any more."""
        for neighbour in self._found.values():
            if neighbour:
                neighbour.connection.close()
        self._found.clear()
        while self._visited:
            self._visited.pop().close()
