"""Takes entries out of a queue and delivers them: several at once, each until it has arrived or is parked.

Each alias has threads of its own, so to speak: however long those of one are held, the others have theirs.
"""

from __future__ import annotations

import os
import random
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from s4raw.errors import InternalError, LocalFileError, NoSuchKey, S4Error
from s4raw.log import Log
from s4raw.objects.base import Backend, Info
from s4raw.objects.sources import FileSource, Identity
from s4raw.queue.entries import DELETE, PUT, Entry
from s4raw.queue.files import file_error, open_file
from s4raw.queue.pace import Pace
from s4raw.queue.queue import Queue
from s4raw.via import VIA

_SMALL = 1 << 20  # bytes; what is larger is paced while it is sent


class Pusher:
    """Threads that deliver what is in a queue, oldest first."""

    def __init__(
        self,
        queue: Queue,
        target: Callable[[str], Backend],
        *,
        workers: int = 25,
        places: int = 1,
        max_attempts: int = 0,
        backoff: tuple[float, float] = (0.2, 60.0),
        open_file: Callable[[Entry], int] | None = None,
        rate: float = 0.0,
        log: Callable[[Entry, float, float, S4Error | None], None] | None = None,
        rejected: Callable[[Entry, S4Error], bool] | None = None,
        stored: Callable[[Entry, Info], None] | None = None,
    ) -> None:
        """``target`` gives the backend of an alias, ``open_file`` a descriptor of an entry's file.

        To each alias go ``workers`` entries at once; ``places`` is how many aliases may keep them waiting.
        ``max_attempts`` is how often an entry without a number of its own is tried before it is parked (0: for ever).
        The n-th wait is between 0 and ``backoff[0] * 2**(n - 1)`` seconds, but at most ``backoff[1]``. ``rate`` is in
        bytes a second for all together, 0: no limit. ``log`` is told of every attempt: the entry as it was before, when
        it began (seconds since 1970), how long it took, and the error. ``rejected`` is asked after the last attempt of
        an order with a ``max_attempts`` of its own: True drops the entry, False parks it. ``stored`` is told what a put
        has stored, before the entry leaves the queue.
        """
        self._queue = queue
        self._target = target
        self._workers, self._most_threads = workers, workers * places
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._open = open_file or self._open_any
        self._pace = Pace(rate)
        self._log = log
        self._rejected = rejected
        self._stored = stored
        self._errors = Log("pusher")
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopping = False

    def start(self) -> None:
        """Begin to deliver. Threads are started as there is work for them."""
        with self._lock:
            self._add_worker()

    def _add_worker(self) -> None:
        thread = threading.Thread(target=self._work, name=f"pusher-{len(self._threads)}", daemon=True)
        thread.start()  # which finds itself among the threads, as it needs the lock for anything
        self._threads.append(thread)
        self._idle += 1

    def stop(self, grace_seconds: float) -> bool:
        """Begin nothing new, and wait for what is in flight; whether it ended in time. The rest stays queued."""
        deadline = time.monotonic() + grace_seconds
        with self._lock:
            self._stopping = True
            threads = list(self._threads)
        self._queue.wake()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _work(self) -> None:
        while (entry := self._queue.take(lambda: self._stopping, self._workers)) is not None:
            with self._lock:
                self._idle -= 1
                if not self._idle and len(self._threads) < self._most_threads and not self._stopping:
                    with suppress(RuntimeError):  # there are too many threads: the next one that is busy tries again
                        self._add_worker()
            try:
                self._attempt(entry)
            except S4Error:  # the queue was closed meanwhile: the entry is there at the next start
                pass
            except Exception:
                self._errors("error", f"entry {entry.id}: {traceback.format_exc()}")
            with self._lock:
                self._idle += 1

    def _attempt(self, entry: Entry) -> None:
        began, start = time.time(), time.monotonic()
        error: S4Error | None = None
        try:
            self._deliver(entry)
        except S4Error as failure:
            error = failure
        except Exception as failure:  # a defect of the target, or of this: the worker goes on, and tries again
            self._errors("error", f"entry {entry.id}: {traceback.format_exc()}")
            error = InternalError(f"delivering failed: {failure!r}")
        seconds = time.monotonic() - start
        self._settle(entry, error)
        if self._log is not None:
            self._log(entry, began, seconds, error)

    def _settle(self, entry: Entry, error: S4Error | None) -> None:
        queue, attempts = self._queue, entry.attempts + 1
        if error is None:
            for old in queue.passed(entry.id):  # before it is dropped: nothing is in silence
                why = f"a later {entry.order.kind} of the key was delivered, entry {entry.id}"
                self._errors("dropped", f"entry {old.id}, {old.key}: {why}; its last error: {old.error or 'none'}")
            queue.delivered(entry.id)
            return
        most = entry.order.max_attempts or self._max_attempts
        if not isinstance(error, LocalFileError) and not 0 < most <= attempts:
            base, cap = self._backoff
            queue.failed(entry.id, error, random.uniform(0.0, min(cap, base * 2 ** min(attempts - 1, 60))))
        elif entry.order.max_attempts and self._told(entry, error):
            queue.give_up(entry.id, error)
        else:
            queue.park(entry.id, error)

    def _told(self, entry: Entry, error: S4Error) -> bool:
        try:
            return self._rejected is not None and self._rejected(entry, error)
        except Exception:  # then nobody may have been told
            self._errors("error", f"entry {entry.id}: {traceback.format_exc()}")
            return False

    def _deliver(self, entry: Entry) -> None:
        order = entry.order
        VIA.set(order.via)
        backend = self._target(order.alias)
        if order.kind == PUT:
            self._put(entry, backend)
            return
        try:
            if order.kind == DELETE:
                backend.delete(order.key)
            else:
                backend.tag(order.key, order.attributes.tags)
        except NoSuchKey:  # as if it had been deleted afterwards
            pass

    def _put(self, entry: Entry, backend: Backend) -> None:
        order = entry.order
        try:
            fd = self._open(entry)
        except OSError as error:
            raise file_error(error, order.path) from None
        try:
            name = os.fsdecode(order.path)
            if order.identity is not None and not order.identity.same(Identity.of(fd)):
                raise LocalFileError(f"the file {name} has changed since it was queued")
            source = FileSource(fd, order.attributes, order.identity)
            charged = 0

            def throttle(count: int) -> None:
                nonlocal charged
                charged += count
                self._pace.wait(count)

            if order.size <= _SMALL:
                throttle(order.size)
            elif self._pace.rate:
                source.throttle = throttle
            info = backend.put(order.key, source)
            self._pace.charge(order.size - min(charged, order.size))  # what was sent without asking is paid for later
            try:
                source.check()
            except LocalFileError:
                raise LocalFileError(f"the file {name} has changed since it was queued") from None
            if self._stored is not None:
                self._stored(entry, info)
        finally:
            os.close(fd)

    def _open_any(self, entry: Entry) -> int:
        return self._queue.spool.open(entry.order.path) if entry.order.spooled else open_file(entry.order.path)
