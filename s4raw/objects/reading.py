"""An object that lies in a file, opened for reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from s4raw.digest import LEAF, room
from s4raw.disk import disk_error
from s4raw.errors import Corrupt
from s4raw.objects.base import Info

if TYPE_CHECKING:
    from typing import Self


class FileReading:
    """An open object: its file may be replaced or deleted meanwhile, its bytes stay. It owns the descriptor."""

    __slots__ = ("_fd", "end", "info", "start")

    def __init__(self, fd: int, info: Info, start: int, end: int) -> None:
        self._fd = fd
        self.info = info
        self.start = start
        self.end = end

    def pieces(self) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``end``, up to 1 MiB at a time. Raises StoreError, Corrupt."""
        at, end = self.start, self.end
        buffer = room(min(LEAF, end - at))
        while at < end:
            try:
                count = os.preadv(self._fd, [buffer[: end - at]], at)
            except OSError as error:
                raise disk_error(error) from error
            if not count:
                raise Corrupt(f"the file ended {end - at} bytes early")
            at += count
            yield buffer[:count]

    def file(self) -> int:
        """The object's file."""
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
