"""The slow network of the benchmark: every byte arrives, in order, and none too early."""

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DELAY = 0.05
SECONDS = 20.0
LIMIT = 64 << 20

Handler = Callable[[socket.socket], None]


@contextmanager
def proxy(port: int, window: int = 32 << 20) -> Iterator[int]:
    """A proxy process in front of a port; the port it listens on."""
    options = ["--to", f"127.0.0.1:{port}", "--ms", str(DELAY * 1000), "--window", str(window)]
    command = [sys.executable, "-m", "bench.delay", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline().removeprefix("listening on "))
        finally:
            process.kill()


@contextmanager
def serving(handler: Handler, count: int = 1) -> Iterator[int]:
    """A server that hands so many connections to a handler, at once; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)

        def serve() -> None:
            threads = []
            for _ in range(count):
                sock, _ = listener.accept()
                sock.settimeout(SECONDS)
                threads.append(threading.Thread(target=handle, args=(sock,)))
                threads[-1].start()
            for thread in threads:
                thread.join()

        def handle(sock: socket.socket) -> None:
            with sock:
                handler(sock)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def connect(port: int) -> socket.socket:
    """A connection to the proxy."""
    return socket.create_connection(("127.0.0.1", port), SECONDS)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the end."""
    pieces = []
    while data := sock.recv(1 << 20):
        pieces.append(data)
    return b"".join(pieces)


def test_nothing_arrives_before_its_time() -> None:
    arrived: list[float] = []

    def handler(sock: socket.socket) -> None:
        assert sock.recv(1) == b"a"
        arrived.append(time.monotonic())
        sock.sendall(b"b")
        assert sock.recv(1) == b"c"
        arrived.append(time.monotonic())

    with serving(handler) as port, proxy(port) as slow:
        began = time.monotonic()
        client = connect(slow)
        client.sendall(b"a")
        assert client.recv(1) == b"b"
        answered = time.monotonic()
        client.sendall(b"c")
        assert client.recv(1) == b""
        ended = time.monotonic()
        client.close()
    assert arrived[0] - began >= 3 * DELAY
    assert answered - arrived[0] >= DELAY
    assert arrived[1] - answered >= DELAY
    assert ended - arrived[1] >= DELAY


def test_bytes_arrive_exactly_and_in_order_both_ways_on_many_connections() -> None:
    connections, sizes = 8, [1, 3, 1000, 4096, 65537, 1 << 20, 7, (1 << 20) + 5]
    body = os.urandom(sum(sizes))
    answers: list[bytes] = []

    def handler(sock: socket.socket) -> None:
        found = read_all(sock)
        sock.sendall(found[::-1])

    def client(port: int) -> None:
        with connect(port) as sock:
            at = 0
            for size in sizes:
                sock.sendall(body[at : at + size])
                at += size
            sock.shutdown(socket.SHUT_WR)  # and the answer still comes: half of the connection is open
            answers.append(read_all(sock))

    with serving(handler, connections) as port, proxy(port) as slow:
        threads = [threading.Thread(target=client, args=(slow,)) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [body[::-1]] * connections


def test_a_sender_waits_for_a_reader_that_does_not_read() -> None:
    goes_on = threading.Event()
    found: list[bytes] = []

    def handler(sock: socket.socket) -> None:
        assert goes_on.wait(SECONDS)
        found.append(read_all(sock))

    with serving(handler) as port, proxy(port, window=1 << 20) as slow, connect(slow) as client:
        client.settimeout(0.5)
        sent, block = 0, os.urandom(1 << 20)
        with pytest.raises(TimeoutError):
            while sent < LIMIT:
                sent += client.send(block[sent % len(block) :])
        goes_on.set()
        client.settimeout(SECONDS)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    assert found == [(block * (LIMIT >> 20))[:sent]]


def test_a_broken_connection_breaks_after_the_data() -> None:
    def handler(sock: socket.socket) -> None:
        assert sock.recv(4) == b"ping"
        sock.sendall(b"pong")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(handler) as port, proxy(port) as slow, connect(slow) as client:
        client.sendall(b"ping")
        assert client.recv(4, socket.MSG_WAITALL) == b"pong"
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_server_that_is_not_there_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with proxy(port) as slow, connect(slow) as client, pytest.raises(ConnectionError):
        client.recv(1)
