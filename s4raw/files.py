"""Local files on the client's side: read as a source, written by way of a ``.part`` name."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from s4raw.errors import LocalFileError, UsageError

PART = ".part"


def local_error(error: OSError, path: str) -> LocalFileError:
    """What to tell the user of a local file that failed."""
    return LocalFileError(f"local file {path}: {error.strerror}")


@contextmanager
def reading(path: str) -> Iterator[int]:
    """Open a local file or pipe for reading. Raises LocalFileError, UsageError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise local_error(error, path) from None
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise UsageError(f"{path} is a directory; copy it with -r")
        yield fd
    except OSError as error:
        raise local_error(error, path) from None
    finally:
        os.close(fd)


@contextmanager
def writing(path: str) -> Iterator[int]:
    """A descriptor to write a local file to: ``PATH.part``, renamed at the end of the block, removed if it raises.

    What is there and no regular file (a pipe, a device) is written to as it is. Raises LocalFileError.
    """
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(path).st_mode):
                with _special(path) as fd:
                    yield fd
                return
        part = path + PART
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise LocalFileError(f"another copy is writing to {part}") from None
        try:
            os.ftruncate(fd, 0)
            yield fd
            os.rename(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        finally:
            os.close(fd)
    except OSError as error:
        raise local_error(error, path) from None


@contextmanager
def _special(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
