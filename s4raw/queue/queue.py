"""The queue: what was accepted is on disk, and stays there until it has been delivered, or thrown away by somebody.

    DIRECTORY/queue.db   the entries (``journal`` owns it)
    DIRECTORY/lock       locked by the process that uses the directory; holds its pid
    DIRECTORY/spool/     the files that belong to the queue (``spool``)

Callers put orders in (``add``), a ``Pusher`` takes entries out (``take``, and then one of ``delivered``, ``failed``,
``give_up``). Delivery is at least once: an entry whose deletion was not on disk yet when the process was killed is
delivered again, before all that came later for its key.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice

from s4raw.errors import Busy, Corrupt, LocalFileError, NoSuchKey, PeerTimeout, QueueFull, S4Error
from s4raw.keys import Key
from s4raw.queue.backlog import IN_FLIGHT, PARKED, Backlog, Item, Place
from s4raw.queue.entries import PUT, Entry, Gauges, Limits, Order
from s4raw.queue.files import Names, settle
from s4raw.queue.journal import Deletion, Journal
from s4raw.queue.outcomes import UNREACHABLE, Outcomes
from s4raw.queue.room import Patience, Reservation, Room
from s4raw.queue.rows import Row, State, decode, encode
from s4raw.queue.spool import open_spool
from s4raw.queue.together import add_together

AWAY_SECONDS = 0.5  # between attempts to reach a remote that is away
MAX_KEPT_WAIT = 60.0  # seconds until another try after a restart, at most: the clock may have been set back


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
            collecting = gc.isenabled()
            gc.disable()  # a hundred thousand rows are no garbage, and looking at them takes a third of the time
            try:
                self._load()
                self._room = Room(limits, self._held, self._backlog.waits_since)
                self._journal.start(self.spool.sync, self._accepted)
                self._outcomes = Outcomes(self._journal.last_id, self._backlog.get)
            except BaseException:
                self.spool.close()
                raise
            finally:
                if collecting:
                    gc.enable()
        except BaseException:
            self._journal.close()
            raise

    def _load(self) -> None:
        files, known = set(self.spool.names()), set()
        now, now_ns = time.monotonic(), time.time_ns()
        lost: list[tuple[int, State]] = []
        if self._journal.fresh:
            if files:
                path = self._journal.path
                raise Corrupt(f"the queue's database {path} is missing or empty, but there are spooled files")
            self._journal.create()
        for row, state in self._journal.rows():
            if row.spooled:
                known.add(row.path)
                if row.path not in files:
                    state = state._replace(parked=1, error="its file is missing from the queue's spool")
                    lost.append((row.id, state))
            wait = min((state.retry_at_ns - now_ns) / 1e9, MAX_KEPT_WAIT)
            self._backlog.add(row, state, now + wait if wait > 0 else 0.0)
        self.spool.sweep(known)
        for id, state in lost:
            self._journal.note(id, state)

    # -- putting in

    def reserve(
        self, size: int, timeout: float | None = None, patience: Patience = None, always: bool = False
    ) -> Reservation:
        """Room for an order of about so many bytes: a context manager, to be given to ``add``.

        ``patience`` is asked whether to wait on; ``always``: for what lets others leave. Raises QueueFull, Busy.
        """
        return self._room.reserve(size, 0.0 if self.refuse else timeout, patience, always)

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
        reserve = partial(self.reserve, timeout=0.0)
        return add_together(orders, room, self._names, self.spool, self._journal.insert, reserve, self.refuse)

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
        """Wait until nothing is left but what is parked, or waits behind it; whether that was so in time."""
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
        """Let those that are parked or wait have their turn at once; None: all. How many there were."""
        with self._lock:
            items = self._backlog.after(0) if ids is None else map(self._backlog.get, ids)
            released = [item for item in items if item is not None and self._backlog.release(item)]
            for item in released:
                self._journal.note(item.row.id, item.state)
            self._backlog.hurry()
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
            items = [item for item in dict.fromkeys(found) if item is not None and item.status != IN_FLIGHT]
            if not items:
                return 0
            error = reason or S4Error("the entry was dropped from the queue")
            deletion = self._leave(items, error)
        self._finish(items, deletion, error)
        return len(items)

    # -- for the pusher

    def take(self, stopped: Callable[[], bool]) -> Entry | None:
        """Wait for the oldest entry whose turn it is, and have it in flight; None once stopped (``wake``) or closed."""
        with self._lock:
            while not (stopped() or self._closed):
                item = self._backlog.take(time.monotonic())
                if item is not None:
                    self._pass_on()
                    if (entry := self._readable(item)) is not None:
                        return entry
                    continue
                due = self._backlog.next_due()
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

    def _pass_on(self) -> None:
        """Wake another one, if there is something to look after: the next entry, or the clock."""
        due = self._backlog.next_due()
        if self._backlog.has_ready or (due is not None and (self._alarm is None or self._alarm > due)):
            self._ready.notify()

    def wake(self) -> None:
        """Let all who wait in ``take`` look whether they are to stop."""
        with self._lock:
            self._ready.notify_all()

    def delivered(self, id: int) -> None:
        """It has arrived: it leaves the queue, which is on disk when this returns, and its spooled file is deleted."""
        with self._lock:
            items = [self._landed(id, None)]
            deletion = self._leave(items, None)
        self._finish(items, deletion, None)

    def failed(self, id: int, error: S4Error, wait_seconds: float) -> None:
        """An attempt failed: the next one after so many seconds."""
        self._put_back(id, error, time.time_ns() + int(wait_seconds * 1e9), time.monotonic() + wait_seconds)

    def park(self, id: int, error: S4Error) -> None:
        """An attempt failed, and there is to be no other unless somebody says so (``retry``)."""
        self._put_back(id, error, 0, 0.0)

    def give_up(self, id: int, error: S4Error) -> None:
        """An attempt failed, and whoever ordered it knows: it is dropped."""
        with self._lock:
            items = [self._landed(id, error)]
            deletion = self._leave(items, error)
        self._finish(items, deletion, error)

    def _landed(self, id: int, error: S4Error | None) -> Item:
        """The entry of an attempt that has ended."""
        item = self._backlog.get(id)
        if item is None or item.status != IN_FLIGHT:
            raise NoSuchKey(f"the entry {id} is not in flight")
        self._counts["attempts"] += 1
        self._counts["delivered" if error is None else "failures"] += 1
        if isinstance(error, UNREACHABLE):
            self._backlog.unreachable(item.row.alias, time.monotonic() + AWAY_SECONDS)
        elif not isinstance(error, LocalFileError) and self._backlog.reachable(item.row.alias):
            self._ready.notify_all()
        return item

    def _put_back(self, id: int, error: S4Error, retry_at_ns: int, due: float) -> None:
        text = str(error).encode(errors="backslashreplace").decode()
        with self._lock:
            item = self._landed(id, error)
            state = State(item.state.attempts + 1, retry_at_ns, int(not due), text)
            self._backlog.put_back(item, state, due)
            self._journal.note(id, state)
            self._ready.notify()
            if not due:
                self._left.notify_all()
        if not due:
            self._room.changed()

    def _leave(self, items: Sequence[Item], error: S4Error | None) -> Deletion:
        """With the lock: deletions reach the journal in the order in which entries of a key leave."""
        ids = [item.row.id for item in items]
        deletion = self._journal.delete(ids)
        self._outcomes.leaving(ids)
        for item in items:
            self._backlog.remove(item)
            self._leaving[item.place] += 1
        if error is not None:
            self._counts["dropped"] += len(items)
        self._ready.notify(len(items))
        self._left.notify_all()
        return deletion

    def _finish(self, items: Sequence[Item], deletion: Deletion, error: S4Error | None) -> None:
        self._room.changed()
        deletion.wait()
        with self._lock:
            self._leaving -= Counter(item.place for item in items)
            self._left.notify_all()
        self._outcomes.left([item.row.id for item in items], error)
        for item in items:
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
        self._room.close()
        self._journal.close()
        self._outcomes.close()
        self.spool.close()
