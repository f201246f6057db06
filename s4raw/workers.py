"""Several worker processes for one server: forked from a process that only watches over them.

They accept from the same listening socket and share nothing else but the file system, the CPU slots, and one number
each: how many connections it has. The one with the fewest accepts the next, which the kernel's own choice
(SO_REUSEPORT) does not see to: it goes by a hash of the addresses.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from s4raw.errors import InternalError
from s4raw.log import Log

_COUNT_BYTES = 4
NEARLY = 8
LATE_SECONDS = 10.0  # beyond the grace that workers give what runs, before they are killed


class Balance:
    """How many connections each worker has, in memory that all of them see. Each writes its own number only."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._counts = memoryview(mmap.mmap(-1, workers * _COUNT_BYTES)).cast("I")

    def set(self, worker: int, connections: int) -> int:
        """A worker has so many connections; how many they all have together."""
        self._counts[worker] = connections
        return sum(self._counts)

    def is_least(self, worker: int) -> bool:
        """Whether no worker has fewer connections than this one; where they have many, an eighth is no difference."""
        fewest = min(self._counts)
        return self._counts[worker] <= fewest + fewest // NEARLY


def run(
    count: int,
    work: Callable[[int, int], None],
    forked: Callable[[], None],
    lifeline: int | None,
    grace_seconds: float,
    log: Log,
) -> None:
    """Run ``work(number, lifeline)`` in ``count`` processes until SIGTERM, SIGINT or the end of ``lifeline``.

    ``forked`` is called once they all exist: what only they need can be closed here.

    A worker is to finish when the descriptor that it is given reaches its end, which it also does when this process
    dies. One that dies by itself ends them all: a server that has lost a part of itself starts again, and sweeps.
    Raises InternalError then.
    """
    reader, writer = os.pipe()
    wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, lambda *_: os.eventfd_write(wake, 1))
    pidfds: dict[int, int] = {}
    try:
        for number in range(count):
            pid = os.fork()
            if not pid:
                os.close(writer)
                _work(work, number, reader, log)
            pidfds[os.pidfd_open(pid)] = pid
        forked()
        poller = select.poll()
        for fd in (wake, *pidfds, *((lifeline,) if lifeline is not None else ())):
            poller.register(fd, select.POLLIN)
        ready = set[int]()
        while not ready:  # a signal that comes just before the poll does not interrupt it
            ready = {fd for fd, _ in poller.poll(1000)}
    finally:
        os.close(writer)
        dead = _wait(pidfds, grace_seconds + LATE_SECONDS)
        for fd in (reader, wake):
            os.close(fd)
    if dead or ready & set(pidfds):
        raise InternalError("a worker process died; see the log")


def _work(work: Callable[[int, int], None], number: int, lifeline: int, log: Log) -> None:
    """The life of a worker; does not return."""
    code = 1
    try:
        work(number, lifeline)
        code = 0
    except BaseException:
        log("error", f"worker {number}: {traceback.format_exc()}")
    finally:
        os._exit(code)


def _wait(pidfds: dict[int, int], seconds: float) -> bool:
    """Wait for the workers, then kill what is left of them; whether any ended other than it should."""
    deadline, failed = time.monotonic() + seconds, False
    for fd, pid in pidfds.items():
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if not poller.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(fd)
        failed = failed or status != 0
    return failed
