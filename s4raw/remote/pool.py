"""Warm connections to one server: the one used last is taken first, so that what is not needed grows old and ends.

A connection belongs to whoever took it until it is given back. What is taken counts against the limit, unless it is
``released``: connections whose pace somebody else sets (a reader, a client that sends) must not keep others waiting.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from s4raw.errors import Cancelled
from s4raw.s3.connection import Connection

IDLE_SECONDS = 30.0  # after which a connection beyond those that are kept warm is closed


class Lease:
    """A connection that is in use. To give it back twice is fine."""

    def __init__(self, pool: Pool, connection: Connection) -> None:
        self.connection = connection
        self._pool = pool
        self._counts = True
        self._over = False

    def release(self) -> None:
        """Let others have its place: it may be in use for long."""
        if self._counts:
            self._counts = False
            self._pool._done()

    def give_back(self, whole: bool = True) -> None:
        """Keep the connection for the next, or close it unless its last answer was read to its end."""
        if self._over:
            return
        self._over = True
        if not (whole and self._pool._keep(self.connection)):
            self.connection.close()
        self._pool._forget(self.connection)
        self.release()


class Pool:
    """At most ``limit`` connections at once; those who come later wait. ``keep`` of them are kept warm.

    What a burst needed beyond those stays for half a minute of silence: until the next one is given back after it.
    """

    def __init__(self, connect: Callable[[], Connection], limit: int, keep: int) -> None:
        """``connect`` makes a connection, which opens when it is used."""
        self._connect = connect
        self._limit = limit
        self._kept = keep
        self._idle: deque[tuple[Connection, float]] = deque()  # and since when, by the monotonic clock
        self._used: set[Connection] = set()
        self._free = limit
        self._closed = self._cut_off = False
        self._changed = threading.Condition(threading.Lock())

    def take(self, fresh: bool = False) -> Lease:
        """A connection, a new one if ``fresh``. Raises Cancelled once the pool is closed."""
        with self._changed:
            while not self._free and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Cancelled("the remote was closed")
            self._free -= 1
        while not fresh:
            with self._changed:
                found, _ = self._idle.pop() if self._idle else (None, 0.0)
            if found is None:
                break
            if found.alive():
                return self._lease(found)
            found.close()
        return self._lease(self._connect())

    def _lease(self, connection: Connection) -> Lease:
        with self._changed:
            self._used.add(connection)
            if self._cut_off:
                connection.cut_off()
        return Lease(self, connection)

    def _forget(self, connection: Connection) -> None:
        with self._changed:
            self._used.discard(connection)

    def _keep(self, connection: Connection) -> bool:
        now = time.monotonic()
        old = []
        with self._changed:
            if self._closed or not connection.kept:
                return False
            self._idle.append((connection, now))
            while len(self._idle) > self._limit or (
                len(self._idle) > self._kept and self._idle[0][1] < now - IDLE_SECONDS
            ):
                old.append(self._idle.popleft()[0])
        for each in old:
            each.close()
        return True

    def _done(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify()

    def warm(self, count: int) -> None:
        """Open connections until ``count`` are idle, several at once. Raises Unreachable."""
        with self._changed:
            missing = min(count, self._limit, self._free) - len(self._idle)
        failures: list[BaseException] = []

        def one() -> None:
            try:
                lease = self.take(fresh=True)
            except Cancelled as error:  # closed meanwhile
                failures.append(error)
                return
            try:
                lease.connection.open()
            except BaseException as error:
                failures.append(error)
                lease.connection.close()
            finally:
                lease.give_back()

        threads = [threading.Thread(target=one, name="warm") for _ in range(missing)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def idle(self) -> int:
        """How many connections are kept."""
        with self._changed:
            return len(self._idle)

    def close(self, cut_off: bool = False) -> None:
        """Close what is idle, and what is in use when it is given back; ``cut_off`` ends that at once."""
        with self._changed:
            self._closed = True
            if cut_off:
                self._cut_off = True
                for used in self._used:
                    used.cut_off()
            idle, self._idle = self._idle, deque()
            self._changed.notify_all()
        for connection, _ in idle:
            connection.close()
