"""What was read of an object lately, so that getting it again reads its bytes alone.

The file system stays the index: what is remembered of a file counts only as long as its status is the same. Whatever
changes a file's bytes or its extended attributes, even a link to it, stamps its ctime, which nobody can set.
"""

from __future__ import annotations

import os
from threading import Lock

from s4raw.blocks import Record
from s4raw.children import is_settled
from s4raw.objects.base import Info

MAX_FILES = 4096  # remembered by a process: some 2 KiB each
MAX_PARTS = 100  # of an object that is remembered
_Stamp = tuple[int, int, int]


class Remembered:
    """Records and attributes by file. Any thread may call."""

    def __init__(self, max_files: int = MAX_FILES) -> None:
        self._max_files = max_files
        self._lock = Lock()
        self._kept: dict[tuple[int, int], tuple[_Stamp, Record, Info]] = {}  # those that were read last come last

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, status: os.stat_result) -> tuple[Record, Info] | None:
        """What is known of a file with this status."""
        kept = self._kept.get((status.st_dev, status.st_ino))
        if kept is None or kept[0] != (status.st_ctime_ns, status.st_mtime_ns, status.st_size):
            return None
        return kept[1], kept[2]

    def keep(self, status: os.stat_result, now_ns: int, record: Record, info: Info) -> None:
        """Remember what was read of a file after it had this status, at ``now_ns``.

        A file that had just been changed then could be changed again within the same tick of the kernel's clock, and
        have the same stamp: it is not remembered yet.
        """
        if not is_settled(status.st_ctime_ns, now_ns) or record.blocks or len(info.attributes.parts) > MAX_PARTS:
            return
        stamp = status.st_ctime_ns, status.st_mtime_ns, status.st_size
        with self._lock:
            self._kept[status.st_dev, status.st_ino] = stamp, record, info
            if len(self._kept) > self._max_files:
                del self._kept[next(iter(self._kept))]
