"""The queue: what was accepted is on disk, and stays there until it has been delivered, or thrown away by somebody.

Callers put orders in (``add``), a ``Pusher`` takes entries out (``take``, and then one of ``delivered``, ``failed``,
``give_up``). Delivery is at least once: an entry whose deletion was not on disk yet when the process was killed is
delivered again, before all that came later for its key. Its directory is in docs/format.md.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from sys import maxsize

from s4raw.errors import Busy, LocalFileError, PeerTimeout, QueueFull, S4Error
from s4raw.keys import Key
from s4raw.queue.backlog import IN_FLIGHT, PARKED, Backlog, Fates, Item, Place
from s4raw.queue.entries import PUT, Entry, Gauges, Limits, Order, Passed
from s4raw.queue.files import Names, settle
from s4raw.queue.journal import Deletion, Journal
from s4raw.queue.loading import load
from s4raw.queue.outcomes import UNREACHABLE, Outcomes
from s4raw.queue.room import Patience, Reservation, Room
from s4raw.queue.rows import Row, State, decode, encode
from s4raw.queue.spool import open_spool
from s4raw.queue.together import add_together


class Queue:
    """A durable queue in a directory that one process uses at a time. Every method may be called from any thread."""

    def __init__(self, directory: str, limits: Limits = Limits(), *, refuse: bool = False) -> None:  # noqa: B008
        """Open it, or make a new one. With ``refuse`` an ``add`` that finds no room fails at once.

        Raises ConfError when another process uses it (with its pid) or it cannot be used, Corrupt when it is damaged.
        """
        self.refuse = refuse
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)  # something may be taken
        self._left = threading.Condition(self._lock)  # something has left, or was parked
        self._backlog = Backlog()
        self._counts = {"attempts": 0, "failures": 0, "delivered": 0, "dropped": 0}
        self._alarm: float | None = None  # until when one of those who wait for a turn waits, for all of them
        self._leaving: Counter[Place] = Counter()  # what has left, but is still on disk
        self._closed = False
        self._names = Names()
        self._journal = Journal(directory)
        try:
            self.directory = self._journal.directory
            self.spool = open_spool(self.directory)
            try:
                load(self._journal, self.spool, self._backlog)
                self.room = Room(limits, self._held, self._backlog.waits_since)
                self._journal.start(self.spool.sync, self._accepted)
                self._outcomes = Outcomes(self._journal.last_id, self._backlog.get)
            except BaseException:
                self.spool.close()
                raise
        except BaseException:
            self._journal.close()
            raise

    # -- putting in

    def reserve(
        self, size: int, timeout: float | None = None, patience: Patience = None, always: bool = False
    ) -> Reservation:
        """Room for an order of about so many bytes: a context manager, to be given to ``add``.

        ``patience`` is asked whether to wait on; ``always``: for what lets others leave. Raises QueueFull, Busy.
        """
        return self.room.reserve(size, 0.0 if self.refuse else timeout, patience, always)

    def add(
        self, order: Order, *, timeout: float | None = None, room: Reservation | None = None, fd: int | None = None
    ) -> Entry:
        """Accept an order: it is on disk when this returns, with its file. At a limit it waits for room.

        A spooled file belongs to the order from now on: when this fails, it is deleted, unless there was no room
        (QueueFull): then the same order may be tried again, or its file discarded. Another file is looked at and put on
        disk first; ``fd`` saves opening it. ``timeout`` is in seconds, None waits for as long as it takes; ``room`` is
        a reservation, which is given back. Raises QueueFull, BadKey, LocalFileError (it is not the file it was, or
        cannot be read), DiskFull, StoreError, Busy when the queue is closed.
        """
        try:
            if order.kind == PUT and not order.spooled:
                order = settle(order, fd)
                self._names.sync(order.path)
            elif order.kind == PUT:
                self.spool.check(order.path)
            row = encode(order)
            with room or self.reserve(order.size, timeout):
                [row] = self._journal.insert([row._replace(created_ns=time.time_ns())])
        except S4Error as error:
            if order.spooled and not isinstance(error, QueueFull):
                self.spool.discard(order.path)
            raise
        return Entry(row.id, order, row.created_ns)

    def add_many(self, orders: Sequence[Order], room: Reservation | None = None) -> Sequence[Entry | S4Error]:
        """Accept orders in one commit, in their order: what became of each. Files must be on disk (``settle``).

        It does not wait: what it says ends before the first order that finds no room, unless ``refuse``: then that is
        told the order, and others go on. ``room`` is a reservation for the first. The spooled file of an order that
        fails is deleted.
        """
        here = self._names, self.spool, self._journal.insert
        return add_together(orders, room, *here, lambda size: self.reserve(size, 0.0), self.refuse)

    def _accepted(self, rows: Sequence[Row]) -> None:
        with self._lock:
            for row in rows:
                self._backlog.add(row)
            self._ready.notify()  # who is woken wakes the next

    def _held(self) -> tuple[int, int]:
        """Without the lock: each of them is read at once, and whoever changes them looks for room again."""
        return self._backlog.size, len(self._backlog)

    # -- looking

    def _entry(self, item: Item) -> Entry:
        return decode(item.row, item.state, self.spool.path)

    def newest(self, alias: str, key: Key) -> Entry | None:
        """The last order for a key that has not been delivered; parked ones count."""
        with self._lock:
            chain = self._backlog.chain((alias, *key))
            return self._entry(chain[-1]) if chain else None

    def pending(self, alias: str, key: Key, limit: int | None = None) -> Sequence[Entry]:
        """The orders for a key that have not been delivered, oldest first; there may be thousands."""
        with self._lock:
            return [self._entry(item) for item in self._backlog.chain((alias, *key))[:limit]]

    def names(self, alias: str, bucket: str, prefix: str, after: str, limit: int) -> Sequence[Entry]:
        """The newest order of each key with the prefix, in the order of the names' UTF-8, those behind ``after``."""
        with self._lock:
            items = islice(self._backlog.newest(alias, bucket, prefix, after), limit)
            found = [(item.row, item.state) for item in items]
        return [decode(*kept, self.spool.path) for kept in found]

    def find(self, id: int) -> Entry | None:
        """An entry that has not left. Raises ProtocolError, ValueError for a damaged row."""
        with self._lock:
            item = self._backlog.get(id)
            return self._entry(item) if item is not None else None

    def standing(self, ids: Iterable[int]) -> dict[int, bool]:
        """Of those that are there, whether a later PUT or DELETE is to replace what is parked (see ``retry``)."""
        with self._lock:
            items = map(self._backlog.get, ids)
            return {item.row.id: self._backlog.is_replaced(item) for item in items if item is not None}

    def before(self, id: int) -> Entry | None:
        """The older entry of its key for which one waits, if it does; raises as ``find`` does."""
        with self._lock:
            item = self._backlog.get(id)
            older = self._backlog.before(item) if item is not None else None
            return self._entry(older) if older is not None else None

    def entries(
        self, *, alias: str | None = None, parked: bool | None = None, after: int = 0, limit: int = 1000
    ) -> Sequence[Entry]:
        """Entries by id, those with higher ids than ``after``."""
        with self._lock:
            chosen = (
                (item.row, item.state)
                for item in self._backlog.after(after)
                if (alias is None or item.row.alias == alias) and (parked is None or (item.status == PARKED) == parked)
            )
            found = list(islice(chosen, limit))
        return [decode(*kept, self.spool.path) for kept in found]

    def in_flight(self) -> frozenset[int]:
        """The ids of the entries that are being delivered now."""
        with self._lock:
            return frozenset(self._backlog.flying)

    def gauges(self) -> Gauges:
        """How the queue is."""
        with self._lock:
            backlog = self._backlog
            held = len(backlog), backlog.size, backlog.oldest_ns, len(backlog.flying), backlog.parked
            return Gauges(*held, **self._counts)

    def wait(self, id: int, timeout: float | None = None) -> S4Error | None:
        """Wait until an entry has left the queue: None when it was delivered, the error when it was dropped.

        That is on disk by then: it is not delivered again, and its user may do with the file what they like.
        Raises PeerTimeout after ``timeout`` seconds, Busy when the queue is closed, NoSuchKey when nothing is known of
        the entry any more: it left long ago, before the process began.
        """
        return self._outcomes.wait(id, self._journal.last_id, timeout)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left but what is parked, and tags behind it; whether that was so in time."""
        with self._lock:
            self._left.wait_for(lambda: self._closed or not self._backlog.moving(), timeout)
            return not self._backlog.moving()

    def wait_gone(self, alias: str, bucket: str, name: str | None = None, timeout: float | None = None) -> None:
        """Wait until what has left for a key (None: for a bucket's) has left for good: no crash brings it back.

        For who changes a key at the remote without the queue: an older order, delivered again, would undo that. Raises
        PeerTimeout, Busy when the queue is closed.
        """
        place = (alias, bucket) if name is None else (alias, bucket, name)
        with self._lock:
            if not self._left.wait_for(
                lambda: self._closed or all(each[: len(place)] != place for each in self._leaving), timeout
            ):
                raise PeerTimeout(f"what has left the queue is not on disk after {timeout} s")
            if self._closed:
                raise Busy("the queue is closed")

    # -- what somebody may do to entries

    def retry(self, ids: Iterable[int] | None = None) -> int:
        """Let those that are parked or wait have their turn at once; None: all. How many there were.

        What is parked stays so while there is a later PUT or DELETE of its key, which it must not undo.
        """
        with self._lock:
            items = self._backlog.after(0) if ids is None else map(self._backlog.get, ids)
            released = [item for item in items if item is not None and self._backlog.release(item)]
            for item in released:
                self._journal.note(item.row.id, item.state)
            self._backlog.hurry()  # also without any
            self._ready.notify_all()
        return len(released)

    def hasten(self, id: int) -> None:
        """Somebody waits for the next attempt of an entry: it need not wait for a remote that is away to come back."""
        with self._lock:
            item = self._backlog.get(id)
            if item is not None:
                self._backlog.hasten(item)
                self._ready.notify()

    def drop(self, ids: Iterable[int], reason: S4Error | None = None) -> int:
        """Throw entries away, and their spooled files; how many. Those that are being delivered now stay."""
        with self._lock:
            found = (self._backlog.get(id) for id in ids)
            error = reason or S4Error("the entry was dropped from the queue")
            fates: Fates = {item: error for item in found if item is not None and item.status != IN_FLIGHT}
            if not fates:
                return 0
            deletion = self._leave(fates)
        self._finish(fates, deletion)
        return len(fates)

    # -- for the pusher

    def take(self, stopped: Callable[[], bool], most: int = maxsize) -> Entry | None:
        """Wait for the oldest entry whose turn it is, and have it in flight; None once stopped (``wake``) or closed.

        Of each alias at most ``most`` are in flight.
        """
        with self._lock:
            while not (stopped() or self._closed):
                item = self._backlog.take(time.monotonic(), most)
                if item is not None:
                    self._pass_on(most)
                    if (entry := self._readable(item)) is not None:
                        return entry
                    continue
                due = self._backlog.next_due(most)
                if due is None or (self._alarm is not None and self._alarm <= due):
                    self._ready.wait()
                    continue
                self._alarm = due
                self._ready.wait(max(0.0, due - time.monotonic()))
                if self._alarm == due:
                    self._alarm = None
            self._ready.notify()  # it may have been the one who looks after the clock
            return None

    def _readable(self, item: Item) -> Entry | None:
        try:
            return self._entry(item)
        except (S4Error, ValueError, TypeError) as error:
            state = State(item.state.attempts, 0, 1, f"its row in the database is damaged: {error}")
            self._backlog.put_back(item, state)
            self._left.notify_all()
            return None

    def _pass_on(self, most: int) -> None:
        """Wake another one, if there is something to look after: the next entry, or the clock."""
        due = self._backlog.next_due(most)
        if self._backlog.has_ready or (due is not None and (self._alarm is None or self._alarm > due)):
            self._ready.notify()

    def wake(self) -> None:
        """Let all who wait in ``take`` look whether they are to stop."""
        with self._lock:
            self._ready.notify_all()

    def passed(self, id: int) -> Sequence[Passed]:
        """The older entries of its key that one in flight has passed: what is parked, and tags behind that."""
        with self._lock:
            item = self._backlog.get(id)
            older = self._backlog.passed(item) if item else ()
            return [Passed(each.row.id, Key(each.row.bucket, each.row.name), each.state.error) for each in older]

    def delivered(self, id: int) -> None:
        """It has arrived: it leaves the queue, which is on disk when this returns, and its spooled file is deleted.

        What it has ``passed`` is dropped in the same commit: delivered later, that would undo it.
        """
        with self._lock:
            item = self._landed(self._backlog.in_flight(id), None)
            error = S4Error(f"a later {item.row.kind} of the key was delivered")
            fates: Fates = {**dict.fromkeys(self._backlog.passed(item), error), item: None}
            deletion = self._leave(fates)
        self._finish(fates, deletion)

    def failed(self, id: int, error: S4Error, wait_seconds: float) -> None:
        """An attempt failed: the next one after so many seconds."""
        with self._lock:
            item = self._backlog.in_flight(id)
            state = item.state.failed(error, time.time_ns() + int(wait_seconds * 1e9))
            self._landed(item, error)
            self._backlog.put_back(item, state, time.monotonic() + wait_seconds)
            self._journal.note(id, state)
            self._ready.notify()

    def park(self, id: int, error: S4Error) -> None:
        """An attempt failed, and there is to be no other unless somebody says so (``retry``).

        That is on disk before a later entry of its key may pass it: after a crash it must not come behind that.
        """
        with self._lock:
            item = self._backlog.in_flight(id)
            state = item.state.failed(error)._replace(parked=1)
            self._journal.note(id, state)
        self._journal.delete([]).wait()  # it is done when all is done that was asked for before
        with self._lock:
            self._landed(item, error)
            self._backlog.put_back(item, state)
            self._ready.notify()
            self._left.notify_all()
        self.room.changed()

    def give_up(self, id: int, error: S4Error) -> None:
        """An attempt failed, and whoever ordered it knows: it is dropped."""
        with self._lock:
            fates: Fates = {self._landed(self._backlog.in_flight(id), error): error}
            deletion = self._leave(fates)
        self._finish(fates, deletion)

    def _landed(self, item: Item, error: S4Error | None) -> Item:
        """The attempt to deliver an entry has ended."""
        self._counts["attempts"] += 1
        self._counts["delivered" if error is None else "failures"] += 1
        if isinstance(error, UNREACHABLE):
            self._backlog.unreachable(item, time.monotonic())
        elif not isinstance(error, LocalFileError) and self._backlog.reachable(item.row.alias):
            self._ready.notify_all()
        return item

    def _leave(self, fates: Fates) -> Deletion:
        """With the lock: deletions reach the journal in the order in which entries of a key leave."""
        ids = [item.row.id for item in fates]
        deletion = self._journal.delete(ids)
        self._outcomes.leaving(ids)
        for item, error in fates.items():
            self._backlog.remove(item)
            self._leaving[item.place] += 1
            self._counts["dropped"] += error is not None
        self._ready.notify(len(fates))
        self._left.notify_all()
        return deletion

    def _finish(self, fates: Fates, deletion: Deletion) -> None:
        self.room.changed()
        deletion.wait()
        with self._lock:
            self._leaving -= Counter(item.place for item in fates)
            self._left.notify_all()
        self._outcomes.left({item.row.id: error for item, error in fates.items()})
        for item in fates:
            if item.row.spooled:
                self.spool.discard(item.row.path)

    def close(self) -> None:
        """Let nobody in, wait until what is under way is on disk, and unlock the directory. Twice is fine."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._ready.notify_all()
            self._left.notify_all()
        self.room.close()
        self._journal.close()
        self._outcomes.close()
        self.spool.close()
