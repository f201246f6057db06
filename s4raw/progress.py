"""The progress line: on a terminal only, from a transfer's first moments on, gone when it ends."""

from __future__ import annotations

import sys
import time
from _thread import allocate_lock

from s4raw.output import human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from s4raw.connection import Status

QUIET_SECONDS = 0.5  # what is over by then shows nothing
REDRAW_SECONDS = 0.1


class ProgressLine:
    """Shows ``done of total`` and the rate, in bytes or in keys. Any thread may add to it."""

    def __init__(self, what: str, unit: str, enabled: bool) -> None:
        self.done = 0
        self.total = 0
        self._what = what
        self._bytes = unit == "bytes"
        self._unit = unit
        self._planning = False
        self._more = ""
        self.shown = enabled and sys.stderr.isatty()
        self._lock = allocate_lock()
        self._start = time.monotonic()
        self._drawn = self._start + QUIET_SECONDS - REDRAW_SECONDS
        self._drawn_once = False

    def add(self, amount: int) -> None:
        """So much more is done."""
        with self._lock:
            self._update(self.done + amount, self.total)

    def update(self, done: int, total: int) -> None:
        """So much is done, of so much in all (0 when nobody knows)."""
        with self._lock:
            self._update(done, total)

    def show(self, status: Status) -> None:
        """A call is this far."""
        words = [f"{status.failed} failed"] if status.failed else []
        if status.slowest:
            words.append(f"{status.slowest} at {status.server} takes {status.seconds:.0f} s")
        with self._lock:
            self._planning = status.planning
            self._more = "".join(f", {text}" for text in words)
            self._update(status.done, status.total)

    def _update(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        now = time.monotonic()
        if self.shown and now - self._drawn >= REDRAW_SECONDS:
            self._drawn, self._drawn_once = now, True
            sys.stderr.write(f"\r\x1b[K{self._line(now - self._start)}")
            sys.stderr.flush()

    def _line(self, seconds: float) -> str:
        if self._planning:
            return f"{self._what}: looking for keys, {self._amount(self.total)} so far"
        rate = self.done / max(seconds, 1e-9)
        total = f" of {self._amount(self.total)}" if self.total else ""
        share = f" {100 * self.done // self.total}%" if self.total else ""
        left = f", {(self.total - self.done) / rate:.0f} s left" if self.total > self.done and rate else ""
        return f"{self._what}: {self._amount(self.done)}{total}{share}, {self._amount(rate)}/s{left}{self._more}"

    def _amount(self, number: float) -> str:
        return human(number) if self._bytes else f"{number:.0f} {self._unit}"

    def close(self) -> None:
        """Take the line away."""
        if self._drawn_once:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn_once = False
