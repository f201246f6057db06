"""The reading half of an HTTP/1.1 connection: heads, and bodies of a known length or in chunks (RFC 9112, 6 and 7).

A connection that was left with half a body is closed, never used again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from s4raw import processors
from s4raw.buffers import Buffers
from s4raw.errors import ConnectionLost, PeerTimeout
from s4raw.net import Stream
from s4raw.s3.head import LIMITS, HttpError, Limits, Request, is_broken, parse_fields, parse_head, parse_request_line

HEAD_CAPACITY = 8 << 10  # bytes received at once while waiting for a head; each idle connection has room for them
BODY_CAPACITY = 64 << 10  # and while taking a body's chunks apart
SMALL_BODY = 64 << 10  # bytes that no large buffer is borrowed for
CHUNK_LINE = 4 << 10
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEX = frozenset(b"0123456789abcdefABCDEF")
_CONTROLS = bytes((*range(9), *range(10, 32), 127))
_BUFFERS = Buffers()


class Incoming:
    """The requests of a connection, one after the other.

    ``trailers`` are those of the current request, once its body was read. ``answered`` says whether an answer to it has
    begun, ``complete`` whether that has ended. What is lost in the middle raises HttpError, with status 0 when nobody
    is there to be told.
    """

    def __init__(self, stream: Stream, limits: Limits = LIMITS) -> None:
        self.peer = stream.peer
        self.trailers: dict[str, str] = {}
        self.answered = False
        self.complete = True
        self._stream = stream
        self._limits = limits
        self._buffer = b""
        self._at = 0
        self._head_only = False  # the answer has no body
        self._minor = 1
        self._left = 0  # bytes of the body, or of its current chunk
        self._chunked = False  # more chunks follow
        self._inside = False  # behind the current chunk an end of line follows
        self._extensions = 0
        self._expected = False  # the client waits for 100 Continue
        self._keep_alive = True
        self._unread = False  # closing at once could destroy the last answer
        self._roams = False  # this thread may run on any processor

    def next_request(self, idle_seconds: float | None = None) -> Request | None:
        """The next request; None when the client has left, or was silent for ``idle_seconds``, or should leave.

        Raises HttpError; then ``respond`` can still say why.
        """
        if not self._keep_alive or not self._skip_body():
            return None
        if self._at == len(self._buffer):
            self._buffer, self._at = b"", 0
        head = self._next_head(self._limits.idle_seconds if idle_seconds is None else idle_seconds)
        if head is None:
            return None
        request = parse_head(head, self._limits)
        self._keep_alive = request.keep_alive
        self._head_only = request.method == "HEAD"
        self._minor = request.minor
        self._left = request.length or 0
        self._chunked = request.chunked
        self._expected = request.expects and self.unfinished
        if self._chunked or self._left > SMALL_BODY:
            self.roam()
        if request.expects and not self._expected:
            # RFC 9110, 10.1.1, would let us do without; but botocore, told 200 at once, takes the next answer on this
            # connection, which begins with a 100, for another one, and waits for its end until it gives up.
            self._stream.queue(CONTINUE)
        self._inside = False
        self._extensions = 0
        if self.trailers:
            self.trailers = {}
        return request

    def _next_head(self, idle_seconds: float) -> bytes | None:
        """The bytes of the next head without the empty line at its end."""
        deadline = 0.0
        searched = 0
        while True:
            while self._buffer.startswith(b"\r\n", self._at):  # RFC 9112, 2.2
                self._at += 2
            buffer, at = self._buffer, self._at
            if len(buffer) > at:
                self.answered = self.complete = self._keep_alive = self._head_only = False  # until it is understood
            end = buffer.find(b"\r\n\r\n", max(at, searched - 3))
            if 0 <= end <= at + self._limits.head:
                self._at = end + 4
                return buffer[at:end]
            if len(buffer) > at:
                self._check_beginning(searched)
            if buffer:
                now = time.monotonic()
                deadline = deadline or now + self._limits.head_seconds
                idle_seconds = deadline - now
                if idle_seconds <= 0:
                    break
            self._buffer, self._at = buffer[at:], 0
            searched = len(buffer) - at
            try:
                self._stream.receive_timeout(idle_seconds)
                since = self._stream.look_out()
                chunk = self._stream.receive(HEAD_CAPACITY)
                self._stream.came(since)
            except PeerTimeout:
                break
            except ConnectionLost as error:
                if not searched:
                    return None
                raise HttpError(0, error.message) from None
            if not chunk:
                if not searched:
                    return None
                raise HttpError(400, "the connection ended inside a head")
            self._buffer = self._buffer + chunk if searched else chunk
        if not searched:
            return None
        raise HttpError(408, "the head was not complete in time")

    def _check_beginning(self, searched: int) -> None:
        """Refuse a head whose end has not come yet for what is here of it; ``searched`` bytes were looked at before."""
        buffer, at, limits = self._buffer, self._at, self._limits
        if is_broken(buffer, max(at, searched - 1)):
            raise HttpError(400, "the head has control characters")
        line = buffer.find(b"\r\n", at, at + limits.target + 64)
        if line >= 0:
            parse_request_line(buffer[at:line].decode("latin-1"), limits)
        elif len(buffer) - at > limits.target:
            raise HttpError(414, f"the request's target is longer than {limits.target} bytes")
        if len(buffer) - at > limits.head:
            raise HttpError(431, f"the head is longer than {limits.head} bytes")

    def roam(self) -> None:
        """Have all processors from here to the end of the connection: a request is more than a small one."""
        if not self._roams:
            self._roams = True
            processors.roam()

    @property
    def unfinished(self) -> bool:
        """Whether a part of the current request's body was not read yet."""
        return self._left > 0 or self._chunked

    def pieces(self) -> Iterator[memoryview]:
        """The rest of the current request's body, without its chunks' lines; each piece is valid until the next.

        All but the last have 1 MiB. Raises HttpError when the body breaks off, or is not what HTTP allows.
        """
        if not self._chunked and self._left <= len(self._buffer) - self._at:
            if self._left:
                piece = memoryview(self._buffer)[self._at : self._at + self._left]
                self._at += self._left
                self._left = 0
                yield piece
            return
        small = not self._chunked and self._left <= SMALL_BODY
        buffer = memoryview(bytearray(self._left)) if small else _BUFFERS.take()
        try:
            while count := self.read_into(buffer):
                yield buffer[:count]
        finally:
            if not small:
                _BUFFERS.give(buffer)

    def read_into(self, view: memoryview) -> int:
        """Fill ``view`` with the current request's body, as far as it reaches; returns the bytes read, 0 at its end."""
        done = 0
        try:
            if self._expected:
                self._expected = False
                if self._at == len(self._buffer) and self.unfinished:
                    self._stream.send(CONTINUE)
            while done < len(view) and (self._left or (self._chunked and self._next_chunk())):
                done += self._read_some(view[done : done + self._left])
        except PeerTimeout:
            raise self._broken(408, "the body did not come in time") from None
        except ConnectionLost as error:
            raise self._broken(0, error.message) from None
        return done

    def _read_some(self, view: memoryview) -> int:
        """Some bytes of the chunk or of the body, which has as many as ``view``."""
        if self._at == len(self._buffer):
            if not self._chunked or len(view) >= BODY_CAPACITY:
                self._stream.receive_timeout(self._limits.stall_seconds)
                count = self._stream.receive_into(view, whole=True)
                if not count:
                    raise self._broken(400, "the connection ended inside a body")
                self._left -= count
                return count
            self._receive_more()
        ready = self._buffer[self._at : self._at + len(view)]
        count = len(ready)
        view[:count] = ready
        self._at += count
        self._left -= count
        return count

    def _next_chunk(self) -> bool:
        """Read the line before the next chunk; behind the last chunk, the trailers. RFC 9112, 7.1"""
        if self._inside and self._line(2):
            raise self._broken(400, "a chunk is longer than it said")
        size, semicolon, extension = self._line(CHUNK_LINE).partition(b";")
        if semicolon:
            size = size.rstrip(b" \t")
            self._extensions += len(extension)
        if not 0 < len(size) <= 15 or not _HEX.issuperset(size) or self._extensions > self._limits.extensions:
            raise self._broken(400, "a chunk does not begin with its size")
        self._left = int(size, 16)
        self._inside = True
        if self._left:
            return True
        lines, room = [], self._limits.trailers
        while line := self._line(room):
            lines.append(line.decode("latin-1"))
            room -= len(line) + 2
        try:
            self.trailers = parse_fields(lines)
        except HttpError as error:
            raise self._broken(error.status, error.reason) from None
        self._chunked = False
        return False

    def _line(self, limit: int) -> bytes:
        """The next line of a body with chunks, without its end."""
        while (end := self._buffer.find(b"\r\n", self._at)) < 0 and len(self._buffer) - self._at <= limit + 1:
            self._receive_more()
        line = self._buffer[self._at : end]
        if not 0 <= end - self._at <= limit or len(line.translate(None, _CONTROLS)) != len(line):
            raise self._broken(400, "a line between chunks is too long, or has control characters")
        self._at = end + 2
        return line

    def _receive_more(self) -> None:
        self._stream.receive_timeout(self._limits.stall_seconds)
        chunk = self._stream.receive(BODY_CAPACITY)
        if not chunk:
            raise self._broken(400, "the connection ended inside a body")
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0

    def _broken(self, status: int, reason: str) -> HttpError:
        """What to raise for a body after which nothing can be read any more."""
        self._keep_alive = False
        return HttpError(status, reason)

    def _skip_body(self) -> bool:
        """Read what is left of the last request's body; whether that brought us to the next request."""
        if not self.unfinished:
            return True
        scratch = memoryview(bytearray(BODY_CAPACITY))
        room = self._limits.drain
        try:
            while room > 0 and (count := self.read_into(scratch)):
                room -= count
        except HttpError:
            return False  # the request was answered: nothing more is owed
        self._unread = self.unfinished
        return not self._unread
