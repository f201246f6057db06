"""The record of a key: its bytes, which blocks hold which bytes, and what is no record."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import record_of, timeless
from xxhash import xxh3_128_digest

from s4raw.blocks import MAX_BLOCKS, Record, block_size
from s4raw.digest import DIGEST_SIZE, LEAF, digest, root
from s4raw.errors import BadRange, Corrupt

SIZE = 3 * LEAF + 7
CONTENT = b"".join(bytes([index]) * LEAF for index in range(4))[:SIZE]

# Computed by another program. Version 2, digest 2 (tree of xxh3_128), level, 0, size as a u64, digest, blocks.
ONE_LEAF = bytes.fromhex("02 02 00 00 0500000000000000 000102030405060708090a0b0c0d0e0f")
FOUR_LEAVES = bytes.fromhex(
    "02 02 00 00 0700300000000000 3714fbcc417efd5a03b7d6683a0151fb"
    "b6ef17a3448492b6918780b90550bf34 2977377b2d8a08f07c5fb4c84161a508"
    "e73e3fe5d3ee6686f5cc24602049b29d 68efb27a25ced1db64f0ef4a583c266d"
)
LARGE = [  # so many leaves; the record's first 28 bytes; how many it has; the SHA-256 of them
    (
        128,
        "02 02 00 00 fbffff0700000000 b7a2c622dc6d75464b0f143fdb55b66d",
        28 + 128 * 16,
        "37779389ad303c528191d524c30af1fa3d0736d689e0ab3263c22cf1e9cc0a09",
    ),
    (
        129,
        "02 02 01 00 fbff0f0800000000 110e3f14d0c3bfe1616f55563c85720a",
        28 + 65 * 16,
        "16280590177b4a690d5cbb69bff618e39dcea26d5d38351dca404f5fbd685524",
    ),
    (
        300,
        "02 02 02 00 fbffbf1200000000 c6c05b44ab94468a9d8be785c0e12581",
        28 + 75 * 16,
        "e5cfa97f7732271c60d9e438f53eb86a7129e699517d8a0af8fe42dbe1ef3039",
    ),
]


def large(count: int) -> Record:
    """The record of content that nobody has, only its leaves."""
    leaves = b"".join(xxh3_128_digest(bytes([index & 255, index >> 8])) for index in range(count))
    return Record.of_leaves(count * LEAF - 5, leaves)


RECORDS = {"one leaf": ONE_LEAF, "four leaves": FOUR_LEAVES, "large blocks": large(129).encode()}
each_record = pytest.mark.parametrize("raw", RECORDS.values(), ids=RECORDS)


def test_the_record_has_the_bytes_it_always_had():
    assert Record(5, bytes(range(16))).encode() == ONE_LEAF
    assert record_of(CONTENT).encode() == FOUR_LEAVES
    assert record_of(CONTENT[:-1]).encode() != FOUR_LEAVES


@pytest.mark.parametrize(("count", "head", "length", "whole"), LARGE)
def test_the_record_of_a_large_key_has_the_bytes_it_always_had(count, head, length, whole):
    raw = large(count).encode()
    assert (raw[:28].hex(), len(raw), sha256(raw).hexdigest()) == (bytes.fromhex(head).hex(), length, whole)
    assert Record.decode(raw) == large(count)


@each_record
def test_a_record_is_read_as_it_was_written(raw):
    record = Record.decode(raw)
    assert record.encode() == raw
    assert len(record.blocks) == record.block_count * DIGEST_SIZE
    assert not record.blocks or root(record.blocks) == record.digest


@given(st.integers(1, 1 << 50))
def test_there_are_at_most_128_blocks_and_no_fewer_than_need_be(size):
    block = block_size(size)
    assert -(-size // block) <= MAX_BLOCKS == 128
    assert block == LEAF or -(-size // (block // 2)) > MAX_BLOCKS


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\1" + ONE_LEAF[1:], "record has version 1, this server knows version 2"),
        (b"\0" + ONE_LEAF[1:], "record has version 0"),
        (b"\xff", "record has version 255"),
        (b"", "record is damaged"),
        (b"\2", "record is damaged"),
        (b"\2\1" + ONE_LEAF[2:], "record is damaged"),
        (b"\2\0" + ONE_LEAF[2:], "record is damaged"),
        (b"\2\2\1" + ONE_LEAF[3:], "record is damaged"),
        (b"\2\2\xff" + ONE_LEAF[3:], "record is damaged"),
        (b"\2\2\0\1" + ONE_LEAF[4:], "record is damaged"),
        (ONE_LEAF + bytes(range(16)), "record is damaged"),
        (FOUR_LEAVES[:28], "record is damaged"),
        (FOUR_LEAVES[:-16], "record is damaged"),
        (FOUR_LEAVES + bytes(16), "record is damaged"),
        (FOUR_LEAVES[:28] + FOUR_LEAVES[44:] + FOUR_LEAVES[28:44], "record is damaged"),
        (ONE_LEAF[:4] + b"\xff" * 8 + ONE_LEAF[12:], "record is damaged"),
    ],
)
def test_what_is_no_record_is_told(raw, message):
    with pytest.raises(Corrupt, match=message) as caught:
        Record.decode(raw)
    assert len(str(caught.value)) < 200


@each_record
def test_a_record_that_was_cut_or_has_something_behind_it_is_told(raw):
    for wrong in [raw[:cut] for cut in range(0, len(raw), 5)] + [raw + b"\0"]:
        with pytest.raises(Corrupt):
            Record.decode(wrong)


@each_record
def test_a_flipped_bit_in_a_record_is_told_unless_the_file_tells(raw):
    """The file tells its size; and if it has one leaf, reading it tells that the digest is not its."""
    true = Record.decode(raw)
    for at in range(len(raw)):
        for bit in range(8):
            wrong = bytearray(raw)
            wrong[at] ^= 1 << bit
            try:
                found = Record.decode(bytes(wrong))
            except Corrupt:
                continue
            assert found.size != true.size or (not true.blocks and found.digest != true.digest)
            assert found.encode() == wrong


# Parts


def naive_cover(record: Record, offset: int, length: int) -> tuple[int, int]:
    """The blocks that hold a byte of the range, one by one."""
    blocks = [(at, min(at + record.block, record.size)) for at in range(0, record.size, record.block)]
    if record.size <= LEAF:
        blocks = [(0, record.size)]
    held = [block for block in blocks if block[0] < offset + length and offset < block[1]]
    return held[0][0], held[-1][1]


bounds = st.sampled_from([0, 1, LEAF - 1, LEAF, LEAF + 1, 2 * LEAF, 3 * LEAF - 1, 3 * LEAF, SIZE - 1, SIZE, 1 << 62])


@timeless
@given(st.sampled_from([5, LEAF, LEAF + 1, SIZE, 129 * LEAF, 300 * LEAF - 5]), bounds, bounds | st.integers(1, 1 << 30))
def test_a_range_is_covered_by_the_blocks_that_hold_a_byte_of_it(size, offset, length):
    leaves = bytes(DIGEST_SIZE * -(-size // LEAF))
    record = Record.of_leaves(size, leaves)
    if offset >= size or not length:
        with pytest.raises(BadRange, match=f"it has {size} bytes, asked were {length} from {offset}"):
            record.cover(offset, length)
        return
    start, end = record.cover(offset, length)
    assert (start, end) == naive_cover(record, offset, length)
    assert sum(length for length, _ in record.pieces(start, end)) == end - start
    assert b"".join(digest for _, digest in record.pieces(start, end)) == (record.between(start, end) or record.digest)


def test_each_block_can_be_verified_on_its_own():
    record = record_of(CONTENT)
    for start in range(0, SIZE, LEAF):
        at = start
        for length, expected in record.pieces(start, SIZE):
            assert digest(CONTENT[at : at + length]) == expected
            at += length
        assert at == SIZE


def test_content_of_one_leaf_is_one_block_whatever_part_of_it_is_asked_for():
    record = Record(LEAF, b"d" * DIGEST_SIZE)
    assert record.cover(5, 1) == (0, LEAF)
    assert list(record.pieces(0, LEAF)) == [(LEAF, record.digest)]
    assert not record.between(0, LEAF)


@pytest.mark.parametrize("length", [0, -1])
def test_no_byte_lies_in_an_empty_range(length):
    with pytest.raises(BadRange):
        record_of(CONTENT).cover(0, length)
    with pytest.raises(BadRange):
        record_of(b"").cover(0, 1)
