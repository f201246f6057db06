"""A TCP proxy between client and server that damages what passes: flips a bit, cuts the connection, or stalls it."""

import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

UP, DOWN = "up", "down"  # from client to server, from server to client
CHUNK = 64 << 10
# SO_LINGER so that a close resets the connection. Without, a sender that found no room left is never told that the
# connection has ended, if all that it had sent was read: it asks for room, for 100 s, and gets no answer.
RESET = struct.pack("ii", 1, 0)


class Flip(NamedTuple):
    """Turns one bit of the byte at an offset, counted from the first byte of the connection in that direction."""

    direction: str
    offset: int
    bit: int = 0


class Cut(NamedTuple):
    """Passes on the bytes before an offset and ends the connection when there are more."""

    direction: str
    offset: int


class End(NamedTuple):
    """Ends one direction of the connection as soon as so many bytes have passed; the other goes on."""

    direction: str
    offset: int


class Stall(NamedTuple):
    """Passes on the bytes before an offset and holds the others back until ``Proxy.resume`` is set."""

    direction: str
    offset: int


Fault = Flip | Cut | End | Stall


class Proxy:
    """Accepts on ``listener``, connects on to ``target``, and moves bytes both ways, a thread for each direction.

    A connection suffers the faults at the head of ``plan``, or those in ``always`` when there is no plan.
    """

    def __init__(self, listener: socket.socket, target: tuple[str, int]) -> None:
        self.target = target
        self.plan: deque[Sequence[Fault]] = deque()
        self.always: Sequence[Fault] = ()
        self.resume = threading.Event()
        self.stalled = threading.Event()
        self.passages: list[Passage] = []
        self._listener = listener
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            faults = self.plan.popleft() if self.plan else self.always
            passage = Passage(self, client, server, faults)
            self.passages.append(passage)  # before it starts, so that whoever sees its effects also finds it here
            passage.start()

    def idle(self) -> bool:
        """Whether no connection is open any more."""
        return not any(passage.alive() for passage in self.passages)

    def close(self) -> None:
        """End all connections and threads."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._thread.join()
        self._listener.close()
        self.resume.set()
        for passage in self.passages:
            passage.close()


class Passage:
    """One connection through a proxy. ``passed`` counts the bytes handed on, by direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket, faults: Sequence[Fault]) -> None:
        self.passed = {UP: 0, DOWN: 0}
        self._proxy = proxy
        self._faults = faults
        self._ends = (client, server)
        self._left = 2
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._pump, args=arguments, daemon=True)
            for arguments in ((UP, client, server), (DOWN, server, client))
        ]
        for end in self._ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        """Begin to move bytes."""
        for thread in self._threads:
            thread.start()

    def _pump(self, direction: str, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := bytearray(source.recv(CHUNK)):
                if not self._hand_on(direction, data, source, sink):
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    self.cut()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self.cut()
        with self._lock:
            self._left -= 1
            if not self._left:
                for end in self._ends:
                    end.close()

    def _hand_on(self, direction: str, data: bytearray, source: socket.socket, sink: socket.socket) -> bool:
        """Pass bytes on with what the faults make of them; False when the connection is to be cut."""
        faults = [fault for fault in self._faults if fault.direction == direction]
        start = self.passed[direction]
        arrived = start + len(data)
        for fault in faults:
            if isinstance(fault, Flip) and start <= fault.offset < arrived:
                data[fault.offset - start] ^= 1 << fault.bit
        end = min([arrived, *(fault.offset for fault in faults if isinstance(fault, Cut | End))])
        view = memoryview(data)[: end - start]
        for fault in faults:
            if isinstance(fault, Stall) and fault.offset < end:
                before = max(0, fault.offset - start)
                sink.sendall(view[:before])
                self._wait(source)
                view = view[before:]
        sink.sendall(view)
        self.passed[direction] = end
        if any(isinstance(fault, End) and fault.offset == end for fault in faults):
            sink.shutdown(socket.SHUT_WR)
        return not any(isinstance(fault, Cut) and fault.offset < arrived for fault in faults)

    def _wait(self, source: socket.socket) -> None:
        """Hold on until the proxy goes on or the sender leaves."""
        self._proxy.stalled.set()
        poller = select.poll()
        poller.register(source.fileno(), select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        while not self._proxy.resume.wait(0.01):
            if poller.poll(0):
                raise ConnectionResetError

    def alive(self) -> bool:
        """Whether the connection, or a thread of it, is still there."""
        return any(thread.ident is None or thread.is_alive() for thread in self._threads)

    def cut(self) -> None:
        """End the connection."""
        with self._lock:
            for end in self._ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection and its threads."""
        self.cut()
        for thread in self._threads:
            thread.join()
