"""Spin, then block: a wait that has been short is spent looking, since to sleep and be woken takes longer than it.

A request that is answered in 30 us costs two sleeps and two wake-ups, 30 to 50 us each where a processor goes idle in
between. So where one connection has the process to itself, and its messages have come quickly for a while, either end
looks for the next one for SPIN_SECONDS before it blocks.

That is good for as long as there are processors to spare: not where other programs keep them busy. And who has looked
in vain blocks at once for BACKOFF quick messages, and for twice as many each time that it happens again.
"""

from __future__ import annotations

import os
import select
from time import perf_counter

from s4raw import processors

SPIN_SECONDS = 200e-6
QUICK_SECONDS = 300e-6  # a wait as short as this, which may have begun and ended with a processor that was idle
QUICK = 8  # of them in a row make the next one worth looking
BACKOFF, MAX_BACKOFF = 8, 4096

_POSSIBLE = len(os.sched_getaffinity(0)) > 1  # the peer needs a processor, too


class Spin:
    """The waits of one connection, each between ``begin`` and ``end``. No two of a connection at once."""

    __slots__ = ("_backoff", "_poll", "_quick")

    latest: Spin | None = None  # whose message was the last one to come to this process

    def __init__(self) -> None:
        self._poll: select.poll | None = None
        self._quick = 0
        self._backoff = BACKOFF

    def begin(self, fd: int) -> float:
        """Wait a moment for bytes, if that is worth it; returns for ``end`` when the wait began."""
        since = perf_counter()
        if self._quick >= QUICK and Spin.latest is self and fd >= 0 and not processors.crowded():
            self._look(fd, since + SPIN_SECONDS)
        return since

    def _look(self, fd: int, until: float) -> None:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
        poll = self._poll.poll
        while not poll(0) and perf_counter() < until:
            pass
        if perf_counter() < until:
            self._backoff = BACKOFF
        else:  # also when something has come by now: then it was somebody else who ran here
            self._quick = -self._backoff
            self._backoff = min(2 * self._backoff, MAX_BACKOFF)

    def end(self, since: float) -> None:
        """The first bytes of a message are here."""
        if Spin.latest is self and perf_counter() - since < QUICK_SECONDS:
            self._quick += _POSSIBLE
        else:
            self._quick = min(self._quick, 0)
            Spin.latest = self
