"""An HTTP server in threads of this process, with a handler that echoes, and a client that sends what it is told."""

import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from s4raw.log import Log
from s4raw.net import Stream, listen
from s4raw.s3.http import LIMITS, HttpConnection, Limits, Request
from s4raw.s3.session import refuse, serve_connection
from s4raw.s3.tls import TlsStream
from s4raw.serving import Acceptor

SECONDS = 20.0
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Server:
    """A server on a free port. ``content`` is what it answers to GET /file and GET /pieces."""

    def __init__(self, limits: Limits, tls: ssl.SSLContext | None, max_connections: int) -> None:
        self.content = os.urandom(3 << 20)
        self.file = tempfile.TemporaryFile()
        self.file.write(self.content)
        self.file.flush()
        self.lines = tempfile.TemporaryFile()
        self.listener = listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        log = Log("test", self.lines.fileno())
        self.acceptor: Acceptor[Stream] = Acceptor(
            self.listener,
            partial(TlsStream, tls) if tls else Stream,
            lambda connection: serve_connection(connection, self.handle, limits, log),
            refuse,
            log,
            max_connections=max_connections,
        )
        self.thread = threading.Thread(target=self.acceptor.run)
        self.thread.start()

    def log(self) -> str:
        return os.pread(self.lines.fileno(), 1 << 20, 0).decode()

    def stop(self, grace_seconds: float = 0.0) -> bool:
        self.acceptor.stop()
        self.thread.join()
        finished = self.acceptor.drain(grace_seconds)
        self.acceptor.close()
        self.file.close()
        self.lines.close()
        threading.stack_size(0)
        return finished

    def handle(self, http: HttpConnection, request: Request) -> None:
        headers = [("X-Query", request.query)]
        fd = self.file.fileno()
        match request.path:
            case "/early":
                http.respond(403, headers, b"no")
            case "/empty":
                http.respond(204, headers)
            case "/unchanged":
                http.respond(304, headers, b"not to be sent")
            case "/file":
                start, end = map(int, request.query.split("-"))
                http.respond_file(200, headers, fd, start, end)
            case "/pieces" | "/unknown":
                pieces = [memoryview(self.content)[at : at + 70_000] for at in range(0, len(self.content), 70_000)]
                http.respond_pieces(200, headers, len(self.content) if request.path == "/pieces" else None, pieces)
            case "/half":
                http.respond_pieces(200, headers, None, self.half())
            case "/short":
                http.respond_pieces(200, headers, 10, [b"abc"])
            case "/raise":
                raise LookupError("a defect")
            case "/thread":
                http.respond(200, [("X-Thread", str(threading.get_native_id()))])
            case "/nothing":
                pass
            case "/inject":
                http.respond(
                    200, [("x-amz-meta-a", {"crlf": "b\r\nX-Evil: 1", "lf": "b\nc", "nul": "\0"}[request.query])]
                )
            case "/part":
                next(http.pieces())
                http.respond(409, headers, b"enough")
            case _:
                self.echo(http, request)

    def half(self) -> Iterator[bytes]:
        yield b"abc"
        raise OSError("the disk")

    def echo(self, http: HttpConnection, request: Request) -> None:
        body = b"".join([bytes(piece) for piece in http.pieces()])
        seen = [(f"Seen-{name}", value) for name, value in request.headers.items()]
        trailers = [(f"Trailer-{name}", value) for name, value in http.trailers.items()]
        http.respond(200, [("X-Method", request.method), ("X-Path", request.path), *seen, *trailers], body)


@contextmanager
def serve(limits: Limits = LIMITS, tls: ssl.SSLContext | None = None, max_connections: int = 64) -> Iterator[Server]:
    server = Server(limits, tls, max_connections)
    try:
        yield server
    finally:
        if server.thread.is_alive():
            server.stop()


class Answer:
    """One answer as it came."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def closes(self) -> bool:
        return self.headers.get("connection") == "close"


class Client:
    """A connection that sends exactly what it is told, and reads answers one by one."""

    def __init__(self, server: Server, context: ssl.SSLContext | None = None) -> None:
        self.sock: socket.socket = socket.create_connection(("127.0.0.1", server.port), SECONDS)
        if context:
            self.sock = context.wrap_socket(self.sock, server_hostname="localhost")
        self._buffer = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def more(self) -> bytes:
        """The next bytes; empty at the end, also when it comes as a reset."""
        try:
            chunk = self.sock.recv(1 << 16)
        except ConnectionError:
            chunk = b""
        self._buffer += chunk
        return chunk

    def until(self, mark: bytes) -> bytes:
        while (end := self._buffer.find(mark)) < 0:
            assert self.more(), f"ended without {mark!r}: {self._buffer[:200]!r}"
        found, self._buffer = self._buffer[:end], self._buffer[end + len(mark) :]
        return found

    def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            assert self.more(), f"ended {count - len(self._buffer)} bytes early"
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found

    def answer(self, method: str = "GET") -> Answer:
        first, *lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        assert len(headers) == len(lines)
        if method == "HEAD" or int(status) in (100, 204, 304):
            body = b""
        elif headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.until(b"\r\n"), 16):
                body += self.exactly(size + 2)[:-2]
            self.until(b"\r\n")
        else:
            body = self.exactly(int(headers["content-length"]))
        return Answer(int(status), headers, body)

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        self.send(data)
        return self.answer(method)

    def at_end(self) -> bool:
        """Whether the server says nothing more and closes."""
        return not self._buffer and not self.more()
