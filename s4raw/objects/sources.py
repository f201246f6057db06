"""Files and other objects as bodies.

A file is a ``Source`` that can be read again from its start, and that knows when its file has changed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from s4raw.errors import LocalFileError
from s4raw.objects.base import Attributes, Reading

PIECE = 1 << 20  # bytes


class Identity(NamedTuple):
    """Which file it is, and which version of it: whoever writes to it changes its size or its times."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, fd: int) -> Identity:
        """That of an open file. Raises LocalFileError unless it is a regular file."""
        try:
            status = os.fstat(fd)
        except OSError as error:
            raise LocalFileError(f"cannot read the file: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            raise LocalFileError("not a regular file")
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def same(self, other: Identity) -> bool:
        """Whether it is the same file with the same bytes: another link to it changes its ctime, and nothing else."""
        return self[:4] == other[:4]


class FileSource:
    """A regular file as a ``Source``. It stays the caller's, who closes ``fd`` once it is stored.

    Iterating again begins at the start again. ``check`` says whether the file is still what it was when this was made.
    ``throttle``, if there is one, is called by whoever sends the bytes before each piece of up to 1 MiB, with its size;
    it waits until they may go.
    """

    throttle: Callable[[int], None] | None = None

    def __init__(self, fd: int, known: Attributes = Attributes(), identity: Identity | None = None) -> None:  # noqa: B008
        """``identity`` is what the file was when it was accepted; None: what it is now. Raises LocalFileError."""
        self.fd = fd
        self.known = known
        self.identity = identity or Identity.of(fd)
        self.size: int | None = self.identity.size
        self._md5 = ""
        self.check()

    def check(self) -> None:
        """Raises LocalFileError when the file was written to, or is another one."""
        if not self.identity.same(Identity.of(self.fd)):
            raise LocalFileError("the file has changed since it was handed over")

    def __iter__(self) -> Iterator[memoryview]:
        state, buffer, at = hashlib.md5(usedforsecurity=False), memoryview(bytearray(PIECE)), 0
        while at < self.identity.size:
            if self.throttle is not None:
                self.throttle(min(PIECE, self.identity.size - at))
            try:
                count = os.preadv(self.fd, [buffer[: self.identity.size - at]], at)
            except OSError as error:
                raise LocalFileError(f"cannot read the file: {error.strerror}") from None
            if not count:
                raise LocalFileError("the file became shorter while it was read")
            state.update(buffer[:count])
            at += count
            yield buffer[:count]
        self.check()
        self._md5 = state.hexdigest()

    def seal(self) -> Attributes:
        """What is known of it, and its MD5 as the ETag unless it has one."""
        return self.known if self.known.etag else self.known._replace(etag=self._md5)


class ReadingSource:
    """The bytes of an open object, on their way to another place with the attributes that they are to have there."""

    def __init__(self, reading: Reading, attributes: Attributes) -> None:
        self.size: int | None = reading.end - reading.start
        self.known = attributes
        self._reading = reading

    def __iter__(self) -> Iterator[memoryview]:
        return self._reading.pieces()

    def seal(self) -> Attributes:
        """The attributes to store."""
        return self.known
