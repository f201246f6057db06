"""Replacing a key: in one step, wherever its file lies, whoever else is at work."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from nasty import NAMES
from support import at_once, get, left_over, names, opened, put, run_task, start_task
from tasks import content_of

from s4raw.errors import BadKey, KeyExists
from s4raw.keys import Key
from s4raw.store import Store

KEY = Key("b", "a")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "data") as found:
        yield found
        assert not left_over(tmp_path / "data")


@pytest.mark.parametrize("name", NAMES)
def test_any_key_is_made_and_replaced(store, name):
    key = Key("b", name)
    for content in (b"first", b"second and longer", b""):
        put(store, key, content, store.replace)
        assert get(store, key) == content
        assert names(store) == [name]
    assert os.stat(store.path(key)).st_mode & 0o777 == 0o444


def test_a_key_beside_keys_below_it_is_replaced_and_they_stay(store):
    put(store, KEY.join("b"), b"below", store.replace)
    for content in (b"made", b"replaced"):
        put(store, KEY, content, store.replace)
        assert (get(store, KEY), get(store, KEY.join("b"))) == (content, b"below")
    store.remove(KEY.join("b"))
    assert get(store, KEY) == b"replaced"
    put(store, KEY, b"again", store.replace)
    store.remove(KEY)
    assert names(store) == []


def test_an_open_key_stays_what_it_was(store):
    put(store, KEY, b"old")
    stored = store.open(KEY)
    put(store, KEY, b"new", store.replace)
    with open(stored.fd, "rb") as file:
        assert file.read() == b"old"


def test_publish_still_refuses(store):
    put(store, KEY, b"first", store.replace)
    with pytest.raises(KeyExists):
        put(store, KEY, b"second")
    assert get(store, KEY) == b"first"


def test_a_replacement_that_fails_leaves_nothing(store, tmp_path):
    with pytest.raises(BadKey):
        put(store, Key("b", "new/" + "x" * 2000), b"", store.replace)
    (tmp_path / "data" / "b").mkdir()
    (tmp_path / "data" / "b" / "file").write_bytes(b"no key, in the way")
    os.symlink("/", tmp_path / "data" / "b" / "link")
    with pytest.raises(Exception, match="disk failed"):
        put(store, Key("b", "link/x"), b"", store.replace)
    assert not left_over(tmp_path / "data")


def test_a_replacement_waits_until_a_file_has_made_way(store):
    """Between the two steps of making way it would replace the file that is about to be dropped."""
    put(store, KEY, b"old")
    other = threading.Thread(target=put, args=[store, KEY, b"new", store.replace])
    with store.data.removals(alone=True):
        other.start()
        other.join(0.2)
        assert other.is_alive()
        assert get(store, KEY) == b"old"
    other.join()
    assert get(store, KEY) == b"new"


def test_of_many_replacements_the_last_one_stays_whole_and_the_key_is_always_there(store):
    put(store, KEY, b"0" * 5000)
    done = threading.Event()

    def replace(digit: bytes) -> None:
        for _ in range(100):
            put(store, KEY, digit * 5000, store.replace)

    def make_way() -> None:
        try:
            for _ in range(150):
                put(store, KEY.join("below"), b"")
                store.remove(KEY.join("below"))
        finally:
            done.set()

    def look() -> None:
        while not done.is_set():
            content = get(store, KEY)
            assert content == content[:1] * 5000
            assert "a" in names(store)

    at_once(lambda: replace(b"1"), lambda: replace(b"2"), make_way, look)
    assert names(store) == ["a"]


def test_a_replacement_survives_what_removes_and_makes_way_around_it(store):
    """Whichever of the directory and the file comes first, the key that was put last is the one that is there."""
    done = threading.Event()

    def come_and_go() -> None:
        try:
            for step in range(300):
                put(store, KEY, b"%d" % step, store.replace)
                put(store, KEY, b"+%d" % step, store.replace)
                assert get(store, KEY) == b"+%d" % step
                store.remove(KEY)
                assert not store.exists(KEY)
        finally:
            done.set()

    def come_and_go_below() -> None:
        while not done.is_set():
            put(store, KEY.join("x"), b"", store.replace)
            store.remove(KEY.join("x"))

    at_once(come_and_go, come_and_go_below)
    assert names(store) == []


def test_processes_that_replace_and_remove_in_the_same_directories_lose_nothing(tmp_path):
    run_task("replace_together", tmp_path / "data", 150)


def test_a_killed_server_has_replaced_a_key_or_has_not(tmp_path):
    there = {}
    for run in range(8):
        with start_task("replace_forever", tmp_path) as child:
            try:
                report = b"".join(child.stdout.readline() for _ in range(3 + 17 * run))
            finally:
                child.kill()
            report += child.stdout.read()
        steps = [line.rsplit(" ", 1) for line in report.decode().splitlines()]
        there |= {name: int(number) for name, number in steps}
        with opened(tmp_path) as store:
            assert not left_over(tmp_path)
            for name, number in there.items():
                key = Key("b", name)
                allowed = [content_of(f"{name} {n}") for n in (number, number + 1, number + 7, number % 7, 0)]
                if name == "k/below" and not store.exists(key):
                    continue
                assert get(store, key) in allowed, (name, number)
