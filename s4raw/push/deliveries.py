"""What clients wait for: entries of the queue that are on their way. Knows nothing of connections, or of the queue."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable

from s4raw.errors import S4Error

REMEMBERED = 10_000  # ETags


class Delivery:
    """One entry that a client waits for. ``wake`` is called, once or more, after something has changed.

    ``done`` once the entry has left the queue: with ``error`` when it was dropped. ``failed`` after an attempt that
    failed with ``error``, ``parked`` when there is to be no other. ``etag`` is the stored object's, if it is known.
    """

    def __init__(self, id: int, wake: Callable[[], None]) -> None:
        self.id = id
        self.done = False
        self.unsure = False  # somebody should look
        self.failed = False
        self.parked = False
        self.etag = ""
        self.error: S4Error | None = None
        self.wake = wake


class Deliveries:
    """All entries that clients wait for. Each client wakes up by itself, so that a slow one keeps nobody waiting."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: defaultdict[int, list[Delivery]] = defaultdict(list)
        self._etags: OrderedDict[int, str] = OrderedDict()  # of the last that were stored, for who watches too late
        self.stopped = False

    def watch(self, id: int, wake: Callable[[], None]) -> Delivery:
        """Wait for an entry. It may have left the queue before: look there next."""
        delivery = Delivery(id, wake)
        with self._lock:
            self._waiting[id].append(delivery)
        return delivery

    def forget(self, delivery: Delivery) -> None:
        """Nobody waits for it any more: it is not woken from here on."""
        with self._lock:
            waiting = self._waiting.get(delivery.id)
            if waiting and delivery in waiting:
                waiting.remove(delivery)
                if not waiting:
                    del self._waiting[delivery.id]

    def stored(self, id: int, etag: str) -> None:
        """An entry's object is stored: its ETag, for who hears later that this is final."""
        with self._lock:
            self._etags[id] = etag
            if len(self._etags) > REMEMBERED:
                self._etags.popitem(last=False)

    def etag(self, id: int) -> str:
        """The ETag of an entry that was stored a short time ago; empty: it is not known."""
        return self._etags.get(id, "")

    def attempted(self, id: int, error: S4Error | None, parked: bool = False) -> None:
        """An attempt to deliver an entry has ended; ``parked``: there is to be no other."""
        with self._lock:
            for delivery in self._waiting.get(id, ()):
                delivery.error, delivery.parked = error, parked
                delivery.etag = self._etags.get(id, "") if error is None else ""
                delivery.done, delivery.failed = error is None, error is not None
                delivery.wake()

    def dropped(self, ids: Iterable[int]) -> None:
        """Entries may have been thrown away: who waits for them should look."""
        with self._lock:
            for id in ids:
                for delivery in self._waiting.get(id, ()):
                    delivery.unsure = True
                    delivery.wake()

    def stop(self) -> None:
        """Nothing is delivered any more: whoever waits is to be told."""
        with self._lock:
            self.stopped = True
            for waiting in self._waiting.values():
                for delivery in waiting:
                    delivery.wake()
