"""Bytes on their way to a file: a body that comes in, and parts of other files, copied in the kernel."""

from __future__ import annotations

import errno
import os

from s4raw.digest import Digest
from s4raw.disk import disk_error, disk_errors
from s4raw.errors import Corrupt
from s4raw.keys import Key
from s4raw.objects.base import Source

_NO_KERNEL_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_COPY_BYTES = 1 << 30  # at most, in one system call


def receive(fd: int, source: Source, key: Key | None, at: int = 0, most: int | None = None) -> Digest:
    """Write a body to a file from ``at`` on, and digest it as it passes.

    Raises DiskFull, Corrupt for more than ``most`` bytes, and what the source does.
    """
    state = Digest()
    for piece in source:
        state.update(piece)
        if most is not None and state.size > most:
            raise Corrupt(f"the body is longer than the {most} bytes it was to have", key=str(key or ""))
        while piece:
            try:
                count = os.pwrite(fd, piece, at)
            except OSError as error:
                raise disk_error(error, key) from error
            at += count
            piece = piece[count:]
    return state


def copy_bytes(source: int, target: int, start: int, end: int, key: Key | None, at: int = 0) -> None:
    """Copy the bytes of one file from ``start`` to ``end`` to another, from ``at`` on. Raises DiskFull, Corrupt.

    Where the file system can share blocks between files, it does.
    """
    with disk_errors(key):
        while start < end:
            try:
                count = os.copy_file_range(source, target, min(end - start, _COPY_BYTES), start, at)
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
                os.lseek(target, at, os.SEEK_SET)
                count = os.sendfile(target, source, start, min(end - start, _COPY_BYTES))
            if not count:
                raise Corrupt(f"the file ended {end - start} bytes early", key=str(key or ""))
            start += count
            at += count
