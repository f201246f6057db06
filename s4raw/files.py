"""Local files on the client's side: read as a source, written by way of a ``.part`` name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from s4raw.digest import digest
from s4raw.errors import LocalFileError, UsageError
from s4raw.keys import MAX_NAME_BYTES

PART = " .part"  # with a space, which no s4:// key has: the name of one file is never the other name of another


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


def lies_below(path: str, directory: str) -> bool:
    """Whether a file lies in a directory itself, and not in one that a symlink leads to."""
    parent = os.path.dirname(path)
    inside = os.path.relpath(parent, directory)
    return os.path.realpath(parent) == os.path.normpath(os.path.join(os.path.realpath(directory), inside))


def part_name(path: str) -> str:
    """Where a file is written until it is whole: ``PATH .part``; a digest stands for a name that is too long."""
    directory, name = os.path.split(path)
    if len(os.fsencode(name + PART)) > MAX_NAME_BYTES:
        name = digest(os.fsencode(name)).hex()
    return os.path.join(directory, name + PART)


@contextmanager
def writing(path: str, resume: bool = False) -> Iterator[int]:
    """A descriptor to write a local file to, by another name; renamed at the end of the block, removed if it raises.

    With ``resume`` it is not removed unless it is empty, and what it holds already stays in it. Directories that are
    missing are made. A symlink stays, the file it leads to is written. What is there and no regular file (a pipe, a
    device) is written to as it is. Raises LocalFileError.
    """
    try:
        mode = _mode(path)
        if stat.S_ISLNK(mode):
            path = os.path.realpath(path)
            mode = _mode(path)
        with _by_another_name(path, resume) if stat.S_ISREG(mode) or not mode else _as_it_is(path) as fd:
            yield fd
    except OSError as error:
        raise local_error(error, path) from None


def _mode(path: str) -> int:
    """What has this name; 0 if nothing has."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


@contextmanager
def _as_it_is(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _by_another_name(path: str, resume: bool) -> Iterator[int]:
    part = part_name(path)
    try:
        fd = _open_locked(part)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(part), exist_ok=True)
        fd = _open_locked(part)
    try:
        if os.fstat(fd).st_size and not resume:
            os.ftruncate(fd, 0)  # only then: after a truncation to 0 ext4 writes the whole file out when it is closed
        yield fd
        os.rename(part, path)
    except BaseException:
        if not resume or not os.fstat(fd).st_size:
            with suppress(OSError):
                os.unlink(part)
        raise
    finally:
        os.close(fd)


def _open_locked(part: str) -> int:
    """Open and lock a file that others may rename or remove at any moment. Raises LocalFileError while one has it."""
    import fcntl

    while True:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(part)):
                return fd
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(fd)
            raise LocalFileError(f"another copy is writing to {part}") from None
        os.close(fd)  # it was renamed between our open and our lock: this is somebody's finished file
