"""Keys on disk, one process at a time: what is stored, what is refused, and how damage is told."""

import os
import resource
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from nasty import NAMES
from support import entries, get, left_over, names, opened, put, record_of, run_task

from s4raw.digest import digest
from s4raw.errors import BadKey, Corrupt, KeyExists, NoSuchKey, S4Error, StoreError
from s4raw.keys import Key
from s4raw.running import MAX_DESCRIPTORS
from s4raw.store import RECORD_ATTRIBUTE, Store

KEY = Key("b", "dir/k")
CONTENT = b"the content of a key"
ONE_LEAF = record_of(b"01234").encode()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "data") as found:
        yield found


def stored_file(store: Store, key: Key = KEY) -> Path:
    """The file of a key that is put for it, made writable."""
    put(store, key, CONTENT)
    path = Path(store.path(key))
    path.chmod(0o644)
    return path


# Putting and getting


@pytest.mark.parametrize("size", [0, 1, 4096, (64 << 10) + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_key_is_stored_byte_exact(store, size):
    content = os.urandom(size)
    put(store, KEY, content)
    assert get(store, KEY) == content
    assert [entry[:2] for entry in entries(store, "dir/")] == [("dir/k", size)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 100, 101])
def test_a_small_key_is_read_in_one_go_or_left_to_open(store, name, size):
    key, content = Key("b", name), os.urandom(size)
    put(store, key, content)
    found = store.read_small(key, 100)
    stored = store.open(key)
    os.close(stored.fd)
    assert found in (None, (content, stored.record.digest, stored.mtime_ns))
    assert size <= 100 or found is None


def test_a_small_ordinary_key_is_read_in_one_go(store):
    put(store, KEY, CONTENT)
    assert store.read_small(KEY, 100)[:2] == (CONTENT, digest(CONTENT))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(CONTENT + b"more"),
        lambda path: path.write_bytes(CONTENT[:-1]),
        lambda path: os.setxattr(path, RECORD_ATTRIBUTE, b"\x09" + ONE_LEAF[1:]),
        lambda path: os.removexattr(path, RECORD_ATTRIBUTE),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    ],
    ids=["longer", "shorter", "version", "no record", "gone", "directory", "symlink"],
)
def test_what_is_wrong_with_a_small_key_is_left_to_open(store, damage):
    damage(stored_file(store))
    assert store.read_small(KEY, 1000) is None


def test_a_key_is_an_ordinary_read_only_file_that_commands_can_open(store, tmp_path):
    put(store, KEY, CONTENT)
    path = tmp_path / "data" / "b" / "dir" / "k"
    assert store.path(KEY) == str(path)
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.stat().st_nlink == 1


def test_a_key_is_never_replaced(store):
    put(store, KEY, CONTENT)
    for other in (b"another", CONTENT):
        with pytest.raises(KeyExists) as caught:
            put(store, KEY, other)
        assert caught.value.key == str(KEY)
    assert get(store, KEY) == CONTENT


def test_a_key_can_be_put_again_once_it_is_deleted(store):
    for content in (b"one", b"two"):
        put(store, KEY, content)
        assert get(store, KEY) == content
        store.remove(KEY)
        with pytest.raises(NoSuchKey):
            store.open(KEY)


@pytest.mark.parametrize("name", NAMES)
def test_a_nasty_key_is_a_key_like_any_other(store, tmp_path, name):
    key = Key("b", name)
    for _ in range(2):
        put(store, key, CONTENT)
        assert get(store, key) == CONTENT
        assert names(store) == [name]
        assert Path(store.path(key)).resolve().is_relative_to(tmp_path / "data" / "b")
        store.remove(key)
        assert not store.exists(key)
        assert sorted(os.listdir(tmp_path / "data")) == ["_drafts", "_format", "_lock", "_removals", "_tmp"]


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many descriptors as a server allows itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, MAX_DESCRIPTORS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("name", ["/" * 1024, "a/" * 511 + "a", "%/" * 511 + "%"])
def test_a_key_may_be_as_deep_as_it_is_long(store, many_descriptors, name):
    key = Key("b", name)
    put(store, key, CONTENT)
    try:
        assert get(store, key) == CONTENT
        assert names(store) == names(store, prefix=name[:700]) == [name]
        assert [entry.name for entry in store.buckets()] == ["b"]
        store.remove(key)
        assert names(store) == []
    finally:  # nothing in Python removes so deep a tree
        subprocess.run(["rm", "-rf", f"{store.data.path}/b"], check=True)


def test_a_draft_that_is_not_published_leaves_nothing(store, tmp_path):
    with pytest.raises(KeyError), store.draft() as fd:
        os.write(fd, CONTENT)
        raise KeyError
    assert not left_over(tmp_path / "data")
    assert list(store.buckets()) == []


def test_a_file_is_published_with_the_digest_of_its_bytes(store):
    with store.draft() as fd:
        os.write(fd, CONTENT)
        assert store.publish_file(fd, KEY) == record_of(CONTENT)
    assert get(store, KEY) == CONTENT


@pytest.mark.parametrize(
    "key",
    [
        *(Key("b", ""), Key("", "k"), Key("_tmp", "k"), Key("..", "k"), Key(".", "k"), Key("a/b", "k"), Key("/", "k")),
        *(Key("b", "k\0"), Key("b\0", "k"), Key("b", "k" * 1025), Key("b" * 256, "k"), Key("b", "\udcff")),
    ],
)
def test_what_is_no_key_is_refused_everywhere(store, key):
    with store.draft() as fd:
        uses = [
            lambda: store.publish(fd, key, record_of(b"")),
            lambda: store.open(key),
            lambda: store.path(key),
        ]
        uses += [lambda: store.exists(key), lambda: store.remove(key)]
        for use in uses:
            with pytest.raises(BadKey):
                use()
    assert list(store.buckets()) == []


def test_a_missing_key_is_named(store):
    put(store, KEY, CONTENT)
    for key in (Key("b", "x"), Key("b", "dir"), Key("b", "dir/"), Key("b", "dir/k/x"), Key("c", "dir/k")):
        for use in (store.open, store.path, store.remove):
            with pytest.raises(NoSuchKey) as caught:
                use(key)
            assert caught.value.key == str(key)
        assert not store.exists(key)
    assert get(store, KEY) == CONTENT


# Listing


def test_a_listing_is_in_the_order_of_utf8_bytes(store):
    unsorted = ["b", "a/b", "a.txt", "a", "a/", "a!", "a0", "B", "é", "\uffff", "😀", "p" * 256, "p" * 240 + "!", "p"]
    for name in unsorted:
        put(store, Key("b", name), CONTENT)
    assert names(store) == sorted(unsorted, key=str.encode)


def test_a_listing_shows_directories_unless_it_is_recursive(store):
    for name in ("a", "a/b", "a/c/d", "ab/c", "b"):
        put(store, Key("b", name), CONTENT)
    assert names(store, recursive=False) == ["a", "a/", "ab/", "b"]
    assert names(store, prefix="a", recursive=False) == ["a", "a/", "ab/"]
    assert names(store, prefix="a/", recursive=False) == ["a/b", "a/c/"]
    assert [(entry.name, entry.is_prefix) for entry in entries(store, "ab")] == [("ab/", True)]
    assert names(store, prefix="x") == names(store, prefix="x/") == names(store, "c") == []


def test_a_listing_says_size_and_time(store):
    path = stored_file(store)
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    assert [tuple(entry) for entry in entries(store, "dir/")] == [
        ("dir/k", len(CONTENT), 1_700_000_000_123_456_789, False)
    ]


def test_a_directory_without_keys_is_not_listed(store, tmp_path):
    (tmp_path / "data" / "empty" / "dir").mkdir(parents=True)
    put(store, KEY, CONTENT)
    (tmp_path / "data" / "b" / "empty" / "dir").mkdir(parents=True)
    assert [entry.name for entry in store.buckets()] == ["b"]
    assert names(store, recursive=False) == ["dir/"]


def test_a_listing_that_is_abandoned_leaves_no_descriptor_behind(store):
    for name in ("a/b/c", "a/d", "e", "p" * 300, "p" * 300 + "/q"):
        put(store, Key("b", name), CONTENT)
    for count in range(5):
        listing = store.list(Key("b", ""), True)
        assert len([next(listing) for _ in range(count)]) == count
        listing.close()


def test_a_listing_needs_few_descriptors(tmp_path):
    run_task("list_with_few_descriptors", tmp_path / "data")


def test_a_process_without_descriptors_is_told_and_loses_none(tmp_path):
    run_task("run_out_of_descriptors", tmp_path / "data")


@pytest.mark.parametrize("name", [b"\xff", b"b/\xff", b"b/\xff.d/x"])
def test_foreign_names_on_disk_are_no_keys(store, tmp_path, name):
    put(store, KEY, CONTENT)
    foreign = os.path.join(os.fsencode(tmp_path), b"data", name)
    os.makedirs(foreign if name == b"\xff" else os.path.dirname(foreign), exist_ok=True)
    if name != b"\xff":
        os.close(os.open(foreign, os.O_CREAT))
    assert [entry.name for entry in store.buckets()] == ["b"]
    assert names(store) == [KEY.name]


# Damage


def test_the_record_is_an_extended_attribute(store):
    found = os.getxattr(stored_file(store), "user.s4raw")
    assert found == b"\2\2\0\0" + len(CONTENT).to_bytes(8, "little") + digest(CONTENT)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\1" + ONE_LEAF[1:], "record has version 1, this server knows version 2"),
        (b"", "record is damaged"),
        (ONE_LEAF[:-1], "record is damaged"),
        (ONE_LEAF, f"the file has {len(CONTENT)} bytes, its record says 5"),
    ],
)
def test_a_record_that_is_damaged_or_of_another_version_is_told(store, raw, message):
    os.setxattr(stored_file(store), RECORD_ATTRIBUTE, raw)
    with pytest.raises(Corrupt, match=message) as caught:
        store.open(KEY)
    assert caught.value.key == str(KEY)


@pytest.mark.parametrize("bit", range(0, 8 * len(ONE_LEAF), 7))
def test_a_flipped_bit_in_the_record_is_told(store, bit):
    path = stored_file(store)
    raw = bytearray(os.getxattr(path, RECORD_ATTRIBUTE))
    raw[bit // 8] ^= 1 << bit % 8
    os.setxattr(path, RECORD_ATTRIBUTE, bytes(raw))
    with pytest.raises((Corrupt, AssertionError)):  # the reader of the bytes compares the digest
        get(store, KEY)


def test_a_key_without_a_record_is_told(store):
    os.removexattr(stored_file(store), RECORD_ATTRIBUTE)
    with pytest.raises((Corrupt, StoreError)) as caught:
        store.open(KEY)
    assert caught.value.key == str(KEY)
    store.remove(KEY)


@pytest.mark.parametrize("content", [b"", CONTENT[:-1], CONTENT + b"!"])
def test_a_file_of_another_size_is_told(store, content):
    stored_file(store).write_bytes(content)
    with pytest.raises(Corrupt, match=f"the file has {len(content)} bytes, its record says {len(CONTENT)}"):
        store.open(KEY)


def test_a_damaged_key_can_be_listed_and_deleted(store):
    os.setxattr(stored_file(store), RECORD_ATTRIBUTE, b"?")
    assert names(store) == [KEY.name]
    store.remove(KEY)
    assert names(store) == []


# What lies outside


def test_symlinks_never_lead_outside(store, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "k").write_bytes(b"mine")
    put(store, KEY, CONTENT)
    bucket = tmp_path / "data" / "b"
    (bucket / "link").symlink_to(outside / "k")
    (bucket / "dirlink").symlink_to(outside)
    (bucket / "dir" / "up").symlink_to("..")
    (tmp_path / "data" / "evil").symlink_to(outside)
    links = [Key("b", "link"), Key("b", "dirlink/k"), Key("b", "dirlink/new"), Key("b", "dir/up/dir/k")]
    for key in [*links, Key("evil", "k"), Key("evil", "new"), Key("b", "link/x")]:
        assert not store.exists(key)
        for use in (store.open, store.path):
            with pytest.raises(NoSuchKey):
                use(key)
        with pytest.raises(S4Error):
            put(store, key, b"theirs")
        with pytest.raises(NoSuchKey):
            store.remove(Key(key.bucket, key.name + "/x"))
    assert names(store) == [KEY.name]
    assert names(store, "evil") == []
    assert [entry.name for entry in store.buckets()] == ["b"]
    assert store.remove_prefix(Key("evil", "")) == 0
    store.remove_prefix(Key("b", ""))
    assert os.listdir(outside) == ["k"]
    assert (outside / "k").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../outside", "../../outside", "/etc/passwd", "a/../../outside", "./../outside"])
def test_a_key_that_looks_like_a_way_out_is_none(store, tmp_path, name):
    (tmp_path / "outside").write_bytes(b"mine")
    put(store, Key("b", name), CONTENT)
    assert Path(store.path(Key("b", name))).is_relative_to(tmp_path / "data" / "b")
    store.remove(Key("b", name))
    assert sorted(os.listdir(tmp_path)) == ["data", "outside"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_no_key(store, tmp_path, make):
    (tmp_path / "data" / "b").mkdir()
    make(tmp_path / "data" / "b" / "thing")
    assert names(store) == []
    assert not store.exists(Key("b", "thing"))
    with pytest.raises(NoSuchKey):
        store.open(Key("b", "thing"))
