"""The ring's protocol over a socket: frames and bodies, in and out, at either end."""

from __future__ import annotations

import time

from s4raw.errors import ConnectionLost, PeerTimeout
from s4raw.net import STALL_SECONDS, Socket, Stream, dial
from s4raw.wire import Decoder, Frame

FRAME_SECONDS = 30.0  # from a frame's first byte to the last of its header
CONNECT_SECONDS = 5.0
MAX_TAKEN = 64 << 20  # bytes of a body that memory is taken for at once
CLIENT_CAPACITY = 256 << 10  # a train of small answers comes by few system calls
SERVER_CAPACITY = 32 << 10  # many connections may be idle


def connect(address: str, port: int, seconds: float = CONNECT_SECONDS) -> Channel:
    """Connect to a server within ``seconds``. Raises Unreachable."""
    return Channel(dial(address, port, seconds), f"{address}:{port}", CLIENT_CAPACITY)


class Channel(Stream):
    """A connection that speaks the ring's protocol: frames and bodies, in and out.

    Any method may raise ProtocolError too.
    """

    def __init__(self, sock: Socket, peer: str, capacity: int = SERVER_CAPACITY) -> None:
        """``capacity`` is how many bytes of frames are received at once."""
        super().__init__(sock, peer)
        self._decoder = Decoder(capacity)

    def limit_headers(self, max_header: int) -> None:
        """Accept headers of at most this many bytes from now on."""
        self._decoder.max_header = max_header

    def send_soon(self, *buffers: bytes) -> None:
        """Send, at once if nothing more is here to be answered, else together with the next answers.

        So a train of small requests is answered by few system calls.
        """
        if self._decoder.buffered:
            self.queue(*buffers)
        else:
            self.send(*buffers)

    def next_frame(self, idle_seconds: float = STALL_SECONDS) -> Frame | None:
        """The next frame, or None at a clean end of the connection.

        Waits ``idle_seconds`` for its first byte, and as long, but at most FRAME_SECONDS, for the rest of its header.
        """
        decoder = self._decoder
        deadline = 0.0
        while (frame := decoder.next_frame()) is None:
            if decoder.buffered:
                now = time.monotonic()
                deadline = deadline or now + min(idle_seconds, FRAME_SECONDS)
                if now >= deadline:
                    raise PeerTimeout("a frame was not complete in time", server=self.peer)
                self.receive_timeout(deadline - now)
            count = self.receive_into(decoder.space()) if decoder.buffered else self._wait(idle_seconds)
            if not count:
                if decoder.buffered:
                    raise ConnectionLost("the connection ended inside a frame", server=self.peer)
                return None
            decoder.received(count)
        return frame

    def _wait(self, seconds: float) -> int:
        """Wait for the first bytes of a frame, in steps of the time-out that bodies have: no need to set another."""
        while True:
            self.receive_timeout(min(seconds, STALL_SECONDS))
            since = self.look_out()
            try:
                count = self.receive_into(self._decoder.space())
                self.came(since)
                return count
            except PeerTimeout:
                seconds -= STALL_SECONDS
                if seconds <= 0:
                    raise

    @property
    def body_left(self) -> int:
        """Bytes of the current frame's body that are still to be read."""
        return self._decoder.body_left

    @property
    def pending(self) -> bool:
        """Whether bytes are here already, so that ``next_frame`` may not have to wait."""
        return self._decoder.buffered > 0

    def readable(self, seconds: float = 0.0) -> bool:
        """Whether bytes, or the end, come within ``seconds``."""
        return self.pending or super().readable(seconds)

    def read_into(self, view: memoryview) -> int:
        """Fill ``view`` with the body, as far as it reaches; returns the bytes read, 0 at the body's end."""
        want = min(len(view), self._decoder.body_left)
        chunk = self._decoder.take(want)
        done = len(chunk)
        view[:done] = chunk
        if done < want:
            self.receive_timeout(STALL_SECONDS)
        while done < want:
            count = self.receive_into(view[done:want], whole=True)
            if not count:
                raise ConnectionLost("the connection ended inside a body", server=self.peer)
            self._decoder.passed(count)
            done += count
        return want

    def read_bytes(self, count: int) -> bytes:
        """The next ``count`` bytes of the body, which has as many. Memory is taken as they come."""
        chunk = bytes(self._decoder.take(count))
        if len(chunk) == count:
            return chunk
        self.receive_timeout(STALL_SECONDS)
        chunks, left = [chunk] if chunk else [], count - len(chunk)
        while left:
            chunks.append(self._take(min(left, MAX_TAKEN)))
            left -= len(chunks[-1])
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _take(self, count: int) -> bytes:
        """The next bytes of the body from the socket itself, as many as it gives of ``count``."""
        chunk = self.receive(count, whole=True)
        if not chunk:
            raise ConnectionLost("the connection ended inside a body", server=self.peer)
        self._decoder.passed(len(chunk))
        return chunk

    def skip_body(self) -> None:
        """Read the rest of the body and throw it away."""
        scratch = memoryview(bytearray(min(64 << 10, self._decoder.body_left)))
        while self._decoder.body_left:
            self.read_into(scratch)
