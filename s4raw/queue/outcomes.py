"""What became of the entries that have left the queue, and who waits to hear it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from s4raw.errors import Busy, ConnectionLost, NoSuchKey, PeerTimeout, S4Error, Unreachable

REMEMBERED = 10_000  # outcomes
UNREACHABLE = (Unreachable, ConnectionLost, PeerTimeout)  # of a remote that may be away


class Outcomes:
    """Of entries that left since the process began. An id that is neither there nor known was delivered.

    That is so as long as nothing was forgotten: all that was dropped is remembered, and of what was delivered only what
    was queued by an earlier process; the number is bounded, and of what may have been forgotten nothing is said.
    """

    def __init__(self, last: int, there: Callable[[int], object]) -> None:
        """``last`` is the highest id of an earlier process, ``there`` says whether an entry is in the queue."""
        self._lock = threading.Lock()
        self._there = there
        self._floor = last  # the highest id of which nothing may be known
        self._leaving: set[int] = set()
        self._waiters: dict[int, list[threading.Event]] = {}
        self._known: OrderedDict[int, S4Error | None] = OrderedDict()
        self._closed = False

    def leaving(self, ids: Sequence[int]) -> None:
        """They are about to be taken out of the queue; ``left`` follows when that is on disk."""
        with self._lock:
            self._leaving.update(ids)

    def left(self, fates: Mapping[int, S4Error | None]) -> None:
        """Entries have left: delivered (None), or dropped with an error. Whoever waits is told."""
        with self._lock:
            for id, error in fates.items():
                self._leaving.discard(id)
                if error is not None or id <= self._floor:
                    self._known[id] = error
                    if len(self._known) > REMEMBERED:
                        self._floor = max(self._floor, self._known.popitem(last=False)[0])
                for event in self._waiters.pop(id, ()):
                    event.set()

    def wait(self, id: int, last: int, timeout: float | None) -> S4Error | None:
        """Wait until an entry has left: None, or the error it was dropped with. ``last`` is the highest id so far.

        Raises PeerTimeout, Busy when closed, NoSuchKey when nothing is known of the entry.
        """
        with self._lock:
            if self._gone(id):
                return self._outcome(id, last)
            if self._closed:
                raise Busy("the queue is closed")
            event = threading.Event()
            self._waiters.setdefault(id, []).append(event)
        event.wait(timeout)
        with self._lock:
            if self._gone(id):
                return self._outcome(id, last)
            if self._closed:
                raise Busy("the queue was closed")
            waiters = self._waiters[id]
            waiters.remove(event)
            if not waiters:
                del self._waiters[id]
        raise PeerTimeout(f"the entry {id} is still in the queue after {timeout} s")

    def _gone(self, id: int) -> bool:
        return not self._there(id) and id not in self._leaving

    def _outcome(self, id: int, last: int) -> S4Error | None:
        if id in self._known:
            return self._known[id]
        if self._floor < id <= last:
            return None
        raise NoSuchKey(f"the queue knows nothing of the entry {id}")

    def close(self) -> None:
        """Tell all who wait that there will be no answer."""
        with self._lock:
            self._closed = True
            for events in self._waiters.values():
                for event in events:
                    event.set()
            self._waiters.clear()
