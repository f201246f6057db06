"""Which files the uploader may read, and how they are opened: by a path that anybody may have made up."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from s4raw.errors import ConfError, LocalFileError
from s4raw.queue.files import file_error

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO or a device must not keep us waiting
_DELETED = b" (deleted)"


class Roots:
    """The directories below which files may be read; none: all that this process may read."""

    def __init__(self, directories: Sequence[str] = ()) -> None:
        """Raises ConfError for what is no directory."""
        for each in directories:
            if not os.path.isdir(each):
                raise ConfError(f"--allow-root {each}: there is no such directory")
        self._roots = [os.path.join(os.fsencode(os.path.realpath(each)), b"") for each in directories]

    def open(self, path: bytes) -> int:
        """A descriptor of the regular file that ``path`` names now. Raises LocalFileError, StoreError if it may pass.

        It is opened first, and then the kernel is asked where it really lies: a symlink or a directory that is changed
        meanwhile changes nothing any more.
        """
        try:
            fd = os.open(path, _FLAGS)
        except OSError as error:
            raise file_error(error, path) from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise LocalFileError(f"{os.fsdecode(path)}: not a regular file")
            if self._roots:
                self._check(fd, path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _check(self, fd: int, path: bytes) -> None:
        found = os.readlink(b"/proc/self/fd/%d" % fd)
        if found.endswith(_DELETED) and not os.fstat(fd).st_nlink:
            raise LocalFileError(f"{os.fsdecode(path)}: the file was deleted")
        if not any(found.startswith(root) for root in self._roots):
            raise LocalFileError(f"{os.fsdecode(path)}: not below a directory that may be read (--allow-root)")
