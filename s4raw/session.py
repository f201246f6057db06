"""One client's connection at the server: shakes hands, then answers requests in order, each by its verb's function."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import NamedTuple

from s4raw import wire
from s4raw.buffers import Buffers
from s4raw.channel import Channel
from s4raw.errors import (
    Busy,
    ConnectionLost,
    Corrupt,
    DiskFull,
    InternalError,
    PeerTimeout,
    ProtocolError,
    S4Error,
    StoreError,
)
from s4raw.handshake import welcome
from s4raw.keys import Key
from s4raw.node import Node
from s4raw.serving import Connection
from s4raw.wire import Frame

PROGRESS_SECONDS = 0.5
OUT_OF_STEP = (ConnectionLost, PeerTimeout, ProtocolError)  # after these the connection cannot be used any more
_OURS = (DiskFull, StoreError, Corrupt, InternalError)  # what the one who runs the server should know of


class Writers:
    """At most ``count`` threads in the middle of writing to the disk; threading's semaphores take ten times as long."""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_: object) -> None:
        self._free.put(None)


class Service(NamedTuple):
    """What all sessions of a server share."""

    node: Node
    secret: bytes
    idle_seconds: float
    access_log: bool
    io: Writers
    buffers: Buffers
    verbs: Mapping[int, Verb]


class Session:
    """One client's connection: shakes hands, then answers its requests in order."""

    def __init__(self, service: Service, connection: Connection[Channel]) -> None:
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
                    return self.channel.flush()
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
        verb = self.service.verbs.get(frame.opcode)
        if verb is None:
            raise ProtocolError(f"{wire.name_of(frame.opcode)} is not a request")
        started = time.monotonic() if self.service.access_log else 0.0
        outcome = "ok"
        try:
            verb(self, frame)
        except OUT_OF_STEP:
            raise
        except S4Error as error:
            outcome = type(error).__name__
            self.channel.skip_body()
            self.report(frame, error)
        if self.service.access_log:
            took = 1000 * (time.monotonic() - started)
            where = Key(frame.text("bucket", ""), frame.text("key", ""))
            self.node.log("access", f"{self.channel.peer} {wire.name_of(frame.opcode)} {where} {outcome} {took:.2f} ms")

    def report(self, frame: Frame, error: S4Error) -> None:
        """Answer a request with an error."""
        self.channel.send(wire.encode_error(frame.request, error.at(server=self.node.me)))
        if isinstance(error, _OURS):
            self.node.log("error", f"client {self.channel.peer} {wire.name_of(frame.opcode)}: {error}")

    def ok(self, frame: Frame, **fields: wire.Value) -> None:
        """Answer a request with OK."""
        self.channel.send_soon(wire.encode(wire.OK, frame.request, **fields))

    def key(self, frame: Frame) -> Key:
        """The key that a request is about; the store checks its grammar. Raises WrongServer."""
        return self.node.check_place(Key(frame.text("bucket"), frame.text("key")))

    def progress(self, frame: Frame, done: int, total: int, **more: wire.Value) -> None:
        """Say how far a request is, and that it is still being worked on."""
        self.channel.send(wire.encode(wire.PROGRESS, frame.request, done=done, total=total, **more))


Verb = Callable[[Session, Frame], None]
