"""Several threads at work on one call, each with its own connection; the first error ends it for all of them."""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from s4raw.channel import Channel
from s4raw.connection import Connection, Pool, Progress, Status
from s4raw.errors import Cancelled, S4Error

TYPE_CHECKING = False  # typing's own is not imported at run time, for a fast start
if TYPE_CHECKING:
    from typing import TypeVar

    Result = TypeVar("Result")


class Fanout:
    """One call that is spread over threads."""

    def __init__(self, pool: Pool, failed: Callable[[], None] = lambda: None) -> None:
        """``failed`` is called once, after the first error."""
        self._pool = pool
        self._failed = failed
        self._lock = threading.Lock()
        self._todo: deque[Callable[[], None]] = deque()
        self._busy = 0  # threads that took one of them
        self._ended = threading.Lock()  # held until a thread has ended
        self._ended.acquire()
        self._live: set[Channel] = set()
        self._error: BaseException | None = None

    def run(self, works: Sequence[Callable[[], None]]) -> None:
        """Run each of ``works`` in a thread and wait for all; raises the first error, after all have ended.

        An interrupt of the waiting thread counts as an error too. It can come between any two steps of this method,
        also when a thread was started or its end was told: so the threads take the works and count themselves, and both
        are done by single steps that are written in C. (What threading has for them may be left half done.)
        """
        try:
            self._todo.extend(works)
            for _ in works:
                _thread.start_new_thread(self._work, ())
            self._wait()
        except BaseException as error:
            with self._lock:
                self._todo.clear()  # a thread that begins from here on finds nothing to do
            self._fail(error)
            self._wait()
            if not isinstance(error, Exception):
                raise
        if self._error is not None:
            raise self._error

    def _wait(self) -> None:
        while self._todo or self._busy:
            self._ended.acquire()

    def _work(self) -> None:
        with self._lock:
            if not self._todo:
                return
            self._busy += 1
            work = self._todo.popleft()
        try:
            work()
        except BaseException as error:
            self._fail(error)
        finally:
            with self._lock:
                self._busy -= 1
                if self._ended.locked():
                    self._ended.release()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            first, self._error = self._error is None, self._error or error
            for channel in self._live:
                channel.hang_up()
        if first:
            self._failed()

    def cut(self) -> None:
        """End the call from outside."""
        self._fail(Cancelled("the call was cut"))

    def check(self) -> None:
        """Raise Cancelled when another thread has failed."""
        if self._error is not None:
            raise Cancelled("another part of this call failed")

    @contextmanager
    def lease(self, server: str, fresh: bool = False) -> Iterator[Connection]:
        """Like ``Pool.lease``; the connection is cut when another thread fails, also while it is being made."""
        channels: list[Channel] = []

        def opened(channel: Channel) -> None:
            channels.append(channel)
            with self._lock:
                self._live.add(channel)
            self.check()

        try:
            with self._pool.lease(server, fresh, opened) as connection:
                yield connection
                with self._lock:
                    self._live.difference_update(channels)  # from here on nobody cuts it: it may be kept,
                self.check()  # unless somebody did while its last answer was here already
        finally:
            with self._lock:
                self._live.difference_update(channels)


def everywhere(
    pool: Pool,
    progress: Progress,
    action: Callable[[Connection, Progress], Result],
    failed: Callable[[], None] = lambda: None,
) -> Sequence[Result]:
    """Do something at every server at once; returns the results.

    The first error ends it everywhere: ``failed`` is called, and the other connections are cut, at which their servers
    stop too.
    """
    fanout, lock = Fanout(pool, failed), threading.Lock()
    reports: dict[str, Status] = {}
    results: list[Result] = []

    def work(server: str) -> None:
        def report(status: Status) -> None:
            with lock:
                reports[server] = status
                progress(_sum(reports.values()))

        try:
            with fanout.lease(server, fresh=True) as connection:  # such a call is not made twice
                results.append(action(connection, report))
        except S4Error as error:
            error.at(server=server)
            raise

    fanout.run([partial(work, server) for server in pool.topology.servers])
    return results


def _sum(reports: Collection[Status]) -> Status:
    """How far a call is at all servers together, with the slowest command of all."""
    done, total, failed = (sum(column) for column in zip(*(status[:3] for status in reports), strict=True))
    slowest = max(reports, key=lambda status: status.seconds)
    return slowest._replace(done=done, total=total, failed=failed, planning=any(status.planning for status in reports))


def ask_all(pool: Pool, ask: Callable[[Connection], Result]) -> Iterator[tuple[str, Result | S4Error]]:
    """Ask every server, all at once: what each answers, or the error why it does not, in the order of the conf."""
    found: dict[str, Result | S4Error] = {}

    def work(server: str) -> None:
        try:
            with pool.lease(server) as connection:
                found[server] = ask(connection)
        except S4Error as error:
            found[server] = error.at(server=server)

    Fanout(pool).run([partial(work, server) for server in pool.topology.servers])
    return ((server, found[server]) for server in pool.topology.servers)


def health(pool: Pool, seconds: float) -> Sequence[tuple[str, S4Error | None]]:
    """Ask every server, all at once, and wait at most ``seconds`` for each: what is wrong with it, or None."""
    found: dict[str, S4Error | None] = {}

    def ask(server: str) -> None:
        found[server] = pool.ping(server, seconds)

    threads = [threading.Thread(target=ask, args=(server,), daemon=True) for server in pool.topology.servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [(server, found[server]) for server in pool.topology.servers]
