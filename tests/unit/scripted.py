"""A small HTTP server that does with each request what a test says, and remembers what it was sent."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

Act = Callable[["Visit"], bool]  # whether the connection goes on


class Asked(NamedTuple):
    """A request as it came; ``connection`` counts from 0."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Visit:
    """A request whose head has come, and the connection it came by."""

    def __init__(self, sock: socket.socket, connection: int, buffer: bytes) -> None:
        self.sock = sock
        self.connection = connection
        head, self.buffer = buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.length = int(self.headers.get("content-length", "0"))

    def read(self, count: int | None = None) -> bytes:
        """The body, or its first bytes; less if the connection ends."""
        count = self.length if count is None else count
        pieces, have = [self.buffer], len(self.buffer)
        with suppress(ConnectionError):
            while have < count and (more := self.sock.recv(1 << 18)):
                pieces.append(more)
                have += len(more)
        self.buffer = b"".join(pieces)
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found


class Scripted:
    """The server; a context manager. Each request is met by the next of ``acts``, and by the last from then on."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.asked: list[Asked] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._socks: list[socket.socket] = []

    def __enter__(self) -> "Scripted":
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)

    @property
    def connections(self) -> int:
        """How many connections there have been."""
        return len(self._socks)

    def methods(self) -> list[str]:
        """What was asked for, in order."""
        return [request.method for request in self.asked]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, len(self._socks) - 1))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        buffer = b""
        with sock, suppress(ConnectionError):
            while True:
                while b"\r\n\r\n" not in buffer:
                    more = sock.recv(1 << 16)
                    if not more:
                        return
                    buffer += more
                visit = Visit(sock, number, buffer)
                with self._lock:
                    act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
                    self.at_once += 1
                    self.most_at_once = max(self.at_once, self.most_at_once)
                try:
                    going = act(visit)
                finally:
                    with self._lock:
                        self.at_once -= 1
                if not going:
                    return
                buffer = visit.buffer

    def remember(self, visit: Visit, body: bytes) -> None:
        """Write a request down."""
        with self._lock:
            self.asked.append(Asked(visit.method, visit.target, visit.headers, body, visit.connection))


def head_of(status: int, length: int, headers: dict[str, str] | None = None) -> bytes:
    """The head of an answer."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
