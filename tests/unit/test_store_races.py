"""The store under many hands: no acknowledged key is lost, none is published twice, none is missed while it moves."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import at_once, get, left_over, names, opened, put, run_task

from s4raw.errors import KeyExists, NoSuchKey
from s4raw.keys import Key
from s4raw.store import Store

THREADS = 8


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "data") as found:
        yield found


def wins(action: Callable[[], object], *losing: type[Exception]) -> bool:
    try:
        action()
    except losing:
        return False
    return True


@pytest.mark.parametrize("name", ["k", "new/dir/k", "k/", "p" * 300])
def test_of_many_puts_of_one_key_one_wins_whole(store, name):
    for number in range(20):
        key, won = Key("b", f"{number}/{name}"), []

        def compete(content: bytes, key: Key = key, won: list[bytes] = won) -> None:
            if wins(lambda: put(store, key, content), KeyExists):
                won.append(content)

        at_once(*[lambda seed=seed: compete(bytes([seed]) * 5000) for seed in range(THREADS)])
        assert [get(store, key)] == won


def test_of_many_puts_of_one_key_one_wins_also_while_its_file_becomes_a_directory(store):
    for number in range(50):
        key, won = Key("b", f"{number}"), []

        def compete(content: bytes, key: Key = key, won: list[bytes] = won) -> None:
            if wins(lambda: put(store, key, content), KeyExists):
                won.append(content)

        below = [lambda number=number, part=part: put(store, Key("b", f"{number}/{part}"), b"") for part in "xy"]
        at_once(*[lambda seed=seed: compete(b"%d" % seed) for seed in range(4)], *below)
        assert [get(store, key)] == won
        assert names(store, prefix=f"{number}/") == [f"{number}/x", f"{number}/y"]


def test_of_many_removals_of_one_key_one_succeeds(store):
    for number in range(50):
        key, removed = Key("b", f"dir/{number}"), []
        put(store, key, b"")

        def compete(key: Key = key, removed: list[int] = removed) -> None:
            if wins(lambda: store.remove(key), NoSuchKey):
                removed.append(1)

        at_once(*[compete] * THREADS)
        assert removed == [1]
    assert names(store) == []


def test_a_put_survives_removals_that_prune_its_directory(store, tmp_path):
    def churn(seed: int) -> None:
        for step in range(150):
            key = Key("b", f"a/b/{'c/' * (step % 3)}{seed}")
            put(store, key, b"%d" % step)
            assert get(store, key) == b"%d" % step
            store.remove(key)

    at_once(*[lambda seed=seed: churn(seed) for seed in range(THREADS)])
    assert sorted(os.listdir(tmp_path / "data")) == ["_drafts", "_format", "_lock", "_removals", "_tmp"]


def test_a_key_comes_and_goes_while_what_lies_below_it_does(store):
    key, below, done = Key("b", "a"), Key("b", "a/x"), threading.Event()

    def come_and_go() -> None:
        try:
            for step in range(1500):
                put(store, key, b"%d" % step)
                assert get(store, key) == b"%d" % step
                store.remove(key)
                assert not store.exists(key)
        finally:
            done.set()

    def come_and_go_below() -> None:
        while not done.is_set():
            put(store, below, b"below")
            store.remove(below)

    at_once(come_and_go, come_and_go_below)
    assert names(store) == []


def make_way_while(store: Store, look: Callable[[Key], object]) -> list[Key]:
    """Make directories of the files of many keys, while threads look at the one whose turn it is, again and again."""
    keys = [Key("b", f"{number:03}") for number in range(300)]
    for key in keys:
        put(store, key, key.name.encode())
    turn, done = [keys[0]], threading.Event()

    def make_way() -> None:
        try:
            for key in keys:
                turn[0] = key
                put(store, key.join("x/y"), b"")
        finally:
            done.set()

    def keep_looking() -> None:
        while not done.is_set():
            look(turn[0])

    at_once(make_way, keep_looking, keep_looking)
    assert not left_over(store.data.path)
    return keys


def test_a_key_is_always_there_while_its_file_becomes_a_directory(store):
    def look(key: Key) -> None:
        assert store.exists(key)
        assert get(store, key) == key.name.encode()

    for key in make_way_while(store, look):
        look(key)
        store.remove(key)
        assert names(store, prefix=key.name) == [f"{key.name}/x/y"]


def test_a_key_is_always_listed_while_its_file_becomes_a_directory(store):
    def look(key: Key) -> None:
        assert key.name in names(store, prefix=key.name)
        assert key.name in names(store, prefix=key.name, recursive=False)

    make_way_while(store, look)


def test_the_path_of_a_key_is_one_of_its_bucket_while_its_file_becomes_a_directory(store):
    strange = set()

    def look(key: Key) -> None:
        path, place = store.path(key), f"{store.data.path}/b/{key.name}"
        if path not in (place, f"{place}/%="):
            strange.add(path)

    make_way_while(store, look)
    assert strange == set()


@pytest.mark.parametrize("alone", [True, False])
def test_a_file_makes_way_only_while_no_key_is_removed(store, alone):
    """A removal between the two steps of making way would be undone by the second."""
    key = Key("b", "a")
    put(store, key, b"content")
    other = threading.Thread(target=store.remove if alone else lambda key: put(store, key.join("x"), b""), args=[key])
    with store.data.removals(alone=alone):
        other.start()
        other.join(0.2)
        assert other.is_alive()
        assert Path(store.path(key)) == Path(store.data.path, "b", "a")
    other.join()
    assert names(store) == ([] if alone else ["a", "a/x"])


def test_removals_do_not_wait_for_each_other(store):
    put(store, Key("b", "a"), b"")
    with store.data.removals(alone=False):
        at_once(lambda: store.remove(Key("b", "a")))


def test_processes_that_put_and_remove_in_the_same_directories_lose_nothing(tmp_path):
    run_task("churn_together", tmp_path / "data", 4, 150)


# A listing that goes on while keys come and go: it is a generator, so the moment is ours to choose.


def test_a_listing_sees_the_size_of_a_key_that_becomes_a_directory_meanwhile(store):
    for name in ("a", "b"):
        put(store, Key("b", name), b"12345")
    listing = store.list(Key("b", ""), True)
    seen = [next(listing)]
    put(store, Key("b", "b/below"), b"")
    seen += listing
    assert [(entry.name, entry.size) for entry in seen if entry.name != "b/below"] == [("a", 5), ("b", 5)]


def test_a_listing_goes_on_when_a_directory_becomes_a_key_meanwhile(store):
    for name in ("a", "b/below", "c"):
        put(store, Key("b", name), b"12345")
    listing = store.list(Key("b", ""), True)
    seen = [next(listing).name]
    store.remove(Key("b", "b/below"))
    put(store, Key("b", "b"), b"12345")
    seen += [entry.name for entry in listing]
    assert [name for name in seen if name != "b"] == ["a", "c"]


def test_a_listing_goes_on_when_what_it_comes_to_is_removed_meanwhile(store):
    for name in ("a", "b", "c/d/e", "f"):
        put(store, Key("b", name), b"")
    listing = store.list(Key("b", ""), True)
    seen = [next(listing).name]
    for name in ("b", "c/d/e"):
        store.remove(Key("b", name))
    assert seen + [entry.name for entry in listing] == ["a", "f"]


def test_removing_a_prefix_goes_on_when_others_remove_its_keys_meanwhile(store):
    for number in range(10):
        put(store, Key("b", f"{number}/k"), b"")
    others = iter([Key("b", "5/k"), Key("b", "9/k")])

    def each() -> None:
        for key in others:
            store.remove(key)

    assert store.remove_prefix(Key("b", ""), each) == 8
    assert names(store) == []


def test_buckets_are_listed_while_they_come_and_go(store):
    put(store, Key("there", "k"), b"")
    done = threading.Event()

    def churn(seed: int) -> None:
        try:
            for step in range(500):
                key = Key(f"b{seed}{step % 5}", "k")
                put(store, key, b"")
                store.remove(key)
        finally:
            done.set()

    def look() -> None:
        while not done.is_set():
            assert "there" in [entry.name for entry in store.buckets()]

    at_once(lambda: churn(1), lambda: churn(2), look)
