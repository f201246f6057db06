"""The record of a key: its size, its digest, and the digests of its blocks, by which a part can be verified.

A block is 1 MiB, or in large keys the power of two by which there are at most 128 blocks: the file systems that keep
records have about 4 KiB for them. See ``digest`` for the tree that blocks are nodes of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from struct import Struct

from s4raw.digest import DIGEST_SIZE, LEAF, Digest, digest, digest_file, fold, root
from s4raw.errors import BadRange, Corrupt
from s4raw.record import NamedTuple

MAX_BLOCKS = 128
RECORD_VERSION, XXH3_128_TREE = 2, 2
_AT_ONCE = 64 << 10  # bytes of a file that are read into new memory
_ONE_LEAF = bytes((RECORD_VERSION, XXH3_128_TREE, 0, 0))
_RECORD = Struct(f"<BBBxQ{DIGEST_SIZE}s")


def block_size(size: int) -> int:
    """How many bytes a block has in content of ``size`` bytes."""
    block = LEAF
    while block * MAX_BLOCKS < size:
        block *= 2
    return block


class Record(NamedTuple):
    """A key's size in bytes and its digest; the bytes in a block, and the blocks' digests, joined.

    Content of one leaf has no blocks: they would say the same as the digest.
    """

    size: int
    digest: bytes
    block: int = LEAF
    blocks: bytes = b""

    @classmethod
    def of(cls, state: Digest) -> Record:
        """The record of content that has been hashed."""
        return cls.of_leaves(state.size, state.leaves())

    @classmethod
    def of_file(cls, fd: int) -> Record:
        """The record of the file behind ``fd``, which is read from its start. Raises OSError."""
        size = os.fstat(fd).st_size
        if size > _AT_ONCE:
            return cls.of(digest_file(fd))
        content = os.pread(fd, size, 0)
        return cls(len(content), digest(content))

    @classmethod
    def of_leaves(cls, size: int, leaves: bytes) -> Record:
        """The record of ``size`` bytes with these leaves' digests, joined."""
        block, nodes = LEAF, leaves
        while block < block_size(size):
            block, nodes = 2 * block, fold(nodes)
        return cls(size, root(nodes), block, nodes if size > LEAF else b"")

    def encode(self) -> bytes:
        """The record as it stands on disk."""
        level = (self.block // LEAF).bit_length() - 1
        return _RECORD.pack(RECORD_VERSION, XXH3_128_TREE, level, self.size, self.digest) + self.blocks

    @classmethod
    def decode(cls, raw: bytes) -> Record:
        """Raises Corrupt for a record of another version, and for what is no record at all."""
        if small := cls.decode_small(raw):
            return cls(*small)
        if raw and raw[0] != RECORD_VERSION:
            raise Corrupt(f"the key's record has version {raw[0]}, this server knows version {RECORD_VERSION}")
        if len(raw) < _RECORD.size or raw[1] != XXH3_128_TREE:
            raise Corrupt(f"the key's record is damaged: {raw[: _RECORD.size].hex()}")
        _, _, _, size, found = _RECORD.unpack_from(raw)
        record = cls(size, found, block_size(size), raw[_RECORD.size :])
        whole = len(record.blocks) == record.block_count * DIGEST_SIZE and record.encode() == raw
        if not whole or (record.blocks and root(record.blocks) != found):
            raise Corrupt(f"the key's record is damaged: {raw[: _RECORD.size].hex()}")
        return record

    @staticmethod
    def decode_small(raw: bytes) -> tuple[int, bytes] | None:
        """Size and digest, if the record is that of at most one leaf, as nearly all are; ``decode`` says the same."""
        if len(raw) == _RECORD.size and raw[:4] == _ONE_LEAF:
            size = int.from_bytes(raw[4:12], "little")
            if size <= LEAF:
                return size, raw[12:]
        return None

    @property
    def block_count(self) -> int:
        """How many blocks have digests of their own."""
        return -(-self.size // self.block) if self.size > LEAF else 0

    def cover(self, offset: int, length: int) -> tuple[int, int]:
        """The whole blocks that hold ``length`` bytes from ``offset``, as far as the key reaches: from, to.

        Raises BadRange for a range that begins behind the key's last byte.
        """
        if offset >= self.size or length <= 0:
            raise BadRange(
                f"no byte of the key lies in the range: it has {self.size} bytes, asked were {length} from {offset}"
            )
        if not self.blocks:
            return 0, self.size
        end = min(offset + length, self.size)
        return offset // self.block * self.block, min(-(-end // self.block) * self.block, self.size)

    def between(self, start: int, end: int) -> bytes:
        """The digests of the blocks from one bound to another, joined."""
        return self.blocks[start // self.block * DIGEST_SIZE : -(-end // self.block) * DIGEST_SIZE]

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Each block between two bounds: its length in bytes, its digest."""
        if not self.blocks:
            yield end - start, self.digest
            return
        for at in range(start, end, self.block):
            yield min(self.block, end - at), self.between(at, min(at + self.block, end))
