"""Space on the disk that is kept for the moment when there is no other."""

from __future__ import annotations

import os
import time
from contextlib import suppress

SIZE = 4 << 20  # bytes
_AGAIN_SECONDS = 1.0


class Reserve:
    """A file that only takes space: on a full disk it makes way for the deletions that make more of it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._taken = False
        self._next = 0.0  # when to try again
        self.take()

    def take(self) -> None:
        """Take the space, if there is any."""
        if self._taken or time.monotonic() < self._next:
            return
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, SIZE)
                self._taken = True
            finally:
                os.close(fd)
        except OSError:
            self.give()
            self._next = time.monotonic() + _AGAIN_SECONDS

    def give(self) -> bool:
        """Give it back; whether there was any."""
        taken, self._taken = self._taken, False
        with suppress(OSError):
            os.unlink(self._path)
        return taken
