"""Reading every key of a server again, at a bounded rate, to find what its disk has damaged or lost track of."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping

from s4raw import wire
from s4raw.digest import Digest, room, verify
from s4raw.disk import disk_errors
from s4raw.errors import ConnectionLost, NoSuchKey, S4Error
from s4raw.keys import Key, check_prefix
from s4raw.node import Node
from s4raw.session import PROGRESS_SECONDS, Session, Verb
from s4raw.store import Stored
from s4raw.wire import Frame


class Pace:
    """Keeps a reader at ``rate`` bytes a second on average (0: unbounded); ``tick`` is called now and then."""

    def __init__(self, rate: int, tick: Callable[[], None]) -> None:
        self.spent = 0
        self._rate = rate
        self._tick = tick
        self._started = self._told = time.monotonic()

    def spend(self, count: int) -> None:
        """So many bytes were read: wait until they may have been."""
        self.spent += count
        while True:
            now = time.monotonic()
            if now - self._told >= PROGRESS_SECONDS:
                self._told = now
                self._tick()
            ahead = self.spent / self._rate - (now - self._started) if self._rate else 0.0
            if ahead <= 0:
                return
            time.sleep(min(ahead, PROGRESS_SECONDS))


def scrub(session: Session, frame: Frame) -> None:
    """SCRUB: verify every key that begins with a prefix. What is wrong with one is told in a DATA frame, at once."""
    prefix = Key(frame.text("bucket"), frame.text("key"))
    check_prefix(prefix)
    done = 0

    def tick() -> None:
        session.progress(frame, done, 0)  # which raises ConnectionLost when the client has left

    pace = Pace(frame.uint("rate"), tick)
    for key in _keys(session.node, prefix):
        try:
            _check(session.node, key, pace)
        except NoSuchKey:
            continue  # deleted in between
        except ConnectionLost:
            raise
        except S4Error as error:
            session.node.log("error", f"scrub: {error.at(key=str(key))}")
            session.channel.send(wire.encode(wire.DATA, frame.request, key=str(key), message=error.message))
        done += 1
    session.ok(frame, count=done, size=pace.spent)


def _keys(node: Node, prefix: Key) -> Iterator[Key]:
    buckets = [prefix.bucket] if prefix.bucket else [entry.name for entry in node.store.buckets()]
    for bucket in buckets:
        for entry in node.store.list(Key(bucket, prefix.name), recursive=True):
            yield Key(bucket, entry.name)


def _check(node: Node, key: Key, pace: Pace) -> None:
    """Read all of a key. Raises Corrupt, StoreError, and WrongServer for one that nobody looks for here."""
    stored = node.store.open(key)
    try:
        with disk_errors(key):
            _read(stored, pace)
        node.check_place(key)
    finally:
        os.close(stored.fd)


def _read(stored: Stored, pace: Pace) -> None:
    buffer = room()
    at = 0
    for length, expected in stored.record.pieces(0, stored.record.size):
        state = Digest()
        while state.size < length:
            count = os.preadv(stored.fd, [buffer[: length - state.size]], at + state.size)
            if not count:
                break
            state.update(buffer[:count])
            pace.spend(count)
        verify(f"the file from byte {at} to {at + length}", state.digest(), expected)
        at += length


VERBS: Mapping[int, Verb] = {wire.SCRUB: scrub}
