"""Bodies on a connection: a file, bytes or a stream out; into a file, memory or a stream, verified."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

from s4raw import wire
from s4raw.connection import Connection
from s4raw.digest import BUFFER_SIZE, Buffer, Digest, digest, verify
from s4raw.errors import Corrupt, LocalFileError
from s4raw.keys import Key
from s4raw.net import FileSlice
from s4raw.record import NamedTuple
from s4raw.wire import Frame

DATA_SIZE = 8 << 20  # bytes of a file in one DATA frame
HEARTBEAT_SECONDS = 10.0  # a stream that is silent for so long sends an empty DATA frame, to show it is alive

Write = Callable[[memoryview], object]
Moved = Callable[[int], object]  # is told of bytes as they go


def not_told(_count: int) -> None:
    """Nobody wants to know how many bytes went."""


class Sent(NamedTuple):
    """A put on its way: its request id, and the size and digest of what was sent (no digest: the server has failed)."""

    request: int
    size: int
    digest: bytes


def send_bytes(connection: Connection, key: Key, data: Buffer, moved: Moved = not_told) -> Sent:
    """Send a put of bytes in memory."""
    view = memoryview(data).cast("B")
    if len(view) > wire.WHOLE_BODY:
        chunks = (view[at : at + BUFFER_SIZE] for at in range(0, len(view), BUFFER_SIZE))
        return _stream(connection, key, chunks, moved)
    request, found = connection.next_request(), digest(view)
    head = wire.encode(wire.PUT, request, 0, len(view), bucket=key.bucket, key=key.name, digest=found)
    connection.channel.send(head, view)
    moved(len(view))
    return Sent(request, len(view), found)


def send_file(connection: Connection, key: Key, fd: int, moved: Moved = not_told) -> Sent:
    """Send a put of a regular file, from its start to its size now.

    A large file goes out by sendfile; reading it for the digest, a frame ahead, is all this process sees of it.
    """
    size = os.fstat(fd).st_size
    if size <= wire.WHOLE_BODY:
        return send_bytes(connection, key, os.pread(fd, size, 0), moved)
    state, buffer = Digest(), memoryview(bytearray(BUFFER_SIZE))
    request = _begin(connection, key)
    for offset in range(0, size, DATA_SIZE):
        end = min(offset + DATA_SIZE, size)
        _hash_range(state, buffer, fd, offset, end)
        head = wire.encode(wire.DATA, request, 0, end - offset)
        connection.channel.send_body(head, FileSlice(fd, offset, end - offset))
        moved(end - offset)
        if connection.channel.readable():
            return Sent(request, end, b"")  # the server has failed already; its error is the answer
    return _finish(connection, request, size, state.digest())


def _hash_range(state: Digest, buffer: memoryview, fd: int, offset: int, end: int) -> None:
    while offset < end:
        count = os.preadv(fd, [buffer[: end - offset]], offset)
        if not count:
            raise LocalFileError(f"the file shrank below {end} bytes while it was being sent")
        state.update(buffer[:count])
        offset += count


def send_stream(connection: Connection, key: Key, fd: int, moved: Moved = not_told) -> Sent:
    """Send a put of all that comes out of a pipe, terminal or file, to its end."""
    return _stream(connection, key, _chunks(fd), moved)


def _chunks(fd: int) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(BUFFER_SIZE))
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while True:
        if not poller.poll(HEARTBEAT_SECONDS * 1000):
            yield buffer[:0]
        elif count := os.readv(fd, [buffer]):
            yield buffer[:count]
        else:
            return


def _stream(connection: Connection, key: Key, chunks: Iterator[memoryview], moved: Moved) -> Sent:
    state, size = Digest(), 0
    request = _begin(connection, key)
    for chunk in chunks:
        state.update(chunk)
        size += len(chunk)
        connection.channel.send(wire.encode(wire.DATA, request, 0, len(chunk)), chunk)
        moved(len(chunk))
        if connection.channel.readable():
            return Sent(request, size, b"")
    return _finish(connection, request, size, state.digest())


def _begin(connection: Connection, key: Key) -> int:
    request = connection.next_request()
    connection.channel.send(wire.encode(wire.PUT, request, wire.STREAM, bucket=key.bucket, key=key.name))
    return request


def _finish(connection: Connection, request: int, size: int, found: bytes) -> Sent:
    connection.channel.send(wire.encode(wire.END, request, size=size, digest=found))
    return Sent(request, size, found)


def get(connection: Connection, key: Key) -> Frame:
    """Ask for a key: the OK frame, its body unread. Raises NoSuchKey."""
    return connection.call(wire.GET, bucket=key.bucket, key=key.name)


def receive_bytes(connection: Connection, frame: Frame, key: Key) -> bytes:
    """The body of an answer to a get, verified. Raises Corrupt."""
    body = bytearray(frame.body_length)
    connection.channel.read_into(memoryview(body))
    verify("what came", digest(body), frame.blob("digest"), server=connection.server, key=str(key))
    return bytes(body)


def receive_body(connection: Connection, frame: Frame, key: Key, write: Write, moved: Moved = not_told) -> int:
    """Pass the body of an answer to a get on to ``write``, then verify it; returns its size. Raises Corrupt.

    What was written before Corrupt is raised must be thrown away.
    """
    state, buffer = Digest(), memoryview(bytearray(min(BUFFER_SIZE, frame.body_length)))
    while connection.channel.body_left:
        count = connection.channel.read_into(buffer)
        state.update(buffer[:count])
        write(buffer[:count])
        moved(count)
    verify("what came", state.digest(), frame.blob("digest"), server=connection.server, key=str(key))
    return frame.body_length


def receive_stream(connection: Connection, request: int) -> Iterator[tuple[Frame, memoryview]]:
    """The frames of a streamed answer with their bytes; the last one is END, its digest verified. Raises Corrupt."""
    state, size, scratch = Digest(), 0, memoryview(bytearray(64 << 10))
    while True:
        frame = connection.expect(connection.receive(request), wire.DATA, wire.END)
        if frame.opcode == wire.END:
            check_end(frame, size, state.digest(), connection.server)
            yield frame, scratch[:0]
            return
        if frame.body_length > len(scratch):
            scratch = memoryview(bytearray(frame.body_length))
        count = connection.channel.read_into(scratch[: frame.body_length])
        state.update(scratch[:count])
        size += count
        yield frame, scratch[:count]


def write_all(fd: int) -> Write:
    """A ``write`` that puts all bytes into a descriptor."""

    def write(data: memoryview) -> None:
        while data:
            data = data[os.write(fd, data) :]

    return write


def check_end(frame: Frame, size: int, found: bytes, server: str = "") -> None:
    """Check a streamed body against its END frame. Raises Corrupt."""
    if frame.uint("size") != size:
        raise Corrupt(f"{size} bytes came, {frame.uint('size')} were sent", server=server)
    verify("what came", found, frame.blob("digest"), server=server)
