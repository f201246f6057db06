"""Where files that have no name yet are made: where the file system has room for them soonest."""

from __future__ import annotations

import os
import time
from contextlib import suppress

LOOK_EVERY = 32  # new files, before it is looked again how long one takes
SLOW_NS = 25_000  # of the processor's time; as a rule it is 8,000
MAX_PLACES = 32  # ext4 lays directories out in as many parts of a disk of 64 GB
_UNNAMED = os.O_TMPFILE | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


class Places:
    """Makes unnamed files in the data directory, or in directories that lie far from it. Any thread may call.

    ext4 looks for a free inode near the directory that a file is made in. Without a journal it passes over all that
    were freed in the last five minutes, one by one, for each new file again: when 1,000 files of a directory have been
    deleted, that takes longer than all the rest of a small put. So once it takes long, files are made in another
    directory, in another part of the disk. They are linked where they belong all the same.
    """

    def __init__(self, root: int, directory: int) -> None:
        """``root`` and ``directory``, in which the others are made, are descriptors that stay the caller's."""
        self._root = root
        self._directory = directory
        self._current = (root, ".")
        self._others: list[str] = []
        self._moves = 0
        self._left = LOOK_EVERY

    def new_file(self) -> int:
        """The descriptor of a new, empty file without a name. Raises OSError."""
        self._left -= 1
        if self._left > 0:
            return self._open()
        self._left = LOOK_EVERY
        began = time.thread_time_ns()
        fd = self._open()
        if time.thread_time_ns() - began > SLOW_NS:
            self._move()
        return fd

    def _open(self) -> int:
        parent, name = self._current
        try:
            return os.open(name, _UNNAMED, 0o600, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):  # somebody has removed the directory
            self._current = (self._root, ".")
            return os.open(".", _UNNAMED, 0o600, dir_fd=self._root)

    def _move(self) -> None:
        """Go on in the next directory, which is made if need be. Where that fails all stays as it is."""
        with suppress(OSError):
            if len(self._others) < MAX_PLACES:
                name = os.urandom(8).hex()  # ext4 begins its search where a digest of the name says
                os.mkdir(name, 0o700, dir_fd=self._directory)
                self._others.append(name)
            self._current = (self._directory, self._others[self._moves % len(self._others)])
            self._moves += 1
            if self._moves % MAX_PLACES:
                self._left = 2  # the first file there may have to wait for the disk
