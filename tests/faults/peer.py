"""A peer that says what it likes: bytes out, frames in."""

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from s4raw import wire
from s4raw.digest import checksum
from s4raw.errors import S4Error
from s4raw.ring import Topology, split_address

NONCE = bytes(range(32))
HEAD = struct.Struct("<4sBBHIIQ")  # magic, version, opcode, flags, request, header length, body length
PATIENCE = 20.0  # seconds without a byte that is owed


class Peer:
    """One end of a connection. Reads until it has a frame; a frame's body is read with it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(PATIENCE)
        self._decoder = wire.Decoder()
        self.body = b""

    @classmethod
    def connect(cls, server: str) -> "Peer":
        """A client that has not said anything yet."""
        return cls(socket.create_connection(split_address(server), PATIENCE))

    @classmethod
    def greeted(cls, server: str, topology: Topology) -> "Peer":
        """A client that has shaken hands (with a server that has no secret)."""
        peer = cls.connect(server)
        peer.send(hello(topology))
        frame = peer.frame()
        assert frame is not None and frame.opcode == wire.HELLO
        return peer

    def send(self, *parts: bytes) -> None:
        """Send bytes."""
        self._sock.sendall(b"".join(parts))

    def frame(self) -> wire.Frame | None:
        """The next frame, its body in ``body``; None at the end of the connection."""
        while (frame := self._decoder.next_frame()) is None:
            if not self._receive():
                return None
        self.body = b""
        while self._decoder.body_left:
            self.body += self._decoder.take(self._decoder.body_left)
            if self._decoder.body_left and not self._receive():
                return None
        return frame

    def _receive(self) -> bool:
        try:
            data = self._sock.recv(64 << 10)
        except ConnectionResetError:
            return False
        self._decoder.feed(data)
        return bool(data)

    def readable(self) -> bool:
        """Whether something, or the end, has come."""
        return bool(select.select([self._sock], [], [], 0)[0])

    def error(self) -> S4Error:
        """The error in the next frame."""
        frame = self.frame()
        assert frame is not None, "the connection ended without a word"
        assert frame.opcode == wire.ERROR, wire.name_of(frame.opcode)
        return wire.decode_error(frame)

    def frames(self) -> Iterator[wire.Frame]:
        """All frames to the end of the connection."""
        while (frame := self.frame()) is not None:
            yield frame

    def end(self) -> None:
        """Say that nothing more will come."""
        with suppress(OSError):  # the other end may have closed already
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hello(topology: Topology, **fields: wire.Value) -> bytes:
    """A client's HELLO, with some fields of its own."""
    given = {"ring": topology.digest, "servers": topology.describe(), "nonce": NONCE, "features": 0}
    return wire.encode(wire.HELLO, **given | fields)


def sealed(head: bytes, header: bytes = b"") -> bytes:
    """A head and a header, of any content, with the checksum that belongs to them."""
    return head + struct.pack("<I", checksum(head + header)) + header


def claim(opcode: int, header: int = 0, body: int = 0, flags: int = 0) -> bytes:
    """The head of a frame that claims these lengths; whatever they are, nothing follows."""
    return sealed(HEAD.pack(wire.MAGIC, wire.VERSION, opcode, flags, 1, header, body))
