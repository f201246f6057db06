"""Where new files are made: elsewhere once it takes long, and never anywhere but in the data directory's own parts."""

import os
import shutil
import threading
from pathlib import Path

import pytest
from support import get, opened, put

from s4raw import places
from s4raw.keys import Key
from s4raw.store import Store


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file count as one that took long."""
    monkeypatch.setattr(places, "SLOW_NS", -1)


def drafts(store: Store) -> list[str]:
    return os.listdir(Path(store.data.path, "_drafts"))


def put_many(store: Store, count: int, name: str = "k") -> None:
    for number in range(count):
        put(store, Key("b", f"{name}/{number}"), b"%d" % number)


def check_many(store: Store, count: int, name: str = "k") -> None:
    assert [get(store, Key("b", f"{name}/{number}")) for number in range(count)] == [b"%d" % n for n in range(count)]


def test_where_files_are_made_quickly_they_are_made_in_one_place(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "SLOW_NS", 10**12)
    with opened(tmp_path / "data") as store:
        put_many(store, 3 * places.LOOK_EVERY)
        check_many(store, 3 * places.LOOK_EVERY)
        assert drafts(store) == []


def test_a_slow_place_is_left_after_a_few_files_for_one_that_may_be_quicker(tmp_path, monkeypatch):
    slow(monkeypatch)
    with opened(tmp_path / "data") as store:
        put_many(store, places.LOOK_EVERY - 1)
        assert drafts(store) == []
        put(store, Key("b", "last"), b"")
        assert len(drafts(store)) == 1
        put_many(store, 4, "more")
        assert len(drafts(store)) == 3
        monkeypatch.setattr(places, "SLOW_NS", 10**12)
        put_many(store, 3 * places.LOOK_EVERY, "quick")
        assert len(drafts(store)) == 3
        check_many(store, places.LOOK_EVERY - 1)
        check_many(store, 4, "more")
        check_many(store, 3 * places.LOOK_EVERY, "quick")


def test_where_all_places_are_slow_they_stay_a_few_and_are_looked_at_seldom(tmp_path, monkeypatch):
    slow(monkeypatch)
    monkeypatch.setattr(places, "MAX_PLACES", 4)
    with opened(tmp_path / "data") as store:
        moves = []
        move = store.data.places._move
        monkeypatch.setattr(store.data.places, "_move", lambda: (moves.append(1), move()))
        put_many(store, 10 * places.LOOK_EVERY)
        check_many(store, 10 * places.LOOK_EVERY)
        assert len(drafts(store)) == 4
        assert len(moves) < 40


def test_places_are_made_anew_by_the_next_server(tmp_path, monkeypatch):
    slow(monkeypatch)
    with opened(tmp_path / "data") as store:
        put_many(store, places.LOOK_EVERY)
        before = drafts(store)
        assert len(before) == 1
    with opened(tmp_path / "data") as store:
        assert drafts(store) == []
        check_many(store, places.LOOK_EVERY)


def test_a_place_that_somebody_removes_is_done_without(tmp_path, monkeypatch):
    slow(monkeypatch)
    with opened(tmp_path / "data") as store:
        put_many(store, places.LOOK_EVERY)
        for name in drafts(store):
            os.rmdir(tmp_path / "data" / "_drafts" / name)
        put_many(store, places.LOOK_EVERY, "without")
        shutil.rmtree(tmp_path / "data" / "_drafts")
        put_many(store, 2 * places.LOOK_EVERY, "none")
        check_many(store, places.LOOK_EVERY, "without")
        check_many(store, 2 * places.LOOK_EVERY, "none")


def test_threads_move_on_together_and_lose_no_file(tmp_path, monkeypatch):
    slow(monkeypatch)
    with opened(tmp_path / "data") as store:
        threads = [threading.Thread(target=put_many, args=(store, 100, f"t{number}")) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for number in range(8):
            check_many(store, 100, f"t{number}")
        assert len(drafts(store)) <= places.MAX_PLACES + len(threads)
