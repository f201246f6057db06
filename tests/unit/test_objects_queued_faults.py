"""A write queue whose remote is away, that is full, or whose process is killed; and the edges of its listings."""

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import wait_for
from objects_support import KEY, Body, begin, etag_of, expected, names, plain, put, read, shown, whole
from queued_support import Front, Strange, quick_directory
from support import at_once

from s4raw.errors import (
    BucketNotEmpty,
    ConnectionLost,
    NoSuchBucket,
    NoSuchKey,
    PeerTimeout,
    PreconditionFailed,
    QueueFull,
    Refused,
    Unreachable,
)
from s4raw.keys import Key
from s4raw.objects import overlay_listing, pending
from s4raw.objects.base import Attributes, Conditions, Query, Range
from s4raw.queue.entries import Limits, Order
from s4raw.queue.queue import Queue
from s4raw.remote.values import LazyTags

OTHER, THIRD = Key(KEY.bucket, "other"), Key(KEY.bucket, "third")


class Distant(Strange):
    """A remote that can be away."""

    away = False

    def __getattribute__(self, name):
        if not name.startswith("_") and name not in ("away", "close") and self.away:
            raise Unreachable("the remote is away")
        return super().__getattribute__(name)


@pytest.fixture
def front():
    with quick_directory() as directory:
        front = Front(directory, Distant())
        front.backend.create_bucket(KEY.bucket)
        yield front
        front.remote.away = False
        front.close()


def test_writes_and_reads_of_what_is_queued_go_on_without_the_remote(front):
    put(front.backend, THIRD, b"there")
    front.deliver()
    front.remote.away = True
    for _ in range(2):
        backend = front.backend
        put(backend, KEY, b"12345", tags={"a": "1"})
        assert read(backend, KEY, Range(1, 2)) == b"23"
        backend.tag(KEY, {"b": "2"})
        backend.copy(KEY, OTHER)
        assert dict(backend.head(OTHER).attributes.tags) == {"b": "2"}
        upload, parts = begin(backend, OTHER, [b"one", b"two"])
        backend.complete(OTHER, upload, parts, whole(parts))
        assert read(backend, OTHER) == b"onetwo"
        with pytest.raises(PreconditionFailed):
            put(backend, KEY, b"", Conditions(if_none_match=["*"]))
        backend.delete(KEY)
        backend.delete(THIRD)
        for key in (KEY, THIRD):
            with pytest.raises(NoSuchKey):
                backend.get(key)
        front.close()
        front.open()
    front.remote.away = False
    front.deliver()
    assert names(front.remote.list(KEY.bucket, Query())) == ["other"]
    assert read(front.remote, OTHER) == b"onetwo" and not front.left_over()


def test_what_only_the_remote_knows_is_said_to_be_out_of_reach(front):
    put(front.backend, KEY, b"x")
    front.remote.away = True
    for act in [
        lambda: front.backend.get(OTHER),
        lambda: front.backend.list(KEY.bucket, Query()),
        front.backend.buckets,
        lambda: front.backend.tag(OTHER, {}),
        lambda: put(front.backend, Key("unknown", "key")),
        lambda: put(front.backend, OTHER, b"", Conditions(if_none_match=["*"])),
        lambda: front.backend.copy(OTHER, KEY),
    ]:
        with pytest.raises(Unreachable):
            act()
    assert len(front.queue.entries()) == 1


def test_a_bucket_is_known_as_it_was_last_seen_while_the_remote_is_away(front):
    front.backend.tag_bucket(KEY.bucket, {"a": "1"})
    seen = front.backend.bucket(KEY.bucket)
    front.remote.away = True
    for _ in range(2):
        assert front.backend.bucket(KEY.bucket) == seen and dict(seen.tags) == {"a": "1"}
        front.close()
        front.open()
    with pytest.raises(Unreachable):
        front.backend.bucket("unknown")


def test_a_bucket_that_the_remote_has_lost_is_asked_for_again(front):
    front.remote.delete_bucket(KEY.bucket)
    with pytest.raises(NoSuchBucket):
        front.backend.bucket(KEY.bucket)
    with pytest.raises(NoSuchBucket):
        put(front.backend, KEY)
    front.close()
    front.open()
    with pytest.raises(NoSuchBucket):
        put(front.backend, KEY)


def test_a_bucket_with_something_pending_is_not_deleted(front):
    put(front.backend, KEY, b"x")
    with pytest.raises(BucketNotEmpty):
        front.backend.delete_bucket(KEY.bucket)
    assert read(front.backend, KEY) == b"x"


def test_what_is_being_deleted_goes_before_its_bucket(front):
    put(front.backend, OTHER, b"there")
    front.deliver()
    for key in (KEY, OTHER, THIRD):
        put(front.backend, key, b"x")
        front.backend.delete(key)
    front.backend.delete_bucket(KEY.bucket)
    assert not front.queue.entries() and not front.remote.buckets() and not front.left_over()
    with pytest.raises(NoSuchBucket):
        put(front.backend, KEY)


def test_a_bucket_waits_for_what_is_on_its_way(front):
    put(front.backend, KEY, b"x")
    arrived, go_on = threading.Event(), threading.Event()
    store = front.remote.put

    def slow(*arguments):
        arrived.set()
        assert go_on.wait(10)
        return store(*arguments)

    front.remote.put = slow
    with front.pushing():
        assert arrived.wait(10)
        front.backend.delete(KEY)
        threading.Timer(0.2, go_on.set).start()
        front.backend.delete_bucket(KEY.bucket)
        assert not front.queue.entries() and not front.remote.buckets()


@pytest.mark.parametrize("act", ["create_bucket", "delete_bucket"])
def test_a_remote_that_is_silent_about_a_bucket_holds_up_no_writes_to_it(front, act):
    """Also a client that makes its bucket before it writes."""
    asked, go_on = threading.Event(), threading.Event()

    def silent(*arguments):
        asked.set()
        assert go_on.wait(30)
        raise PeerTimeout("no answer")

    front.remote.create_bucket = front.remote.list = silent

    def ask():
        with pytest.raises(PeerTimeout):
            getattr(front.backend, act)(KEY.bucket)

    other = threading.Thread(target=ask)
    other.start()
    assert asked.wait(10)
    writer = threading.Thread(target=put, args=(front.backend, KEY, b"x"))
    writer.start()
    writer.join(10)
    held_up = writer.is_alive()
    go_on.set()
    other.join()
    writer.join()
    assert not held_up and read(front.backend, KEY) == b"x"


def test_a_bucket_that_is_seen_while_it_goes_is_not_believed_in(front):
    delete = front.remote.delete_bucket

    def seen(name):
        assert front.backend.bucket(name)
        delete(name)

    front.remote.delete_bucket = seen
    front.backend.delete_bucket(KEY.bucket)
    with pytest.raises(NoSuchBucket):
        put(front.backend, KEY)


def test_whose_tags_the_remote_does_not_tell_is_written_to_all_the_same(front):
    denied = Refused("Access Denied")
    denied.http = 403

    def refused():
        raise denied

    find = front.remote.bucket
    front.remote.bucket = lambda name: find(name)._replace(tags=LazyTags(None, refused))
    front.remote.create_bucket("other")
    put(front.backend, Key("other", "key"), b"x")
    assert front.backend.create_bucket("other") is False
    with pytest.raises(Refused):
        dict(front.backend.bucket("other").tags)
    front.remote.away = True
    assert dict(front.backend.bucket("other").tags) == {}


def test_a_bucket_that_may_not_be_looked_at_is_written_to_and_said_to_be_forbidden(front):
    denied = Refused("Access Denied")
    denied.http = 403

    def refused(name):
        raise denied

    front.remote.create_bucket("other")
    front.remote.bucket = refused
    with pytest.raises(Refused):
        front.backend.bucket("other")
    assert front.backend.create_bucket("other") is False
    front.backend.tag_bucket("other", {"a": "1"})
    put(front.backend, Key("other", "key"), b"x")
    del front.remote.bucket
    front.deliver()
    assert read(front.remote, Key("other", "key")) == b"x"


def reopened(front, limits):
    """The same queue, with limits, at which it refuses."""
    front.close()
    front.queue = Queue(str(front.directory / "queue"), limits, refuse=True)
    front.backend = type(front.backend)(front.remote, front.queue, str(front.directory / "queue" / "s3"))


def test_a_full_queue_refuses_and_leaves_nothing_behind(front):
    reopened(front, Limits(files=1))
    upload, parts = begin(front.backend, OTHER, [b"one", b"two"])
    put(front.backend, KEY, b"first")
    (kept,) = front.left_over()
    body = Body(b"second")
    with pytest.raises(QueueFull):
        front.backend.put(KEY, body)
    assert not body.asked
    for act in [
        lambda: put(front.backend, KEY, b"second"),
        lambda: front.backend.copy(KEY, OTHER),
        lambda: front.backend.complete(OTHER, upload, parts, whole(parts)),
        lambda: front.backend.delete(KEY),
        lambda: front.backend.tag(KEY, {}),
    ]:
        with pytest.raises(QueueFull):
            act()
        assert front.left_over() == [kept] and read(front.backend, KEY) == b"first"
    assert [*front.backend.parts(OTHER, upload)] == parts
    front.deliver()
    front.backend.complete(OTHER, upload, parts, whole(parts))
    assert read(front.backend, OTHER) == b"onetwo"


def test_what_the_remote_never_takes_can_be_deleted_although_the_queue_is_full(front):
    reopened(front, Limits(files=1))
    put(front.backend, KEY, b"x")
    store = front.remote.put

    def refuse(*arguments):
        raise Refused("not this one")

    front.remote.put = refuse
    with front.pushing():
        wait_for(lambda: front.queue.gauges().failures)
        wait_for(lambda: front.queue.in_flight() or front.backend.delete(KEY))
        wait_for(lambda: not front.queue.entries() or (front.backend.delete(KEY), False)[1])
        front.remote.put = store
        put(front.backend, OTHER, b"y")


@pytest.mark.parametrize("meanwhile", ["delivered", "deleted", "replaced"])
def test_what_leaves_the_queue_while_it_is_opened_is_looked_for_again(front, monkeypatch, meanwhile):
    put(front.backend, KEY, b"old", tags={"a": "1"})
    open_file, done = front.queue.spool.open, []

    def late(path):
        if not done:
            done.append(path)
            if meanwhile == "deleted":
                front.backend.delete(KEY)
            elif meanwhile == "replaced":
                put(front.backend, KEY, b"new")
            entry = front.queue.pending("", KEY)[0]
            front.queue.drop([entry.id])
            if meanwhile == "delivered":
                put(front.remote, KEY, b"old", tags={"a": "1"})
        return open_file(path)

    monkeypatch.setattr(front.queue.spool, "open", late)
    if meanwhile == "deleted":
        with pytest.raises(NoSuchKey):
            front.backend.get(KEY)
    else:
        assert read(front.backend, KEY) == (b"new" if meanwhile == "replaced" else b"old")


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "plain"])
def test_what_is_delivered_while_a_list_is_made_is_on_it_once(front, monkeypatch, before, tagged):
    """Before the remote answers, or after it."""
    for name in ("a", "b/1", "b/2", "c"):
        put(front.backend, Key(KEY.bucket, name), name.encode())
        if tagged:
            front.backend.tag(Key(KEY.bucket, name), {"t": "1"})
    listed = front.remote.list

    def meanwhile(bucket, query):
        page = listed(bucket, query)
        front.deliver()
        return listed(bucket, query) if before else page

    monkeypatch.setattr(front.remote, "list", meanwhile)
    page = front.backend.list(KEY.bucket, Query(delimiter="/"))
    assert shown(page) == ([("a", False), ("b/", True), ("c", False)], False)
    assert [entry.size for entry in page.entries if not entry.is_prefix] == [1, 1]


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("act", ["head", "get", "copy", "tag", "if_match"])
def test_what_is_delivered_while_it_is_looked_for_is_found(front, monkeypatch, act, before):
    """Before the look at the queue, or after it: the remote is asked last, and lacks only what was pending."""
    put(front.backend, KEY, b"x")
    looked = front.queue.newest

    def late(alias, key):
        monkeypatch.undo()
        found = looked(alias, key)
        front.deliver()
        return looked(alias, key) if before else found

    monkeypatch.setattr(front.queue, "newest", late)
    if act == "head":
        assert front.backend.head(KEY).size == 1
    elif act == "get":
        assert read(front.backend, KEY) == b"x"
    elif act == "copy":
        assert front.backend.copy(KEY, OTHER).size == 1
    elif act == "tag":
        front.backend.tag(KEY, {"a": "1"})
    else:
        put(front.backend, KEY, b"y", Conditions(if_match=[etag_of(b"x")]))
    front.deliver()
    assert dict(front.remote.head(KEY).attributes.tags) == ({"a": "1"} if act == "tag" else {})
    assert read(front.remote, KEY) == (b"y" if act == "if_match" else b"x")


def test_a_copy_of_what_is_pending_shares_its_bytes(front):
    put(front.backend, KEY, b"12345", metadata={"m": "1"})
    front.backend.copy(KEY, OTHER)
    files = [os.stat(front.directory / "queue" / "spool" / name) for name in front.left_over()]
    assert len(files) == 2 and files[0].st_ino == files[1].st_ino
    front.deliver()
    assert plain(front.remote.head(OTHER).attributes) == plain(front.remote.head(KEY).attributes)


def test_a_copy_over_something_pending_comes_after_it(front):
    put(front.backend, OTHER, b"source", tags={"a": "1"})
    front.deliver()
    put(front.backend, KEY, b"pending")
    with pytest.raises(PreconditionFailed):
        front.backend.copy(OTHER, KEY, None, Conditions(if_none_match=[etag_of(b"source")]))
    front.backend.copy(OTHER, KEY)
    assert read(front.backend, KEY) == b"source"
    front.deliver()
    assert read(front.remote, KEY) == b"source"
    assert dict(front.remote.head(KEY).attributes.tags) == {"a": "1"}


@pytest.mark.parametrize("what", ["copy", "tag", "bucket"])
def test_what_is_done_at_the_remote_waits_until_no_crash_can_undo_it(front, monkeypatch, what):
    """An order that has left, but is on disk, would be delivered again after a crash, over what was done since."""
    for key in (KEY, OTHER):
        put(front.backend, key, b"x")
    if what == "bucket":
        front.backend.delete(KEY)
        front.backend.delete(OTHER)
    happened, left, delete = [], threading.Event(), front.queue._journal.delete

    def slowly(ids):
        deletion, wait = delete(ids), threading.Event()
        left.set()
        threading.Timer(0.3, wait.set).start()
        gone = deletion.wait

        class Slow:
            @staticmethod
            def wait():
                assert wait.wait(20)
                gone()
                happened.append("gone")

        return Slow

    monkeypatch.setattr(front.queue._journal, "delete", slowly)
    name = {"copy": "copy", "tag": "tag", "bucket": "delete_bucket"}[what]
    done = getattr(front.remote, name)
    monkeypatch.setattr(front.remote, name, lambda *given: (happened.append("done"), done(*given))[1])
    with front.pushing():
        assert front.queue.flush(30)
        assert left.is_set()
        if what == "copy":
            front.backend.copy(OTHER, KEY)
        elif what == "tag":
            front.backend.tag(KEY, {"a": "1"})
        else:
            front.backend.delete_bucket(KEY.bucket)
    assert happened.index("done") >= (1 if what != "bucket" else 2)


def test_pending_tags_go_with_a_copy(front):
    put(front.backend, KEY, b"x")
    put(front.backend, THIRD, b"x")
    front.backend.tag(KEY, {"new": "1"})
    put_entry, tag_entry = front.queue.pending("", KEY)
    put(front.remote, KEY, b"x")
    front.queue.drop([put_entry.id])  # as if it had just been delivered
    assert front.queue.pending("", KEY) == [tag_entry]
    assert dict(front.backend.head(KEY).attributes.tags) == {"new": "1"}
    for target in (OTHER, THIRD):  # one at the remote, one in the queue
        front.backend.copy(KEY, target)
        assert dict(front.backend.head(target).attributes.tags) == {"new": "1"}
    with front.backend.get(KEY) as reading:
        assert dict(reading.info.attributes.tags) == {"new": "1"}


@pytest.mark.parametrize("seed", range(40))
def test_any_mixture_of_pending_and_delivered_is_listed_as_one(front, monkeypatch, seed):
    """With windows and pages so small that each listing takes many of them."""
    monkeypatch.setattr(pending, "WINDOW", 1 + seed % 4)
    monkeypatch.setattr(overlay_listing, "PAGE", 2 + seed % 3)
    chance = random.Random(seed)
    letters = ["a", "b", "/", "//", "é", "😀", "\U0010ffff"]
    every = sorted({"".join(chance.choices(letters, k=chance.randint(1, 5))) for _ in range(40)}, key=str.encode)
    there = set(chance.sample(every, len(every) // 2))
    for name in there:
        put(front.remote, Key(KEY.bucket, name))
    share = chance.choice([0.2, 0.8, 1.0])
    for name in every:
        key, kind = Key(KEY.bucket, name), chance.random()
        if kind < share:
            if chance.random() < 0.4:
                front.queue.add(order(front, key, "put"))
                there.add(name)
            elif name in there and chance.random() < 0.7:
                front.queue.add(order(front, key, "delete"))
                there.discard(name)
            elif name in there:
                front.queue.add(order(front, key, "tag"))
    everything = sorted(there, key=str.encode)
    for _ in range(60):
        query = Query(
            chance.choice(["", "", "a", "a/", chance.choice(every)[:2]]),
            chance.choice(["", "/", "/", "//", "b", "\U0010ffff"]),
            chance.choice(["", "", "a/", chance.choice(every), chance.choice(every) + "/"]),
            chance.choice([1, 2, 3, 7, 1000]),
        )
        assert shown(front.backend.list(KEY.bucket, query)) == expected(everything, query), query


def order(front, key, kind):
    path, identity, attributes = front.queue.spool.store(Body(b"12345")) if kind == "put" else (b"", None, Attributes())
    return Order("", key, kind, path, kind == "put", identity, attributes)


def test_a_page_is_filled_behind_thousands_that_are_being_deleted(front):
    for at in range(2500):
        put(front.remote, Key(KEY.bucket, f"a/{at:04}"))
        front.queue.add(order(front, Key(KEY.bucket, f"a/{at:04}"), "delete"))
    put(front.remote, Key(KEY.bucket, "b"))
    put(front.remote, Key(KEY.bucket, "c"))
    assert shown(front.backend.list(KEY.bucket, Query(limit=1))) == ([("b", False)], True)
    assert shown(front.backend.list(KEY.bucket, Query(delimiter="/"))) == ([("b", False), ("c", False)], False)
    put(front.backend, Key(KEY.bucket, "a/2000x"))
    found = front.backend.list(KEY.bucket, Query(delimiter="/", limit=2))
    assert shown(found) == ([("a/", True), ("b", False)], True)


def test_writers_of_a_key_and_a_pusher_leave_what_was_accepted_last(front):
    accepted = []

    def write(number):
        for turn in range(20):
            try:
                put(front.backend, KEY, b"%d %d" % (number, turn), Conditions(if_none_match=["*"]))
                accepted.append((number, turn))
                front.backend.delete(KEY)
            except PreconditionFailed:
                continue

    with front.pushing():
        at_once(*[lambda number=number: write(number) for number in range(3)])
        put(front.backend, KEY, b"last")
        assert front.queue.flush(30)
    assert accepted and read(front.remote, KEY) == b"last"


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
from objects_support import KEY, begin, whole
from queued_support import Front
front = Front(Path(sys.argv[1]))
front.backend.create_bucket(KEY.bucket)
upload, parts = begin(front.backend, KEY, [b"1" * 70_000, b"2" * 70_000, b"3"])
add = front.queue.add
def killed(order, **more):
    if sys.argv[2] == "after":
        add(order, **more)
    print(upload, flush=True)
    os._exit(9)
front.queue.add = killed
front.backend.complete(KEY, upload, parts, whole(parts))
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_completing_is_done_or_not_done_when_it_is_killed(moment):
    here = Path(__file__).parent
    with quick_directory() as directory:
        command = [sys.executable, "-c", KILLED, str(directory), moment, str(here), str(here.parent.parent)]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        assert done.returncode == 9, done.stderr
        upload = done.stdout.decode().strip()
        front = Front(directory)
        try:
            front.remote.create_bucket(KEY.bucket)
            if moment == "before":
                assert not front.queue.entries() and not front.left_over()
                parts = front.backend.parts(KEY, upload)
                front.backend.complete(KEY, upload, parts, whole(parts))
            assert len(front.queue.entries()) == len(front.left_over()) == 1
            assert not front.backend.uploads(KEY.bucket, Query()).uploads
            front.deliver()
            assert read(front.remote, KEY) == b"1" * 70_000 + b"2" * 70_000 + b"3"
        finally:
            front.close()


def test_a_body_that_breaks_off_leaves_no_file(front):
    with pytest.raises(ConnectionLost, match="gone"):
        front.backend.put(KEY, Body(b"x" * 1000, breaks=ConnectionLost("gone"), breaks_at=500, piece=100))
    assert not front.left_over() and not front.queue.entries()
