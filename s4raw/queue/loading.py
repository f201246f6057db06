"""What was queued when the last process ended: rows of the database, and files of the spool that belong to them."""

from __future__ import annotations

import gc
import time

from s4raw.errors import Corrupt
from s4raw.queue.backlog import Backlog
from s4raw.queue.journal import Journal
from s4raw.queue.rows import State
from s4raw.queue.spool import Spool

MAX_KEPT_WAIT = 60.0  # seconds until another try after a restart, at most: the clock may have been set back


def load(journal: Journal, spool: Spool, backlog: Backlog) -> None:
    """Put all rows into the backlog, and sweep files that were never accepted. Raises Corrupt, StoreError."""
    collecting = gc.isenabled()
    gc.disable()  # a hundred thousand rows are no garbage, and looking at them takes a third of the time
    try:
        _load(journal, spool, backlog)
    finally:
        if collecting:
            gc.enable()


def _load(journal: Journal, spool: Spool, backlog: Backlog) -> None:
    files, known = set(spool.names()), set()
    now, now_ns = time.monotonic(), time.time_ns()
    lost: list[tuple[int, State]] = []
    if journal.fresh:
        if files:
            raise Corrupt(f"the queue's database {journal.path} is missing or empty, but there are spooled files")
        journal.create()
    for row, state in journal.rows():
        if row.spooled:
            known.add(row.path)
            if row.path not in files:
                state = state._replace(parked=1, error="its file is missing from the queue's spool")
                lost.append((row.id, state))
        wait = min((state.retry_at_ns - now_ns) / 1e9, MAX_KEPT_WAIT)
        backlog.add(row, state, now + wait if wait > 0 else 0.0)
    spool.sweep(known)
    for id, state in lost:
        journal.note(id, state)
