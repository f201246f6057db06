"""The same call at every server at once; the first error ends it everywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable

from s4raw.connection import Connection, Pool, Progress
from s4raw.errors import S4Error
from s4raw.ring import Topology
from s4raw.wire import Frame


class Fanout:
    """One call to all servers of a ring; progress is the sum of theirs."""

    def __init__(self, topology: Topology, pool: Pool, progress: Progress) -> None:
        self._topology = topology
        self._pool = pool
        self._progress = progress
        self._lock = threading.Lock()
        self._connections: list[Connection] = []
        self._error: BaseException | None = None
        self._done: dict[str, tuple[int, int]] = {}
        self._count = 0

    def run(self, action: Callable[[Connection, Progress], Frame]) -> int:
        """Run ``action(connection, report)`` for every server; returns the sum of the answers' ``count``."""
        servers = self._topology.servers
        threads = [threading.Thread(target=self._run_at, args=(server, action), daemon=True) for server in servers]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException as error:  # an interrupt, say
            self._fail(error)
            raise
        if self._error is not None:
            raise self._error
        return self._count

    def _run_at(self, server: str, action: Callable[[Connection, Progress], Frame]) -> None:
        def report(done: int, total: int) -> None:
            with self._lock:
                self._done[server] = (done, total)
                sums = [sum(numbers) for numbers in zip(*self._done.values(), strict=True)]
            self._progress(sums[0], sums[1])

        try:
            with self._pool.lease(server) as connection:
                with self._lock:
                    self._connections.append(connection)
                    if self._error is not None:
                        return
                frame = action(connection, report)
                with self._lock:
                    self._count += frame.uint("count")
        except S4Error as error:
            self._fail(error.at(server=server))
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
            for connection in self._connections:
                connection.channel.hang_up()
