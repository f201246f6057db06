"""The client's end of S3 measurements: raw sockets, and requests that were signed before the clock starts.

A client that signs, or one of a library's, would be the slowest part of what is measured. Each function that returns an
action is a target of ``bench.worker``.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from bench.s3servers import ACCESS_KEY, SECRET_KEY
from bench.worker import Action, Found
from s4raw.s3.signing import UNSIGNED, presign, sign_headers

BUFFER = 1 << 20
SENDFILE_CHUNK = 1 << 30
SECONDS = 600.0  # that any answer may take
_CLOSE = b"\r\nConnection: close"
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)


class Answered(OSError):
    """An answer that is not the one that was to come."""


def presigned(port: int, method: str, path: str, length: int | None = None, signed: bool = True) -> bytes:
    """The head of a request for a presigned URL (or a plain one), good for an hour."""
    host = f"127.0.0.1:{port}"
    query = presign(method, path, "", host, ACCESS_KEY, SECRET_KEY, now=time.time()) if signed else ""
    body = "" if length is None else f"Content-Length: {length}\r\n"
    return f"{method} {path}{'?' * signed}{query} HTTP/1.1\r\nHost: {host}\r\n{body}\r\n".encode()


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sock = self._connect()
        self._rest = b""

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def reconnect(self) -> None:
        """For servers that close a connection after each answer."""
        self.sock.close()
        self.sock, self._rest = self._connect(), b""

    def head(self) -> tuple[bytes, bytes, int]:
        """The next answer's head, what has come of its body, how long that is (-1: in chunks). Raises Answered."""
        data = self.sock.recv(64 << 10)
        while (end := data.find(b"\r\n\r\n")) < 0:
            if not (more := self.sock.recv(64 << 10)):
                raise Answered("the connection was closed inside a head")
            data += more
        head, body = data[: end + 2], data[end + 4 :]
        length = _LENGTH.search(head)
        if head[9:12] != b"200":
            raise Answered((head + body).decode(errors="replace"))
        return head, body, int(length[1]) if length else -1

    def whole(self) -> bytes:
        """The next answer's body, in memory."""
        head, body, length = self.head()
        pieces, count = [body], len(body)
        while count < length if length >= 0 else not pieces[-1].endswith(b"0\r\n\r\n"):
            if not (more := self.sock.recv(BUFFER)):
                raise Answered("the connection was closed inside a body")
            pieces.append(more)
            count += len(more)
        if _CLOSE in head:
            self.reconnect()
        return b"".join(pieces) if length >= 0 else _without_chunks(b"".join(pieces))

    def drop(self, buffer: memoryview) -> int:
        """Read the next answer to nowhere; how many bytes its body has."""
        head, body, length = self.head()
        left = length - len(body)
        while left:
            if not (count := self.sock.recv_into(buffer[:left], 0, socket.MSG_WAITALL)):
                raise Answered("the connection was closed inside a body")
            left -= count
        if _CLOSE in head:
            self.reconnect()
        return length

    def put(self, head: bytes, fd: int, start: int, length: int) -> bytes:
        """Send a body out of a file; the answer's head."""
        self.sock.sendall(head, socket.MSG_MORE)
        end = start + length
        while start < end:
            start += os.sendfile(self.sock.fileno(), fd, start, min(end - start, SENDFILE_CHUNK))
        found, body, size = self.head()
        if len(body) < size:
            self.sock.recv(size - len(body), socket.MSG_WAITALL)
        if _CLOSE in found:
            self.reconnect()
        return found


def _without_chunks(body: bytes) -> bytes:
    """A body without the lines that chunks begin and end with."""
    pieces, at = [], 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + size])
        at = end + size + 4


def small(
    port: int,
    method: str,
    path: str,
    numbers: Sequence[int],
    connections: int = 1,
    passes: int = 1,
    signed: bool = True,
    size: int = 0,
) -> Action:
    """A small request for each of the numbered paths, on connections that have one in flight each.

    ``numbers`` are the first and the last but one. A PUT has ``size`` bytes, and its paths a turn in them: a run with
    ``prepare`` signs the next one's requests, and sends none.
    """
    clients = [Client(port) for _ in range(connections)]
    body = os.urandom(size // 2).hex().encode()
    heads: list[bytes] = []

    def run(turn: int = 0, prepare: bool = False) -> None:
        if prepare or not heads:
            heads.clear()
            for number in range(*numbers):
                name = path.format(turn=turn, number=number)
                own = b"%016d" % number + body[16:] if size else b""  # no two are the same, as is usual
                heads.append(presigned(port, method, name, len(own) if size else None, signed) + own)
        if not prepare:
            for _ in range(passes):
                _exchange(clients, iter(heads))

    return run


def _exchange(clients: Sequence[Client], heads: Iterator[bytes]) -> None:
    waiting = []
    for client, head in zip(clients, heads, strict=False):
        client.sock.sendall(head)
        waiting.append((client, head))
    at = 0
    while waiting:
        client, sent = waiting[at]
        found, body, length = _small_answer(client, sent)
        while len(body) < length:
            body += client.sock.recv(length - len(body))
        if _CLOSE in found:
            client.reconnect()
        following = next(heads, None)
        if following is None:
            del waiting[at]
            at = at % len(waiting) if waiting else 0
            continue
        client.sock.sendall(following)
        waiting[at] = client, following
        at = (at + 1) % len(waiting)


def _small_answer(client: Client, sent: bytes) -> tuple[bytes, bytes, int]:
    try:
        return client.head()
    except (Answered, ConnectionError) as error:
        if isinstance(error, Answered) and "HTTP/1" in str(error):
            raise
        client.reconnect()  # closed without a word since the last answer
        client.sock.sendall(sent)
        return client.head()


def get(port: int, path: str, size: int, passes: int = 1, signed: bool = True) -> Action:
    """Get an object to nowhere, some times."""
    client, head = Client(port), presigned(port, "GET", path, signed=signed)
    buffer = memoryview(bytearray(BUFFER))

    def run() -> None:
        for _ in range(passes):
            client.sock.sendall(head)
            if client.drop(buffer) != size:
                raise Answered(f"{path} has another size than {size}")

    return run


def put(port: int, path: str, file: str, size: int, passes: int = 1) -> Action:
    """Put the first bytes of a file to an object that is named at each run, some times."""
    client, fd = Client(port), os.open(file, os.O_RDONLY)

    def run(turn: int) -> None:
        heads = [presigned(port, "PUT", path.format(turn=turn, number=number), size) for number in range(passes)]
        for head in heads:
            client.put(head, fd, 0, size)

    return run


def multipart(port: int, path: str, file: str, size: int, part: int, connections: int) -> Action:
    """Put a file in parts, over some connections at once; a signature for each of the few requests."""
    clients, fd = [Client(port) for _ in range(connections)], os.open(file, os.O_RDONLY)
    host = f"127.0.0.1:{port}"

    def head(method: str, target: str, query: str, length: int) -> bytes:
        headers = {"host": host, "content-length": str(length)}
        signed = sign_headers(method, target, query, headers, ACCESS_KEY, SECRET_KEY, now=time.time(), payload=UNSIGNED)
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        return f"{method} {target}?{query} HTTP/1.1\r\n{lines}\r\n".encode()

    def run(turn: int) -> None:
        target = path.format(turn=turn)
        clients[0].sock.sendall(head("POST", target, "uploads=", 0))
        found = re.search(rb"<UploadId>([^<]+)</UploadId>", clients[0].whole())
        if found is None:
            raise Answered("no upload id")
        upload = found[1].decode()
        numbers = iter(range(1, -(-size // part) + 1))
        etags: dict[int, str] = {}

        def send(client: Client) -> None:
            for number in numbers:  # next() of a range's iterator is atomic
                start = (number - 1) * part
                length = min(part, size - start)
                request = head("PUT", target, f"partNumber={number}&uploadId={upload}", length)
                answer = re.search(rb'\r\nETag: *"?([^"\r]+)', client.put(request, fd, start, length), re.IGNORECASE)
                if answer is None:
                    raise Answered("no ETag of a part")
                etags[number] = answer[1].decode()

        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(send, clients))
        inner = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etags[number]}&quot;</ETag></Part>"
            for number in sorted(etags)
        )
        body = f"<CompleteMultipartUpload>{inner}</CompleteMultipartUpload>".encode()
        clients[0].sock.sendall(head("POST", target, f"uploadId={upload}", len(body)) + body)
        if b"<ETag>" not in clients[0].whole():
            raise Answered("the upload was not completed")

    return run


def listing(port: int, bucket: str, count: int) -> Action:
    """List a bucket to its end, page by page."""
    client = Client(port)

    def run() -> None:
        token, listed = "", 0
        while True:
            client.sock.sendall(
                _list_head(port, bucket, f"continuation-token={quote(token, safe='')}" if token else "")
            )
            page = client.whole()
            listed += page.count(b"<Key>")
            found = re.search(rb"<NextContinuationToken>([^<]+)<", page)
            if found is None:
                break
            token = found[1].decode()
        if listed != count:
            raise Answered(f"{listed} keys instead of {count}")

    return run


def pages(port: int, bucket: str, after: Sequence[str], count: int) -> Action:
    """Pages of ``count`` keys, each after a name; the seconds are those of one."""
    client = Client(port)

    def run() -> Found:
        started = time.perf_counter()
        for name in after:
            client.sock.sendall(_list_head(port, bucket, f"start-after={name}"))
            found = client.whole().count(b"<Key>")
            if found != count:
                raise Answered(f"{found} keys instead of {count}")
        return {"seconds": (time.perf_counter() - started) / len(after)}

    return run


def _list_head(port: int, bucket: str, more: str) -> bytes:
    host = f"127.0.0.1:{port}"
    query = f"{more}&list-type=2" if more else "list-type=2"
    signed = sign_headers("GET", f"/{bucket}", query, {"host": host}, ACCESS_KEY, SECRET_KEY, now=time.time())
    lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
    return f"GET /{bucket}?{query} HTTP/1.1\r\n{lines}\r\n".encode()


def hold(port: int, path: str, connections: int, signed: bool = True) -> Action:
    """Open connections, do a get on each, and keep them."""
    clients: list[Client] = []

    def run() -> None:
        head = presigned(port, "GET", path, signed=signed)
        for _ in range(connections):
            client = Client(port)
            clients.append(client)
            client.sock.sendall(head)
            client.head()

    return run
