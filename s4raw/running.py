"""The life of processes that serve: until a signal or the end of their lifeline; then they drain."""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from typing import Protocol

from s4raw import processors, workers
from s4raw.log import Log
from s4raw.net import Socket
from s4raw.syscalls import spread_waiters

GARBAGE = 50_000  # objects more than were freed, before the collector looks at the youngest
FUTEX_SLOTS = 4096  # of 64 bytes each
MAX_DESCRIPTORS = 65536  # enough for every connection; more would slow down commands that close them all


class Service(Protocol):
    """What serves: an ``Acceptor``, or several of them."""

    def run(self) -> None:
        """Serve until told to stop."""

    def stop(self) -> None:
        """Make ``run`` return; from a signal handler, too."""

    def drain(self, grace_seconds: float) -> bool:
        """Let what runs come to its end, and then cut it off; whether that was not needed."""

    def close(self) -> None:
        """Release what is held; after ``drain``."""


# What a process serves with: of its lifeline, and of what Acceptor calls ``connected`` and ``may_accept``.
Serve = Callable[["int | None", Callable[[int], int], Callable[[], bool]], Service]


def allow_descriptors() -> None:
    """Let this process have as many descriptors as it may, up to MAX_DESCRIPTORS."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MAX_DESCRIPTORS), most))


def run(
    listener: Socket,
    serve: Serve,
    *,
    count: int,
    lifeline: int | None,
    grace_seconds: float,
    log: Log,
    settled: bool = False,
) -> None:
    """Serve in ``count`` processes until SIGTERM, SIGINT or the end of ``lifeline``, then drain.

    ``serve`` is called in each of them; ``listener`` is closed in the end. What still runs after ``grace_seconds`` is
    cut off. ``settled`` processes run on a processor each, but for what roams (see ``processors``).
    """
    balance = workers.Balance(count)
    first = os.getpid()  # so that several daemons do not all share one processor

    def work(number: int, lifeline: int | None) -> None:
        gc.freeze()  # what is here by now stays,
        gc.set_threshold(GARBAGE)  # and requests leave next to no cycles: looking often takes 9% of a small get
        spread_waiters(FUTEX_SLOTS)
        if settled:
            processors.settle(first + number)

        def may_accept() -> bool:
            processors.come_home()  # it shares the processor with the threads that it hands connections to
            return balance.is_least(number)

        acceptor = serve(lifeline, partial(balance.set, number), may_accept)
        for stop in (signal.SIGTERM, signal.SIGINT):
            signal.signal(stop, lambda *_: acceptor.stop())
        acceptor.run()
        log("drain", f"at most {grace_seconds:g} s for what is running")
        if not acceptor.drain(grace_seconds):
            log("drain", "cut off what was still running")
        for stop in (signal.SIGTERM, signal.SIGINT):  # a late one would be told to what is closed
            signal.signal(stop, signal.SIG_IGN)
        acceptor.close()

    if count > 1:
        workers.run(count, work, listener.close, lifeline, grace_seconds, log)
    else:
        work(0, lifeline)
    log("stop")
    listener.close()
