"""The queue: what is accepted, in which order it leaves, what it may hold, and what it keeps over a restart."""

import os
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from conftest import wait_for
from queue_support import Target, deletion, ids, key, opened, pushing, stored

from s4raw.errors import BadKey, Busy, ConfError, Corrupt, LocalFileError, NoSuchKey, PeerTimeout, QueueFull, S4Error
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Part
from s4raw.objects.sources import Identity
from s4raw.queue.entries import DELETE, PUT, TAG, Gauges, Limits, Order
from s4raw.queue.files import Names, settle
from s4raw.queue.queue import Queue
from s4raw.queue.rows import encode


@pytest.fixture
def queue(tmp_path):
    with opened(tmp_path / "q") as queue:
        yield queue


def never():
    return False


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def by_reference(path, name="k", **options):
    return Order("", key(name), path=os.fsencode(path), **options)


class Threads:
    """Threads that call something; ``join`` gives what they returned or raised."""

    def __init__(self):
        self.threads, self.results = [], []

    def start(self, call, *arguments, **options):
        def run():
            try:
                self.results.append(call(*arguments, **options))
            except S4Error as error:
                self.results.append(error)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def join(self):
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
        return self.results


@pytest.fixture
def threads():
    found = Threads()
    yield found
    found.join()


# -- accepting


def test_what_was_accepted_is_there_after_a_restart_as_it_was(tmp_path, file):
    known = Attributes("e", {"content-type": "a/b"}, {"m": "ü\n"}, {"t": "1"}, {"SHA1": "x"}, "FULL_OBJECT")
    odd = Key("b", "a//b/\n\U0001f980 .")
    with opened(tmp_path / "q") as queue:
        added = [
            queue.add(Order("alias", odd, path=os.fsencode(file), attributes=known, max_attempts=3)),
            queue.add(stored(queue, "k", b"spooled")),
            queue.add(Order("", odd, DELETE)),
            queue.add(Order("", odd, TAG, attributes=Attributes(tags={"a": "b"}))),
        ]
    with opened(tmp_path / "q") as queue:
        found = queue.entries()
        for before, after in zip(added, found, strict=True):
            attributes = after.order.attributes._replace(parts=())
            assert before == after._replace(order=after.order._replace(attributes=attributes))
        assert queue.gauges() == Gauges(4, 14, added[0].created_ns)


def test_a_path_of_any_bytes_is_kept(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\n \xc3"
    with open(path, "wb") as file:
        file.write(b"x")
    with opened(tmp_path / "q") as queue:
        queue.add(Order("", key("k"), path=path))
    with opened(tmp_path / "q") as queue:
        assert queue.entries()[0].order.path == path


def test_ids_are_never_used_again(tmp_path):
    with opened(tmp_path / "q") as queue:
        first = queue.add(deletion())
        queue.drop([first.id])
    with opened(tmp_path / "q") as queue:
        assert queue.add(deletion()).id > first.id


@pytest.mark.parametrize("order", [deletion(""), Order("", Key("a/b", "c"), DELETE), deletion("k", alias="\udcff")])
def test_what_cannot_be_a_key_is_refused(queue, order):
    with pytest.raises(BadKey):
        queue.add(order)
    assert queue.gauges() == Gauges()


def test_a_file_that_is_not_there_is_refused(queue, tmp_path):
    with pytest.raises(LocalFileError, match="missing"):
        queue.add(by_reference(tmp_path / "missing"))


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(queue, tmp_path, make):
    make(tmp_path / "odd")
    with pytest.raises(LocalFileError, match="not a regular file"):
        queue.add(by_reference(tmp_path / "odd"))


def test_a_path_that_depends_on_where_one_stands_is_refused(queue):
    with pytest.raises(LocalFileError, match="absolute"):
        queue.add(by_reference("file"))


def test_a_file_that_was_written_to_before_it_was_accepted_is_refused(queue, file):
    with open(file, "rb") as opened_file:
        identity = Identity.of(opened_file.fileno())
    file.write_bytes(b"longer content")
    with pytest.raises(LocalFileError, match="has changed"):
        queue.add(by_reference(file, identity=identity))


def test_the_file_and_its_name_are_on_disk_before_the_row_is(tmp_path, file, monkeypatch):
    steps = []

    def recorded(name, call):
        def run(fd):
            steps.append((name, os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))))
            call(fd)

        return run

    with opened(tmp_path / "q") as queue:
        monkeypatch.setattr(os, "fsync", recorded("fsync", os.fsync))
        monkeypatch.setattr(os, "fdatasync", recorded("fdatasync", os.fdatasync))
        commit = queue._journal._commit
        queue._journal._commit = lambda *changes: (steps.append("commit"), commit(*changes), steps.append("done"))
        queue.add(by_reference(file))
        assert steps == [("fdatasync", "file"), ("fsync", tmp_path.name), "commit", "done"]
        steps.clear()
        with open(file, "rb") as opened_file:
            path, identity = queue.spool.snapshot(opened_file.fileno(), os.fsencode(file))
        queue.add(Order("", key("k"), path=path, spooled=True, identity=identity))
        assert steps == [("fdatasync", "file"), ("fsync", "spool"), "commit", "done"]
        steps.clear()
        order = stored(queue, "k", b"body")
        queue.add(order)
        assert steps[-4:] == [
            ("fdatasync", os.path.basename(order.path.decode())),
            ("fsync", "spool"),
            "commit",
            "done",
        ]


def test_what_is_added_together_has_one_commit_and_one_sync_of_each_directory(tmp_path, file, monkeypatch):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "file"
    other.write_bytes(b"other")
    steps = []
    with opened(tmp_path / "q") as queue:
        orders = [settle(by_reference(path, f"k{n}")) for n, path in enumerate([file, other, file, other])]
        with open(file, "rb") as opened_file:
            path, identity = queue.spool.snapshot(opened_file.fileno(), os.fsencode(file))
        orders.append(Order("", key("k4"), path=path, spooled=True, identity=identity))
        sync, commit = os.fsync, queue._journal._commit
        monkeypatch.setattr(
            os, "fsync", lambda fd: (steps.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))), sync(fd))
        )
        queue._journal._commit = lambda *changes: (steps.append("commit"), commit(*changes))
        entries = queue.add_many(orders)
        assert steps == [tmp_path.name, "other", "spool", "commit"]
        assert ids(entries) == list(range(entries[0].id, entries[0].id + 5))
        assert [entry.order for entry in entries] == orders
        assert queue.entries() == entries


def test_of_what_is_added_together_an_error_is_that_of_one_order(tmp_path, file):
    with opened(tmp_path / "q") as queue:
        order = settle(by_reference(file))
        gone = order._replace(path=os.fsencode(tmp_path / "gone" / "file"))
        wrong = stored(queue, "k", b"body")._replace(key=Key("b", ""))
        found = queue.add_many([order, gone, wrong, order])
        assert [type(each).__name__ for each in found] == ["Entry", "LocalFileError", "BadKey", "Entry"]
        assert queue.spool.names() == []
        assert queue.add_many([gone]) != []
        assert ids(queue.entries()) == ids([found[0], found[3]])


def test_what_is_added_together_goes_as_far_as_there_is_room(tmp_path):
    with opened(tmp_path / "q", Limits(files=3)) as queue:
        orders = [deletion(f"k{number}") for number in range(5)]
        found = queue.add_many(orders)
        assert [entry.order for entry in found] == orders[:3]
        assert queue.add_many(orders[3:]) == []
        queue.drop(ids(found[:1]))
        with queue.reserve(0, 0.0) as room:
            assert [entry.order for entry in queue.add_many(orders[3:], room)] == orders[3:4]
    with opened(tmp_path / "refuses", Limits(files=3), refuse=True) as queue:
        found = queue.add_many(orders)
        assert [isinstance(each, QueueFull) for each in found] == [False, False, False, True, True]


def test_who_asks_for_a_name_while_its_directory_is_synced_shares_the_next_time(file, threads, monkeypatch):
    names, gate, begun, sync = Names(), threading.Event(), threading.Event(), os.fsync
    synced = []

    def slow(fd):
        synced.append(fd)
        begun.set()
        gate.wait(20)
        sync(fd)

    monkeypatch.setattr(os, "fsync", slow)
    path = os.fsencode(file)
    threads.start(names.sync, path)
    assert begun.wait(20)
    for _ in range(9):
        threads.start(names.sync, path)
    wait_for(lambda: names._turns[os.path.dirname(path)].users == 10)
    gate.set()
    threads.join()
    assert len(synced) == 2, "none of them relies on one that began before it asked"
    assert names._turns == {}


def test_a_directory_that_cannot_be_synced_is_left_to_its_file_system():
    fd = os.open("/proc", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            os.fsync(fd)
    finally:
        os.close(fd)
    Names().sync(b"/proc/file")


def test_every_commit_is_on_disk_before_it_returns(queue):
    database = queue._journal._database
    assert database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_many_at_once_share_a_commit(queue, threads):
    journal, gate, begun = queue._journal, threading.Event(), threading.Event()
    commit = journal._commit

    def slow(*changes):
        begun.set()
        gate.wait(20)
        commit(*changes)

    journal._commit = slow
    threads.start(queue.add, deletion("first"))
    assert begun.wait(20)
    for number in range(20):
        threads.start(queue.add, deletion(str(number)))
    wait_for(lambda: len(journal._insertions) == 20)
    gate.set()
    assert len({entry.id for entry in threads.join()}) == 21
    assert journal.commits == 2


@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk I/O error"), OSError(5, "I/O"), RuntimeError("I/O")])
def test_a_commit_that_fails_is_told_to_all_who_wait_for_it_and_the_next_one_works(queue, threads, error):
    journal = queue._journal
    commit, gate, begun = journal._commit, threading.Event(), threading.Event()

    def fail(*changes):
        begun.set()
        gate.wait(20)
        raise error

    journal._commit = fail
    threads.start(queue.add, deletion("first"))
    assert begun.wait(20)
    for number in range(5):
        threads.start(queue.add, deletion(str(number)))
    wait_for(lambda: len(journal._insertions) == 5)
    gate.set()
    assert all(isinstance(error, S4Error) and "I/O" in str(error) for error in threads.join())
    assert not queue.entries()
    journal._commit = commit
    queue.add(deletion())
    assert len(queue.entries()) == 1


def test_the_format_is_that_of_version_2(tmp_path):
    order = Order(
        *("x", Key("b", "é"), PUT, b"/q/spool/0a", True, Identity(1, 2, 3, 4, 5)),
        *(Attributes("e", {"h": "1"}, {"m": "ü"}, {}, {"SHA1": "s"}, "COMPOSITE", [Part(1, 3)]), 7, "1.1 d"),
    )
    assert encode(order) == (
        *(0, 0, "x", "b", "é", "put", b"0a", 1, 3, "1 2 3 4 5"),
        '["e",{"h":"1"},{"m":"ü"},{},{"SHA1":"s"},"COMPOSITE",[[1,3,"",{},0]]]',
        *(7, "1.1 d"),
    )
    assert encode(deletion()) == (0, 0, "", "b", "k", "delete", b"", 0, 0, "", "", 0, "")
    with opened(tmp_path / "q"):
        pass
    with sqlite3.connect(tmp_path / "q" / "queue.db") as database:
        columns = [(name, kind) for _, name, kind, *_ in database.execute("PRAGMA table_info(entries)")]
        numbers = [database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    database.close()
    assert numbers == [0x73345155, 2]
    assert columns == [
        *(("id", "INTEGER"), ("created_ns", "INTEGER"), ("alias", "TEXT"), ("bucket", "TEXT"), ("name", "TEXT")),
        *(("kind", "TEXT"), ("path", "BLOB"), ("spooled", "INTEGER"), ("size", "INTEGER"), ("identity", "TEXT")),
        *(("attributes", "TEXT"), ("max_attempts", "INTEGER"), ("attempts", "INTEGER"), ("retry_at_ns", "INTEGER")),
        *(("parked", "INTEGER"), ("error", "TEXT"), ("via", "TEXT")),
    ]


def test_a_queue_of_version_1_goes_on(tmp_path):
    with opened(tmp_path / "q") as queue:
        kept = queue.add(stored(queue, "k", b"body"))
    with sqlite3.connect(tmp_path / "q" / "queue.db") as database:
        database.executescript("ALTER TABLE entries DROP COLUMN via; PRAGMA user_version = 1;")
    database.close()
    for count in (1, 2):
        with opened(tmp_path / "q") as queue:
            assert queue.entries()[0] == kept
            queue.add(deletion()._replace(via="1.1 d"))
            assert [entry.order.via for entry in queue.entries()] == ["", *["1.1 d"] * count]


# -- order


def test_the_oldest_has_its_turn_first_and_a_key_only_once_at_a_time(queue):
    first, second, other = queue.add(deletion("a")), queue.add(deletion("a")), queue.add(deletion("b"))
    assert [queue.take(never).id, queue.take(never).id] == [first.id, other.id]
    assert queue.in_flight() == {first.id, other.id}
    queue.delivered(first.id)
    assert queue.take(never).id == second.id


def test_the_same_key_at_two_places_is_two_keys(queue):
    first, second = queue.add(deletion("a", "here")), queue.add(deletion("a", "there"))
    assert [queue.take(never).id, queue.take(never).id] == [first.id, second.id]


def tag(name="k"):
    return Order("", key(name), TAG, attributes=Attributes(tags={"a": "b"}))


def test_what_is_parked_holds_back_a_later_tag_of_its_key(queue):
    first, second, other = queue.add(deletion("a")), queue.add(tag("a")), queue.add(deletion("b"))
    queue.park(queue.take(never).id, S4Error("broken"))
    assert queue.before(second.id).id == first.id
    assert queue.take(never).id == other.id
    queue.delivered(other.id)
    assert queue.flush(0), "nothing is left that could move"
    (parked,) = queue.entries(parked=True)
    assert (parked.id, parked.attempts, parked.error) == (first.id, 1, "broken")
    assert queue.gauges()[:1] == (2,)
    assert queue.gauges().parked == 1


@pytest.mark.parametrize("restart", [False, True])
def test_what_is_parked_is_passed_by_a_later_put_or_delete_and_leaves_with_it(tmp_path, restart):
    with opened(tmp_path / "q") as queue:
        old = [queue.add(order) for order in (stored(queue, "a", b"1"), tag("a"), stored(queue, "a", b"22"))]
        queue.park(queue.take(never).id, S4Error("broken"))
        queue.park(queue.take(never).id, S4Error("too"))
        new = queue.add(deletion("a"))
        last = queue.add(tag("a"))
        assert ids(queue.pending("", key("a"))) == [*ids(old), new.id, last.id]
        if not restart:
            check_that_it_passes(queue, old, new, last)
    with opened(tmp_path / "q") as queue:
        if restart:
            check_that_it_passes(queue, old, new, last)
    with opened(tmp_path / "q") as queue:
        assert ids(queue.entries()) == [last.id]


def check_that_it_passes(queue, old, new, last):
    assert queue.before(new.id) is None
    assert queue.before(last.id).id == new.id
    assert queue.retry() == 0, "the old ones would undo what is on its way"
    assert queue.take(never).id == new.id
    assert queue.retry([old[2].id]) == 0
    assert [(each.id, each.error) for each in queue.passed(new.id)] == [
        (old[0].id, "broken"),
        (old[1].id, ""),
        (old[2].id, "too"),
    ]
    assert queue.newest("", key("a")).id == last.id
    queue.delivered(new.id)
    assert ids(queue.entries()) == [last.id]
    assert not queue.spool.names()
    assert (queue.gauges().delivered, queue.gauges().dropped, queue.gauges().parked) == (1, 3, 0)
    for each in old:
        assert "a later delete of the key was delivered" in str(queue.wait(each.id, 0))
    assert queue.wait(new.id, 0) is None
    assert queue.take(never).id == last.id


def test_what_was_passed_leaves_in_the_commit_of_what_passed_it(queue):
    first, second = queue.add(deletion("a")), queue.add(deletion("a"))
    queue.park(queue.take(never).id, S4Error("broken"))
    committed, commit = [], queue._journal._commit
    queue._journal._commit = lambda rows, ids, states: (committed.append(ids), commit(rows, ids, states))
    queue.delivered(queue.take(never).id)
    assert [ids for ids in committed if ids] == [[first.id, second.id]]


def test_what_is_parked_is_so_on_disk_before_a_later_one_passes_it(tmp_path, monkeypatch):
    monkeypatch.setattr("s4raw.queue.journal.LAZY_SECONDS", 1000.0)
    with opened(tmp_path / "q") as queue:
        queue.add(deletion("a"))
        second = queue.add(deletion("a"))
        queue.park(queue.take(never).id, S4Error("broken"))
        assert queue.take(never).id == second.id
        shutil.copytree(tmp_path / "q", tmp_path / "killed")
    with opened(tmp_path / "killed") as queue:
        assert [(entry.parked, entry.error) for entry in queue.entries()] == [(True, "broken"), (False, "")]
        assert queue.take(never).id == second.id


def test_when_what_passed_a_parked_one_is_dropped_that_can_be_tried_again(queue):
    first, tags, second = queue.add(deletion("a")), queue.add(tag("a")), queue.add(deletion("a"))
    queue.park(queue.take(never).id, S4Error("broken"))
    assert queue.take(never).id == second.id
    assert queue.retry([first.id]) == 0
    queue.give_up(second.id, S4Error("no"))
    assert queue.flush(0)
    assert queue.retry([first.id]) == 1
    for id in (first.id, tags.id):
        assert queue.take(never).id == id
        queue.delivered(id)


def test_a_tag_whose_put_was_dropped_does_not_go_beside_a_later_one(queue):
    first, tags, second = queue.add(deletion("a")), queue.add(tag("a")), queue.add(deletion("a"))
    other = queue.add(deletion("b"))
    queue.park(queue.take(never).id, S4Error("broken"))
    assert queue.take(never).id == second.id
    assert queue.drop([first.id]) == 1
    assert queue.take(never).id == other.id
    assert queue.before(tags.id).id == second.id
    queue.failed(second.id, S4Error("later"), 0.0)
    assert queue.take(never).id == tags.id


def test_a_tag_that_was_passed_is_obsolete_although_what_it_waited_for_was_dropped(queue):
    first, tags, _second = queue.add(deletion("a")), queue.add(tag("a")), queue.add(deletion("a"))
    queue.park(queue.take(never).id, S4Error("broken"))
    passing = queue.take(never)
    assert queue.drop([first.id]) == 1
    assert [each.id for each in queue.passed(passing.id)] == [tags.id]
    queue.delivered(passing.id)
    assert queue.entries() == []


def test_a_parked_one_goes_on_when_it_is_told_to(queue):
    first, second = queue.add(deletion("a")), queue.add(tag("a"))
    queue.park(queue.take(never).id, S4Error("broken"))
    assert queue.retry([first.id]) == 1
    found = queue.take(never)
    assert (found.id, found.attempts) == (first.id, 0)
    queue.delivered(found.id)
    assert queue.take(never).id == second.id


def test_a_parked_one_that_is_dropped_lets_the_next_one_go(queue, threads):
    first, second = queue.add(deletion("a")), queue.add(tag("a"))
    queue.park(queue.take(never).id, S4Error("broken"))
    threads.start(queue.take, never)
    assert queue.drop([first.id, 12345]) == 1
    assert ids(threads.join()) == [second.id]


def test_what_failed_waits_and_another_takes_its_turn(queue):
    first, other = queue.add(deletion("a")), queue.add(deletion("b"))
    queue.failed(queue.take(never).id, S4Error("later"), 1000)
    assert queue.take(never).id == other.id
    (found,) = queue.pending("", key("a"))
    assert (found.attempts, found.error, found.parked) == (1, "later", False)
    assert found.retry_at_ns > time.time_ns()
    assert queue.retry() == 1
    assert queue.take(never).id == first.id


def test_what_failed_has_its_turn_again_without_being_called(queue, threads):
    first, other = queue.add(deletion("a")), queue.add(deletion("b"))
    queue.failed(queue.take(never).id, S4Error("much later"), 1000)
    taken, stop = queue.take(never), threading.Event()
    for _ in range(3):  # one of them looks after the clock
        threads.start(queue.take, stop.is_set)
    wait_for(lambda: queue._alarm is not None)
    queue.failed(taken.id, S4Error("soon"), 0.05)
    wait_for(lambda: threads.results)
    stop.set()
    queue.wake()
    assert ids(entry for entry in threads.join() if entry) == [other.id] != [first.id]


def test_attempts_and_errors_survive_a_restart(tmp_path):
    with opened(tmp_path / "q") as queue:
        queue.add(deletion("a"))
        queue.add(deletion("b"))
        queue.failed(queue.take(never).id, S4Error("later \udcff"), 1000)
        queue.park(queue.take(never).id, S4Error("broken"))
        before = queue.entries()
    with opened(tmp_path / "q") as queue:
        assert queue.entries() == before
        assert (queue.gauges().parked, queue.gauges().entries) == (1, 2)
        assert queue.retry() == 2


def test_a_clock_that_was_set_back_holds_nothing_up_for_more_than_a_minute(tmp_path):
    with opened(tmp_path / "q") as queue:
        queue.add(deletion("a"))
        queue.failed(queue.take(never).id, S4Error("later"), 1e6)
    with opened(tmp_path / "q") as queue:
        assert queue._backlog.next_due() < time.monotonic() + 61


def test_a_deletion_that_fails_is_tried_again_and_no_later_one_overtakes_it(tmp_path, threads, monkeypatch):
    monkeypatch.setattr("s4raw.queue.journal.AGAIN_SECONDS", 0.01)
    with opened(tmp_path / "q") as queue:
        first, second = queue.add(deletion("a")), queue.add(deletion("a"))
        journal, failing, committed = queue._journal, threading.Event(), []
        commit = journal._commit

        def sometimes(rows, ids, states):
            if failing.is_set():
                raise sqlite3.OperationalError("disk I/O error")
            committed.append(ids)
            commit(rows, ids, states)

        failing.set()
        journal._commit = sometimes
        queue.take(never)
        threads.start(queue.delivered, first.id)
        wait_for(lambda: len(queue.entries()) == 1)
        queue.take(never)
        threads.start(queue.delivered, second.id)
        wait_for(lambda: not queue.entries())
        with pytest.raises(S4Error, match="I/O"):
            queue.add(deletion("b"))
        failing.clear()
        threads.join()
        assert [id for ids in committed for id in ids] == [first.id, second.id]
    with opened(tmp_path / "q") as queue:
        assert not queue.entries()


# -- looking


def test_the_newest_of_a_key_is_the_last_that_was_not_delivered(queue):
    first = queue.add(deletion("a"))
    second = queue.add(stored(queue, "a", b"x"))
    assert queue.newest("", key("a")) == second
    assert ids(queue.pending("", key("a"))) == [first.id, second.id]
    assert ids(queue.pending("", key("a"), 1)) == [first.id]
    assert queue.newest("other", key("a")) is None
    queue.drop([second.id])
    assert queue.newest("", key("a")) == first
    queue.drop([first.id])
    assert queue.newest("", key("a")) is None
    assert queue.pending("", key("a")) == []


def test_names_come_in_the_order_of_their_bytes(queue):
    everything = sorted(["a", "a/", "a/b", "ab", "b", "é", "\uffff", "\U0001f980"], key=str.encode)
    for name in reversed(everything):
        queue.add(deletion(name))
        queue.add(deletion(name))
    queue.add(Order("", Key("other", "a"), DELETE))

    def names(prefix="", after="", limit=100):
        found = queue.names("", "b", prefix, after, limit)
        assert [entry.id for entry in found] == [queue.newest("", entry.order.key).id for entry in found]
        return [entry.order.key.name for entry in found]

    assert names() == everything
    assert names("a") == ["a", "a/", "a/b", "ab"]
    assert names("a/", "a/") == ["a/b"]
    assert names("a", "a/", 1) == ["a/b"]
    assert names("a", "zz") == names("zz") == names(limit=0) == []
    queue.add(deletion("aa"))
    queue.drop(ids(queue.pending("", key("ab"))))
    assert names("a") == ["a", "a/", "a/b", "aa"]


def test_entries_come_by_id_in_pages(queue):
    added = ids([queue.add(deletion(str(number), "even" if number % 2 else "odd")) for number in range(7)])
    assert ids(queue.entries(limit=3)) == added[:3]
    assert ids(queue.entries(after=added[2])) == added[3:]
    assert ids(queue.entries(alias="even", after=added[1])) == added[3::2]
    assert queue.entries(parked=True) == []


# -- results


def test_a_waiter_is_told_when_its_entry_was_delivered_or_dropped(queue, threads):
    first, second, third = (queue.add(deletion(name)) for name in "abc")
    with pytest.raises(PeerTimeout):
        queue.wait(first.id, 0.01)
    for entry in (first, first, second):
        threads.start(queue.wait, entry.id)
    queue.delivered(queue.take(never).id)
    queue.give_up(queue.take(never).id, S4Error("refused"))
    queue.drop([third.id])
    results = threads.join()
    assert (results.count(None), [str(found) for found in results if found]) == (2, ["refused"])
    assert queue.wait(first.id) is None, "also afterwards"
    assert str(queue.wait(second.id)) == "refused"
    assert "dropped" in str(queue.wait(third.id))
    with pytest.raises(NoSuchKey):
        queue.wait(third.id + 1)
    assert not queue._outcomes._waiters


def test_who_is_told_that_an_entry_left_can_rely_on_it(queue, threads):
    """Else its user could delete the file, and a crash would bring it back without one."""
    journal, gate = queue._journal, threading.Event()
    entry = queue.add(deletion("a"))
    queue.take(never)
    commit = journal._commit
    journal._commit = lambda *changes: (gate.wait(20), commit(*changes))
    threads.start(queue.delivered, entry.id)
    wait_for(lambda: not queue.entries())
    with pytest.raises(PeerTimeout):
        queue.wait(entry.id, 0.01)
    gate.set()
    assert queue.wait(entry.id, 20) is None


def test_a_row_that_cannot_be_understood_is_parked_and_others_go_on(tmp_path):
    with opened(tmp_path / "q") as queue:
        bad, good = queue.add(deletion("a")), queue.add(deletion("b"))
    with sqlite3.connect(tmp_path / "q" / "queue.db") as database:
        database.execute("UPDATE entries SET attributes = '{' WHERE id = ?", [bad.id])
    database.close()
    with opened(tmp_path / "q") as queue:
        assert queue.take(never).id == good.id
        assert queue.gauges().parked == 1


def test_of_an_entry_from_before_a_restart_the_result_is_known_if_it_left_since(tmp_path):
    with opened(tmp_path / "q") as queue:
        first, second = queue.add(deletion("a")), queue.add(deletion("b"))
        queue.delivered(queue.take(never).id)
    with opened(tmp_path / "q") as queue:
        queue.delivered(queue.take(never).id)
        assert queue.wait(second.id) is None
        with pytest.raises(NoSuchKey):
            queue.wait(first.id)


def test_results_are_remembered_in_bounded_memory_and_never_made_up(queue, monkeypatch):
    monkeypatch.setattr("s4raw.queue.outcomes.REMEMBERED", 3)
    added = ids([queue.add(deletion(str(number))) for number in range(6)])
    for id in added[:5]:
        queue.drop([id])
    assert len(queue._outcomes._known) == 3
    assert "dropped" in str(queue.wait(added[4]))
    with pytest.raises(NoSuchKey):
        queue.wait(added[0])


# -- limits


def test_a_full_queue_refuses_after_a_time_or_at_once(tmp_path):
    with opened(tmp_path / "q", Limits(files=1)) as queue:
        queue.add(deletion("a"))
        with pytest.raises(QueueFull, match="1 of 1 entries"):
            queue.add(deletion("b"), timeout=0.01)
    with opened(tmp_path / "q", Limits(files=1), refuse=True) as queue, pytest.raises(QueueFull):
        queue.add(deletion("b"))


@pytest.mark.parametrize(
    ("limits", "named"), [(Limits(size=100), "60 of 100 bytes"), (Limits(age_seconds=0.001), "oldest")]
)
def test_each_limit_is_one(tmp_path, limits, named):
    with opened(tmp_path / "q", limits, refuse=True) as queue:
        queue.add(stored(queue, "a", b"x" * 60))
        time.sleep(0.002)
        order = stored(queue, "b", b"x" * 60)
        with pytest.raises(QueueFull, match=named):
            queue.add(order)
        queue.delivered(queue.take(never).id)
        queue.add(order)  # its file is still there
        assert queue.spool.has(order.path)


def test_what_is_parked_has_no_age(tmp_path):
    with opened(tmp_path / "q", Limits(age_seconds=0.001), refuse=True) as queue:
        queue.add(deletion("a"))
        time.sleep(0.002)
        with pytest.raises(QueueFull, match="oldest"):
            queue.add(deletion("b"))
        queue.park(queue.take(never).id, LocalFileError("gone"))
        queue.add(deletion("b"))


def test_an_order_that_was_not_accepted_leaves_no_file_and_cannot_be_tried_again_without_one(queue):
    order = stored(queue, "", b"x")
    with pytest.raises(BadKey):
        queue.add(order)
    assert not queue.spool.names()
    with pytest.raises(LocalFileError, match="not in the queue's spool"):
        queue.add(order._replace(key=key("a")))
    assert not queue.entries()


def test_who_waits_for_room_is_let_in_in_turn(tmp_path, threads):
    with opened(tmp_path / "q", Limits(size=100)) as queue:
        queue.add(stored(queue, "0", b"x" * 60))
        orders = [stored(queue, "1", b"x" * 90), stored(queue, "2", b"x" * 10), stored(queue, "3", b"x" * 10)]
        for number, order in enumerate(orders, 1):
            threads.start(queue.add, order)
            wait_for(lambda number=number: len(queue.room._waiting) == number)
        assert len(queue.entries()) == 1, "nobody overtakes, although the small ones would fit"
        queue.delivered(queue.take(never).id)
        wait_for(lambda: len(queue.entries()) == 2)
        assert len(queue.room._waiting) == 1
        queue.delivered(queue.take(never).id)
        threads.join()
        assert queue.room._count == queue.room._size == 0


def test_who_is_asked_whether_to_wait_on_keeps_the_turn_and_who_will_not_gives_it_up(tmp_path, threads, monkeypatch):
    monkeypatch.setattr("s4raw.queue.room.PATIENCE_SECONDS", 0.001)
    asked, answers = threading.Semaphore(0), {"a": True, "b": True}

    def patience(name):
        asked.release()
        if isinstance(answers[name], S4Error):
            raise answers[name]
        return answers[name]

    with opened(tmp_path / "q", Limits(size=100)) as queue:
        queue.add(stored(queue, "0", b"x" * 60))
        for number, name in enumerate(answers, 1):
            threads.start(queue.reserve, 90, None, lambda name=name: patience(name))
            wait_for(lambda number=number: len(queue.room._waiting) == number)
        threads.start(queue.reserve, 10)
        wait_for(lambda: len(queue.room._waiting) == 3)
        for _ in range(10):
            assert asked.acquire(timeout=20)
        assert not threads.results, "the small one would fit"
        answers["a"], answers["b"] = False, BadKey("the client has left")
        full, left, room = sorted(
            threads.join(), key=lambda each: ("QueueFull", "BadKey", "Reservation").index(type(each).__name__)
        )
        assert (type(full), type(left), room.size) == (QueueFull, BadKey, 10)
        room.release()
        assert queue.room._count == queue.room._size == 0


def test_one_order_that_is_larger_than_the_limit_is_let_in_alone(tmp_path):
    with opened(tmp_path / "q", Limits(size=10), refuse=True) as queue:
        queue.add(stored(queue, "a", b"x" * 60))
        with pytest.raises(QueueFull):
            queue.add(deletion("b"))


def test_room_that_is_reserved_counts_until_the_order_is_in(tmp_path):
    with opened(tmp_path / "q", Limits(size=100), refuse=True) as queue:
        with queue.reserve(60) as room:
            with pytest.raises(QueueFull):
                queue.reserve(60)
            queue.add(stored(queue, "a", b"x" * 70), room=room)
        with queue.reserve(30), pytest.raises(QueueFull):
            queue.reserve(1)
        queue.reserve(30).release()


def test_an_order_that_fails_gives_its_room_back(tmp_path):
    with opened(tmp_path / "q", Limits(files=1), refuse=True) as queue:
        queue._journal._commit = lambda *changes: (_ for _ in ()).throw(sqlite3.OperationalError("no"))
        with pytest.raises(S4Error):
            queue.add(deletion())
        del queue._journal._commit
        queue.add(deletion())


# -- opening and closing


def test_two_on_one_directory_are_refused_and_the_holder_is_named(tmp_path):
    with opened(tmp_path / "q"), pytest.raises(ConfError, match=f"in use by another process, pid {os.getpid()}"):
        Queue(str(tmp_path / "q"))
    with opened(tmp_path / "q"):
        pass


def damage(path, how):
    with open(path, "r+b") as file:
        if how == "header":
            file.write(b"this is no database" * 10)
        elif how == "page":
            file.seek(4096)
            file.write(b"\xff" * 4096)
        elif how == "short":
            file.truncate(5000)
        else:
            file.truncate(0)


@pytest.mark.parametrize("how", ["header", "page", "short", "empty"])
def test_a_damaged_database_is_named_and_never_replaced(tmp_path, how):
    with opened(tmp_path / "q") as queue:
        for number in range(50):
            queue.add(stored(queue, "key" * 100 + str(number), b"x"))
    path = tmp_path / "q" / "queue.db"
    damage(path, how)
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(Corrupt, match=r"queue\.db"):
            Queue(str(tmp_path / "q"))
    assert len(os.listdir(tmp_path / "q" / "spool")) == 50
    assert how == "empty" or path.read_bytes() == before


def test_a_log_without_its_database_is_named_and_kept(tmp_path):
    """It holds what was accepted since it was last copied into the database, which may be all."""
    with opened(tmp_path / "q") as queue:
        queue.add(deletion())
        shutil.copytree(tmp_path / "q", tmp_path / "killed")
    path = tmp_path / "killed" / "queue.db"
    assert path.stat().st_mode & 0o777 == 0o600
    path.rename(tmp_path / "away")
    with pytest.raises(Corrupt, match=r"queue\.db-wal"):
        Queue(str(tmp_path / "killed"))
    (tmp_path / "away").rename(path)
    with opened(tmp_path / "killed") as queue:
        assert queue.gauges().entries == 1


@pytest.mark.parametrize(
    ("statement", "named"),
    [("PRAGMA user_version = 9", "of version 9"), ("PRAGMA application_id = 7", "not the database of a queue")],
)
def test_another_version_is_refused(tmp_path, statement, named):
    with opened(tmp_path / "q"):
        pass
    with sqlite3.connect(tmp_path / "q" / "queue.db") as database:
        database.execute(statement)
    database.close()
    with pytest.raises(ConfError, match=named):
        Queue(str(tmp_path / "q"))


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfError, match="file/q"):
        Queue(str(tmp_path / "file" / "q"))


def test_spooled_files_without_a_row_are_swept_and_rows_without_a_file_are_parked(tmp_path):
    with opened(tmp_path / "q") as queue:
        kept, lost = queue.add(stored(queue, "a", b"kept")), queue.add(stored(queue, "b", b"lost"))
    Path(os.fsdecode(lost.order.path)).unlink()
    (tmp_path / "q" / "spool" / "never-accepted").write_bytes(b"x")
    for _ in range(2):
        with opened(tmp_path / "q") as queue:
            assert [(entry.id, entry.parked) for entry in queue.entries()] == [(kept.id, False), (lost.id, True)]
            assert "missing" in queue.entries()[1].error
        assert os.listdir(tmp_path / "q" / "spool") == [os.path.basename(os.fsdecode(kept.order.path))]


def test_a_directory_can_be_moved(tmp_path):
    with opened(tmp_path / "q") as queue:
        queue.add(stored(queue, "a", b"body"))
    os.rename(tmp_path / "q", tmp_path / "elsewhere")
    target = Target()
    with opened(tmp_path / "elsewhere") as queue, pushing(queue, target):
        assert queue.flush(20)
    assert target.content("a") == b"body"


def test_closing_tells_all_who_wait(tmp_path, threads):
    with opened(tmp_path / "q", Limits(files=1)) as queue:
        entry = queue.add(deletion("a"))
        threads.start(queue.wait, entry.id)
        threads.start(queue.add, deletion("b"))
        threads.start(queue.flush)
        wait_for(lambda: queue._outcomes._waiters and queue.room._waiting)
        queue.close()
        results = threads.join()
        assert sorted(map(str, results)) == ["False", "the queue is closed", "the queue was closed"]
        queue.close()
        spooled = Order("", key("c"), path=b"/spool/file", spooled=True)
        for call in (
            lambda: queue.add(spooled),
            lambda: queue.add(deletion("c")),
            lambda: queue.wait(entry.id),
            lambda: queue.drop([entry.id]),
        ):
            with pytest.raises(Busy):
                call()


def test_what_was_dropped_is_gone_after_a_restart_and_what_is_in_flight_cannot_be(tmp_path):
    with opened(tmp_path / "q") as queue:
        first, second = queue.add(stored(queue, "a", b"1")), queue.add(stored(queue, "b", b"2"))
        assert queue.take(never).id == first.id
        assert queue.drop([first.id, second.id, second.id]) == 1
        assert queue.gauges().dropped == 1
    with opened(tmp_path / "q") as queue:
        assert ids(queue.entries()) == [first.id]
        assert queue.entries()[0].order.kind == PUT
        assert len(os.listdir(tmp_path / "q" / "spool")) == 1
