"""The bare loops that s4raw is held against: what the same bytes cost with no protocol, no names and no checks.

    get   server: sendfile                            client: recv_into 1 MiB with MSG_WAITALL, xxh3 [, write to a file]
    put   client: sendfile                            server: the same, and write to a file

A request is a length in 8 bytes. Each function is a target of ``bench.worker``.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from itertools import count
from struct import Struct

from bench.worker import Action, Found
from s4raw.digest import Digest

BUFFER = 1 << 20
LENGTH = Struct("<Q")
DIGEST_SIZE = 16
SENDFILE_CHUNK = 1 << 30


def sender(path: str) -> Action:
    """The server of a get: answers each request for N bytes with the first N of a file. Run it once for its port."""

    def serve(sock: socket.socket) -> None:
        fd, rest = os.open(path, os.O_RDONLY), b""
        while data := sock.recv(16 << 10):
            data = rest + data
            whole = len(data) - len(data) % LENGTH.size
            for (length,) in LENGTH.iter_unpack(data[:whole]):
                _send_file(sock, fd, length)
            rest = data[whole:]

    return _serving(serve)


def receiver(directory: str, offset: int | None = None) -> Action:
    """The server of a put: writes what comes to a file and answers with its digest. Run it once for its port.

    Each file is a new one, since what is truncated and written again is flushed by ext4 at once; with ``offset`` it is
    one that several receivers share, from there.
    """
    os.makedirs(directory, exist_ok=True)

    def serve(sock: socket.socket) -> None:
        buffer, numbers = memoryview(bytearray(BUFFER)), count()
        while head := sock.recv(LENGTH.size, socket.MSG_WAITALL):
            fd = _open(f"{directory}/{next(numbers) if offset is None else 'shared'}", offset or 0)
            found = _receive(sock, LENGTH.unpack(head)[0], buffer, fd)
            os.close(fd)
            sock.sendall(found)

    return _serving(serve)


def getter(port: int, size: int, path: str, offset: int = 0) -> Action:
    """The client of a get, to a file, from an offset in it, or to nowhere (an empty ``path``)."""
    sock, buffer = socket.create_connection(("127.0.0.1", port)), memoryview(bytearray(BUFFER))

    def get() -> None:
        fd = _open(path, offset) if path else None
        sock.sendall(LENGTH.pack(size))
        _receive(sock, size, buffer, fd)
        if fd is not None:
            os.close(fd)

    return get


def many_getter(port: int, size: int, requests: int, depth: int) -> Action:
    """The client of ``requests`` gets to nowhere, ``depth`` of them in flight."""
    sock, buffer = socket.create_connection(("127.0.0.1", port)), memoryview(bytearray(min(size, BUFFER)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get() -> None:
        for begin in range(0, requests, depth):
            batch = min(depth, requests - begin)
            sock.sendall(LENGTH.pack(size) * batch)
            for _ in range(batch):
                _receive(sock, size, buffer, None)

    return get


def putter(port: int, path: str, size: int, requests: int = 1, depth: int = 1) -> Action:
    """The client of ``requests`` puts of the first ``size`` bytes of a file, ``depth`` of them in flight."""
    sock, fd = socket.create_connection(("127.0.0.1", port)), os.open(path, os.O_RDONLY)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def put() -> None:
        for begin in range(0, requests, depth):
            batch = min(depth, requests - begin)
            for _ in range(batch):
                sock.send(LENGTH.pack(size), socket.MSG_MORE)
                _send_file(sock, fd, size)
            if len(sock.recv(DIGEST_SIZE * batch, socket.MSG_WAITALL)) != DIGEST_SIZE * batch:
                raise ConnectionError("the bare receiver has gone")

    return put


def _serving(serve: Callable[[socket.socket], None]) -> Action:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            serve(sock)

    threading.Thread(target=accept, daemon=True).start()

    def port() -> Found:
        return {"port": listener.getsockname()[1]}

    return port


def _send_file(sock: socket.socket, fd: int, size: int) -> None:
    offset = 0
    while offset < size:
        sent = os.sendfile(sock.fileno(), fd, offset, min(size - offset, SENDFILE_CHUNK))
        if not sent:
            raise EOFError("the file is shorter than it was")
        offset += sent


def _receive(sock: socket.socket, size: int, buffer: memoryview, fd: int | None) -> bytes:
    state, left = Digest(), size
    while left:
        got = sock.recv_into(buffer[:left], 0, socket.MSG_WAITALL)
        if not got:
            raise ConnectionError("the connection ended early")
        state.update(buffer[:got])
        if fd is not None:
            _write(fd, buffer[:got])
        left -= got
    return state.digest()


def _open(path: str, offset: int) -> int:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    os.lseek(fd, offset, os.SEEK_SET)
    return fd


def _write(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
