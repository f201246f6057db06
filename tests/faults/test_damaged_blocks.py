"""A block of a stored file, or of its record, that was damaged: only what touches it fails."""

import os
import random

import pytest
from fault_ring import fault_ring

from s4raw.digest import LEAF
from s4raw.errors import Corrupt, S4Error
from s4raw.store import RECORD_ATTRIBUTE

KEY = "s4://b/dir/k"
SIZE = 4 * LEAF + 9
BODY = random.Random(9).randbytes(SIZE)
DAMAGED = 2  # the block


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("blocks")) as ring:
        yield ring


@pytest.fixture
def client(ring):
    with ring.client() as client:
        yield client


@pytest.fixture
def stored(ring, client):
    """The file of a stored key, open for writing."""
    client.remove_all("s4://b/")
    client.put(KEY, BODY)
    path = ring.stored_file(KEY)
    path.chmod(0o644)
    return path


@pytest.fixture
def damaged(stored):
    """The same, with one bit flipped in a block."""
    offset = DAMAGED * LEAF + LEAF // 2
    with stored.open("r+b") as file:
        os.pwrite(file.fileno(), bytes([BODY[offset] ^ 1]), offset)
    return stored


BEFORE, BEHIND = DAMAGED * LEAF, (DAMAGED + 1) * LEAF


@pytest.mark.parametrize(
    ("offset", "length"), [(0, BEFORE), (BEFORE - 1, 1), (BEHIND, 1), (BEHIND, SIZE), (SIZE - 1, 5), (5, 10)]
)
def test_a_range_that_does_not_touch_a_damaged_block_is_read(client, damaged, offset, length):
    assert client.get_range(KEY, offset, length) == BODY[offset : offset + length]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE), (BEFORE - 1, 2), (BEFORE, 1), (BEHIND - 1, 1), (BEHIND - 1, SIZE), (0, 1 << 60)]
)
def test_a_range_that_touches_a_damaged_block_is_refused(ring, client, damaged, offset, length):
    with pytest.raises(Corrupt) as caught:
        client.get_range(KEY, offset, length)
    assert (caught.value.key, caught.value.server) == (KEY, ring.servers[0])


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("resume", [False, True])
def test_a_key_with_a_damaged_block_does_not_come_down(client, damaged, tmp_path, monkeypatch, connections, resume):
    monkeypatch.setattr("s4raw.download.PART", LEAF)
    with pytest.raises(Corrupt):
        client.get_file(KEY, str(tmp_path / "here"), connections=connections, resume=resume)
    assert not (tmp_path / "here").exists()
    assert (tmp_path / "here .part").exists() == resume
    with pytest.raises(Corrupt):
        client.get(KEY)
    if resume:  # what is whole is kept, for when the key is
        client.remove(KEY)
        client.put(KEY, BODY)
        client.get_file(KEY, str(tmp_path / "here"), resume=True)
        assert (tmp_path / "here").read_bytes() == BODY


RECORD = 28 + 5 * 16
CHANGES = {
    "the first block's digest": 28,
    "a block's digest": 28 + DAMAGED * 16 + 7,
    "the last block's digest": RECORD - 1,
    "the key's digest": 12,
    "the level": 2,
}


@pytest.mark.parametrize("offset", CHANGES.values(), ids=CHANGES)
def test_a_damaged_list_of_blocks_fails_every_read_and_no_delete(ring, client, stored, tmp_path, offset):
    raw = bytearray(os.getxattr(stored, RECORD_ATTRIBUTE))
    assert len(raw) == RECORD
    raw[offset] ^= 1
    os.setxattr(stored, RECORD_ATTRIBUTE, bytes(raw))
    for read in (
        lambda: client.get(KEY),
        lambda: client.get_range(KEY, 5, 1),
        lambda: client.stat(KEY),
        lambda: client.get_file(KEY, str(tmp_path / "here"), resume=True),
        lambda: client.map("s4://b/dir/", "s4://b/out/", "cat"),
    ):
        with pytest.raises(S4Error) as caught:
            read()
        assert isinstance(caught.value, Corrupt) and "the key's record is damaged" in caught.value.message
        assert (caught.value.key, caught.value.server) == (KEY, ring.servers[0])
    assert os.listdir(tmp_path) == []
    client.remove(KEY)
    client.put(KEY, BODY)
    assert client.get(KEY) == BODY
