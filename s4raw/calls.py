"""A map call on this server: its plan, its worker threads, its events, its end.

The plan (the list of tasks) is made before the first command runs, so a call never sees its own outputs. Worker threads
take from it, each command under one of the server's CPU slots; those that failed and may be tried again come first.
Unless the call is to keep going, the first failure ends it: running commands are killed, nothing more is published.
What had finished by then stays, whole.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import NamedTuple

from s4raw import wire
from s4raw.bulk import Item
from s4raw.compute import MapRequest, Tick, run_task
from s4raw.disk import Scratch, disk_errors
from s4raw.errors import (
    Busy,
    Cancelled,
    CommandFailed,
    ConnectionLost,
    InternalError,
    PeerTimeout,
    S4Error,
    Unreachable,
)
from s4raw.events import MAX_STDERR, Attempt, Event, Planned
from s4raw.nearby import Nearby
from s4raw.node import Node
from s4raw.plans import Shape
from s4raw.procs import Cancellation, Outcome
from s4raw.shipping import Parcel, Shipping
from s4raw.tasks import Task

SLOW_SECONDS, SLOW_TIMES = 2.0, 5  # a straggler has run for longer, and so many times as long as half of the others
TIMED = 101  # commands whose time is remembered
NEWS, MAX_EVENTS = 256, 1024  # events that wake the watcher, and that may wait for it
_END = b"\0\0\n"
_TRIED_AGAIN = (CommandFailed, Busy, ConnectionLost, PeerTimeout, Unreachable)


class Counts(NamedTuple):
    """How far a call is, in commands: those that succeeded, of how many, that failed, that resuming made needless."""

    done: int
    total: int
    failed: int
    skipped: int


class _Trial:
    """One attempt at one task."""

    def __init__(self, names: list[str], attempt: int) -> None:
        self.names = names
        self.attempt = attempt
        self.start, self.began, self.seconds = 0.0, 0.0, 0.0
        self.outcome: Outcome | None = None

    def ended(self, outcome: Outcome) -> None:
        """The command has."""
        self.outcome = outcome

    def event(self, task: Task, server: str, error: S4Error | None, final: bool) -> Attempt:
        """What to tell of it."""
        outcome = self.outcome or Outcome(0, b"", False)
        status = error.status if isinstance(error, CommandFailed) and error.status else outcome.status
        return Attempt(
            key=str(task.key),
            server=server,
            attempt=self.attempt,
            final=final,
            start=round(self.start, 3),
            seconds=round(self.seconds, 6),
            cpu_seconds=outcome.cpu_seconds,
            peak_bytes=outcome.peak_bytes,
            exit_code=status if self.outcome else None,
            bytes_in=task.bytes_in,
            bytes_out=0 if error else task.bytes_out,
            error=str(error) if error else "",
            stderr=outcome.stderr[-MAX_STDERR:].decode(errors="backslashreplace") if error else "",
        )


class MapCall:
    """One call. Whoever made it makes its ``plan``, starts it, and watches it until it has ``ended``.

    ``news`` is a descriptor that is ready when there is something to do: events to take, or the end. Then come ``join``
    and ``close``.
    """

    def __init__(self, node: Node, request: MapRequest, shape: Shape) -> None:
        self.ended = False
        self._node = node
        self._request = request
        self._shape = shape
        self._changed = threading.Condition()
        self._done = self._total = self._failed = self._skipped = 0
        self._workers: list[threading.Thread] = []
        self._live = 0  # workers
        self._open = 0  # trials that are neither done nor failed
        self._again: deque[_Trial] = deque()
        self._events: list[Event] = []
        self._running: dict[_Trial, str] = {}
        self._times: deque[float] = deque(maxlen=TIMED)
        self._scratches: list[Scratch] = []
        self._files = ExitStack()
        self.cancellation = Cancellation()
        self._files.callback(self.cancellation.close)
        self._nearby = Nearby(node.store.data, node.ring, self.cancellation)
        self._files.callback(self._nearby.close)
        self._shipping = Shipping(node.ring, self.cancellation)
        for hook in (self._wake, self._shipping.wake):
            self._files.enter_context(self.cancellation.calling(hook))
        try:
            with disk_errors():
                self.news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._files.callback(os.close, self.news)
                self._spool = self._files.enter_context(tempfile.TemporaryFile(dir=node.store.data.tmp_path))
        except BaseException:
            self.close()
            raise
        self._plan = self._read_plan()

    # The plan

    def plan(self, tick: Tick) -> int:
        """Find the inputs; returns how many commands there will be. ``tick`` is told now and then, and may raise."""
        group, _ = self._shape
        with disk_errors():
            for names in group(self._node, self._request, tick):
                self._spool.write("\0".join(names).encode() + _END)  # a name is never empty, nor holds a NUL
                self._total += 1
            self._spool.flush()
            self._spool.seek(0)
        return self._total

    def _read_plan(self) -> Iterator[list[str]]:
        """The tasks in the spool, which keeps memory bounded whatever their number."""
        record = b""
        for line in self._spool:
            record += line
            if record.endswith(_END):
                yield record[: -len(_END)].decode().split("\0")
                record = b""

    def _task(self, names: list[str]) -> Task:
        return self._shape[1](self._node, self._request, names)

    def rehearse(self) -> Iterator[Planned]:
        """What would be run."""
        for names in self._plan:
            task = self._task(names)
            if not self._is_done(task):
                yield Planned(self._node.me, list(map(str, task.inputs())), task.output())

    def _is_done(self, task: Task) -> bool:
        return bool(self._request.options & wire.RESUME) and task.is_done()

    # The course

    def start(self) -> None:
        """Start as many workers as there are CPU slots, or tasks, or as the call wants."""
        count = min(self._node.cpu.count, self._total, self._request.jobs or self._total)
        self._live = count + 1  # and this thread, so that the call cannot finish before all have started
        try:
            for _ in range(count):
                worker = threading.Thread(target=self._work, daemon=True)
                worker.start()
                self._workers.append(worker)
        except RuntimeError as error:
            self.cancellation.set(InternalError(f"cannot start a worker: {error}", server=self._node.me))
        for _ in range(1 + count - len(self._workers)):
            self._leave()

    def counts(self) -> Counts:
        """How far it is."""
        return Counts(self._done, self._total, self._failed, self._skipped)

    def slowest(self) -> tuple[str, float] | None:
        """The key of a command that takes far longer than the others, and for how many seconds it has run."""
        with self._changed:
            times = sorted(self._times)
            trial = min(self._running, key=lambda trial: trial.began, default=None)
            if trial is None or not times:
                return None
            seconds = time.monotonic() - trial.began
            if seconds < max(SLOW_SECONDS, SLOW_TIMES * times[len(times) // 2]):
                return None
            return self._running[trial], seconds

    def take_events(self) -> list[Event]:
        """The events since the last time."""
        with self._changed:
            events, self._events = self._events, []
            self._changed.notify_all()
        return events

    def join(self) -> S4Error | None:
        """Wait for the workers; what ended the call, if it failed."""
        for worker in self._workers:
            worker.join()
        return self.cancellation.error

    def close(self) -> None:
        """End the call if it still runs, and release what it held. Nobody uses its descriptors after this."""
        self.cancellation.set(Cancelled("the call was given up"))
        self.join()
        self._shipping.close()
        with suppress(OSError):  # what a full disk did not take
            self._files.close()

    def _work(self) -> None:
        try:
            while (trial := self._next_trial()) is not None:
                self._try(trial)
        except S4Error as error:
            self.cancellation.set(error.at(server=self._node.me))
        except Exception as error:
            self._node.log("error", traceback.format_exc())
            self.cancellation.set(InternalError(f"{type(error).__name__}: {error}", server=self._node.me))
        finally:
            self._leave()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _leave(self) -> None:
        with self._changed:
            self._live -= 1
            if not self._live:
                self.ended = True
                os.eventfd_write(self.news, 1)

    def _next_trial(self) -> _Trial | None:
        """What to run next; None at the end. Waits while a file is on its way whose command may have to run again."""
        with self._changed:
            while self.cancellation.error is None:
                if self._again:
                    return self._again.popleft()
                if names := next(self._plan, None):
                    self._open += 1
                    return _Trial(names, 1)
                if not self._open:
                    return None
                self._changed.wait()
        return None

    def _try(self, trial: _Trial) -> None:
        task = self._task(trial.names)
        if self._is_done(task):
            return self._settle(skipped=1)
        scratch = self._borrow()
        again = trial.attempt > 1 or bool(self._request.options & wire.RESUME)
        items = None
        try:
            with self._node.cpu.take(self.cancellation.check):
                items = self._run(trial, task, scratch, again)
        except S4Error as error:
            self._end(trial, task, scratch, error)
        if items:
            scratch.clear(keep=[str(item.file) for item in items])  # the rest of it need not wait with them
            ended = partial(self._end, trial, task, scratch)
            self._shipping.send(Parcel(list(items), task.bytes_out, again, ended))
        elif items is not None:
            self._end(trial, task, scratch, None)

    def _run(self, trial: _Trial, task: Task, scratch: Scratch, again: bool) -> list[Item]:
        trial.start, trial.began = time.time(), time.monotonic()
        with self._changed:
            self._running[trial] = str(task.key)
        try:
            ended, nearby = trial.ended, self._nearby
            return list(
                run_task(self._node, task, self._request, self.cancellation, scratch.path, again, nearby, ended)
            )
        finally:
            trial.seconds = time.monotonic() - trial.began
            with self._changed:
                del self._running[trial]
                self._times.append(trial.seconds)

    def _end(self, trial: _Trial, task: Task, scratch: Scratch, error: S4Error | None) -> None:
        """A trial has ended: it is done, or to be tried again, or failed. Raises nothing that a sender would not."""
        if self.cancellation.error is not None:
            if error is None:  # what is published is told, whatever becomes of the call
                self._tell(trial.event(task, self._node.me, None, True))
            return
        with self._changed:
            self._scratches.append(scratch)
        if error is not None:
            error.at(server=self._node.me, key=str(task.key))
        retry = trial.attempt <= self._request.retries and isinstance(error, _TRIED_AGAIN)
        self._tell(trial.event(task, self._node.me, error, not retry))
        if error is None:
            self._settle(done=1)
        elif retry:
            with self._changed:
                self._again.append(_Trial(trial.names, trial.attempt + 1))
                self._changed.notify_all()
        elif self._request.options & wire.KEEP_GOING:
            self._settle(failed=1)
        else:
            self.cancellation.set(error)

    def _settle(self, done: int = 0, failed: int = 0, skipped: int = 0) -> None:
        with self._changed:
            self._done += done + skipped
            self._failed += failed
            self._skipped += skipped
            self._open -= 1
            if not self._open:
                self._changed.notify_all()

    def _tell(self, event: Attempt) -> None:
        """Keep an event for whoever watches; waits while there are too many."""
        wanted, failures = self._request.options & wire.EVENTS, self._request.options & wire.KEEP_GOING
        if not (wanted or (failures and event.error and event.final)):
            return
        with self._changed:
            while len(self._events) >= MAX_EVENTS and self.cancellation.error is None:
                self._changed.wait()
            self._events.append(event)
            if len(self._events) == NEWS:
                os.eventfd_write(self.news, 1)

    def _borrow(self) -> Scratch:
        """An empty directory for a command; whoever needs it empties it, as senders have no time to wait for disks."""
        with self._changed:
            scratch = self._scratches.pop() if self._scratches else None
        if scratch is None:
            with self._changed:
                return self._files.enter_context(self._node.store.data.scratch())
        scratch.clear()
        return scratch
