"""A client's connection to an HTTP server: requests go out byte for byte as they are given, answers come in as streams.

It knows HTTP/1.1 and nothing of S3. ``http.client`` opens the sockets; its parser of heads would take as long as
all the rest of a small request.
"""

from __future__ import annotations

import errno
import http.client
import os
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from s4raw import net
from s4raw.errors import ConnectionLost, LocalFileError, PeerTimeout, ProtocolError, S4Error, Unreachable
from s4raw.s3.outgoing import Body, FileBody, Place, Proxy

JOINED = 64 << 10  # bytes of a body that go out with the head, in one system call
RECEIVED = 64 << 10  # bytes received at once
SENT = 1 << 20  # bytes of a body that must get away within the time that a server may be silent
ENCRYPTED = 256 << 10  # bytes of a file that are read at once where sendfile cannot be
MAX_HEAD = 128 << 10
KEEP_ALIVE_SECONDS = 30
BOTH_WAYS = 2  # SHUT_RDWR
NO_BODY = (204, 304)
_DISK = (errno.EIO, errno.EUCLEAN, errno.EBADMSG)  # what only a file can fail with
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: (.*))?")


class Answer:
    """An answer whose body is still to be read. Header names are in lower case, values decoded as Latin-1.

    ``where`` are the server and the key, for errors. The connection is free for the next request once it ``ended``.
    """

    __slots__ = ("_chunked", "_connection", "_left", "ended", "headers", "reason", "status", "where")

    def __init__(
        self, connection: Connection, status: int, reason: str, headers: dict[str, str], where: Mapping[str, str]
    ) -> None:
        self._connection = connection
        self.status = status
        self.reason = reason
        self.headers = headers
        self.where = where
        self.ended = False
        self._chunked = False
        self._left: int | None = 0  # of the body, or of the chunk; None: until the connection ends

    @property
    def size(self) -> int:
        """The length of the body in bytes, as the head says. Raises ProtocolError if it does not."""
        text = self.headers.get("content-length", "")
        if not (text.isascii() and text.isdigit()):
            raise ProtocolError("the answer does not say how long it is").at(**self.where)
        return int(text)

    def framed(self, bodiless: bool) -> None:
        """Settle how the body ends. Raises ProtocolError."""
        if bodiless or self.status in NO_BODY:
            self.ended = True
        elif "transfer-encoding" in self.headers:
            if self.headers["transfer-encoding"].lower() != "chunked":
                raise ProtocolError(f"a transfer coding that is none: {self.headers['transfer-encoding']}")
            self._chunked = True
        elif "content-length" in self.headers:
            self._left = self.size
            self.ended = not self._left
        else:
            self._left, self._connection.kept = None, False

    def readinto(self, view: memoryview) -> int:
        """Receive some of the body, 0 at its end. Raises ConnectionLost, PeerTimeout, ProtocolError."""
        if self.ended or not len(view):
            return 0
        connection = self._connection
        try:
            if self._chunked and not self._left:
                self._left = connection.chunk()
                if not self._left:
                    connection.trailers()
                    self.ended = True
                    return 0
            left = self._left
            count = connection.receive_into(view if left is None else view[:left])
            if left is None:
                self.ended = not count
                return count
            if not count:
                raise ConnectionLost(f"the body ended {left} bytes early")
            self._left = left - count
            if not self._left:
                if self._chunked:
                    connection.line()
                else:
                    self.ended = True
            return count
        except S4Error as error:
            connection.close()
            raise error.at(**self.where) from None

    def read(self, most: int) -> bytes:
        """The whole body. Raises what ``readinto`` does, and ProtocolError if it has more than ``most`` bytes."""
        if self.ended:
            return b""
        found, total, view = [], 0, memoryview(bytearray(min(RECEIVED, (self._left or RECEIVED))))
        while count := self.readinto(view):
            total += count
            if total > most:
                self._connection.close()
                raise ProtocolError(f"the answer has more than {most} bytes").at(**self.where)
            found.append(bytes(view[:count]))
        return b"".join(found)


class Connection:
    """One connection, opened when it is needed; for one thread at a time. To close it twice is fine.

    ``answered`` says whether a byte of an answer has come to the last request, ``used`` whether there was one before.
    """

    def __init__(
        self,
        place: Place,
        context: ssl.SSLContext | None = None,
        *,
        proxy: Proxy | None = None,
        connect_seconds: float = 5.0,
        read_seconds: float = 300.0,
    ) -> None:
        """``context`` is that of TLS. The times are how long connecting, and the server's silence, may last.

        To a ``proxy`` TLS goes through a tunnel; other requests must name the server in their targets.
        """
        self.place = place
        self.proxy = proxy
        self._context = context
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._sock: Any = None
        self._rest = b""  # received, and not read yet
        self._cut = False
        self.kept = self.used = self.answered = False

    def open(self) -> None:
        """Connect. Raises Unreachable, ConnectionLost."""
        opener = self._opener()
        try:
            opener.connect()
        except (OSError, http.client.HTTPException) as error:
            opener.close()
            raise _unreachable(error, self._connect_seconds, self.proxy) from None
        except BaseException:
            opener.close()
            raise
        self._sock = opener.sock
        if self._cut:
            raise ConnectionLost("the connection was cut off")
        self._sock.settimeout(self._read_seconds)
        net.keep_alive(self._sock, KEEP_ALIVE_SECONDS)
        self._rest, self.kept, self.used = b"", True, False

    def _opener(self) -> http.client.HTTPConnection:
        place, proxy, seconds = self.place, self.proxy, self._connect_seconds
        name, port = (place.name, place.port) if proxy is None else (proxy.name, proxy.port)
        if not place.secure:
            return http.client.HTTPConnection(name, port, timeout=seconds)
        opener = http.client.HTTPSConnection(name, port, timeout=seconds, context=self._context)
        if proxy is not None:
            opener.set_tunnel(place.name, place.port, {**proxy.headers})
        return opener

    def close(self) -> None:
        """Close it."""
        self.kept = False
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def cut_off(self) -> None:
        """End it for the thread that uses it: whatever that waits for is lost. From any other thread."""
        self._cut = True
        if (sock := self._sock) is not None:
            plain: Any = sock
            if self._context is not None:
                plain = super(ssl.SSLSocket, sock)  # TLS's own way would need the leave of who uses it
            with suppress(OSError):
                plain.shutdown(BOTH_WAYS)

    def fileno(self) -> int:
        """The descriptor of the open connection."""
        return int(self._sock.fileno())

    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._sock is not None

    def alive(self) -> bool:
        """Whether an idle connection can be used again: the server has neither closed it nor said anything unasked."""
        if self._sock is None or self._rest or not self.kept:
            return False
        if not net.readable(self._sock.fileno()):
            return True
        if self._context is None:
            return False
        self._sock.settimeout(0)
        try:
            self._sock.recv(1)
        except ssl.SSLWantReadError:  # session tickets, which come by themselves
            self._sock.settimeout(self._read_seconds)
            return True
        except OSError:
            pass
        return False

    def exchange(self, method: str, head: bytes, body: Body, where: Mapping[str, str]) -> Answer:
        """Send a request, and read the head of its answer. Whatever is raised, the connection is closed then.

        Raises Unreachable, ConnectionLost, PeerTimeout, ProtocolError, and what the body raises.
        """
        self.answered = False
        try:
            if self._sock is None:
                self.open()
            try:
                self._send(head, body)
            except ConnectionError as error:  # a server that refuses a body need not read it
                try:
                    answer = self._answer(method, where)
                except S4Error:
                    raise error from None
                if answer.status < 300:  # to what it has not read
                    raise error from None
                self.kept = False
                return answer
            return self._answer(method, where)
        except S4Error as error:
            self.close()
            raise error.at(**where) from None
        except OSError as error:
            self.close()
            raise _lost(error, self._read_seconds).at(**where) from None
        except BaseException:
            self.close()
            raise

    def _send(self, head: bytes, body: Body) -> None:
        sock = self._sock
        if isinstance(body, bytes | memoryview):
            if len(body) <= JOINED:
                sock.sendall(head + body if body else head)
            else:
                sock.sendall(head)
                for at in range(0, len(body), SENT):
                    sock.sendall(memoryview(body)[at : at + SENT])
            return
        sock.sendall(head)
        if isinstance(body, FileBody):
            self._send_file(body)
            return
        for piece in body:
            if isinstance(piece, FileBody):
                self._send_file(piece)
            else:
                sock.sendall(piece)

    def _send_file(self, body: FileBody) -> None:
        sent = 0
        if not body.size:
            return
        if self._context is None:
            with open(body.fd, "rb", buffering=0, closefd=False) as file:
                try:
                    sent = self._sock.sendfile(file, body.offset, body.size)
                except OSError as error:
                    raise _unreadable(error) if error.errno in _DISK else error from None
        else:
            buffer = memoryview(bytearray(min(ENCRYPTED, body.size)))
            while sent < body.size and (count := _read(body, sent, buffer)):
                self._sock.sendall(buffer[:count])
                sent += count
        if sent < body.size:
            raise LocalFileError(f"the file became shorter while it was sent, by {body.size - sent} bytes")

    def _answer(self, method: str, where: Mapping[str, str]) -> Answer:
        while True:
            head = self._head()
            lines = head.split(b"\r\n")
            found = _STATUS.fullmatch(lines[0])
            if not found:
                raise ProtocolError(f"no HTTP: {lines[0][:80]!r}")
            status = int(found[2])
            if status >= 200:
                break
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.decode("latin-1").partition(":")
            if not colon:
                raise ProtocolError(f"no header: {line[:80]!r}")
            lower, value = name.lower(), value.strip(" \t")
            if headers.setdefault(lower, value) != value and lower in ("content-length", "transfer-encoding"):
                raise ProtocolError(f"two values of {lower}")
        said = headers.get("connection", "").lower()
        self.kept = self.used = said != "close" and (found[1] == b"1" or said == "keep-alive")
        answer = Answer(self, status, (found[3] or b"").decode("latin-1"), headers, where)
        answer.framed(method == "HEAD")
        return answer

    def _head(self) -> bytes:
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > MAX_HEAD:
                raise ProtocolError("the head of the answer is too long")
            more = self._receive()
            if not more:
                raise ConnectionLost("the server closed the connection")
            self.answered = True
            data = data + more if data else more
        self._rest = data[end + 4 :]
        return data[:end]

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(RECEIVED)  # type: ignore[no-any-return]
        except OSError as error:
            raise _lost(error, self._read_seconds) from None

    def receive_into(self, view: memoryview) -> int:
        """The next bytes, 0 at the connection's end. Raises ConnectionLost, PeerTimeout."""
        if self._rest:
            count = min(len(view), len(self._rest))
            view[:count] = self._rest[:count]
            self._rest = self._rest[count:]
            return count
        if self._sock is None:
            raise ConnectionLost("the connection is closed")
        try:
            return self._sock.recv_into(view)  # type: ignore[no-any-return]
        except OSError as error:
            raise _lost(error, self._read_seconds) from None

    def line(self) -> bytes:
        """The next line of what frames a body. Raises ConnectionLost, PeerTimeout, ProtocolError."""
        while (end := self._rest.find(b"\r\n")) < 0:
            if len(self._rest) > MAX_HEAD:
                raise ProtocolError("a line that does not end")
            more = self._receive()
            if not more:
                raise ConnectionLost("the connection ended inside a body")
            self._rest += more
        found, self._rest = self._rest[:end], self._rest[end + 2 :]
        return found

    def chunk(self) -> int:
        """The size of the next chunk; 0: it was the last. Raises what ``line`` does."""
        text = self.line().partition(b";")[0].strip()
        if not re.fullmatch(b"[0-9A-Fa-f]{1,15}", text):
            raise ProtocolError(f"no size of a chunk: {text[:40]!r}")
        return int(text, 16)

    def trailers(self) -> None:
        """Pass over what follows the last chunk. Raises what ``line`` does."""
        while self.line():
            pass


def _read(body: FileBody, at: int, buffer: memoryview) -> int:
    try:
        return os.preadv(body.fd, [buffer[: body.size - at]], body.offset + at)
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> LocalFileError:
    return LocalFileError(f"cannot read the file: {error.strerror}")


def _unreachable(error: OSError | http.client.HTTPException, seconds: float, proxy: Proxy | None) -> S4Error:
    to = f" through the proxy {proxy.name}:{proxy.port}" if proxy else ""
    if isinstance(error, TimeoutError):
        return Unreachable(f"cannot connect{to}: no answer within {seconds:g} s")
    reason = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
    return Unreachable(f"cannot connect{to}: {reason}")


def _lost(error: OSError, seconds: float) -> S4Error:
    if isinstance(error, TimeoutError):
        return PeerTimeout(f"no answer for {seconds:g} s")
    return ConnectionLost(f"the connection was lost: {error.strerror or error}")
