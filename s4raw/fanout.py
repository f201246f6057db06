"""Several threads at work on one call, each with its own connection; the first error ends it for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from s4raw.connection import Connection, Pool
from s4raw.errors import Cancelled


class Fanout:
    """One call that is spread over threads."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._live: set[Connection] = set()
        self._error: BaseException | None = None

    def run(self, works: Sequence[Callable[[], None]]) -> None:
        """Run each of ``works`` in a thread and wait for all; raises the first error, after all have ended.

        An interrupt of the waiting thread counts as an error too.
        """
        threads = [threading.Thread(target=self._work, args=(work,), daemon=True) for work in works]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:
            self._fail(error)
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        if self._error is not None:
            raise self._error

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
            for connection in self._live:
                connection.channel.hang_up()

    def check(self) -> None:
        """Raise Cancelled when another thread has failed."""
        if self._error is not None:
            raise Cancelled("another part of this call failed")

    @contextmanager
    def lease(self, server: str, fresh: bool = False) -> Iterator[Connection]:
        """Like ``Pool.lease``; the connection is cut when another thread fails."""
        self.check()
        with self._pool.lease(server, fresh) as connection:
            with self._lock:
                self._live.add(connection)
            try:
                self.check()
                yield connection
            finally:
                with self._lock:
                    self._live.discard(connection)
