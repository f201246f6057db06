"""Which processors threads run on: those of small requests share one, those of large bodies have all of them.

The threads of an interpreter take turns at its lock, which each gives up for every system call. Where there is another
processor, a thread that waits for the lock takes it there at once, and who comes back from a system call of 2 us has to
wait, and is woken up. On one processor it finds the lock as it has left it: nobody else has run meanwhile.

Where other programs keep the processors busy this would be the wrong way: a share of one is less than a share of all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Set
from contextlib import suppress

CROWDED = 0.6  # of the time of all processors, used by other programs
LOOK_SECONDS = 1.0
FIRST_SECONDS = 0.1  # until the second look, where the one before the first was too long ago
_TICKS = os.sysconf("SC_CLK_TCK")

_home: Set[int] = frozenset()
_all: Set[int] = frozenset()


class _Others:
    """How much of the processors' time other programs use. Any thread may ask: at worst two look at once."""

    def __init__(self) -> None:
        self.many = False
        self._looked = self._next = -LOOK_SECONDS
        self._last = (0.0, 0.0)

    def look(self) -> bool:
        """Whether they use so much that there is none to spare, as of a second ago. Nobody knows at once: then not."""
        now = time.monotonic()
        if now >= self._next:
            try:
                total, others = used_by_others()
            except (OSError, ValueError, IndexError):
                self.many, self._next = True, now + LOOK_SECONDS  # nobody says
                return True
            before, self._last = self._last, (total, others)
            recent, self._looked = now - self._looked < 2 * LOOK_SECONDS, now
            self.many = recent and others - before[1] > CROWDED * (total - before[0])
            self._next = now + (LOOK_SECONDS if recent else FIRST_SECONDS)
        return self.many


_others = _Others()


def used_by_others() -> tuple[float, float]:
    """Seconds that all processors together have run since the machine started, and those of other processes in it."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    own = os.times()
    idle = ticks[3] + ticks[4]  # proc(5): user, nice, system, idle, iowait, irq, softirq, steal
    return sum(ticks) / _TICKS, (sum(ticks) - idle) / _TICKS - own.user - own.system


def crowded() -> bool:
    """Whether other programs keep the processors so busy that there is none to spare, as of a second ago."""
    return _others.look()


def settle(number: int) -> None:
    """Let threads that ``come_home`` share one processor: the ``number``-th that this process may use, in a ring.

    Where it may use only one nothing changes.
    """
    global _home, _all
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) > 1:
        _all, _home = frozenset(allowed), frozenset((allowed[number % len(allowed)],))


def come_home() -> None:
    """Let this thread run where those of small requests do; anywhere, while other programs keep the processors busy."""
    if _home:
        _allow(_all if crowded() else _home)


def roam() -> None:
    """Let this thread, and those that it starts, run on any processor."""
    if _home:
        _allow(_all)


def _allow(processors: Set[int]) -> None:
    with suppress(OSError):  # somebody has taken them all away since, or forbids it: then it stays as it is
        os.sched_setaffinity(0, processors)
