"""Digests of buffers and of files."""

import os

import pytest

from s4raw.digest import DIGEST_SIZE, LEAF, digest, digest_file, verify
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
