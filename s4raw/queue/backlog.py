"""What the queue holds, in memory: whose turn it is, what waits for another try, and which keys there are.

Pure bookkeeping: no disk, no clock, no lock (``queue`` has them). Entries are told apart by their ids and are added in
their order. Those of one alias and key are a chain, of which one at a time can have its turn: the first. But what is
parked is passed by the next PUT or DELETE, and with it TAGs behind what is parked: they are aside. Once what has passed
them is delivered they are obsolete, for it has replaced what they would have made.

A remote that cannot be reached is tried with one entry at a time, less and less often, so that what goes elsewhere is
not held up by entries that all wait for it; but an order for which somebody waits has its turn: one with a number of
attempts of its own, or one that was ``hastened``. Of one that is silent nobody knows that it is away before the first
of its time-outs: therefore it is the number of entries of *each* alias that are in flight which ``take`` bounds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from sys import maxsize

from s4raw.errors import NoSuchKey, S4Error
from s4raw.queue.entries import TAG
from s4raw.queue.rows import NEW, Row, State

READY, WAITING, PARKED, IN_FLIGHT = range(4)

AWAY_AFTER = 5  # failures to reach a remote, one after the other
AWAY_SECONDS, MOST_AWAY_SECONDS = 0.5, 10.0  # between attempts to reach it then: twice as long after each

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


Fates = dict[Item, S4Error | None]  # of entries that leave, in this order: None is delivered, an error dropped


class _Away:
    """A remote that cannot be reached: what was its turn (a heap of ids), which of them is tried, and when the next."""

    __slots__ = ("aside", "due", "pause", "trying")

    def __init__(self, now: float) -> None:
        self.aside: list[int] = []
        self.trying = 0
        self.pause = AWAY_SECONDS
        self.due = now + self.pause


class Backlog:
    """All entries. ``size`` is the sum of theirs in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self.parked = 0
        self.flying: set[int] = set()  # the ids of those in flight
        self.oldest_ns = 0  # when the oldest was accepted; 0: there is none
        self._items: dict[int, Item] = {}
        self._chains: dict[Place, list[Item]] = {}  # the first has its turn
        self._aside: dict[Place, deque[Item]] = {}  # what is older than the first of its chain, and was passed
        self._held: set[Place] = set()  # chains of which all is aside
        self._ready: dict[str, list[int]] = {}  # by alias; heaps of first ones of chains, of which some may be outdated
        self._flights: Counter[str] = Counter()  # by alias
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
        return any(self._ready.values())

    def get(self, id: int) -> Item | None:
        """An entry that is there."""
        return self._items.get(id)

    def in_flight(self, id: int) -> Item:
        """An entry that is being delivered. Raises NoSuchKey."""
        item = self._items.get(id)
        if item is None or item.status != IN_FLIGHT:
            raise NoSuchKey(f"the entry {id} is not in flight")
        return item

    def add(self, row: Row, state: State = NEW, due: float = 0.0) -> None:
        """Put an entry at the end; ``due`` is when it may be tried, 0 for at once."""
        item = Item(row, state, PARKED if state.parked else WAITING if due else READY, due)
        self._items[row.id] = item
        self._order.append(row.id)
        self.oldest_ns = self.oldest_ns or row.created_ns
        self.size += row.size
        self.parked += item.status == PARKED
        place = item.place
        chain = self._chains.get(place)
        if chain is None:
            chain = self._chains[place] = []
            if (names := self._names.get((row.alias, row.bucket))) is not None:
                insort(names, row.name)
        chain.append(item)
        if len(chain) == 1:
            self._settle(place, None)

    def _arm(self, item: Item) -> None:
        """It is the first of its chain from now on, or has another status."""
        if item.status == READY:
            self._push(item)
        elif item.status == WAITING:
            heappush(self._waiting, (item.due, item.row.id))

    def _push(self, item: Item) -> None:
        heappush(self._ready.setdefault(item.row.alias, []), item.row.id)

    def _settle(self, place: Place, before: Item | None, again: bool = False) -> None:
        """Find out whose turn it is in a chain that has changed; ``before`` is the entry that need not be told.

        ``again``: one of those that are aside may not have to be. While one is in flight nothing else has its turn.
        """
        chain, aside = self._chains[place], self._aside.get(place)
        if not (chain and chain[0].status == IN_FLIGHT):
            if aside and (again or aside[0].status != PARKED):
                chain[:0] = aside
                aside.clear()
            count = 0
            while count < len(chain) and self._is_passed(chain[count], count or aside):
                count += 1
            if count:
                self._aside.setdefault(place, deque()).extend(chain[:count])
                del chain[:count]
            elif aside is not None and not aside:
                del self._aside[place]
        if not chain:
            self._held.add(place)
            return
        self._held.discard(place)
        if chain[0] is not before:
            self._arm(chain[0])

    def _is_passed(self, item: Item, behind: object) -> bool:
        """Whether later entries do not wait for it; ``behind``: there is something aside before it."""
        return item.status == PARKED or (bool(behind) and item.row.kind == TAG)

    def _first(self, item: Item) -> bool:
        chain = self._chains[item.place]
        return bool(chain) and chain[0] is item

    def take(self, now: float, most: int = maxsize) -> Item | None:
        """The oldest entry whose turn it is, of an alias with fewer than ``most`` in flight; it is so from now on."""
        while self._waiting and self._waiting[0][0] <= now:
            due, id = heappop(self._waiting)
            item = self._items.get(id)
            if item is not None and item.status == WAITING and item.due == due:
                item.status = READY
                self._push(item)
        item = self._oldest_ready(most)
        for alias, away in self._away.items():
            free = not away.trying and self._flights[alias] < most
            if free and away.due <= now and (tried := self._top(away.aside)) is not None:
                heappop(away.aside)
                away.trying = tried.row.id
                return self._fly(tried)
        if item is not None:
            heappop(self._ready[item.row.alias])
            return self._fly(item)
        return None

    def _oldest_ready(self, most: int) -> Item | None:
        """The oldest at the top of a heap, once those are put aside whose remote is away."""
        oldest = None
        for alias, heap in self._ready.items():
            if self._flights[alias] >= most:
                continue
            away = self._away.get(alias)
            while (item := self._top(heap)) is not None:
                if away is None or item.row.max_attempts or item.row.id in self._hastened:
                    break
                heappush(away.aside, heappop(heap))
            if item is not None and (oldest is None or item.row.id < oldest.row.id):
                oldest = item
        return oldest

    def _top(self, heap: list[int]) -> Item | None:
        """The first entry of a heap that can have its turn; others before it are taken out."""
        while heap:
            item = self._items.get(heap[0])
            if item is not None and item.status == READY and self._first(item):
                return item
            heappop(heap)
        return None

    def hasten(self, item: Item) -> None:
        """Somebody waits for its next attempt: it has its turn though its remote is away."""
        self._hastened.add(item.row.id)
        if item.status == READY and self._first(item):
            self._push(item)  # it may have been put aside

    def _fly(self, item: Item) -> Item:
        item.status = IN_FLIGHT
        self.flying.add(item.row.id)
        self._flights[item.row.alias] += 1
        return item

    def _land(self, item: Item) -> None:
        if item.row.id in self.flying:
            self.flying.remove(item.row.id)
            self._flights[item.row.alias] -= 1
        self._hastened.discard(item.row.id)
        away = self._away.get(item.row.alias)
        if away is not None and away.trying == item.row.id:
            away.trying = 0

    def unreachable(self, item: Item, now: float) -> None:
        """The remote of one in flight could not be reached: after some of these, one is tried there now and then."""
        alias = item.row.alias
        self._failures[alias] = self._failures.get(alias, 0) + 1
        away = self._away.get(alias)
        if away is not None and away.trying == item.row.id:
            away.pause = min(2 * away.pause, MOST_AWAY_SECONDS)
            away.due = now + away.pause
        elif away is None and self._failures[alias] >= AWAY_AFTER:
            self._away[alias] = _Away(now)

    def hurry(self) -> None:
        """Try those at once that are away, and again soon."""
        for away in self._away.values():
            away.due, away.pause = 0.0, AWAY_SECONDS / 2

    def reachable(self, alias: str) -> bool:
        """It answered: what waits for it has its turn at once, if it was away; whether it was."""
        self._failures.pop(alias, None)
        away = self._away.pop(alias, None)
        if away is None:
            return False
        ready = self._ready.setdefault(alias, [])
        for id in away.aside:
            heappush(ready, id)
        for _, id in self._waiting:
            item = self._items.get(id)
            if item is not None and item.status == WAITING and item.row.alias == alias:
                self.release(item)
        return True

    def next_due(self, most: int = maxsize) -> float | None:
        """When the next one that waits may be tried again; ``most`` as in ``take``."""
        due = [
            away.due
            for alias, away in self._away.items()
            if away.aside and not away.trying and self._flights[alias] < most
        ]
        if self._waiting:
            due.append(self._waiting[0][0])
        return min(due, default=None)

    def put_back(self, item: Item, state: State, due: float = 0.0) -> None:
        """End a flight: it waits until it is due, or is parked if the state says so."""
        self._land(item)
        item.state, item.due = state, due
        item.status = PARKED if state.parked else WAITING if due else READY
        self.parked += item.status == PARKED
        self._settle(item.place, None)

    def release(self, item: Item) -> bool:
        """Let one that is parked or waits have its turn at once; whether it was, and can: see ``is_replaced``."""
        if item.status not in (PARKED, WAITING) or self.is_replaced(item):
            return False
        before = self._chains[item.place][:1]
        was_parked = item.status == PARKED
        if was_parked:
            self.parked -= 1
            item.state = item.state._replace(parked=0, attempts=0)
        item.state = item.state._replace(retry_at_ns=0)
        item.status = READY
        self._settle(item.place, before[0] if before and before[0] is not item else None, was_parked)
        return True

    def is_replaced(self, item: Item) -> bool:
        """Whether one that is parked must stay so: what came later makes its key anew, and may be on its way."""
        if item.status != PARKED:
            return False
        for chain in (self._chains[item.place], self._aside.get(item.place, ())):
            for later in reversed(chain):
                if later is item:
                    return False
                if later.row.kind != TAG:
                    return True
        return False

    def passed(self, item: Item) -> Sequence[Item]:
        """The older ones that are obsolete once the first of a chain is delivered, oldest first."""
        return tuple(self._aside.get(item.place, ())) if self._aside and self._first(item) else ()

    def before(self, item: Item) -> Item | None:
        """The older one of its key for which an entry waits: whose turn it is, or what is parked before a TAG."""
        if item.status in (PARKED, IN_FLIGHT) or self._first(item):
            return None
        aside, chain = self._aside.get(item.place), self._chains[item.place]
        if aside and aside[-1].row.id >= item.row.id and aside[0] is not item:
            return aside[0]
        return chain[0]

    def remove(self, item: Item) -> None:
        """Forget an entry; the next of its chain has its turn."""
        row, place = item.row, item.place
        chain, aside = self._chains[place], self._aside.get(place)
        before = chain[0] if chain else None
        del self._items[row.id]
        if aside and aside[-1].row.id >= row.id:
            aside.remove(item)
        else:
            chain.remove(item)
        self.size -= row.size
        self._land(item)
        self.parked -= item.status == PARKED
        self._age()
        if chain or aside:
            self._settle(place, before)
            return
        del self._chains[place]
        self._aside.pop(place, None)
        self._held.discard(place)
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
        """Whether anything can still be delivered without somebody's help: what is aside cannot."""
        return len(self._chains) > len(self._held)

    def chain(self, place: Place) -> Sequence[Item]:
        """All entries of a key, oldest first."""
        chain = self._chains.get(place, ())
        return [*self._aside[place], *chain] if place in self._aside else chain

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
            place = alias, bucket, names[index]
            yield (self._chains[place] or self._aside[place])[-1]
