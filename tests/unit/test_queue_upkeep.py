"""What whoever looks after a queue may ask of it: what was not done is named, and the rest is done."""

import threading

import pytest
from queue_support import deletion, ids, key, opened

from s4raw.errors import BadKey, Refused, Unreachable
from s4raw.keys import Key, check_key
from s4raw.queue import upkeep
from s4raw.queue.asking import Drop, Flush, Retry
from s4raw.queue.entries import TAG, Order

UNKNOWN, FLYING = "it is not in the queue", "it is in flight"


def where(place):
    """``BUCKET/KEY``."""
    bucket, _, name = place.partition("/")
    return "", check_key(Key(bucket, name))


@pytest.fixture
def queue(tmp_path):
    with opened(tmp_path / "q") as queue:
        yield queue


def park(queue, count=1):
    """Park the next entries whose turn it is; their ids."""
    found = [queue.take(lambda: False) for _ in range(count)]
    for entry in found:
        queue.park(entry.id, Refused("never"))
    return ids(found)


def test_what_is_named_is_dropped_and_what_cannot_be_is_named(queue):
    first, second, third, fourth = [queue.add(deletion(name)).id for name in ("a", "b", "c", "c")]
    assert queue.take(lambda: False).id == first
    told = []
    answer = upkeep.drop(queue, Drop([first, second, second, 99], ["b/c", "b/none", "b/none"]), where, told.append)
    assert answer == {
        "count": 3,
        "left": [
            {"id": 99, "error": UNKNOWN},
            {"place": "b/none", "error": "nothing of it is in the queue"},
            {"id": first, "error": FLYING},
        ],
    }
    assert ids(queue.entries()) == [first] and told == [[first, second, third, fourth]]
    queue.failed(first, Refused("no"), 60.0)
    assert upkeep.drop(queue, Drop([first]), where) == {"count": 1, "left": []}


def test_what_leaves_before_it_is_dropped_is_not_said_to_be_dropped(queue, monkeypatch):
    entry = queue.add(deletion())
    drop = queue.drop
    monkeypatch.setattr(queue, "drop", lambda some: (drop(some), 0)[1])  # as if it had been delivered
    answer = upkeep.drop(queue, Drop([entry.id]), where)
    assert answer == {"count": 0, "left": [{"error": "1 of them left the queue before they could be dropped"}]}


def test_all_that_failed_is_dropped_and_all_the_rest_stays(queue):
    for name in "abcd":
        queue.add(deletion(name))
    parked, waits = park(queue)[0], queue.take(lambda: False).id
    queue.failed(waits, Refused("no"), 60.0)
    flying, queued = queue.take(lambda: False).id, queue.entries()[-1].id
    assert upkeep.drop(queue, Drop(failed=True), where) == {"count": 2, "left": []}
    assert ids(queue.entries()) == [flying, queued] and parked != waits
    assert upkeep.drop(queue, Drop(), where) == {"count": 1, "left": []}
    assert ids(queue.entries()) == [flying]


def test_what_is_named_is_tried_again_and_what_cannot_be_is_named(queue):
    queue.add(deletion("a"))
    queue.add(deletion("a"))
    queue.add(deletion("b"))
    old, _, other = park(queue, 1)[0], *ids(queue.entries()[1:])
    later = queue.take(lambda: False)
    assert park(queue) == [other]
    answer = upkeep.retry(queue, Retry([99, old, later.id], ["b/b"]), where)
    assert answer["count"] == 1
    assert [(each.get("id"), each["error"].split(":")[0]) for each in answer["left"]] == [
        (99, UNKNOWN),
        (old, "it stays parked"),
    ]
    assert not queue.find(other).parked and queue.find(old).parked
    assert upkeep.retry(queue, Retry(), where) == {"count": 0, "left": []}


def test_what_is_tried_again_by_name_need_not_wait_for_a_remote_that_is_away(queue):
    entries = [queue.add(deletion(f"{at}")) for at in range(7)]
    for _ in range(5):
        queue.failed(queue.take(lambda: False).id, Unreachable("away"), 60.0)
    upkeep.retry(queue, Retry([entries[-1].id]), where)
    taken, over = [], []

    def take():
        while (entry := queue.take(lambda: bool(over))) is not None:
            taken.append(entry.id)
            if entry.id == entries[-1].id:
                return

    thread = threading.Thread(target=take)  # the remote is tried with another one, which does not come back
    thread.start()
    thread.join(5)
    over.append(True)
    queue.wake()
    thread.join()
    assert entries[-1].id in taken


def test_what_is_no_place_stops_all(queue):
    entry = queue.add(deletion())
    for act in (
        lambda: upkeep.drop(queue, Drop([entry.id], ["b/"]), where),
        lambda: upkeep.retry(queue, Retry([], [""]), where),
    ):
        with pytest.raises(BadKey):
            act()
    assert ids(queue.entries()) == [entry.id]


def test_a_flush_lets_what_waits_have_its_turn_unless_it_is_not_to(queue):
    entry = queue.add(deletion())
    queue.failed(queue.take(lambda: False).id, Refused("no"), 3600.0)
    for asked, waits in ((Flush(0.0, False), True), (Flush(0.0), False)):
        assert upkeep.flush(queue, asked, lambda: True) == {"empty": False}
        assert bool(queue.find(entry.id).retry_at_ns) is waits


def test_a_flush_does_not_wait_for_what_is_parked_and_ends_when_nobody_waits(queue):
    queue.add(deletion())
    assert upkeep.flush(queue, Flush(), lambda: False) == {"empty": False}
    park(queue)
    queue.add(Order("", key("k"), TAG))
    assert upkeep.flush(queue, Flush(), lambda: False) == {"empty": True}
