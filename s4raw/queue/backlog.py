"""What the queue holds, in memory: whose turn it is, what waits for another try, and which keys there are.

Pure bookkeeping: no disk, no clock, no lock (``queue`` has them). Entries are told apart by their ids and are added in
their order. Those of one alias and key are a chain, and only the first of a chain can have its turn.

A remote that cannot be reached is tried with one entry at a time, so that what goes elsewhere is not held up by entries
that all wait for it; but an order for which somebody waits has its turn: one with a number of attempts of its own, or
one that was ``hastened``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from s4raw.queue.rows import NEW, Row, State

READY, WAITING, PARKED, IN_FLIGHT = range(4)

AWAY_AFTER = 5  # failures to reach a remote, one after the other

Place = tuple[str, str, str]  # alias, bucket, name


class Item:
    """A row, what became of it so far, and when it is due: by the monotonic clock, in seconds."""

    __slots__ = ("due", "row", "state", "status")

    def __init__(self, row: Row, state: State, status: int, due: float) -> None:
        self.row = row
        self.state = state
        self.status = status
        self.due = due

    @property
    def place(self) -> Place:
        """What it shares with the others of its chain."""
        return self.row.alias, self.row.bucket, self.row.name


class _Away:
    """A remote that cannot be reached: what was its turn (a heap of ids), which of them is tried, and when the next."""

    __slots__ = ("aside", "due", "trying")

    def __init__(self) -> None:
        self.aside: list[int] = []
        self.trying = 0
        self.due = 0.0


class Backlog:
    """All entries. ``size`` is the sum of theirs in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self.parked = 0
        self.flying: set[int] = set()  # the ids of those in flight
        self.oldest_ns = 0  # when the oldest was accepted; 0: there is none
        self._items: dict[int, Item] = {}
        self._chains: dict[Place, list[Item]] = {}
        self._held = 0  # chains whose first entry is parked
        self._ready: list[int] = []  # heaps of the first of their chains; what is in them may be outdated
        self._waiting: list[tuple[float, int]] = []
        self._hastened: set[int] = set()
        self._failures: dict[str, int] = {}  # to reach an alias, since it last answered
        self._away: dict[str, _Away] = {}
        self._order: deque[int] = deque()  # all ids by age, and some that have left
        self._names: dict[tuple[str, str], list[str]] = {}  # sorted, of the buckets that were ever asked for

    def __len__(self) -> int:
        return len(self._items)

    @property
    def has_ready(self) -> bool:
        """Whether there may be an entry whose turn it is."""
        return bool(self._ready)

    def get(self, id: int) -> Item | None:
        """An entry that is there."""
        return self._items.get(id)

    def add(self, row: Row, state: State = NEW, due: float = 0.0) -> None:
        """Put an entry at the end; ``due`` is when it may be tried, 0 for at once."""
        item = Item(row, state, PARKED if state.parked else WAITING if due else READY, due)
        self._items[row.id] = item
        self._order.append(row.id)
        self.oldest_ns = self.oldest_ns or row.created_ns
        self.size += row.size
        self.parked += item.status == PARKED
        chain = self._chains.setdefault(item.place, [])
        chain.append(item)
        if len(chain) == 1:
            self._arm(item)
            if (names := self._names.get((row.alias, row.bucket))) is not None:
                insort(names, row.name)

    def _arm(self, item: Item) -> None:
        """It is the first of its chain from now on, or has another status."""
        if item.status == READY:
            heappush(self._ready, item.row.id)
        elif item.status == WAITING:
            heappush(self._waiting, (item.due, item.row.id))
        elif item.status == PARKED:
            self._held += 1

    def _first(self, item: Item) -> bool:
        return self._chains[item.place][0] is item

    def take(self, now: float) -> Item | None:
        """The oldest entry whose turn it is; it is in flight from now on."""
        while self._waiting and self._waiting[0][0] <= now:
            due, id = heappop(self._waiting)
            item = self._items.get(id)
            if item is not None and item.status == WAITING and item.due == due:
                item.status = READY
                heappush(self._ready, id)
        item = self._oldest_ready()
        for away in self._away.values():
            if not away.trying and away.due <= now and (tried := self._top(away.aside)) is not None:
                heappop(away.aside)
                away.trying = tried.row.id
                return self._fly(tried)
        if item is not None:
            heappop(self._ready)
            return self._fly(item)
        return None

    def _oldest_ready(self) -> Item | None:
        """At the top of the heap, once those are put aside whose remote is away."""
        while (item := self._top(self._ready)) is not None:
            away = self._away.get(item.row.alias)
            if away is None or item.row.max_attempts or item.row.id in self._hastened:
                return item
            heappush(away.aside, heappop(self._ready))
        return None

    def _top(self, heap: list[int]) -> Item | None:
        """The first entry of a heap that can have its turn; others before it are taken out."""
        while heap:
            item = self._items.get(heap[0])
            if item is not None and item.status == READY:
                return item
            heappop(heap)
        return None

    def hasten(self, item: Item) -> None:
        """Somebody waits for its next attempt: it has its turn though its remote is away."""
        self._hastened.add(item.row.id)
        if item.status == READY and self._first(item):
            heappush(self._ready, item.row.id)  # it may have been put aside

    def _fly(self, item: Item) -> Item:
        item.status = IN_FLIGHT
        self.flying.add(item.row.id)
        return item

    def _land(self, item: Item) -> None:
        self.flying.discard(item.row.id)
        self._hastened.discard(item.row.id)
        away = self._away.get(item.row.alias)
        if away is not None and away.trying == item.row.id:
            away.trying = 0

    def unreachable(self, alias: str, due: float) -> None:
        """It could not be reached: once that is so for some time, nothing is tried there before it is due."""
        self._failures[alias] = self._failures.get(alias, 0) + 1
        if self._failures[alias] >= AWAY_AFTER:
            self._away.setdefault(alias, _Away()).due = due

    def hurry(self) -> None:
        """Try those at once that are away."""
        for away in self._away.values():
            away.due = 0.0

    def reachable(self, alias: str) -> bool:
        """It answered: what waits for it has its turn at once, if it was away; whether it was."""
        self._failures.pop(alias, None)
        away = self._away.pop(alias, None)
        if away is None:
            return False
        for id in away.aside:
            heappush(self._ready, id)
        for _, id in self._waiting:
            item = self._items.get(id)
            if item is not None and item.row.alias == alias:
                self.release(item)
        return True

    def next_due(self) -> float | None:
        """When the next one that waits may be tried again."""
        due = [away.due for away in self._away.values() if away.aside and not away.trying]
        if self._waiting:
            due.append(self._waiting[0][0])
        return min(due, default=None)

    def put_back(self, item: Item, state: State, due: float = 0.0) -> None:
        """End a flight: it waits until it is due, or is parked if the state says so."""
        self._land(item)
        item.state, item.due = state, due
        item.status = PARKED if state.parked else WAITING if due else READY
        self.parked += item.status == PARKED
        self._arm(item)

    def release(self, item: Item) -> bool:
        """Let one that is parked or waits have its turn at once; whether it was."""
        if item.status not in (PARKED, WAITING):
            return False
        first = self._first(item)
        if item.status == PARKED:
            self.parked -= 1
            self._held -= first
            item.state = item.state._replace(parked=0, attempts=0)
        item.state = item.state._replace(retry_at_ns=0)
        item.status = READY
        if first:
            self._arm(item)
        return True

    def remove(self, item: Item) -> None:
        """Forget an entry; the next of its chain has its turn."""
        row, chain = item.row, self._chains[item.place]
        first = chain[0] is item
        del self._items[row.id]
        chain.remove(item)
        self.size -= row.size
        self._land(item)
        self.parked -= item.status == PARKED
        self._held -= first and item.status == PARKED
        self._age()
        if chain:
            if first:
                self._arm(chain[0])
            return
        del self._chains[item.place]
        if (names := self._names.get((row.alias, row.bucket))) is not None:
            del names[bisect_left(names, row.name)]

    def _age(self) -> None:
        while self._order and self._order[0] not in self._items:
            self._order.popleft()
        self.oldest_ns = self._items[self._order[0]].row.created_ns if self._order else 0

    def waits_since(self) -> int:
        """When the oldest was accepted that is not parked (ns; 0: there is none). It needs no lock."""
        if not self.parked:
            return self.oldest_ns
        found = (item for id in tuple(self._order) if (item := self._items.get(id)) and item.status != PARKED)
        item = next(found, None)
        return item.row.created_ns if item else 0

    def moving(self) -> bool:
        """Whether anything can still be delivered without somebody's help: what is parked, or behind it, cannot."""
        return len(self._chains) > self._held

    def chain(self, place: Place) -> Sequence[Item]:
        """All entries of a key, oldest first."""
        return self._chains.get(place, ())

    def after(self, id: int) -> Iterator[Item]:
        """The entries with higher ids, in their order."""
        ids = list(self._items)
        return (self._items[id] for id in ids[bisect_right(ids, id) :])

    def newest(self, alias: str, bucket: str, prefix: str, after: str) -> Iterator[Item]:
        """The last entry of each key with the prefix, in the order of their names, those behind ``after``."""
        names = self._names.get((alias, bucket))
        if names is None:
            names = sorted(name for known, own, name in self._chains if (known, own) == (alias, bucket))
            self._names[alias, bucket] = names
        start = bisect_right(names, after) if after >= prefix else bisect_left(names, prefix)
        for index in range(start, len(names)):
            if not names[index].startswith(prefix):
                return
            yield self._chains[alias, bucket, names[index]][-1]
