"""Which files the uploader may read, and how they are opened: by a path that anybody may have made up."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from s4raw.errors import ConfError, LocalFileError
from s4raw.queue.files import file_error

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
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

        It is found first, and then the kernel is asked where it really lies: a symlink or a directory that is changed
        meanwhile changes nothing any more. What may not be read is not opened: opening a device may do something.
        """
        try:
            found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if self._roots and not self._holds(os.path.realpath(path)):  # nobody is told what there is elsewhere
                raise _outside(path) from None
            raise file_error(error, path) from None
        try:
            where = b"/proc/self/fd/%d" % found
            if self._roots:
                self._check(found, os.readlink(where), path)
            if not stat.S_ISREG(os.fstat(found).st_mode):
                raise LocalFileError(f"{os.fsdecode(path)}: not a regular file")
            return os.open(where, _FLAGS)
        except OSError as error:
            raise file_error(error, path) from None
        finally:
            os.close(found)

    def _check(self, fd: int, where: bytes, path: bytes) -> None:
        if where.endswith(_DELETED) and not os.fstat(fd).st_nlink:
            raise LocalFileError(f"{os.fsdecode(path)}: the file was deleted")
        if not self._holds(where):
            raise _outside(path)

    def _holds(self, where: bytes) -> bool:
        return any(where.startswith(root) for root in self._roots)


def _outside(path: bytes) -> LocalFileError:
    return LocalFileError(f"{os.fsdecode(path)}: not below a directory that may be read (--allow-root)")
