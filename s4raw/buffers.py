"""Receive buffers that are used again and again: memory touched for the first time is slow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from s4raw.digest import room

KEPT_BUFFERS = 8


class Buffers:
    """Keeps the buffers that are given back, up to KEPT_BUFFERS. Safe to use from any thread."""

    def __init__(self) -> None:
        self._kept: list[memoryview] = []

    def take(self) -> memoryview:
        """A buffer of LEAF bytes with anything in it, for good, unless it is given back."""
        try:
            return self._kept.pop()
        except IndexError:
            return room()

    def give(self, buffer: memoryview) -> None:
        """Give back a buffer that nobody looks at any more."""
        if len(self._kept) < KEPT_BUFFERS:
            self._kept.append(buffer)

    @contextmanager
    def borrow(self) -> Iterator[memoryview]:
        """A buffer of LEAF bytes with anything in it, for a while."""
        buffer = self.take()
        try:
            yield buffer
        finally:
            self.give(buffer)
