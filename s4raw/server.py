"""The node: answers the verbs of the wire with the store and the compute. One Session for each connection."""

from __future__ import annotations

import os
import select
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import NamedTuple

from s4raw import calls, wire
from s4raw.bodies import check_end
from s4raw.compute import MapRequest, Node, evaluate
from s4raw.digest import BUFFER_SIZE, Digest, digest, verify
from s4raw.disk import disk_errors
from s4raw.errors import (
    BadKey,
    Busy,
    Cancelled,
    ConnectionLost,
    Corrupt,
    DiskFull,
    InternalError,
    KeyExists,
    PeerTimeout,
    ProtocolError,
    S4Error,
    StoreError,
)
from s4raw.handshake import welcome
from s4raw.keys import Key, check_key, check_prefix
from s4raw.net import GONE, Channel, FileSlice
from s4raw.procs import Cancellation
from s4raw.serving import Connection
from s4raw.store import Record
from s4raw.wire import Frame

PROGRESS_SECONDS = 0.5
LIST_PAGE = 512  # entries in one DATA frame
KEPT_BUFFERS = 8
_OUT_OF_STEP = (ConnectionLost, PeerTimeout, ProtocolError)  # after these the connection cannot be used any more
_OURS = (DiskFull, StoreError, Corrupt, InternalError)  # what the one who runs the server should know of


class Buffers:
    """Receive buffers that are used again and again: memory touched for the first time is slow."""

    def __init__(self) -> None:
        self._kept: list[memoryview] = []

    @contextmanager
    def borrow(self) -> Iterator[memoryview]:
        """A buffer of BUFFER_SIZE bytes with anything in it."""
        try:
            buffer = self._kept.pop()
        except IndexError:
            buffer = memoryview(bytearray(BUFFER_SIZE))
        try:
            yield buffer
        finally:
            if len(self._kept) < KEPT_BUFFERS:
                self._kept.append(buffer)


class Service(NamedTuple):
    """What all sessions of a server share."""

    node: Node
    secret: bytes
    idle_seconds: float
    access_log: bool
    io: threading.BoundedSemaphore  # at most so many threads write to the disk at once
    buffers: Buffers


class Session:
    """One client's connection: shakes hands, then answers its requests in order."""

    def __init__(self, service: Service, connection: Connection) -> None:
        self.service = service
        self.node = service.node
        self.channel: Channel = connection.channel
        self._connection = connection

    def run(self) -> None:
        """Serve until the client leaves, is silent for too long, or breaks the protocol."""
        request = 0
        try:
            if not welcome(self.channel, self.node.ring.topology, self.service.secret, self.node.me):
                return
            while (frame := self._next_request()) is not None:
                request = frame.request
                if not self._connection.begin():
                    raise Busy("the server is draining")
                self._answer(frame)
                request = 0
                if not self._connection.end():
                    return
        except ConnectionLost:
            return
        except S4Error as error:
            self._give_up(request, error)
        except Exception as error:
            self.node.log("error", f"client {self.channel.peer}: {traceback.format_exc()}")
            self._give_up(request, InternalError(f"{type(error).__name__}: {error}"))

    def _next_request(self) -> Frame | None:
        try:
            return self.channel.next_frame(self.service.idle_seconds)
        except PeerTimeout:
            if self.channel.pending:
                raise
            return None  # idle for too long: nothing is owed

    def _give_up(self, request: int, error: S4Error) -> None:
        """Say why this connection ends here."""
        self.node.log("closed", f"client {self.channel.peer}: {type(error).__name__}: {error.message}")
        with suppress(S4Error, OSError):
            self.channel.send(wire.encode_error(request, error.at(server=self.node.me)))
            self.channel.linger()

    def _answer(self, frame: Frame) -> None:
        verb = _VERBS.get(frame.opcode)
        if verb is None:
            raise ProtocolError(f"{wire.name_of(frame.opcode)} is not a request")
        started = time.monotonic()
        outcome = "ok"
        try:
            verb(self, frame)
        except _OUT_OF_STEP:
            raise
        except S4Error as error:
            outcome = type(error).__name__
            self.channel.skip_body()
            self._report(frame, error)
        if self.service.access_log:
            took = 1000 * (time.monotonic() - started)
            where = Key(frame.text("bucket", ""), frame.text("key", ""))
            self.node.log("access", f"{self.channel.peer} {wire.name_of(frame.opcode)} {where} {outcome} {took:.2f} ms")

    def _report(self, frame: Frame, error: S4Error) -> None:
        self.channel.send(wire.encode_error(frame.request, error.at(server=self.node.me)))
        if isinstance(error, _OURS):
            self.node.log("error", f"client {self.channel.peer} {wire.name_of(frame.opcode)}: {error}")

    def _ok(self, frame: Frame, **fields: wire.Value) -> None:
        self.channel.send(wire.encode(wire.OK, frame.request, **fields))

    def _key(self, frame: Frame) -> Key:
        return self.node.check_place(check_key(Key(frame.text("bucket"), frame.text("key"))))

    # Store

    def ping(self, frame: Frame) -> None:
        """PING: the server is there."""
        self._ok(frame)

    def put(self, frame: Frame) -> None:
        """PUT: publish a body under a key."""
        if frame.flags & wire.STREAM:
            return self._put_stream(frame)
        key = self._key(frame)
        with self.service.buffers.borrow() as buffer:
            body = buffer[: self.channel.read_into(buffer)]
            found = digest(body)
            verify("what came", found, frame.blob("digest"), key=str(key))
            with self.service.io, self.node.store.draft() as fd:
                self._write(fd, body, key)
                self.node.store.publish(fd, key, Record(len(body), found))
        self._ok(frame)

    def _put_stream(self, frame: Frame) -> None:
        if frame.body_length:
            raise ProtocolError("a PUT with the flag STREAM has its body in DATA frames, not in its own")
        ended = False
        try:
            key = self._key(frame)
            if self.node.store.exists(key):
                raise KeyExists("key already exists", key=str(key))
            with self.node.store.draft() as fd:
                end, record = self._receive_stream(frame, key, fd)
                ended = True
                check_end(end, *record)
                with self.service.io:
                    self.node.store.publish(fd, key, record)
        except _OUT_OF_STEP:
            raise
        except S4Error as error:
            self._report(frame, error.at(key=str(key)) if ended else error)
            if not ended:
                self._skip_stream(frame)
        else:
            self._ok(frame)

    def _receive_stream(self, frame: Frame, key: Key, fd: int) -> tuple[Frame, Record]:
        """Write the DATA of a put to ``fd``; returns its END, and what came."""
        state, size = Digest(), 0
        while (data := self._next_data(frame)).opcode == wire.DATA:
            with self.service.buffers.borrow() as buffer:  # not while waiting for a slow client's next frame
                while self.channel.body_left:
                    count = self.channel.read_into(buffer)
                    state.update(buffer[:count])
                    size += count
                    with self.service.io:
                        self._write(fd, buffer[:count], key)
        return data, Record(size, state.digest())

    def _next_data(self, frame: Frame) -> Frame:
        data = self.channel.next_frame()
        if data is None:
            raise ConnectionLost("the client left in the middle of a put")
        if data.request != frame.request or data.opcode not in (wire.DATA, wire.END):
            raise ProtocolError(f"expected DATA or END, got {wire.name_of(data.opcode)}")
        return data

    def _skip_stream(self, frame: Frame) -> None:
        self.channel.skip_body()
        while self._next_data(frame).opcode == wire.DATA:
            self.channel.skip_body()

    def _write(self, fd: int, data: memoryview, key: Key) -> None:
        with disk_errors(key):
            while data:
                data = data[os.write(fd, data) :]

    def get(self, frame: Frame) -> None:
        """GET: a key's bytes by sendfile, and the digest that was stored with them."""
        stored = self.node.store.open(self._key(frame))
        try:
            size, found = stored.record
            head = wire.encode(wire.OK, frame.request, 0, size, digest=found, mtime=stored.mtime_ns)
            self.channel.send_body(head, FileSlice(stored.fd, 0, size))
        finally:
            os.close(stored.fd)

    def stat(self, frame: Frame) -> None:
        """STAT: what is recorded of a key."""
        stored = self.node.store.open(self._key(frame))
        os.close(stored.fd)
        self._ok(frame, size=stored.record.size, digest=stored.record.digest, mtime=stored.mtime_ns)

    def list(self, frame: Frame) -> None:
        """LIST: the keys that begin with a prefix, or (with an empty bucket) the buckets, in order."""
        prefix = Key(frame.text("bucket"), frame.text("key"))
        check_prefix(prefix)
        store = self.node.store
        entries = store.list(prefix, bool(frame.uint("recursive", 0))) if prefix.bucket else store.buckets()
        state, size = Digest(), 0
        with closing(entries):
            while page := b"".join(map(wire.encode_entry, islice(entries, LIST_PAGE))):
                state.update(page)
                size += len(page)
                self.channel.send(wire.encode(wire.DATA, frame.request, 0, len(page)), page)
        self.channel.send(wire.encode(wire.END, frame.request, size=size, digest=state.digest()))

    def remove(self, frame: Frame) -> None:
        """REMOVE: delete a key."""
        self.node.store.remove(self._key(frame))
        self._ok(frame)

    def remove_prefix(self, frame: Frame) -> None:
        """REMOVE_PREFIX: delete every key of this server that begins with a prefix."""
        prefix = Key(frame.text("bucket"), frame.text("key"))
        check_prefix(prefix)
        if not prefix.bucket:
            raise BadKey("need a bucket to delete from")
        done, told = 0, time.monotonic()

        def each() -> None:
            nonlocal done, told
            done += 1
            if time.monotonic() - told >= PROGRESS_SECONDS:
                told = time.monotonic()
                self._progress(frame, done, 0)

        self._ok(frame, count=self.node.store.remove_prefix(prefix, each))

    # Compute

    def _progress(self, frame: Frame, done: int, total: int) -> None:
        self.channel.send(wire.encode(wire.PROGRESS, frame.request, done=done, total=total))

    def eval(self, frame: Frame) -> None:
        """EVAL: run a command with a key as stdin; its output is streamed, its exit code comes with END."""
        state, size = Digest(), 0

        def sink(flags: int) -> Callable[[bytes], None]:
            def send(data: bytes) -> None:
                nonlocal size
                state.update(data)
                size += len(data)
                self.channel.send(wire.encode(wire.DATA, frame.request, flags, len(data)), data)

            return send

        def tick() -> None:
            if self.channel.gone():
                raise ConnectionLost("the client left")
            self._progress(frame, 0, 0)

        with closing(Cancellation()) as cancellation:
            key, command, seconds = self._key(frame), frame.text("command"), _seconds(frame)
            sinks = (sink(0), sink(wire.STDERR))
            caller = self.channel.fileno()
            status = evaluate(self.node, key, command, seconds, cancellation, sinks, tick, caller)
        self.channel.send(wire.encode(wire.END, frame.request, size=size, digest=state.digest(), status=status))

    def map(self, frame: Frame) -> None:
        """MAP, MAP_TO_N, MAP_FROM_N: run a command over the keys of this server that lie below a directory."""
        call = calls.MapCall(self.node, _map_request(frame), _SHAPES[frame.opcode])
        with closing(call):
            self._progress(frame, 0, call.total)
            self._await_start(frame)
            call.start()
            try:
                self._watch(call, frame)
            except ConnectionLost as error:
                call.cancellation.set(Cancelled(error.message))
            failure = call.join()
        if failure is None:
            self._ok(frame, count=call.done)
        else:
            self._report(frame, failure)

    def _await_start(self, frame: Frame) -> None:
        """Every server of the ring has its plan: the client says so."""
        start = self.channel.next_frame(self.service.idle_seconds)
        if start is None:
            raise ConnectionLost("the client left before the call started")
        if start.opcode != wire.START or start.request != frame.request:
            raise ProtocolError(f"expected START, got {wire.name_of(start.opcode)}")

    def _watch(self, call: calls.MapCall, frame: Frame) -> None:
        """Report progress until the call has finished. Raises ConnectionLost as soon as the client is gone."""
        poller = select.poll()
        poller.register(call.finished, select.POLLIN)
        poller.register(self.channel.fileno(), GONE)
        while True:
            ready = {fd for fd, _ in poller.poll(1000 * PROGRESS_SECONDS)}
            if call.finished in ready:
                return
            if ready:
                raise ConnectionLost("the client left")
            self._progress(frame, call.done, call.total)


def _seconds(frame: Frame) -> float:
    return frame.uint("timeout") / 1000


def _map_request(frame: Frame) -> MapRequest:
    inputs = Key(frame.text("bucket"), frame.text("key"))
    outputs = Key(frame.text("out_bucket"), frame.text("out_key"))
    for directory in (inputs, outputs):
        check_prefix(directory)
        if not directory.bucket or (directory.name and not directory.name.endswith("/")):
            raise BadKey(f"need a directory, as in s4://bucket/dir/, got {directory}")
    return MapRequest(inputs, frame.text("glob", ""), outputs, frame.text("command"), _seconds(frame))


_SHAPES = {wire.MAP: calls.MAP, wire.MAP_TO_N: calls.MAP_TO_N, wire.MAP_FROM_N: calls.MAP_FROM_N}
_VERBS: dict[int, Callable[[Session, Frame], None]] = {
    wire.PING: Session.ping,
    wire.PUT: Session.put,
    wire.GET: Session.get,
    wire.STAT: Session.stat,
    wire.LIST: Session.list,
    wire.REMOVE: Session.remove,
    wire.REMOVE_PREFIX: Session.remove_prefix,
    wire.EVAL: Session.eval,
    **dict.fromkeys(_SHAPES, Session.map),
}
