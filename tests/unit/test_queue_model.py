"""Random histories of a queue, over restarts, against a model that is a list."""

import os
import shutil
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from queue_support import deletion, ids, key, stored
from support import timeless

from s4raw.errors import QueueFull, S4Error
from s4raw.queue.entries import DELETE, PUT, TAG, Limits, Order
from s4raw.queue.queue import Queue

LIMITS = Limits(size=3000, files=12)
NAMES, ALIASES = st.sampled_from(["a", "a/", "a/b", "b", "é"]), st.sampled_from(["", "x"])


class Kept:
    """What the model knows of an entry."""

    def __init__(self, id, alias, name, size, kind):
        self.id, self.alias, self.name, self.size, self.kind = id, alias, name, size, kind
        self.attempts, self.parked, self.waiting, self.flying = 0, False, False, False

    @property
    def place(self):
        return self.alias, self.name


class QueueMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.directory = tempfile.mkdtemp()
        self.model: list[Kept] = []
        self.left: dict[int, S4Error | None] = {}
        self.last = 0
        self.open()

    def open(self):
        self.queue = Queue(os.path.join(self.directory, "q"), LIMITS, refuse=True)

    def teardown(self):
        self.queue.close()
        shutil.rmtree(self.directory)

    @initialize(count=st.integers(0, 3))
    def some(self, count):
        for _ in range(count):
            self.put("a", "", 10)

    def fits(self, size):
        used = sum(kept.size for kept in self.model)
        return not self.model or (used + size <= LIMITS.size and len(self.model) < LIMITS.files)

    def offered(self, order, size):
        if not self.fits(size):
            with pytest.raises(QueueFull):
                self.queue.add(order)
            self.queue.spool.discard(order.path)
            return
        entry = self.queue.add(order)
        assert entry.id > self.last
        self.last = entry.id
        self.model.append(Kept(entry.id, order.alias, order.key.name, size, order.kind))

    @rule(name=NAMES, alias=ALIASES, size=st.integers(0, 4000))
    def put(self, name, alias, size):
        self.offered(stored(self.queue, name, bytes(size), alias), size)

    @rule(name=NAMES, alias=ALIASES)
    def delete(self, name, alias):
        self.offered(deletion(name, alias), 0)

    @rule(name=NAMES, alias=ALIASES)
    def tag(self, name, alias):
        self.offered(Order(alias, key(name), TAG), 0)

    def heads(self):
        """Of each key the entry that is in flight, or may be next: what is parked lets a put or a delete pass."""
        heads, seen = {}, set()
        for kept in self.model:
            if kept.flying or (
                kept.place not in heads and not kept.parked and (kept.kind != TAG or kept.place not in seen)
            ):
                heads[kept.place] = kept
            seen.add(kept.place)
        return heads

    def turn(self):
        """The entry whose turn it is."""
        able = [kept for kept in self.heads().values() if not (kept.waiting or kept.flying)]
        return min(able, key=lambda kept: kept.id, default=None)

    def later(self, kept):
        return [other for other in self.model if other.place == kept.place and other.id > kept.id]

    def can_be_released(self, kept):
        return kept.waiting or (kept.parked and all(other.kind == TAG for other in self.later(kept)))

    def take(self):
        expected = self.turn()
        calls = iter([False, True])
        entry = self.queue.take(lambda: next(calls)) if expected else None
        if expected:
            assert entry.id == expected.id
            assert entry.attempts == expected.attempts
            expected.flying = True
        return expected

    @precondition(lambda self: self.turn())
    @rule()
    def hold(self):
        self.take()

    def flying(self):
        return next((kept for kept in self.model if kept.flying), None) or self.take()

    @rule()
    def deliver(self):
        if kept := self.flying():
            passed = [other for other in self.model if other.place == kept.place and other.id < kept.id]
            assert [each.id for each in self.queue.passed(kept.id)] == [each.id for each in passed]
            self.queue.delivered(kept.id)
            self.model = [other for other in self.model if other not in (kept, *passed)]
            self.left[kept.id] = None
            for each in passed:
                self.left[each.id] = self.queue.wait(each.id, 0)
                assert f"a later {kept.kind} " in str(self.left[each.id])
                assert kept.kind in (PUT, DELETE)

    @rule(how=st.sampled_from(["failed", "park", "give_up"]))
    def fail(self, how):
        if kept := self.flying():
            error = S4Error("failed")
            kept.attempts, kept.flying = kept.attempts + 1, False
            if how == "failed":
                self.queue.failed(kept.id, error, 50.0)
                kept.waiting = True
            elif how == "park":
                self.queue.park(kept.id, error)
                kept.parked = True
            else:
                self.queue.give_up(kept.id, error)
                self.model.remove(kept)
                self.left[kept.id] = error

    @rule(data=st.data(), everything=st.booleans())
    def retry(self, data, everything):
        some = data.draw(st.lists(st.sampled_from([0, *(kept.id for kept in self.model)]), unique=True))
        chosen = [kept for kept in self.model if (everything or kept.id in some) and self.can_be_released(kept)]
        assert self.queue.retry(None if everything else some) == len(chosen)
        for kept in chosen:
            kept.attempts = 0 if kept.parked else kept.attempts
            kept.parked = kept.waiting = False

    @rule(data=st.data())
    def drop(self, data):
        some = data.draw(st.lists(st.sampled_from([0, *(kept.id for kept in self.model)])))
        chosen = [kept for kept in self.model if kept.id in some and not kept.flying]
        error = S4Error("dropped")
        assert self.queue.drop(some, error) == len(chosen)
        self.left.update((kept.id, error) for kept in chosen)
        self.model = [kept for kept in self.model if kept not in chosen]

    @rule()
    def reopen(self):
        self.queue.close()
        self.left.clear()
        for kept in self.model:
            kept.flying = False
        self.open()

    @invariant()
    def the_queue_is_the_model(self):
        found = self.queue.entries()
        assert [(e.id, e.order.alias, e.order.key.name, e.order.size, e.attempts, e.parked) for e in found] == [
            (kept.id, kept.alias, kept.name, kept.size, kept.attempts, kept.parked) for kept in self.model
        ]
        gauges, flying = self.queue.gauges(), {kept.id for kept in self.model if kept.flying}
        sizes, parked = sum(kept.size for kept in self.model), sum(kept.parked for kept in self.model)
        assert (gauges.entries, gauges.size, gauges.parked) == (len(self.model), sizes, parked)
        assert (gauges.in_flight, self.queue.in_flight()) == (len(flying), flying)
        assert gauges.oldest_ns == (found[0].created_ns if found else 0)
        spooled = {os.path.basename(entry.order.path) for entry in found if entry.order.spooled}
        assert set(self.queue.spool.names()) == spooled

    @invariant()
    def each_key_has_its_orders(self):
        newest = {}
        for kept in self.model:
            newest[kept.place] = kept.id
        for alias in ("", "x"):
            names = self.queue.names(alias, "b", "a", "", 10)
            expected = sorted(place[1] for place in newest if place[0] == alias and place[1].startswith("a"))
            assert [entry.order.key.name for entry in names] == expected
            assert ids(names) == [newest[alias, name] for name in expected]
            for name in ("a", "é"):
                of_key = [kept.id for kept in self.model if kept.place == (alias, name)]
                assert ids(self.queue.pending(alias, key(name))) == of_key
                found = self.queue.newest(alias, key(name))
                assert (found and found.id) == (of_key[-1] if of_key else None)

    @invariant()
    def results_are_known_and_flush_knows_what_can_move(self):
        for id, error in self.left.items():
            assert self.queue.wait(id, 0) is error
        assert self.queue.flush(0) == (not self.heads())


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(timeless, max_examples=25, stateful_step_count=30)
