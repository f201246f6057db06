"""Streaming digests: xxh3 of 128 bits over buffers and files. Nothing here knows about keys or sockets."""

from __future__ import annotations

import os

from xxhash import xxh3_64_intdigest, xxh3_128

from s4raw.errors import Corrupt

DIGEST_SIZE = 16
BUFFER_SIZE = 1 << 20

Digest = xxh3_128
Buffer = bytes | bytearray | memoryview


def digest(data: Buffer) -> bytes:
    """The 16-byte digest of ``data`` (canonical, big-endian xxh3_128)."""
    return xxh3_128(data).digest()


def checksum(data: Buffer) -> int:
    """A checksum of 32 bits: the low half of xxh3_64."""
    return xxh3_64_intdigest(data) & 0xFFFFFFFF


def digest_file(fd: int) -> tuple[int, bytes]:
    """Read the file behind ``fd`` from its start; returns its size in bytes and its digest.

    Reads with ``preadv`` into one buffer, so the file's position does not move.
    """
    buffer = memoryview(bytearray(min(BUFFER_SIZE, os.fstat(fd).st_size + 1)))
    state = Digest()
    size = 0
    while count := os.preadv(fd, [buffer], size):
        state.update(buffer[:count])
        size += count
    return size, state.digest()


def verify(what: str, found: bytes, expected: bytes, *, server: str = "", key: str = "") -> None:
    """Raise Corrupt, naming both digests, unless they are equal."""
    if found != expected:
        raise Corrupt(
            f"digest mismatch: {what} hashes to {found.hex()}, recorded is {expected.hex()}", server=server, key=key
        )
