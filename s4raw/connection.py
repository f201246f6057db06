"""The client's end of one connection, and the pool that keeps such connections for the next call."""

from __future__ import annotations

import os
import time
from _thread import allocate_lock  # threading's Lock, without the 1.5 ms that importing threading takes
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

from s4raw import wire
from s4raw.channel import Channel, connect
from s4raw.errors import Busy, ConnectionLost, ProtocolError, S4Error, UsageError
from s4raw.handshake import greet
from s4raw.net import STALL_SECONDS
from s4raw.record import NamedTuple
from s4raw.ring import Topology, split_address
from s4raw.wire import Frame, Value

ATTEMPTS = 3  # at a call whose connection was lost
DEFAULT_TIMEOUT = 300.0  # seconds that a command may take
MAX_IDLE = 8  # connections kept for each server
TRUSTED_SECONDS = 1.0  # a kept connection that was used so shortly ago is not asked whether it still stands
BUSY_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6)  # waits between attempts at a server that is busy

TYPE_CHECKING = False  # typing's own is not imported at run time, for a fast start
if TYPE_CHECKING:
    from typing import TypeVar

    Result = TypeVar("Result")


class Status(NamedTuple):
    """How far a call is. ``total`` is 0 when nobody knows, and what has been found so far while it is ``planning``.

    ``slowest`` is the key of a command that takes far longer than the others, ``server`` where it runs, ``seconds`` how
    long it has; empty when there is none.
    """

    done: int
    total: int
    failed: int = 0
    planning: bool = False
    slowest: str = ""
    server: str = ""
    seconds: float = 0.0


Progress = Callable[[Status], None]


Opened = Callable[[Channel], object]  # is told of a channel, to cut it if need be


def nobody(_channel: Channel) -> None:
    """Nobody will cut it."""


def no_progress(_status: Status) -> None:
    """Nobody wants to know."""


def milliseconds(seconds: float) -> int:
    """A time on the wire. Raises UsageError unless it is positive."""
    if not 0 < seconds < 1e9:
        raise UsageError(f"a timeout is a positive number of seconds, got {seconds:g}")
    return max(1, int(seconds * 1000))


def connections_for(size: int) -> int:
    """How many connections a key of so many bytes is worth: one for each 128 MiB and each processor, at most 4.

    (One connection keeps about one processor of each end busy: on two, a second one gives a quarter more.)
    """
    return max(1, min(4, os.cpu_count() or 1, size // (128 << 20)))


class Connection:
    """An open connection to one server, past its handshake. One thread at a time; closed after any error."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.server = channel.peer
        self.used = 0.0
        self._last = 0

    @classmethod
    def open(cls, server: str, topology: Topology, secret: bytes, opened: Opened = nobody) -> Connection:
        """Connect and shake hands. Raises Unreachable, RingMismatch, AuthFailed, Busy, ProtocolError."""
        channel = connect(*split_address(server))
        try:
            opened(channel)
            greet(channel, topology, secret)
        except BaseException:
            channel.close()
            raise
        return cls(channel)

    def next_request(self) -> int:
        """A request id that no request in flight has."""
        self._last = self._last % 0xFFFFFFFF + 1
        return self._last

    def send(self, opcode: int, /, **fields: Value) -> int:
        """Send a request without a body; returns its id."""
        request = self.next_request()
        self.channel.send(wire.encode(opcode, request, **fields))
        return request

    def receive_any(self, request: int, seconds: float = STALL_SECONDS) -> Frame:
        """The next frame that answers ``request``, its body unread. Raises the error that the server answered with."""
        frame = self.channel.next_frame(seconds)
        if frame is None:
            raise ConnectionLost("the server closed the connection", server=self.server)
        if frame.opcode == wire.ERROR:
            raise wire.decode_error(frame).at(server=self.server)
        if frame.request != request:
            raise ProtocolError(f"expected an answer to {request}, got one to {frame.request}", server=self.server)
        return frame

    def receive(self, request: int, progress: Progress = no_progress) -> Frame:
        """The next frame that answers ``request`` and does not just report progress."""
        while (frame := self.receive_any(request)).opcode == wire.PROGRESS:
            progress(self.status(frame))
        return frame

    def status(self, frame: Frame) -> Status:
        """What a PROGRESS frame says."""
        key, seconds, planning = frame.text("key", ""), frame.uint("elapsed", 0) / 1e6, bool(frame.uint("planning", 0))
        counts = frame.uint("done"), frame.uint("total"), frame.uint("failed", 0)
        return Status(*counts, planning, key, self.server if key else "", seconds)

    def receive_ok(self, request: int, progress: Progress = no_progress) -> Frame:
        """The OK that answers ``request``."""
        return self.expect(self.receive(request, progress), wire.OK)

    def expect(self, frame: Frame, *opcodes: int) -> Frame:
        """The frame, if it is of one of these kinds. Raises ProtocolError."""
        if frame.opcode not in opcodes:
            wanted = " or ".join(map(wire.name_of, opcodes))
            raise ProtocolError(f"expected {wanted}, got {wire.name_of(frame.opcode)}", server=self.server)
        return frame

    def call(self, opcode: int, progress: Progress = no_progress, /, **fields: Value) -> Frame:
        """Send a request without a body and wait for its OK."""
        return self.receive_ok(self.send(opcode, **fields), progress)

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()


class Pool:
    """Connections to the servers of a ring, kept open between calls. Any thread may lease one."""

    def __init__(self, topology: Topology, secret: bytes) -> None:
        self.topology = topology
        self._secret = secret
        self._lock = allocate_lock()
        self._idle: dict[str, list[Connection]] = defaultdict(list)

    def lease(self, server: str, fresh: bool = False, opened: Opened = nobody, trusting: bool = False) -> Lease:
        """A connection for one call or a train of them, in a ``with`` block; kept afterwards, unless the block raised.

        ``fresh`` does without the kept ones, which may have died unnoticed; ``trusting`` takes one that was used a
        moment ago without a look whether it has. ``opened`` is told of the channel at once, before a handshake.
        """
        return Lease(self, server, fresh, opened, trusting)

    def repeat(self, server: str, action: Callable[[Connection], Result], attempts: int = ATTEMPTS) -> Result:
        """What ``action`` gives, which is done again if the connection was lost, over a new one.

        With one attempt that is over a new connection. Raises ConnectionLost after the last.
        """
        while True:
            try:
                with self.lease(server, attempts < ATTEMPTS, trusting=True) as connection:
                    return action(connection)
            except ConnectionLost:
                attempts -= 1
                if not attempts:
                    raise

    def take(self, server: str, fresh: bool, opened: Opened, trusting: bool) -> Connection:
        """What ``lease`` gives, to be given to ``keep`` or closed."""
        kept = None if fresh else self._take(server, trusting)
        connection = kept or self.connect(server, opened)
        if kept and opened is not nobody:
            try:
                opened(kept.channel)
            except BaseException:
                kept.close()
                raise
        return connection

    def keep(self, connection: Connection, fresh: bool) -> None:
        """Take a connection back that nothing is under way on."""
        connection.used = time.monotonic()
        with self._lock:
            idle = self._idle[connection.server]
            if len(idle) < (1 if fresh else MAX_IDLE):  # or each fresh one would add to them
                idle.append(connection)
                return
        connection.close()

    def connect(self, server: str, opened: Opened = nobody) -> Connection:
        """A new connection, that the caller closes. A server that is busy is asked again for a few seconds."""
        for seconds in BUSY_SECONDS:
            with suppress(Busy):
                return Connection.open(server, self.topology, self._secret, opened)
            time.sleep(seconds)
        return Connection.open(server, self.topology, self._secret, opened)

    def ping(self, server: str, seconds: float) -> S4Error | None:
        """What is wrong with a server that should shake hands and answer within ``seconds``, or None."""
        deadline = time.monotonic() + seconds

        def left() -> float:
            return max(0.01, deadline - time.monotonic())

        try:
            channel = connect(*split_address(server), seconds)
            try:
                greet(channel, self.topology, self._secret, left())
                connection = Connection(channel)
                connection.expect(connection.receive_any(connection.send(wire.PING), left()), wire.OK)
            finally:
                channel.close()
        except S4Error as error:
            return error
        return None

    def _take(self, server: str, trusting: bool) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle[server]:
                    return None
                connection = self._idle[server].pop()
            trusted = trusting and time.monotonic() - connection.used < TRUSTED_SECONDS
            if trusted or not connection.channel.readable():
                return connection
            connection.close()  # the server hung up, or said something that nobody asked for

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            for connections in self._idle.values():
                while connections:
                    connections.pop().close()


Lending = Callable[[str, bool], AbstractContextManager[Connection]]  # a pool's lease, or one that can be cut


class Lease:
    """A ``with`` block that has a connection of the pool. (A generator would do, in three times the time.)"""

    __slots__ = ("_connection", "_fresh", "_opened", "_pool", "_server", "_trusting")

    def __init__(self, pool: Pool, server: str, fresh: bool, opened: Opened, trusting: bool) -> None:
        self._pool = pool
        self._server = server
        self._fresh = fresh
        self._opened = opened
        self._trusting = trusting

    def __enter__(self) -> Connection:
        self._connection = self._pool.take(self._server, self._fresh, self._opened, self._trusting)
        return self._connection

    def __exit__(self, error_type: object, *_: object) -> None:
        if error_type is None:
            self._pool.keep(self._connection, self._fresh)
        else:
            self._connection.close()
