"""Files of users that the queue refers to: opened, known again, and put on disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable

from s4raw.errors import LocalFileError, S4Error, StoreError
from s4raw.objects.sources import Identity
from s4raw.queue.entries import Order

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC  # a FIFO would block
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT)


def open_file(path: bytes) -> int:
    """A descriptor of a user's file, for reading. Raises OSError."""
    return os.open(path, _FLAGS)


def file_error(error: OSError, path: bytes) -> S4Error:
    """What to tell of a file that cannot be opened: LocalFileError, or StoreError for what may pass by itself."""
    kind = StoreError if error.errno in _PASSING else LocalFileError
    return kind(f"cannot open the file {os.fsdecode(path)}: {error.strerror}")


def settle(order: Order, fd: int | None = None) -> Order:
    """Put the file of an order on disk, but not its name, and look whether it is the one that the order means.

    An order without an identity is given that of the file as it is. Raises LocalFileError, StoreError.
    """
    if not order.path.startswith(b"/"):
        raise LocalFileError(f"need an absolute path, got {os.fsdecode(order.path)!r}")
    opened = -1
    try:
        if fd is None:
            fd = opened = open_file(order.path)
        identity = Identity.of(fd)
        if order.identity is not None and not order.identity.same(identity):
            raise LocalFileError(f"the file {os.fsdecode(order.path)} has changed since it was handed over")
        os.fdatasync(fd)
    except OSError as error:
        raise file_error(error, order.path) from None
    finally:
        if opened >= 0:
            os.close(opened)
    return order if order.identity is not None else order._replace(identity=identity)


class _Turns:
    """The syncs of a directory, counted as they begin and end."""

    __slots__ = ("begun", "done", "running", "users")

    def __init__(self) -> None:
        self.begun = self.done = self.users = 0
        self.running = threading.Lock()


class Names:
    """Puts the names of users' files on disk. Those who ask while a directory is being synced share the next time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[bytes, _Turns] = {}

    def sync(self, path: bytes) -> None:
        """Put the name of a file, given by its absolute path, on disk. Raises LocalFileError, StoreError."""
        directory = path.rpartition(b"/")[0] or b"/"
        with self._lock:
            turns = self._turns.setdefault(directory, _Turns())
            turns.users += 1
            wanted = turns.begun + 1  # one that began earlier may have missed the name
        try:
            with turns.running:
                if turns.done < wanted:
                    turns.begun += 1
                    _sync_directory(directory)
                    turns.done = turns.begun
        except OSError as error:
            raise file_error(error, path) from None
        finally:
            with self._lock:
                turns.users -= 1
                if not turns.users:
                    del self._turns[directory]

    def sync_all(self, paths: Iterable[bytes]) -> dict[bytes, S4Error]:
        """Put the names of files on disk, each directory once; the paths of those for which that failed."""
        by_directory: dict[bytes, list[bytes]] = {}
        for path in paths:
            by_directory.setdefault(path.rpartition(b"/")[0], []).append(path)
        failed: dict[bytes, S4Error] = {}
        for found in by_directory.values():
            try:
                self.sync(found[0])
            except S4Error as error:
                failed.update(dict.fromkeys(found, error))
        return failed


def _sync_directory(path: bytes) -> None:
    """Put the names in a directory on disk; one that may not be read is left to the file system."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
