"""Locks on keys and on whole buckets between the threads of one process. (Those between processes are ``locks``.)"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from s4raw.keys import Key


class KeyLocks:
    """Locks for as long as a ``with`` block lasts. Nobody holds two."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._keys: set[Key] = set()
        self._buckets: set[str] = set()

    @contextmanager
    def key(self, key: Key) -> Iterator[None]:
        """The lock on a key: nobody else has it, nor its bucket's."""
        with self._changed:
            while key in self._keys or key.bucket in self._buckets:
                self._changed.wait()
            self._keys.add(key)
        try:
            yield
        finally:
            with self._changed:
                self._keys.remove(key)
                self._changed.notify_all()

    @contextmanager
    def bucket(self, name: str) -> Iterator[None]:
        """The lock on a bucket and all its keys."""
        with self._changed:
            while name in self._buckets:
                self._changed.wait()
            self._buckets.add(name)  # nobody new gets in,
            while any(key.bucket == name for key in self._keys):  # and who is in goes out
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._buckets.remove(name)
                self._changed.notify_all()
