"""Ranges of keys, and keys that go up and down over several connections, or on from where they stopped."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s4raw import download, upload
from s4raw.digest import LEAF
from s4raw.errors import BadRange, Corrupt, KeyExists, LocalFileError, NoSuchKey

KEY = "s4://b/dir/k"
SIZE = 3 * LEAF + 7
CONTENT = random.Random(7).randbytes(5 * LEAF)
SIZES = [0, 1, 256 << 10, (256 << 10) + 1, LEAF, LEAF + 1, SIZE]

several = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
near = st.builds(lambda leaves, more: max(0, leaves * LEAF + more), st.integers(0, 4), st.integers(-2, 9))


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of one leaf, so that a few MiB are several."""
    monkeypatch.setattr(download, "PART", LEAF)
    monkeypatch.setattr(upload, "PART", LEAF)


def uploads(ring) -> list[str]:
    """The uploads that lie on the servers' disks."""
    return [str(path) for index in range(ring.count) for path in Path(ring.data, str(index)).glob("_uploads/*")]


# Ranges


@pytest.mark.parametrize("size", [1, LEAF, SIZE])
def test_a_range_is_what_a_slice_would_be(client, size):
    client.put(KEY, CONTENT[:size])

    @several
    @given(near, near | st.integers(1, SIZE) | st.just(1 << 70))
    def check(offset, length):
        if offset < size and length:
            assert client.get_range(KEY, offset, length) == CONTENT[:size][offset : offset + length]
        else:
            with pytest.raises(BadRange) as caught:
                client.get_range(KEY, offset, length)
            assert caught.value.key == KEY

    check()


@pytest.mark.parametrize(("offset", "length"), [(-1, 5), (0, 0), (0, -1), (5, 5), (1 << 70, 1)])
def test_a_range_without_a_byte_is_refused(client, offset, length):
    client.put(KEY, b"hello")
    with pytest.raises(BadRange) as caught:
        client.get_range(KEY, offset, length)
    assert caught.value.key == KEY
    assert client.get_range(KEY, 4, 1 << 70) == b"o"


def test_no_range_lies_in_an_empty_key_and_none_in_a_missing_one(client):
    client.put(KEY, b"")
    with pytest.raises(BadRange, match="it has 0 bytes"):
        client.get_range(KEY, 0, 1)
    with pytest.raises(NoSuchKey):
        client.get_range("s4://b/missing", 0, 1)


def test_a_range_of_a_key_whose_blocks_are_larger_and_the_key_itself(client, tmp_path):
    size, block = 129 * LEAF + 5, 2 * LEAF
    with (tmp_path / "file").open("wb") as file:
        for number in range(129):
            file.write(number.to_bytes(4, "little") + CONTENT[4:LEAF])
        file.write(b"12345")
    assert client.put_file(KEY, str(tmp_path / "file"), connections=2) == size
    for offset, length in [(block - 2, 4), (64 * block - 1, 1 << 24), (5, 1), (64 * block + LEAF, 9)]:
        with (tmp_path / "file").open("rb") as file:
            file.seek(offset)
            assert client.get_range(KEY, offset, length) == file.read(length)
    with (tmp_path / "file").open("r+b") as file:  # as if it were what an earlier attempt had left
        os.pwrite(file.fileno(), b"damaged", 77 * LEAF)
    (tmp_path / "file").rename(tmp_path / "here .part")
    moved: list[int] = []
    client.get_file(KEY, str(tmp_path / "here"), moved.append, connections=2, resume=True)
    assert sum(moved) == size
    assert client.put_file("s4://b/again", str(tmp_path / "here")) == size
    assert client.stat("s4://b/again").digest == client.stat(KEY).digest


# Several connections


@pytest.mark.parametrize("connections", [1, 2, 3, 4])
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_file_goes_up_and_comes_down_over_any_number_of_connections(
    ring, client, tmp_path, small_parts, size, resume, connections
):
    (tmp_path / "file").write_bytes(CONTENT[:size])
    moved: list[int] = []
    assert client.put_file(KEY, str(tmp_path / "file"), moved.append, connections, resume) == size
    assert client.get(KEY) == CONTENT[:size]
    assert client.get_file(KEY, str(tmp_path / "back"), moved.append, connections, resume) == size
    assert (tmp_path / "back").read_bytes() == CONTENT[:size]
    assert sum(moved) == 2 * size
    assert uploads(ring) == []
    assert sorted(os.listdir(tmp_path)) == ["back", "file"]


def test_a_key_that_exists_is_refused_before_anything_is_sent(ring, client, tmp_path, small_parts):
    client.put(KEY, b"first")
    (tmp_path / "file").write_bytes(CONTENT[:SIZE])
    for resume in (False, True):
        moved: list[int] = []
        with pytest.raises(KeyExists) as caught:
            client.put_file(KEY, str(tmp_path / "file"), moved.append, 2, resume)
        assert (caught.value.key, caught.value.server) == (KEY, client.topology.place_basename("k"))
        assert not moved
    assert client.get(KEY) == b"first"
    assert uploads(ring) == []


# On from where it stopped


@pytest.mark.parametrize("size", [5, SIZE])
def test_an_upload_that_is_resumed_although_it_was_done_is_done(ring, client, tmp_path, size):
    (tmp_path / "file").write_bytes(CONTENT[:size])
    client.put(KEY, CONTENT[:size])
    assert client.put_file(KEY, str(tmp_path / "file"), resume=True) == size
    with pytest.raises(KeyExists):
        client.put_file(KEY, str(tmp_path / "file"))
    assert uploads(ring) == []


PARTS = {
    "nothing": b"",
    "a part of a block": CONTENT[:1000],
    "some blocks": CONTENT[: 2 * LEAF],
    "a damaged block": CONTENT[:1000] + b"!" + CONTENT[1001:SIZE],
    "a hole": CONTENT[:LEAF] + bytes(LEAF) + CONTENT[2 * LEAF : SIZE],
    "all": CONTENT[:SIZE],
    "more": CONTENT,
    "another content": CONTENT[::-1],
}


@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("there", PARTS.values(), ids=PARTS)
def test_a_download_goes_on_from_whatever_is_there(client, tmp_path, small_parts, there, connections):
    client.put(KEY, CONTENT[:SIZE])
    (tmp_path / "here .part").write_bytes(there)
    moved: list[int] = []
    assert client.get_file(KEY, str(tmp_path / "here"), moved.append, connections, resume=True) == SIZE
    assert (tmp_path / "here").read_bytes() == CONTENT[:SIZE]
    assert sum(moved) == SIZE
    assert os.listdir(tmp_path) == ["here"]


@pytest.mark.parametrize("size", [0, 5, LEAF])
def test_a_part_file_of_another_key_does_not_show_in_a_small_one(client, tmp_path, size):
    client.put(KEY, CONTENT[:size])
    (tmp_path / "here .part").write_bytes(CONTENT[::-1])
    assert client.get_file(KEY, str(tmp_path / "here"), resume=True) == size
    assert (tmp_path / "here").read_bytes() == CONTENT[:size]


def test_a_resumed_download_that_fails_at_once_leaves_no_empty_file(client, tmp_path):
    with pytest.raises(NoSuchKey):
        client.get_file("s4://b/missing", str(tmp_path / "here"), resume=True)
    assert os.listdir(tmp_path) == []
    (tmp_path / "here .part").write_bytes(b"some")
    with pytest.raises(NoSuchKey):
        client.get_file("s4://b/missing", str(tmp_path / "here"), resume=True)
    assert (tmp_path / "here .part").read_bytes() == b"some"


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_shrinks_while_it_is_sent_publishes_nothing(ring, client, tmp_path, small_parts, resume):
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:SIZE])
    with pytest.raises((LocalFileError, Corrupt)):  # which, depends on whether the bytes had left when it shrank
        client.put_file(KEY, str(path), lambda _: os.truncate(path, LEAF), 2, resume)
    with pytest.raises(NoSuchKey):
        client.stat(KEY)
    assert bool(uploads(ring)) == resume
