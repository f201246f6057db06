"""HTTP/1.1 on one connection: requests in, answers out, in order (RFC 9112). It knows nothing of S3.

A connection that was left with half an answer is closed, never used again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from http import HTTPStatus

from s4raw.errors import S4Error
from s4raw.net import FileSlice
from s4raw.s3.head import LIMITS, HttpError, Limits, Request
from s4raw.s3.incoming import Incoming

__all__ = ["LIMITS", "Headers", "HttpConnection", "HttpError", "Limits", "Request"]

Headers = list[tuple[str, str]]

SMALL_FILE = 32 << 10  # bytes that go with the head, in one system call
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_starts = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\nServer: s4raw\r\nDate: " for status in HTTPStatus}
_date = (0, "")


def http_date(seconds: float) -> str:
    """A time since the epoch as HTTP writes it (RFC 9110, 5.6.7), in whole seconds."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(seconds)
    return f"{_DAYS[weekday]}, {day:02d} {_MONTHS[month - 1]} {year:04d} {hour:02d}:{minute:02d}:{second:02d} GMT"


def _now() -> str:
    """The date of an answer, made once a second."""
    global _date  # noqa: PLW0603
    second = int(time.time())
    known = _date
    if known[0] != second:
        _date = known = (second, http_date(second))
    return known[1]


class HttpConnection(Incoming):
    """One client's connection: requests in, answers out, in order.

    What is lost in the middle raises HttpError, with status 0 when nobody is there to be told.
    """

    def respond(self, status: int, headers: Headers, body: bytes = b"", *, length: int | None = None) -> None:
        """Answer the current request. ``length`` is what HEAD says of a body that is not given here.

        Content-Length, Date, Server and Connection are added to ``headers``, whose values are encoded as Latin-1.
        Raises ValueError for a header that HTTP cannot carry, before anything is sent.
        """
        head = self._compose(status, headers, len(body) if length is None else length)
        if not body or self._head_only or status in (204, 304):
            self._send_soon(head)
        else:
            self._send_soon(head, body)
        self.complete = True

    def respond_file(self, status: int, headers: Headers, fd: int, start: int, end: int) -> None:
        """Answer with the bytes of a file from ``start`` up to but not including ``end``.

        Raises OSError when it cannot be read, and HttpError when it ends before ``end``.
        """
        length = end - start
        if self._head_only or not length:
            return self.respond(status, headers, length=length)
        if length <= SMALL_FILE:
            body = os.pread(fd, length, start)
            if len(body) < length:
                raise self._broken(500, "the file is shorter than it should be")
            return self.respond(status, headers, body)
        self.roam()
        head = self._compose(status, headers, length)
        self.answered = True
        try:
            self._stream.send_body(head, FileSlice(fd, start, length))
        except S4Error as error:
            raise self._broken(0, error.message) from None
        self.complete = True

    def respond_pieces(
        self, status: int, headers: Headers, length: int | None, pieces: Iterable[bytes | memoryview]
    ) -> None:
        """Answer with ``length`` bytes that come in pieces; None if nobody knows how many.

        Nothing is sent before the first piece is there. Raises what ``pieces`` does, and ValueError if they have
        another length; then the client must not take the answer for whole, and the connection has to end.
        """
        if self._head_only:
            return self.respond(status, headers, length=length)
        chunked = length is None and self._minor > 0
        if length is None and not chunked:
            self._keep_alive = False
        pending = self._compose(status, headers, length)
        sent = 0
        for piece in pieces:
            sent += len(piece)
            if length is not None and sent > length:
                raise ValueError(f"an answer of {length} bytes has more of them")
            if chunked and piece:
                self._send(pending, b"%x\r\n" % len(piece), piece, b"\r\n")
                pending = b""
            elif piece:
                self._send(pending, piece)
                pending = b""
        if length is not None and sent < length:
            raise ValueError(f"an answer of {length} bytes has only {sent} of them")
        if pending or chunked:
            self._send(pending, b"0\r\n\r\n" if chunked else b"")
        self.complete = True

    def _compose(self, status: int, headers: Headers, length: int | None) -> bytes:
        """The head of an answer; decides whether the connection lives on."""
        if self.answered:
            raise RuntimeError("a request is answered once")
        text = "".join([f"{name}: {value}\r\n" for name, value in headers])
        count = len(headers)
        if text.count("\n") != count or text.count("\r") != count or "\0" in text:
            raise ValueError(f"a header has an end of line in it: {headers}")
        if self.unfinished and (self._expected or self._left > self._limits.drain):
            self._keep_alive = False  # RFC 9110, 10.1.1: whether the body comes now is the client's choice
            self._unread = True
        if length is None:
            framing = "Transfer-Encoding: chunked\r\n" if self._minor and not self._head_only else ""
        else:
            framing = "" if status in (204, 304) else f"Content-Length: {length}\r\n"
        if not self._keep_alive:
            framing += "Connection: close\r\n"
        elif not self._minor:
            framing += "Connection: keep-alive\r\n"
        return f"{_starts[status]}{_now()}\r\n{text}{framing}\r\n".encode("latin-1")

    def _send_soon(self, *buffers: bytes) -> None:
        """Send, at once if nothing more is here to be answered, else together with the next answers."""
        if self._at < len(self._buffer) and self._keep_alive:
            self.answered = True
            self._stream.queue(*buffers)
        else:
            self._send(*buffers)

    def _send(self, *buffers: bytes | memoryview) -> None:
        self.answered = True
        try:
            self._stream.send(*buffers)
        except S4Error as error:
            raise self._broken(0, error.message) from None

    def give_up(self, error: HttpError) -> None:
        """Say why the connection ends here, unless an answer was begun; one that was cut off must not look whole."""
        self._keep_alive = False
        if self.answered and not self.complete:
            return self._stream.abort()
        if error.status and not self.answered:
            self._unread = True
            body = f"{error.reason}\n".encode()
            try:
                self.respond(error.status, [("Content-Type", "text/plain")], body)
            except HttpError:
                pass

    def finish(self) -> None:
        """Send what waits to be sent, and let the client read it, before the connection is closed."""
        try:
            self._stream.flush()
            if self._unread or self.unfinished or self._at < len(self._buffer):
                self._stream.linger(self._limits.linger_seconds)
            else:
                self._stream.stop_writing()
        except (S4Error, OSError):
            pass
