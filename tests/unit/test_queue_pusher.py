"""The pusher: what is queued arrives, in order for each key, whatever the target does; what cannot is parked."""

import os
import threading
import time
from collections import defaultdict

import pytest
from conftest import wait_for
from queue_support import Target, deletion, ids, key, opened, pushing, stored

from s4raw.errors import ConnectionLost, LocalFileError, S4Error, StoreError, Unreachable
from s4raw.objects.base import Attributes
from s4raw.queue.backlog import AWAY_AFTER, Backlog
from s4raw.queue.entries import TAG, Gauges, Order
from s4raw.queue.pace import Pace
from s4raw.queue.pusher import Pusher
from s4raw.queue.rows import State, encode


@pytest.fixture
def queue(tmp_path):
    with opened(tmp_path / "q") as queue:
        yield queue


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def by_reference(path, name="k", **options):
    return Order("", key(name), path=os.fsencode(path), **options)


class Failing:
    """Raises an error so many times for each key."""

    def __init__(self, error, times):
        self.error, self.left = error, defaultdict(lambda: times)

    def __call__(self, key):
        if self.left[key.name]:
            self.left[key.name] -= 1
            raise self.error


def parked(queue):
    wait_for(lambda: queue.flush(0) and queue.gauges().parked)
    return [(entry.order.key.name, entry.error) for entry in queue.entries(parked=True)]


def test_what_is_queued_arrives_with_its_attributes_and_leaves_no_file(queue, file):
    target = Target()
    known = Attributes("", {"content-type": "a/b"}, {"m": "v"}, {"t": "1"})
    queue.add(by_reference(file, attributes=known))
    queue.add(stored(queue, "s", b"spooled"))
    queue.add(Order("", key("s"), TAG, attributes=Attributes(tags={"a": "b"})))
    with pushing(queue, target):
        assert queue.flush(20)
    assert (target.content("k"), target.content("s")) == (b"content", b"spooled")
    found = target.head(key("k")).attributes
    assert (found.headers, found.metadata, found.tags, len(found.etag)) == (*known[1:4], 32)
    assert target.head(key("s")).attributes.tags == {"a": "b"}
    assert file.exists()
    wait_for(lambda: not queue.spool.names())
    assert queue.gauges() == Gauges(attempts=3, delivered=3)


def test_each_key_in_order_and_keys_side_by_side(queue):
    gate, waiting = threading.Event(), threading.Semaphore(0)

    def hold(key):
        waiting.release()
        gate.wait(20)

    target = Target(hold)
    for number in range(30):
        queue.add(stored(queue, f"k{number % 3}", b"%d" % number))
    with pushing(queue, target):
        for _ in range(3):
            assert waiting.acquire(timeout=20)
        assert queue.gauges().in_flight == 3
        assert len(target.busy) == 3
        gate.set()
        assert queue.flush(20)
    assert target.most_busy == 1
    for number in range(3):
        assert [int(c) for _, name, c in target.done if name == f"k{number}"] == list(range(number, 30, 3))


@pytest.mark.parametrize("error", [StoreError("no"), ConnectionLost("cut"), RuntimeError("a defect"), OSError(5, "?")])
def test_what_fails_is_tried_until_it_arrives_and_nothing_overtakes_it(queue, error):
    target = Target(Failing(error, 3))
    for number in range(4):
        queue.add(stored(queue, f"k{number % 2}", b"%d" % number))
    with pushing(queue, target):
        assert queue.flush(20)
    assert [target.content("k0"), target.content("k1")] == [b"2", b"3"]
    assert queue.gauges()[5:8] == (10, 6, 4)


def test_an_alias_is_given_its_own_target(queue):
    targets = {"": Target(), "other": Target()}
    queue.add(stored(queue, "k", b"here"))
    queue.add(stored(queue, "k", b"there", "other"))
    pusher = Pusher(queue, targets.__getitem__)
    pusher.start()
    assert queue.flush(20)
    assert pusher.stop(20)
    assert [target.content("k") for target in targets.values()] == [b"here", b"there"]


def test_after_the_last_attempt_an_entry_is_parked_or_dropped_if_its_client_was_told(queue):
    asked, log = [], []
    target = Target(Failing(StoreError("no"), 100))
    told, kept, mine = (queue.add(deletion(name)._replace(max_attempts=2)) for name in ("told", "kept", "mine"))
    queue.drop([mine.id])
    usual = queue.add(deletion("usual"))

    def rejected(entry, error):
        asked.append((entry.id, entry.attempts, str(error)))
        return entry.id == told.id

    def logged(entry, start, seconds, error):
        log.append((entry.id, entry.attempts, str(error), abs(start - time.time()) < 100, 0 <= seconds < 100))

    with pushing(queue, target, max_attempts=3, rejected=rejected, log=logged):
        assert parked(queue) == [("kept", "no"), ("usual", "no")]
        assert str(queue.wait(told.id)) == "no"
    assert sorted(asked) == [(told.id, 1, "no"), (kept.id, 1, "no")]
    numbers = {told.id: 2, kept.id: 2, usual.id: 3}
    assert sorted(log) == sorted((id, n, "no", True, True) for id, count in numbers.items() for n in range(count))
    assert queue.gauges()[4:] == (2, 7, 7, 0, 2)


def test_deleting_or_tagging_what_is_not_there_is_done(queue):
    queue.add(deletion("gone"))
    queue.add(Order("", key("gone"), TAG, attributes=Attributes(tags={"a": "b"})))
    with pushing(queue, Target()):
        assert queue.flush(20)
    assert queue.gauges().delivered == 2


def test_a_bucket_that_is_not_there_is_waited_for(queue):
    target = Target()
    target.delete_bucket("b")
    queue.add(stored(queue, "k", b"x"))
    with pushing(queue, target):
        wait_for(lambda: queue.gauges().failures > 2)
        assert "no bucket" in queue.entries()[0].error
        target.create_bucket("b")
        assert queue.flush(20)


# -- files


def change_size(path):
    path.write_bytes(b"other content")


def change_time(path):
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(1, 1))


def replace(path):
    other = path.parent / "other"
    other.write_bytes(b"content")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)


def append(path):
    with open(path, "ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("change", [change_size, change_time, replace, append])
def test_a_file_that_changed_is_reported_as_that_and_not_sent(queue, file, change):
    target = Target()
    queue.add(by_reference(file))
    change(file)
    with pushing(queue, target):
        assert parked(queue) == [("k", f"the file {file} has changed since it was queued")]
    assert not target.done
    assert queue.gauges().attempts == 1


@pytest.mark.parametrize(
    ("remove", "named"),
    [
        (os.unlink, "No such file"),
        (lambda path: (os.unlink(path), os.mkdir(path)), "not a regular file"),
        (lambda path: (os.unlink(path), os.mkfifo(path)), "not a regular file"),
    ],
)
def test_a_file_that_vanished_is_reported_as_that_and_others_go_on(queue, file, remove, named):
    target = Target()
    queue.add(by_reference(file))
    queue.add(stored(queue, "other", b"x"))
    remove(file)
    with pushing(queue, target):
        assert named in str(parked(queue))
    assert [name for _, name, _ in target.done] == ["other"]


def test_a_file_that_changes_while_it_is_sent_is_reported_as_that(queue, file):
    target = Target(lambda key: append(file))
    queue.add(by_reference(file))
    with pushing(queue, target):
        ((_, error),) = parked(queue)
    assert "changed" in error


def test_a_file_that_changes_when_it_was_sent_but_not_acknowledged_is_reported_as_that(queue, file):
    class Late(Target):
        def put(self, key, source, *conditions):
            info = super().put(key, source, *conditions)
            append(file)
            return info

    queue.add(by_reference(file))
    with pushing(queue, Late()):
        ((_, error),) = parked(queue)
    assert "changed" in error


def test_a_link_or_another_mode_is_no_change(queue, file):
    queue.add(by_reference(file))
    os.link(file, file.parent / "link")
    os.chmod(file, 0o400)
    with pushing(queue, Target()) as pusher:
        assert queue.flush(20)
        assert pusher
    assert not queue.gauges().parked


def test_a_parked_file_that_is_back_is_delivered_when_told_to(queue, file):
    queue.add(by_reference(file))
    away = file.parent / "away"
    file.rename(away)
    target = Target()
    with pushing(queue, target):
        parked(queue)
        away.rename(file)
        assert queue.retry() == 1
        assert queue.flush(20)
    assert target.content("k") == b"content"


def test_of_two_puts_of_a_key_the_last_wins_although_the_file_of_the_first_has_gone(queue, file, capfd):
    """And the first, which is back, does not come behind it; that it was dropped is logged."""
    first = queue.add(by_reference(file))
    away = file.parent / "away"
    file.rename(away)
    target = Target()
    with pushing(queue, target):
        parked(queue)
        away.rename(file)
        queue.add(stored(queue, "k", b"newer"))
        assert queue.flush(20)
        assert queue.retry() == 0
    assert target.content("k") == b"newer"
    assert [content for _, _, content in target.done] == [b"newer"]
    assert queue.gauges()[:1] == (0,)
    assert (queue.gauges().delivered, queue.gauges().dropped) == (1, 1)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "pusher dropped" in line]
    assert f"entry {first.id}, s4://b/k: " in line
    assert "No such file" in line


@pytest.mark.parametrize("error", [LocalFileError("not below a root"), OSError(13, "Permission denied")])
def test_who_opens_the_files_may_refuse_one(queue, file, error):
    def refuse(entry):
        raise error

    queue.add(by_reference(file))
    with pushing(queue, Target(), open_file=refuse):
        ((_, text),) = parked(queue)
    assert "not below a root" in text or "Permission denied" in text


def test_too_many_open_files_pass_by_themselves(queue, file):
    left = [3]

    def scarce(entry):
        if left[0]:
            left[0] -= 1
            raise OSError(24, "Too many open files")
        return os.open(file, os.O_RDONLY)

    queue.add(by_reference(file))
    with pushing(queue, Target(), open_file=scarce):
        assert queue.flush(20)
    assert queue.gauges().delivered == 1


# -- remotes that are away


def test_a_remote_that_is_away_does_not_hold_up_another(queue):
    """Four workers, and forty entries that each take as long as the test."""
    gate, tried = threading.Event(), threading.Semaphore(0)

    def away(key):
        tried.release()
        if tried_out.is_set():
            gate.wait(20)
        raise Unreachable("away")

    tried_out = threading.Event()
    targets = {"away": Target(away), "": Target()}
    for number in range(40):
        queue.add(stored(queue, str(number), b"x", "away"))
    pusher = Pusher(queue, targets.__getitem__, workers=4, backoff=(100.0, 100.0))
    pusher.start()
    for _ in range(AWAY_AFTER):
        assert tried.acquire(timeout=20)
    tried_out.set()
    try:
        for number in range(20):
            queue.add(stored(queue, str(number), b"x"))
        wait_for(lambda: len(targets[""].done) == 20)
        wait_for(lambda: queue.gauges().entries == 40)
    finally:
        gate.set()
        assert pusher.stop(20)


def test_when_a_remote_is_back_all_that_waited_for_it_goes_at_once(queue):
    target = Target(lambda key: (_ for _ in ()).throw(Unreachable("away")))
    for number in range(30):
        queue.add(stored(queue, str(number), b"x"))
    with pushing(queue, target, backoff=(1000.0, 1000.0)):
        wait_for(lambda: queue.gauges().failures >= AWAY_AFTER)
        target.before = lambda key: None
        assert queue.flush(20)
    assert queue.gauges().failures < 15, "it was tried with one at a time"


def test_what_was_parked_stays_so_when_its_remote_is_back(queue):
    parked = queue.add(deletion("parked"))
    assert queue.take(lambda: False) == parked
    queue.failed(parked.id, S4Error("no"), 1000.0)
    assert queue.retry([parked.id]) == 1
    assert queue.take(lambda: False)
    queue.park(parked.id, S4Error("no"))
    for number in range(AWAY_AFTER + 1):
        entry = queue.add(deletion(str(number)))
        assert queue.take(lambda: False) == entry
        queue.failed(entry.id, Unreachable("away"), 1000.0)
    queue.retry([entry.id])
    assert queue.take(lambda: False)
    queue.delivered(entry.id)
    assert [each.parked for each in queue.entries(limit=2)] == [True, False]


def test_an_order_for_which_somebody_waits_is_tried_although_the_remote_is_away(queue):
    target = Target(lambda key: (_ for _ in ()).throw(Unreachable("away")))
    for number in range(30):
        queue.add(deletion(str(number))._replace(max_attempts=2))
    with pushing(queue, target, rejected=lambda entry, error: True):
        assert queue.flush(20)
    assert queue.gauges()[4:] == (0, 60, 60, 0, 30)


def test_of_each_alias_so_many_are_in_flight_and_no_more_also_while_it_is_away():
    backlog = Backlog()
    for number in range(1, 41):
        backlog.add(encode(deletion(str(number), "away" if number % 4 else ""))._replace(id=number))

    def take(now=0.0):
        return [item.row.id for item in iter(lambda: backlog.take(now, 3), None)]

    assert take() == [1, 2, 3, 4, 8, 12]
    for id in (2, 4):
        backlog.remove(backlog.get(id))
    assert take() == [5, 16]
    for _ in range(AWAY_AFTER):
        backlog.unreachable(backlog.get(1), 0.0)
    backlog.hasten(backlog.get(6))
    assert take(100.0) == [] and backlog.next_due(3) is None  # nobody is to wake up for what cannot be tried
    backlog.put_back(backlog.get(1), State(), 1e9)
    assert take(100.0) == [6]  # for which somebody waits
    backlog.remove(backlog.get(3))
    assert take(100.0) == [7]  # which is tried, and no other
    backlog.remove(backlog.get(5))
    assert take(100.0) == [] and backlog.next_due(3) == 1e9
    backlog.reachable("away")
    assert take(100.0) == [1]


def test_a_remote_that_is_away_is_tried_less_and_less_often_until_it_answers():
    backlog = Backlog()
    for number in range(1, 41):
        backlog.add(encode(deletion(str(number)))._replace(id=number))

    def fail(now):
        item = backlog.take(now)
        backlog.unreachable(item, now)
        backlog.put_back(item, State(), 1e9)

    flying = [backlog.take(0.0) for _ in range(AWAY_AFTER)]
    for _ in range(2):
        now, pauses = 0.0, []
        for item in flying:
            backlog.unreachable(item, now)
            backlog.put_back(item, State(), 1e9)
        for _ in range(7):
            assert backlog.take(now) is None
            pauses.append(backlog.next_due() - now)
            now += pauses[-1]
            fail(now)
        assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        backlog.hurry()
        item = backlog.take(now)
        assert backlog.reachable("")
        flying = [item, *(backlog.take(now) for _ in range(AWAY_AFTER - 1))]


# -- pace, start and stop


def test_the_bytes_of_all_are_paced(monkeypatch):
    now, slept = [100.0], []
    monkeypatch.setattr("s4raw.queue.pace.time.monotonic", lambda: now[0])
    pace = Pace(1000)
    monkeypatch.setattr("s4raw.queue.pace.time.sleep", slept.append)
    for _ in range(4):
        pace.wait(500)
    assert slept == [0.25, 0.75, 1.25]
    now[0] += 100
    assert [pace.charge(250), pace.charge(250), pace.charge(250)] == [0, 0, 0.25]
    assert Pace(0).charge(10**12) == 0


def test_a_file_is_charged_whole_and_a_large_one_piece_by_piece(queue, monkeypatch):
    charged = []
    monkeypatch.setattr(Pace, "charge", lambda self, count: charged.append(count) or 0.0)
    queue.add(stored(queue, "small", b"x" * 1000))
    queue.add(stored(queue, "large", b"x" * (5 << 19)))
    with pushing(queue, Target(), rate=1e9, workers=1):
        assert queue.flush(20)
    assert [count for count in charged if count] == [1000, 1 << 20, 1 << 20, 1 << 19]


def test_threads_are_started_as_there_is_work(queue):
    gate = threading.Event()
    target = Target(lambda key: gate.wait(20))
    before = threading.active_count()
    with pushing(queue, target, workers=5):
        assert threading.active_count() == before + 1
        for number in range(20):
            queue.add(deletion(str(number)))
        wait_for(lambda: queue.gauges().in_flight == 5)
        assert threading.active_count() == before + 5
        gate.set()
        assert queue.flush(20)


def test_stop_waits_for_what_is_in_flight_and_begins_nothing(queue):
    gate, begun = threading.Event(), threading.Event()
    target = Target(lambda key: (begun.set(), gate.wait(20)))
    added = ids([queue.add(stored(queue, "k", b"1")), queue.add(stored(queue, "k", b"2"))])
    pusher = Pusher(queue, lambda alias: target, workers=3)
    pusher.start()
    assert begun.wait(20)
    assert not pusher.stop(0.01), "one is still in flight"
    gate.set()
    assert pusher.stop(20)
    assert ids(queue.entries()) == added[1:]
    with pushing(queue, target):
        assert queue.flush(20)
    assert target.content("k") == b"2"


def test_a_queue_that_is_closed_under_a_pusher_keeps_the_entry(tmp_path):
    gate, begun = threading.Event(), threading.Event()
    target = Target(lambda key: (begun.set(), gate.wait(20)))
    with opened(tmp_path / "q") as queue:
        queue.add(stored(queue, "k", b"1"))
        pusher = Pusher(queue, lambda alias: target)
        pusher.start()
        assert begun.wait(20)
        queue.close()
        gate.set()
        assert pusher.stop(20)
    with opened(tmp_path / "q") as queue, pushing(queue, target):
        assert queue.flush(20)
    assert [content for _, _, content in target.done] == [b"1", b"1"], "at least once"


def test_a_defect_in_who_is_told_ends_no_worker(queue):
    def broken(*arguments):
        raise RuntimeError("a defect")

    for number in range(2):
        queue.add(deletion(str(number)))
    queue.add(deletion("parked")._replace(max_attempts=1))
    target = Target(lambda key: key.name == "parked" and broken())
    with pushing(queue, target, workers=1, log=broken, rejected=broken):
        assert [name for name, _ in parked(queue)] == ["parked"]
    assert queue.gauges().delivered == 2
