"""A body that comes to the server in DATA frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from s4raw import wire
from s4raw.bodies import check_end
from s4raw.digest import Digest, digest, verify
from s4raw.errors import ConnectionLost, ProtocolError, S4Error
from s4raw.keys import Key
from s4raw.session import OUT_OF_STEP, Session
from s4raw.wire import Frame


class Incoming:
    """The body of the request ``frame``; ``ended`` once its END was read."""

    def __init__(self, session: Session, frame: Frame) -> None:
        self.ended = False
        self.sealed = b""
        self._session = session
        self._frame = frame

    def receive(self, key: Key, write: Callable[[memoryview], None]) -> Digest:
        """Pass the bytes to ``write`` as they come; returns what came. Raises Corrupt unless it is what was sent."""
        state = Digest()
        for piece in self.pieces(key, state):
            with self._session.service.io:
                write(piece)
        return state

    def pieces(self, key: Key, state: Digest) -> Iterator[memoryview]:
        """The bytes as they come, each piece valid until the next one; raises Corrupt unless they are what was sent.

        ``state`` has hashed them; ``sealed`` is what came behind them, in the END frame.
        """
        channel = self._session.channel
        while (data := self._next()).opcode == wire.DATA:
            with self._session.service.buffers.borrow() as buffer:  # not while waiting for a slow client's next frame
                while channel.body_left:
                    count = channel.read_into(buffer)
                    state.update(buffer[:count])
                    yield buffer[:count]
        check_end(data, state.size, state.digest(), key=str(key))
        self.sealed = self._session.channel.read_bytes(data.body_length)
        if self.sealed:
            verify("what came behind the body", digest(self.sealed), data.blob("sealed"), key=str(key))

    def skip(self) -> None:
        """Pass over what is left."""
        self._session.channel.skip_body()
        while not self.ended:
            self._next()
            self._session.channel.skip_body()

    def _next(self) -> Frame:
        data = self._session.channel.next_frame()
        if data is None:
            raise ConnectionLost("the client left in the middle of a put")
        if data.request != self._frame.request or data.opcode not in (wire.DATA, wire.END):
            raise ProtocolError(f"expected DATA or END, got {wire.name_of(data.opcode)}")
        self.ended = data.opcode == wire.END
        return data


def take(session: Session, frame: Frame, receive: Callable[[Incoming], bytes | None]) -> None:
    """Answer a request with a body in DATA frames. An error is told at once, then the rest of the body is skipped.

    What ``receive`` gives goes with the answer.
    """
    if frame.body_length or not frame.flags & wire.STREAM:
        raise ProtocolError(f"this {wire.name_of(frame.opcode)} has its body in DATA frames, and the flag STREAM")
    body = Incoming(session, frame)
    try:
        answer = receive(body)
    except OUT_OF_STEP:
        raise
    except S4Error as error:
        session.report(frame, error)
        body.skip()
    else:
        if answer is None:
            return session.ok(frame)
        session.channel.send_soon(wire.encode(wire.OK, frame.request, 0, len(answer), digest=digest(answer)), answer)
