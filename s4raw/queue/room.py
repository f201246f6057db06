"""Whether the queue has room: who finds none waits, and is let in before whoever comes later."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from s4raw.errors import Busy, QueueFull
from s4raw.queue.entries import Limits

PATIENCE_SECONDS = 1.0  # after which who waits is asked whether to go on

Patience = Callable[[], bool] | None  # whether to wait on
Held = Callable[[], tuple[int, int]]  # bytes and entries in the queue
Since = Callable[[], int]  # when the oldest was accepted that is not parked (ns; 0: there is none)


class Reservation:
    """Room for one order, a context manager: given back when it is left, by when the order counts itself."""

    def __init__(self, room: Room, size: int) -> None:
        self.size = size
        self._room: Room | None = room

    def release(self) -> None:
        """Give it back. Twice is fine."""
        room, self._room = self._room, None
        if room is not None:
            room.give_back(self.size)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _Waiting:
    """One who waits: for how many bytes, and whether they are granted."""

    __slots__ = ("granted", "size", "turn")

    def __init__(self, size: int) -> None:
        self.size = size
        self.granted = False
        self.turn = threading.Event()


class Room:
    """Counts what is reserved on top of what the queue holds. ``held`` and ``since`` must not wait for anything."""

    def __init__(self, limits: Limits, held: Held, since: Since) -> None:
        self._limits = limits
        self._held = held
        self._since = since
        self._lock = threading.Lock()
        self._size = 0  # reserved bytes and orders
        self._count = 0
        self._waiting: deque[_Waiting] = deque()
        self._closed = ""  # why

    def reserve(self, size: int, timeout: float | None, patience: Patience = None, always: bool = False) -> Reservation:
        """Room for one order, at the latest after so many seconds (None: for as long as it takes).

        ``patience`` is asked now and then whether to go on waiting; its errors end the wait, too. An order that is
        larger than the limit is let in when there is no other; ``always`` lets it in whatever there is. Raises
        QueueFull, Busy when closed.
        """
        with self._lock:
            if self._closed:
                raise Busy(self._closed)
            reason = self._lacking(size)
            if always or (not self._waiting and not reason):
                return self._grant(size)
            if timeout is not None and timeout <= 0:
                raise QueueFull(f"the queue is full: {reason or 'others wait for room'}")
            waiting = _Waiting(size)
            self._waiting.append(waiting)
        start = time.monotonic()
        try:
            _wait(waiting.turn, timeout, patience)
        except BaseException:
            with self._lock:
                self._leave(waiting)
            raise
        with self._lock:
            if waiting.granted:
                return Reservation(self, size)
            if self._closed:
                raise Busy(self._closed)
            self._leave(waiting)
            seconds = time.monotonic() - start
            raise QueueFull(
                f"the queue is full, after {seconds:.3g} s: {self._lacking(size) or 'others wait for room'}"
            )

    def _leave(self, waiting: _Waiting) -> None:
        if waiting.granted:
            self._size -= waiting.size
            self._count -= 1
        elif not self._closed:
            self._waiting.remove(waiting)
        self._admit()  # a smaller one behind it may fit

    def _grant(self, size: int) -> Reservation:
        self._size += size
        self._count += 1
        return Reservation(self, size)

    def give_back(self, size: int) -> None:
        """End a reservation."""
        with self._lock:
            self._size -= size
            self._count -= 1
            self._admit()

    def changed(self) -> None:
        """Something has left the queue, or was parked."""
        with self._lock:
            self._admit()

    def _admit(self) -> None:
        while self._waiting and not self._lacking(self._waiting[0].size):
            waiting = self._waiting.popleft()
            self._grant(waiting.size)
            waiting.granted = True
            waiting.turn.set()

    def _lacking(self, size: int) -> str:
        """Which limit has no room for so many bytes more; empty: none."""
        limits = self._limits
        used, count = self._held()
        if not count + self._count:
            return ""
        if limits.size and used + self._size + size > limits.size:
            return f"it holds {used} of {limits.size} bytes"
        if limits.files and count + self._count >= limits.files:
            return f"it holds {count} of {limits.files} entries"
        if limits.age_seconds and (since := self._since()):
            age = (time.time_ns() - since) / 1e9
            if age > limits.age_seconds:
                return f"its oldest entry has waited for {age:.0f} s of {limits.age_seconds:g}"
        return ""

    def close(self, reason: str = "the queue is closed") -> None:
        """Let nobody in any more; who waits, or comes later, is told why."""
        with self._lock:
            self._closed = self._closed or reason
            for waiting in self._waiting:
                waiting.turn.set()
            self._waiting.clear()


def _wait(turn: threading.Event, timeout: float | None, patience: Patience) -> None:
    if patience is None:
        turn.wait(timeout)
        return
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        if turn.wait(min(left, PATIENCE_SECONDS)) or not patience():
            return
