"""One client's connection to the uploader: its lines are answered in order, each as soon as that can be.

A thread for each connection reads, and waits for deliveries, both at once. Nothing that a client does or leaves undone
keeps another one waiting, and none of them can keep a delivery from going on.
"""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from s4raw.errors import PeerTimeout, S4Error
from s4raw.log import Log
from s4raw.net import Stream
from s4raw.push.deliveries import Delivery
from s4raw.push.protocol import (
    MAX_LINE,
    QUEUED,
    STORED,
    SUCCESS,
    Lines,
    Malformed,
    Push,
    Request,
    answer,
    is_plain,
    parse,
    refusal,
)
from s4raw.push.uploader import STOPPING, Uploader
from s4raw.queue.entries import Entry
from s4raw.serving import Connection

RECEIVE = 16 << 10  # bytes at once
BATCH = 128  # files that are accepted together
MAX_PENDING = 1024  # answers that a client may wait for before more of its lines are read
MAX_HELD = 4 << 20  # bytes of answers that are known but have to wait for one that is not
LOOK_SECONDS = 30.0  # after which a delivery is looked for, were its end ever missed
LEFT_SECONDS = 60.0  # a client that has sent all that it will may still read, or have left: nobody can know


class _Ended(Exception):
    """The connection is over: nobody is there to be answered."""


class _Pending:
    """A client's wait for a delivery. ``deadline`` is in the seconds of ``time.monotonic``."""

    def __init__(self, delivery: Delivery, plain: bool, deadline: float | None) -> None:
        self.delivery = delivery
        self.plain = plain
        self.deadline = deadline


class _Asked(NamedTuple):
    """What a line asks for, or the answer to one that asks for nothing, and whether it is of the old dialect."""

    what: Request | bytes
    plain: bool


class Session:
    """A connection's lines and what was not answered yet."""

    def __init__(self, connection: Connection[Stream], uploader: Uploader, idle_seconds: float, log: Log) -> None:
        self._connection = connection
        self._stream = connection.channel
        self._uploader = uploader
        self._idle_seconds = idle_seconds
        self._log = log
        self._lines = Lines()
        self._pending: deque[_Pending | bytes] = deque()
        self._held = 0  # bytes of the answers among them
        self._has_lines = False  # there may be more than were answered
        self._next_line: bytes | None = None  # one of them, which was looked at
        self._eventfd = -1
        self._left_at = 0.0  # when the client had sent all
        self._stopping = False

    def run(self) -> None:
        """Serve it until it leaves, is silent for too long, breaks the rules, or we stop. Does not raise."""
        try:
            self._run()
            if self._stopping and not self._left_at:
                _linger(self._stream)
        except _Ended:
            pass
        except S4Error as error:
            self._log("closed", f"client {self._stream.peer}: {error.message}")
        except Exception:
            self._log("error", f"client {self._stream.peer}: {traceback.format_exc()}")
        finally:
            for each in self._pending:
                if not isinstance(each, bytes):
                    self._uploader.deliveries.forget(each.delivery)
            if self._eventfd >= 0:
                os.close(self._eventfd)

    def _run(self) -> None:
        while True:
            self._answer_lines()
            self._settle()
            if self._has_lines and not self._is_full and not self._stopping:
                continue
            self._stream.flush()
            if not self._pending and (self._left_at or self._stopping):
                return
            if self._pending:
                self._wait()
            elif not self._receive(self._idle_seconds):
                return

    # What comes in

    def _receive(self, seconds: float) -> bool:
        """Take what comes; False when the client was silent for ``seconds``, or did not end a line in that time."""
        deadline = time.monotonic() + seconds
        while True:
            self._stream.receive_timeout(max(seconds, 0.001))
            try:
                if self._take():
                    return True
            except PeerTimeout:
                return False
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                return False

    @property
    def _is_full(self) -> bool:
        """Whether so many answers have to wait that more lines should."""
        return len(self._pending) >= MAX_PENDING or self._held > MAX_HELD

    def _answer_lines(self) -> None:
        self._has_lines = True
        while self._has_lines and not self._is_full and not self._stopping:
            asked, is_last = self._next_requests()
            if not asked:
                break
            if not self._pending and not self._connection.begin():
                self._stopping = True
            if self._stopping or self._uploader.deliveries.stopped:
                self._stopping = True
                for each in asked:
                    self._put(refusal(STOPPING, each.plain))
            else:
                self._do(asked)
                self._settle()
            self._stopping = self._stopping or is_last

    def _next_requests(self) -> tuple[list[_Asked], bool]:
        """Requests that are here and can be done together: files, and what is refused; or a single one of another kind.

        And whether nothing that comes behind them is to be believed.
        """
        asked: list[_Asked] = []
        limit = min(BATCH, MAX_PENDING - len(self._pending))
        while len(asked) < limit:
            line, self._next_line = self._next_line, None
            try:
                line = self._lines.next() if line is None else line
                if line is None:
                    self._has_lines = False
                    break
                request = parse(line)
            except S4Error as error:
                plain = is_plain(line) if line is not None else isinstance(error, Malformed) and error.plain
                asked.append(_Asked(refusal(str(error), plain), plain))
                if isinstance(error, Malformed) and error.fatal:
                    return asked, True
                continue
            if not isinstance(request, Push) and asked:
                self._next_line = line
                break
            asked.append(_Asked(request, is_plain(line)))
            if not isinstance(request, Push):
                break
        return asked, False

    def _put(self, answer: _Pending | bytes) -> None:
        self._pending.append(answer)
        self._held += len(answer) if isinstance(answer, bytes) else 0

    def _do(self, asked: Sequence[_Asked]) -> None:
        """Do what was asked, and put the answers, or what they wait for."""
        now = time.monotonic()
        outcomes = self._uploader.accept([each.what for each in asked if isinstance(each.what, Push)], self._is_there)
        for what, plain in asked:
            if isinstance(what, bytes):
                self._put(what)
            elif isinstance(what, Push):
                outcome = next(outcomes)
                if isinstance(outcome, Entry):
                    self._accepted(what, outcome, now)
                else:
                    self._put(self._failure(outcome, plain))
            else:
                try:
                    self._put(answer(ok=True, **self._uploader.control(what, self._is_there)))
                except Exception as error:
                    self._put(self._failure(error, plain))

    def _failure(self, error: Exception, plain: bool) -> bytes:
        if isinstance(error, S4Error):
            return refusal(str(error), plain)
        self._log("error", f"client {self._stream.peer}: {''.join(traceback.format_exception(error))}")
        return refusal("internal error, see the uploader's log", plain)

    def _accepted(self, push: Push, entry: Entry, since: float) -> None:
        """Put the answer to who handed over a file, or what it waits for; ``wait`` counts from ``since``."""
        if push.ack == QUEUED:
            self._put(answer(ok=True, id=entry.id, state=QUEUED))
            return
        delivery = self._uploader.deliveries.watch(entry.id, self._waker())
        self._put(_Pending(delivery, push.plain, None if push.wait is None else since + push.wait))
        self._uploader.look(delivery)

    def _is_there(self) -> bool:
        """Whether somebody may still wait, while something takes long; meanwhile what is done is answered."""
        self._settle()
        self._stream.flush()
        if not self._left_at and self._stream.gone():
            self._left_at = time.monotonic()
        return not self._left_at or time.monotonic() < self._left_at + LEFT_SECONDS

    def _waker(self) -> Callable[[], None]:
        if self._eventfd < 0:
            self._eventfd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        fd = self._eventfd
        return lambda: os.eventfd_write(fd, 1)

    # What goes out

    def _settle(self) -> None:
        """Send the answers that are known, up to the first that is not."""
        while self._pending:
            first = self._pending[0]
            text = first if isinstance(first, bytes) else self._outcome(first)
            if text is None:
                return
            self._pending.popleft()
            if isinstance(first, bytes):
                self._held -= len(first)
            else:
                self._uploader.deliveries.forget(first.delivery)
            self._stream.queue(text)
            if not self._pending and not self._connection.end():
                self._stopping = True

    def _outcome(self, pending: _Pending) -> bytes | None:
        """The answer to who waits for a delivery; None as long as there is none."""
        delivery = pending.delivery
        if delivery.unsure:
            delivery.unsure = False
            self._uploader.look(delivery)
        if delivery.done:
            if delivery.error is not None:  # somebody has dropped it
                return refusal(str(delivery.error), pending.plain, id=delivery.id)
            etag = {"etag": delivery.etag} if delivery.etag else {}
            return SUCCESS if pending.plain else answer(ok=True, id=delivery.id, state=STORED, **etag)
        if delivery.failed and delivery.error is not None and (pending.deadline is None or delivery.parked):
            return self._failed(pending, delivery.error)
        if self._uploader.deliveries.stopped:
            return self._still_queued(pending, STOPPING)
        if pending.deadline is not None and time.monotonic() >= pending.deadline:
            reason = f": {delivery.error}" if delivery.failed else ""
            return self._still_queued(pending, f"not stored in time{reason}")
        return None

    def _failed(self, pending: _Pending, error: S4Error) -> bytes | None:
        """Give a file up whose sender waits; one that may have left is not told for sure, so the file stays."""
        if self._left_at or self._stream.gone():
            return self._still_queued(pending, str(error))
        delivery = pending.delivery
        if self._uploader.give_up(delivery.id, error):
            return refusal(str(error), pending.plain, id=delivery.id)
        delivery.failed = False
        self._uploader.look(delivery)
        return self._outcome(pending) if delivery.done else None  # the next attempt has begun, and may do better

    def _still_queued(self, pending: _Pending, reason: str) -> bytes:
        return refusal(f"{reason}; it stays queued", pending.plain, id=pending.delivery.id, state=QUEUED)

    def _wait(self) -> None:
        """Wait for what the first answer waits for, and for more lines unless there are too many already."""
        first = self._pending[0]
        assert not isinstance(first, bytes)  # it would have been sent
        now = time.monotonic()
        seconds = LOOK_SECONDS if first.deadline is None else min(LOOK_SECONDS, first.deadline - now)
        if self._left_at:
            seconds = min(seconds, self._left_at + LEFT_SECONDS - now)
            if seconds <= 0:
                raise _Ended
        reading = not self._left_at and not self._is_full
        here, woken = self._connection.wait(self._eventfd, seconds, reading)
        if woken:
            os.eventfd_read(self._eventfd)
        if here and not reading:
            raise _Ended
        if here:
            self._take()
        elif not woken:
            self._uploader.look(first.delivery, waited=True)

    def _take(self) -> bool:
        """Receive what is here; whether there is something to do with it."""
        data = self._stream.receive(RECEIVE)
        if not data:
            self._left_at = time.monotonic()
            return True
        self._lines.feed(data)
        return b"\n" in data or self._lines.size > MAX_LINE


def refuse(stream: Stream) -> None:
    """Answer a connection beyond the limit, in the old dialect: nobody knows yet which one it speaks."""
    stream.send(refusal("too many connections", True))


def deny(stream: Stream) -> None:
    """Answer a user who may not ask."""
    try:
        stream.send(refusal("you are not a user who may ask here (--allow-uid)", True))
    except S4Error:
        return
    _linger(stream)


def _linger(stream: Stream) -> None:
    """Let the client read the last answer, though it may have sent what nobody has read."""
    try:
        stream.linger()
    except (S4Error, OSError):
        pass
