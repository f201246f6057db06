"""Digests of buffers and of files."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import timeless
from xxhash import xxh3_128_digest

from s4raw.digest import DIGEST_SIZE, LEAF, Digest, digest, digest_file, fold, root, verify
from s4raw.errors import Corrupt


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "99aa06d3014798d86001c324468d497f"),
        (b"a", "a96faf705af16834e6c632b61e964e1f"),
        (b"s4raw", "aed88a0109047aa4b025cac915f3cd1a"),
        (bytes(1 << 20), "b6ef17a3448492b6918780b90550bf34"),
    ],
)
def test_the_digest_is_canonical_xxh3_128(data, found):
    assert digest(data).hex() == found
    assert digest(memoryview(bytearray(data))) == digest(data)
    assert len(digest(data)) == DIGEST_SIZE


RANDOM = random.Random(1).randbytes(6 * LEAF)


def naive(nodes: list[bytes]) -> bytes:
    """The tree from its top: the left half is the largest power of two that leaves something for the right."""
    if len(nodes) == 1:
        return nodes[0]
    half = 1 << (len(nodes) - 1).bit_length() - 1
    return xxh3_128_digest(naive(nodes[:half]) + naive(nodes[half:]))


def leaves_of(data: bytes) -> list[bytes]:
    return [xxh3_128_digest(data[at : at + LEAF]) for at in range(0, max(1, len(data)), LEAF)]


@pytest.mark.parametrize(
    ("size", "found"), [(LEAF + 1, "c24faaadb87595422c7eb4b70897be08"), (5 * LEAF, "b6d314af63f0cd391601efcdd6f55a16")]
)
def test_the_digest_of_what_is_longer_than_a_leaf_is_what_it_always_was(size, found):
    assert digest(bytes(size)).hex() == found


sizes = st.builds(lambda leaves, more: max(0, leaves * LEAF + more), st.integers(0, 5), st.integers(-2, 2))


@timeless
@given(sizes, st.lists(sizes | st.integers(1, LEAF), min_size=1, max_size=4))
def test_the_digest_is_a_tree_of_leaves_however_the_bytes_come(size, pieces):
    data, state, turn = memoryview(RANDOM)[:size], Digest(), 0
    while state.size < size:
        state.update(data[state.size : state.size + max(1000, pieces[turn % len(pieces)])])
        turn += 1
    assert state.leaves() == b"".join(leaves_of(bytes(data)))
    assert state.digest() == digest(data) == naive(leaves_of(bytes(data)))


def test_a_digest_can_be_asked_for_at_any_time():
    state = Digest()
    for at in range(0, 3 * LEAF, LEAF // 2):
        assert state.digest() == digest(RANDOM[:at])
        state.update(RANDOM[at : at + LEAF // 2])


@pytest.mark.parametrize("count", [*range(1, 18), 127, 128, 129, 1000])
def test_an_aligned_run_of_2_to_the_n_leaves_is_a_node_of_the_tree(count):
    nodes = [xxh3_128_digest(bytes([index & 255, index >> 8])) for index in range(count)]
    level, width = b"".join(nodes), 1
    while True:
        runs = [nodes[at : at + width] for at in range(0, count, width)]
        assert level == b"".join(map(naive, runs))
        assert root(level) == naive(nodes)
        if len(runs) == 1:
            return
        level, width = fold(level), 2 * width


def test_a_part_of_a_file_has_the_digest_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(RANDOM[: 2 * LEAF + 9])
    with (tmp_path / "file").open("rb") as file:
        for start, end in [(0, 0), (1, 2), (LEAF, 2 * LEAF), (5, 2 * LEAF + 9), (LEAF, None), (2 * LEAF, 4 * LEAF)]:
            assert digest_file(file.fileno(), start, end).digest() == digest(RANDOM[: 2 * LEAF + 9][start:end])


@pytest.mark.parametrize("size", [0, 1, LEAF - 1, LEAF, LEAF + 1, 3 * LEAF + 7])
def test_a_file_has_the_digest_of_its_bytes(tmp_path, size):
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        file.seek(size // 2)
        found = digest_file(file.fileno())
        assert (found.size, found.digest()) == (size, digest(data))
        assert file.tell() == size // 2


def test_a_mismatch_names_both_digests_and_where_it_was():
    verify("it", b"\x01", b"\x01")
    with pytest.raises(Corrupt, match=r"it hashes to 01, recorded is 02 \(key s4://b/k, server a:1\)"):
        verify("it", b"\x01", b"\x02", server="a:1", key="s4://b/k")
