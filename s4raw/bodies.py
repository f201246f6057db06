"""Bodies on a connection: a file, bytes or a stream out; into a file, memory or a stream, verified."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

from s4raw import wire
from s4raw.blocks import Record
from s4raw.connection import Connection
from s4raw.digest import DIGEST_SIZE, LEAF, Buffer, Digest, digest, room, root, verify
from s4raw.errors import Corrupt, LocalFileError, ProtocolError
from s4raw.keys import Key
from s4raw.net import FileSlice
from s4raw.record import NamedTuple
from s4raw.wire import Frame, Value

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


class Stat(NamedTuple):
    """A key's size in bytes, its digest, its mtime in nanoseconds, the server that keeps it, and its path there."""

    size: int
    digest: bytes
    mtime_ns: int
    server: str
    path: str

    @classmethod
    def from_frame(cls, frame: Frame, server: str) -> Stat:
        """What the answer to a STAT says."""
        return cls(frame.uint("size"), frame.blob("digest"), frame.uint("mtime"), server, frame.text("path", ""))


def send_bytes(connection: Connection, key: Key, data: Buffer, moved: Moved = not_told) -> Sent:
    """Send a put of bytes in memory, a small one at the latest when its answer is waited for."""
    view = memoryview(data).cast("B")
    if len(view) > wire.WHOLE_BODY:
        chunks = (view[at : at + LEAF] for at in range(0, len(view), LEAF))
        return send_chunks(connection, key, chunks, moved)
    request, found = connection.next_request(), digest(view)
    head = wire.encode(wire.PUT, request, 0, len(view), bucket=key.bucket, key=key.name, digest=found)
    connection.channel.queue(head, view)
    moved(len(view))
    return Sent(request, len(view), found)


def send_file(connection: Connection, key: Key, fd: int, moved: Moved = not_told) -> Sent:
    """Send a put of a regular file, from its start to its size now."""
    size = os.fstat(fd).st_size
    if size <= wire.WHOLE_BODY:
        return send_bytes(connection, key, os.pread(fd, size, 0), moved)
    return send_range(connection, wire.PUT, fd, 0, size, Digest(), moved, bucket=key.bucket, key=key.name)


def send_range(
    connection: Connection,
    opcode: int,
    fd: int,
    start: int,
    end: int,
    state: Digest,
    moved: Moved = not_told,
    **fields: Value,
) -> Sent:
    """Send a request whose body is a part of a file.

    It goes out by sendfile; reading it for the digest (``state``), a frame ahead, is all this process sees of it. If it
    has more than DATA_SIZE bytes, no other answer may be under way.
    """
    buffer = room()
    request = _begin(connection, opcode, **fields)
    for offset in range(start, end, DATA_SIZE):
        stop = min(offset + DATA_SIZE, end)
        _hash_range(state, buffer, fd, offset, stop)
        head = wire.encode(wire.DATA, request, 0, stop - offset)
        connection.channel.send_body(head, FileSlice(fd, offset, stop - offset))
        moved(stop - offset)
        if stop < end and connection.channel.readable():  # the server has failed already; its error is the answer
            return Sent(request, state.size, b"")
    return _finish(connection, request, state)


def _hash_range(state: Digest, buffer: memoryview, fd: int, offset: int, end: int) -> None:
    while offset < end:
        count = os.preadv(fd, [buffer[: end - offset]], offset)
        if not count:
            raise LocalFileError(f"the file shrank below {end} bytes while it was being sent")
        state.update(buffer[:count])
        offset += count


def send_stream(connection: Connection, key: Key, fd: int, moved: Moved = not_told) -> Sent:
    """Send a put of all that comes out of a pipe, terminal or file, to its end."""
    return send_chunks(connection, key, _chunks(fd), moved)


def _chunks(fd: int) -> Iterator[memoryview]:
    buffer = room()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while True:
        if not poller.poll(HEARTBEAT_SECONDS * 1000):
            yield buffer[:0]
        elif count := os.readv(fd, [buffer]):
            yield buffer[:count]
        else:
            return


def send_chunks(connection: Connection, key: Key, chunks: Iterator[memoryview], moved: Moved = not_told) -> Sent:
    """Send a put of a body that comes in pieces, each of which is used before the next one is asked for."""
    state = Digest()
    request = _begin(connection, wire.PUT, bucket=key.bucket, key=key.name)
    for chunk in chunks:
        state.update(chunk)
        connection.channel.send(wire.encode(wire.DATA, request, 0, len(chunk)), chunk)
        moved(len(chunk))
        if connection.channel.readable():
            return Sent(request, state.size, b"")
    return _finish(connection, request, state)


def _begin(connection: Connection, opcode: int, **fields: Value) -> int:
    request = connection.next_request()
    connection.channel.send(wire.encode(opcode, request, wire.STREAM, **fields))
    return request


def _finish(connection: Connection, request: int, state: Digest) -> Sent:
    found = state.digest()
    connection.channel.send(wire.encode(wire.END, request, size=state.size, digest=found))
    return Sent(request, state.size, found)


def get(connection: Connection, key: Key, **part: Value) -> Frame:
    """Ask for a key: the OK frame, its body unread. Raises NoSuchKey.

    ``part`` may be ``offset`` and ``length``: the body then is of the blocks that hold these bytes, and the answer says
    which. With ``digest`` the key must be that one. Raises BadRange, KeyChanged.
    """
    return connection.call(wire.GET, bucket=key.bucket, key=key.name, **part)


def described(frame: Frame, size: int, server: str = "") -> Record:
    """The record of the ``size`` bytes that an answer is about, all of a key or some blocks of it.

    Its digest is the whole key's in either case. Raises ProtocolError, Corrupt.
    """
    record = Record(size, frame.blob("digest"), frame.uint("block", LEAF), frame.blob("blocks", b""))
    whole = frame.uint("size", size)
    count = -(-size // record.block) if whole > LEAF and record.block >= LEAF else 0
    if len(record.blocks) != count * DIGEST_SIZE or (whole > size and not count):
        raise ProtocolError(f"{len(record.blocks)} bytes of digests came with {size} bytes", server=server)
    if record.blocks and size == whole:
        verify("the list of blocks", root(record.blocks), record.digest, server=server)
    return record


def receive_bytes(connection: Connection, frame: Frame, key: Key) -> bytes:
    """The body of an answer to a get, verified. Raises Corrupt."""
    size = frame.body_length
    body = connection.channel.read_bytes(size)
    if size <= LEAF and "blocks" not in frame.fields and "size" not in frame.fields:
        found, expected = digest(body), frame.blob("digest")
        if found != expected:
            verify("what came", found, expected, server=connection.server, key=str(key))
        return body
    view, at = memoryview(body), 0
    for length, expected in described(frame, size, connection.server).pieces(0, size):
        verify("what came", digest(view[at : at + length]), expected, server=connection.server, key=str(key))
        at += length
    return body


def receive_body(
    connection: Connection, frame: Frame, key: Key, write: Write, moved: Moved = not_told, verified: Moved = not_told
) -> int:
    """Pass the body of an answer to a get on to ``write`` as it comes; returns its size. Raises Corrupt.

    ``verified`` is told of each block that was found whole. What was written since must be thrown away after an error.
    """
    for piece, whole in receive_pieces(connection, frame, key):
        write(piece)
        moved(len(piece))
        if whole:
            verified(whole)
    return frame.body_length


def receive_pieces(connection: Connection, frame: Frame, key: Key) -> Iterator[tuple[memoryview, int]]:
    """The body of an answer to a get as it comes: each piece, and the length of the block it completes, else 0.

    A block is verified before its last piece is given. Raises Corrupt: then what was given of it must be thrown away.
    """
    buffer = room(min(LEAF, frame.body_length))
    record = described(frame, frame.body_length, connection.server)
    for length, expected in record.pieces(0, record.size):
        state = Digest()
        while state.size < length:
            count = connection.channel.read_into(buffer[: length - state.size])
            state.update(buffer[:count])
            if state.size == length:
                verify("what came", state.digest(), expected, server=connection.server, key=str(key))
            yield buffer[:count], length if state.size == length else 0
        if not length:
            verify("what came", state.digest(), expected, server=connection.server, key=str(key))


def receive_part(
    connection: Connection, key: Key, write: Write, moved: Moved, offset: int = 0, length: int | None = None
) -> int:
    """Ask for a key or for ``length`` bytes of it, and pass them to ``write``; returns how many. Raises BadRange."""
    part = {"offset": offset} if offset or length is not None else {}
    part |= {"length": length} if length is not None else {}
    frame = get(connection, key, **part)
    skip, passed = offset - frame.uint("offset", 0), 0

    def some(data: memoryview) -> None:
        nonlocal skip, passed
        wanted = data[skip:] if length is None else data[skip : skip + length - passed]
        skip = max(0, skip - len(data))
        passed += len(wanted)
        if wanted:
            write(wanted)

    receive_body(connection, frame, key, some, moved)
    return passed


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


def check_end(frame: Frame, size: int, found: bytes, server: str = "", key: str = "") -> None:
    """Check a streamed body against its END frame. Raises Corrupt."""
    if frame.uint("size") != size:
        raise Corrupt(f"{size} bytes came, {frame.uint('size')} were sent", server=server, key=key)
    verify("what came", found, frame.blob("digest"), server=server, key=key)
