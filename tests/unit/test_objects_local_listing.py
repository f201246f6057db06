"""Pages of listings from directories: in order, from any name on, and always as the directories are."""

import os
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nasty import NAMES, key_names
from objects_support import Body, expected, shown
from support import opened, put, timeless

from s4raw.children import ChildrenCache, read_children
from s4raw.keys import Key
from s4raw.objects import attributes as codec
from s4raw.objects import local_listing
from s4raw.objects.base import Attributes, Query
from s4raw.objects.local import open_local
from s4raw.objects.local_listing import list_page

MANY = 3000


def settle(path):
    """Wait until a file's or a directory's last change is older than a tick of the kernel's clock."""
    for _ in range(1000):
        status = os.stat(path)
        if max(status.st_mtime_ns, status.st_ctime_ns) + 30_000_000 < time.time_ns():
            return
        time.sleep(0.005)
    raise AssertionError("the clock stands still")


def all_names(store, cache, limit=1000, **query):
    """Every name of every page, each page asked for with the last one's last name."""
    found, after = [], ""
    for _ in range(10_000):
        page = list_page(store, "b", Query(after=after, limit=limit, **query), cache)
        found += [entry.name for entry in page.entries]
        if not page.truncated:
            return found
        assert len(page.entries) == limit
        after = found[-1]
    raise AssertionError("no end")


@pytest.fixture
def store(tmp_path):
    with opened(tmp_path / "data") as found:
        yield found


@settings(timeless, max_examples=60)
@given(
    st.sets(st.sampled_from(NAMES) | key_names, max_size=30),
    st.sampled_from(["", "/", "//", "p", "p/", "%", "é"]),
    st.lists(
        st.tuples(st.sampled_from(["", "a", "a/", "p", "p" * 240, "p" * 250, "é"]), st.integers(1, 4)), max_size=4
    ),
    st.data(),
)
def test_pages_are_those_of_a_sorted_list(tmp_path_factory, names, delimiter, prefixes, data):
    with opened(tmp_path_factory.mktemp("data")) as store:
        for name in names:
            put(store, Key("b", name), b"")
        for cache in (ChildrenCache(), ChildrenCache(small=0)):
            for prefix, limit in [("", 3), *prefixes]:
                after = data.draw(st.sampled_from(["", *sorted(names)]) | key_names)
                for _ in range(2):
                    query = Query(prefix, delimiter, after, limit)
                    assert shown(list_page(store, "b", query, cache)) == expected(names, query), query


def test_a_large_directory_is_given_once_from_page_to_page(store):
    names = [f"{number:05d}" for number in range(MANY)] + ["x" * 240 + f"{number:030d}" for number in range(200)]
    directory = os.path.join(store.data.path, "b")
    put(store, Key("b", names[0]), b"")
    put(store, Key("b", names[-1]), b"")
    for name in names[1:MANY]:
        os.link(f"{directory}/{names[0]}", f"{directory}/{name}")
    for name in names[MANY:-1]:
        put(store, Key("b", name), b"")
    settle(directory)
    cache = ChildrenCache()
    assert all_names(store, cache, limit=97) == sorted(names)
    assert cache.remembered == 1
    assert all_names(store, cache, limit=97, prefix="01") == [name for name in sorted(names) if name.startswith("01")]
    assert all_names(store, cache, limit=7, delimiter="00") == sorted(
        {name[: name.index("00") + 2] if "00" in name else name for name in names}
    )


def test_what_is_remembered_is_not_read_again(store, monkeypatch):
    directory = os.path.join(store.data.path, "b")
    for number in range(20):
        put(store, Key("b", f"{number}"), b"")
    settle(directory)
    read = []
    monkeypatch.setattr("s4raw.children.read_children", lambda fd, prefix: read.append(1) or read_children(fd, prefix))
    cache = ChildrenCache(small=10)
    for _ in range(3):
        assert len(list_page(store, "b", Query(), cache).entries) == 20
    assert len(read) == 1
    put(store, Key("b", "new"), b"")
    assert len(list_page(store, "b", Query(), cache).entries) == 21
    assert len(read) == 2


def test_a_stamp_that_the_next_change_may_bear_too_is_not_trusted(store):
    put(store, Key("b", "k"), b"")
    directory, cache = os.path.join(store.data.path, "b"), ChildrenCache(small=0)
    now = time.time_ns()
    for stamp in (now + 10**12, now // 10**9 * 10**9):  # one to come; one of a file system that keeps whole seconds
        os.utime(directory, ns=(stamp, stamp))
        assert len(list_page(store, "b", Query(), cache).entries) == 1
        assert cache.remembered == 0
    os.utime(directory, ns=(now - 10**10, now - 10**10))
    settle(directory)
    assert len(list_page(store, "b", Query(), cache).entries) == 1
    assert cache.remembered == 1


@pytest.mark.parametrize("pause", [0.0, 0.0005, 0.004, 0.012, 0.03])
def test_every_change_is_seen_by_the_next_page(store, pause):
    directory = os.path.join(store.data.path, "b")
    put(store, Key("b", "seed"), b"")
    there, cache, dice = {"seed"}, ChildrenCache(small=0), random.Random()
    for step in range(int(min(1500, 6 / (pause + 0.001)))):
        choice = dice.random()
        if choice < 0.4 or len(there) < 2:
            there.add(f"k{step}")
            os.link(f"{directory}/seed", f"{directory}/k{step}")
        elif choice < 0.7:
            name = dice.choice(sorted(there - {"seed"}))
            there.remove(name)
            os.unlink(f"{directory}/{name}")
        else:
            name = dice.choice(sorted(there - {"seed"}))
            there.remove(name)
            there.add(f"r{step}")
            os.rename(f"{directory}/{name}", f"{directory}/r{step}")
        if pause and dice.random() < 0.5:
            time.sleep(dice.random() * pause)
        for _ in range(dice.randrange(1, 3)):
            assert [entry.name for entry in list_page(store, "b", Query(limit=9999), cache).entries] == sorted(there)


def test_every_change_of_another_thread_is_seen(store):
    """A name is announced once it has been made or has gone; whoever lists after that must see it so."""
    directory = os.path.join(store.data.path, "b")
    put(store, Key("b", "seed"), b"")
    cache, done, latest, errors = ChildrenCache(small=0), threading.Event(), [0], []

    def change():
        for step in range(1, 3000):
            os.link(f"{directory}/seed", f"{directory}/{step:06d}")
            latest[0] = step
            if step > 20:
                os.unlink(f"{directory}/{step - 20:06d}")
            if step % 50 == 0:
                time.sleep(0.025)  # long enough for what is read now to be remembered
        done.set()

    def look():
        while not done.is_set():
            before = latest[0]
            found = {entry.name for entry in list_page(store, "b", Query(limit=9999), cache).entries}
            after = latest[0]
            must = {f"{step:06d}" for step in range(max(1, after - 18), before + 1)}
            if not must <= found or any(int(name) < before - 20 for name in found - {"seed"}):
                errors.append((before, after, sorted(found)))
                return

    threads = [threading.Thread(target=look) for _ in range(2)] + [threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_directory_made_in_place_of_a_remembered_one_is_another(store):
    cache = ChildrenCache(small=0)
    for step in range(30):
        put(store, Key("b", f"d/{step}"), b"")
        if step % 3 == 0:
            settle(os.path.join(store.data.path, "b", "d"))
        for _ in range(2):
            page = list_page(store, "b", Query("d/"), cache)
            assert [entry.name for entry in page.entries] == [f"d/{step}"]
        store.remove(Key("b", f"d/{step}"))


def test_no_more_is_remembered_than_the_limit(store):
    cache = ChildrenCache(max_names=25, small=1)
    for directory in "abcd":
        for number in range(10):
            put(store, Key("b", f"{directory}/{number}"), b"")
    settle(os.path.join(store.data.path, "b", "d"))
    for directory in "abcd":
        assert len(list_page(store, "b", Query(f"{directory}/"), cache).entries) == 10
    assert cache.remembered == 2 and cache.names == 20


HOUR_NS = 3600 * 10**9
AGES = pytest.mark.parametrize("settled_ns", [HOUR_NS, -HOUR_NS], ids=["just changed", "settled"])


@AGES
def test_a_listing_shows_size_etag_and_checksums(tmp_path, monkeypatch, settled_ns):
    monkeypatch.setattr(local_listing, "SETTLED_NS", settled_ns)
    backend = open_local(str(tmp_path / "data"))
    backend.create_bucket("b")
    kinds = {
        "a": Attributes("0" * 32, checksums={"CRC64NVME": "AAAAAAAAAAA="}, checksum_type="FULL_OBJECT"),
        "b": Attributes("f" * 32 + "-10000", checksums={"SHA256": "A"}, checksum_type="COMPOSITE"),
        "c": Attributes("not an md5", checksums={"SHA1": "A", "CRC32": "B"}, checksum_type="FULL_OBJECT"),
        "d": Attributes("1" * 32, metadata={"long": "x" * 3000}),
    }
    for name, attributes in kinds.items():
        backend.put(Key("b", name), Body(name.encode() * 5, attributes))
    put(backend.store, Key("b", "e"), b"the ring's")
    for name, line in zip("abcde", backend.list("b", Query()).entries, strict=True):
        info = backend.head(Key("b", name))
        found = info.attributes
        assert line == (
            name,
            info.size,
            info.mtime_ns,
            found.etag,
            tuple(sorted(found.checksums)),
            found.checksum_type,
            False,
        )
        assert found.etag == kinds[name].etag if name in kinds else found.etag.endswith("-1")
    backend.close()


def test_old_objects_are_shown_as_new_ones_are(tmp_path, monkeypatch):
    """They are looked at by their paths, where that is the same."""
    backend = open_local(str(tmp_path / "data"))
    backend.create_bucket("b")
    names = sorted({*NAMES, "dir/a", "dir/b", "other/a", "dir", "dir/sub/a", "dir2/a"})
    for number, name in enumerate(names):
        backend.put(Key("b", name), Body(b"x" * number, Attributes(f"{number:032x}")))
    for delimiter in ("", "/"):
        pages = []
        for settled_ns in (HOUR_NS, -HOUR_NS):
            monkeypatch.setattr(local_listing, "SETTLED_NS", settled_ns)
            pages.append(backend.list("b", Query(delimiter=delimiter)))
        assert pages[0] == pages[1]
    assert [entry.size for entry in backend.list("b", Query()).entries] == list(range(len(names)))
    backend.close()


def test_an_object_that_is_replaced_while_it_is_listed_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    backend = open_local(str(tmp_path / "data"))
    backend.create_bucket("b")
    backend.put(Key("b", "dir/key"), Body(b"old", Attributes("0" * 32)))
    backend.put(Key("b", "dir/key2"), Body(b"old", Attributes("0" * 32)))
    settle(backend.store.path(Key("b", "dir/key2")))
    monkeypatch.setattr(local_listing, "SETTLED_NS", 20_000_000)
    monkeypatch.setattr(codec, "_CHECK_MASK", 0)  # the files' numbers tell nothing
    read, replaced = os.getxattr, []

    def read_late(file, name, **options):
        found = read(file, name, **options)
        if not replaced and isinstance(file, str):
            replaced.append(file)
            backend.put(Key("b", "dir/key"), Body(b"the new one", Attributes("1" * 32)))
        return found

    monkeypatch.setattr(os, "getxattr", read_late)
    entries = backend.list("b", Query("dir/")).entries
    assert replaced and [(entry.size, entry.etag) for entry in entries] == [(11, "1" * 32), (3, "0" * 32)]
    backend.close()


def test_a_copied_summary_is_not_taken_for_the_files_own():
    raw = codec.summarize(Attributes("0" * 32), 77, 5)
    assert raw is not None and len(raw) == 20
    assert codec.read_summary(raw, 77, 5) == ("0" * 32, (), "")
    assert codec.read_summary(raw, 78, 5) is None and codec.read_summary(raw, 77, 6) is None
    assert codec.read_summary(raw[:-1], 77, 5) is None and codec.summarize(Attributes("0" * 31), 77, 5) is None


def test_a_summary_is_written_as_it_always_was():
    attributes = Attributes("00112233445566778899aabbccddeeff-2", checksums={"SHA1": ""}, checksum_type="COMPOSITE")
    assert codec.summarize(attributes, 1, 2).hex() == "00112233445566778899aabbccddeeff97a300c0"
