"""Digests: a tree of xxh3 of 128 bits over bytes and files. Nothing here knows about keys or sockets.

Content is cut into leaves of 1 MiB (the last may be shorter). A leaf's digest is its xxh3_128; two neighbours' digests,
joined, are hashed into one of the next level, an odd one at the end rises as it is, and the last one left is the
content's digest. So content of up to 1 MiB has its plain xxh3_128, and any aligned block of 2^n leaves can be verified
without the rest: its digest, as content of its own, is a node of the tree.
"""

from __future__ import annotations

import os

from xxhash import xxh3_64_intdigest, xxh3_128, xxh3_128_digest

from s4raw.errors import Corrupt

DIGEST_SIZE = 16
LEAF = 1 << 20  # bytes; also a good size for a buffer: it stays in the L2 cache while it is hashed and written

Buffer = bytes | bytearray | memoryview


def room(size: int = LEAF) -> memoryview:
    """New memory for bytes that are read from a file or a socket.

    It begins 64 bytes into a page. Large memory that Python asks for begins 16 bytes into one, and what the kernel
    copies there from the start of a page comes half as fast: on many processors a load waits for the store before it if
    their addresses are the same but for the number of the page.
    """
    return memoryview(bytearray(size + 48))[48:]


class Digest:
    """The digest of content that comes in pieces. ``size`` is how many bytes have come."""

    __slots__ = ("_filled", "_leaf", "_leaves", "size")

    def __init__(self) -> None:
        self.size = 0
        self._leaves = bytearray()
        self._leaf = xxh3_128()
        self._filled = 0

    def update(self, data: Buffer) -> None:
        """The next bytes of the content."""
        count = len(data)
        self.size += count
        if count <= LEAF - self._filled:  # as nearly always
            self._add(data, count)
            return
        view = memoryview(data)
        while view:
            part = view[: LEAF - self._filled]
            self._add(part, len(part))
            view = view[len(part) :]

    def _add(self, data: Buffer, count: int) -> None:
        self._leaf.update(data)
        self._filled += count
        if self._filled == LEAF:
            self._leaves += self._leaf.digest()
            self._leaf.reset()
            self._filled = 0

    def leaves(self) -> bytes:
        """The digests of all leaves, joined; content without a byte has one."""
        if self._filled or not self._leaves:
            return bytes(self._leaves) + self._leaf.digest()
        return bytes(self._leaves)

    def digest(self) -> bytes:
        """The digest of what has come so far."""
        return root(self.leaves())


def digest(data: Buffer) -> bytes:
    """The 16-byte digest of ``data``."""
    if len(data) <= LEAF:
        return xxh3_128_digest(data)
    state = Digest()
    state.update(data)
    return state.digest()


def fold(nodes: bytes) -> bytes:
    """One level of the tree from the level below: both are digests, joined."""
    pair = 2 * DIGEST_SIZE
    whole = len(nodes) // pair * pair
    return b"".join([xxh3_128_digest(nodes[at : at + pair]) for at in range(0, whole, pair)]) + nodes[whole:]


def root(nodes: bytes) -> bytes:
    """The digest at the top of the tree, from any level of it."""
    while len(nodes) > DIGEST_SIZE:
        nodes = fold(nodes)
    return nodes


def checksum(data: Buffer) -> int:
    """A checksum of 32 bits: the low half of xxh3_64."""
    return xxh3_64_intdigest(data) & 0xFFFFFFFF


def digest_file(fd: int, start: int = 0, end: int | None = None) -> Digest:
    """Read the file behind ``fd`` from ``start`` to ``end``, or to its end.

    Reads with ``preadv`` into one buffer, so the file's position does not move.
    """
    end = os.fstat(fd).st_size if end is None else end
    buffer = room(min(LEAF, max(0, end - start)))
    state = Digest()
    while start + state.size < end and (
        count := os.preadv(fd, [buffer[: end - start - state.size]], start + state.size)
    ):
        state.update(buffer[:count])
    return state


def verify(what: str, found: bytes, expected: bytes, *, server: str = "", key: str = "") -> None:
    """Raise Corrupt, naming both digests, unless they are equal."""
    if found != expected:
        raise Corrupt(
            f"digest mismatch: {what} hashes to {found.hex()}, recorded is {expected.hex()}", server=server, key=key
        )
