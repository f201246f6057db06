"""The store when keys get other names: nothing is replaced, nothing is lost, whatever happens meanwhile."""

import random

import pytest
from support import at_once, get, left_over, names, opened, put, run_task, start_task

from s4raw.digest import digest
from s4raw.errors import BadKey, KeyChanged, KeyExists, NoSuchKey
from s4raw.keys import Key


@pytest.fixture
def store(tmp_path):
    with opened(tmp_path / "data") as found:
        yield found


@pytest.mark.parametrize(
    ("source", "target"), [("k", "new/dir/k"), ("a/b", "a"), ("a", "a/b"), ("x//y", "p" * 300), ("a/b/c", "a/b")]
)
def test_a_key_gets_another_name_and_leaves_nothing_behind(store, tmp_path, source, target):
    put(store, Key("b", source), b"content")
    before = store.open(Key("b", source))
    with open(before.fd):
        store.move(Key("b", source), Key("c", target))
        assert (names(store), names(store, "c")) == ([], [target])
        store.move(Key("c", target), Key("c", source))
    assert get(store, Key("c", source)) == b"content"
    store.remove(Key("c", source))
    assert not left_over(tmp_path / "data")
    assert not list((tmp_path / "data").glob("[bc]/*"))


@pytest.mark.parametrize(("source", "target"), [("a", "a/b"), ("a/b", "a"), ("k", "dir")])
def test_a_name_that_is_taken_is_refused_and_both_keys_stay(store, source, target):
    put(store, Key("b", source), b"source")
    put(store, Key("b", target), b"target")
    with pytest.raises(KeyExists):
        store.move(Key("b", source), Key("b", target))
    with pytest.raises(KeyExists):
        store.move(Key("b", source), Key("b", source))
    assert get(store, Key("b", source)) == b"source"
    assert get(store, Key("b", target)) == b"target"


def test_what_is_not_there_cannot_move(store, tmp_path):
    put(store, Key("b", "dir/k"), b"")
    for name in ("none", "dir"):
        with pytest.raises(NoSuchKey):
            store.move(Key("b", name), Key("b", "new/dir"))
    with pytest.raises(BadKey):
        store.move(Key("b", "dir/k"), Key("b", ""))
    assert names(store) == ["dir/k"]
    assert not (tmp_path / "data/b/new").exists()


def test_of_many_moves_of_one_key_one_succeeds_and_the_others_leave_nothing(store):
    for number in range(30):
        key, won = Key("b", f"{number}"), []
        put(store, key, b"%d" % number)

        def move(seed, key=key, won=won):
            try:
                store.move(key, Key("c", f"{key.name}/{seed}"))
            except NoSuchKey:
                return
            won.append(f"{key.name}/{seed}")

        at_once(*[lambda seed=seed: move(seed) for seed in range(6)])
        assert names(store, "c", f"{number}/") == won
        assert len(won) == 1
        assert get(store, Key("c", won[0])) == b"%d" % number


def test_a_key_that_is_put_again_while_it_moves_is_not_deleted(tmp_path):
    run_task("put_again_between_link_and_unlink", tmp_path / "data")


def test_a_server_that_is_killed_while_keys_move_loses_none(tmp_path):
    dice = random.Random()
    with opened(tmp_path) as store:
        for number in range(10):
            put(store, Key("b", f"{number}"), b"%d" % number)
    for _ in range(6):
        with start_task("move_forever", tmp_path) as child:
            for _ in range(dice.randrange(1, 300)):
                child.stdout.readline()
            child.kill()
        with opened(tmp_path) as store:
            for number in range(10):
                found = [name for name in names(store) if name.split("/")[0] == f"{number}"]
                assert 1 <= len(found) <= 2
                assert {get(store, Key("b", name)) for name in found} == {b"%d" % number}
                for name in found[1:]:
                    store.remove(Key("b", name))


def test_a_key_that_vanishes_before_it_has_its_new_name_is_missing(store, monkeypatch):
    """Its file has no name left that could be given another one; that is no failure of the disk."""
    put(store, Key("b", "k"), b"content")
    link = store._link

    def late(fd, names, key):
        store.remove(Key("b", "k"))
        link(fd, names, key)

    monkeypatch.setattr(store, "_link", late)
    with pytest.raises(NoSuchKey) as caught:
        store.move(Key("b", "k"), Key("b", "dir/new"))
    assert caught.value.key == "s4://b/k"
    assert names(store) == []


def test_a_key_is_deleted_only_with_the_content_that_is_meant(store):
    put(store, Key("b", "k"), b"content")
    with pytest.raises(KeyChanged):
        store.remove(Key("b", "k"), digest(b"another"))
    assert get(store, Key("b", "k")) == b"content"
    store.remove(Key("b", "k"), digest(b"content"))
    assert names(store) == []
