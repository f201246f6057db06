"""Keys that are put in parts, over several connections or after an interruption, until they are committed.

    ROOT/_uploads/<id>/data      the content, as far as it has come
    ROOT/_uploads/<id>/leaves    the digest of every leaf that is there, zeros for those that are not

Everything is in these files, so any process may take any part. A leaf's digest is removed before its first byte is
written, and written after the last: what is recorded is there. Whoever writes a part holds a shared lock on ``leaves``,
and a commit holds it alone, so that nobody still writes into what has become a key. The client chooses the id; an
upload that nobody has touched for a day is swept, and after ten minutes one that nobody resumes: its id begins with a
zero byte.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from s4raw.blocks import Record
from s4raw.digest import DIGEST_SIZE, LEAF, verify
from s4raw.disk import disk_errors, remove_tree
from s4raw.errors import BadRange, DiskFull, NoSuchUpload, ProtocolError
from s4raw.keys import Key
from s4raw.record import NamedTuple
from s4raw.store import Store

DIRECTORY = "_uploads"
ID_SIZE = 16
KEEP_SECONDS = 24 * 3600.0
KEEP_PASSING_SECONDS = 600.0  # for one that nobody resumes
PASSING = b"\0"  # what the id of such an upload begins with
_MISSING = bytes(DIGEST_SIZE)


class Upload(NamedTuple):
    """An open upload: the descriptors of its two files."""

    size: int
    data: int
    leaves: int

    def write(self, offset: int) -> Callable[[memoryview], None]:
        """A function that writes bytes from ``offset`` on. Raises BadRange for more than the upload has room for."""

        def write(data: memoryview) -> None:
            nonlocal offset
            if offset + len(data) > self.size:
                raise BadRange(f"the part reaches to {offset + len(data)}, the upload has {self.size} bytes")
            first, last = offset // LEAF, (offset + len(data) - 1) // LEAF
            with disk_errors():  # what a leaf was is not known any more: the rest of it may never come
                os.pwrite(self.leaves, _MISSING * (last - first + 1), first * DIGEST_SIZE)
                while data:
                    count = os.pwrite(self.data, data, offset)
                    offset += count
                    data = data[count:]

        return write

    def record(self, offset: int, leaves: bytes) -> None:
        """The leaves from ``offset`` on are there."""
        with disk_errors():
            os.pwrite(self.leaves, leaves, offset // LEAF * DIGEST_SIZE)

    def recorded(self) -> bytes:
        """The digests of all leaves, zeros for those that are missing."""
        with disk_errors():
            return os.pread(self.leaves, leaf_count(self.size) * DIGEST_SIZE, 0)


class Uploads:
    """The uploads of one server."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._root = os.path.join(store.data.path, DIRECTORY)

    @contextmanager
    def open(self, upload: bytes, size: int, make: bool = False, alone: bool = False) -> Iterator[Upload]:
        """An upload of ``size`` bytes, which nobody else has open meanwhile if ``alone``.

        Raises NoSuchUpload, or with ``make``, which makes it if it is not there, DiskFull if there is no room for it.
        """
        directory, flags = self._path(upload, size), os.O_RDWR | os.O_CLOEXEC
        path = os.path.join(directory, "data")
        data = leaves = -1
        try:
            with disk_errors():
                if make:
                    flags |= os.O_CREAT
                    self._check_room(path, size)
                    os.makedirs(directory, exist_ok=True)
                leaves = os.open(os.path.join(directory, "leaves"), flags, 0o600)
                fcntl.flock(leaves, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
                if not os.fstat(leaves).st_nlink:
                    raise FileNotFoundError  # committed or given up, while we waited
                if not _is_ours(path):
                    os.truncate(leaves, 0)
                data = os.open(path, flags, 0o600)
                for fd, length in ((data, size), (leaves, leaf_count(size) * DIGEST_SIZE)):
                    if os.fstat(fd).st_size != length:
                        os.truncate(fd, length)
            yield Upload(size, data, leaves)
        except FileNotFoundError:
            raise NoSuchUpload(f"no such upload: {upload.hex()}") from None
        finally:
            for fd in (data, leaves):
                if fd >= 0:
                    os.close(fd)

    def _check_room(self, path: str, size: int) -> None:
        disk = os.statvfs(self._store.data.path)
        room = disk.f_bavail * disk.f_frsize
        with suppress(FileNotFoundError):
            room += os.stat(path).st_blocks * 512
        if size > room:
            raise DiskFull(f"the disk has room for {room} bytes, the key has {size}")

    def commit(self, upload: bytes, size: int, key: Key, digest: bytes) -> None:
        """Make an upload the key. Raises KeyExists, NoSuchUpload, also for one that lacks leaves, and Corrupt."""
        with self.open(upload, size, alone=True) as found:
            leaves = found.recorded()
            if lacking := sum(missing(leaves, index) for index in range(leaf_count(size))):
                message = f"{lacking} of the upload's {leaf_count(size)} leaves are not there: put them first"
                raise NoSuchUpload(message, key=str(key))
            record = Record.of_leaves(size, leaves)
            verify("what came", record.digest, digest, key=str(key))
            self._store.publish(found.data, key, record)
            self._discard(upload, size)

    def remove(self, upload: bytes, size: int) -> None:
        """Throw an upload away, or what is left of it, once no part of it is coming in any more."""
        with suppress(NoSuchUpload), self.open(upload, size, alone=True):
            return self._discard(upload, size)
        self._discard(upload, size)

    def _discard(self, upload: bytes, size: int) -> None:
        with disk_errors():
            remove_tree(self._path(upload, size))

    def sweep(self) -> None:
        """Remove the uploads that nobody has touched for a day; for ten minutes, those that nobody resumes."""
        with suppress(FileNotFoundError):
            for name in os.listdir(self._root):
                path = os.path.join(self._root, name)
                with suppress(OSError):
                    touched = os.stat(path).st_mtime  # all there is to go by, when a removal was cut short
                    with suppress(FileNotFoundError):
                        touched = max(touched, os.stat(os.path.join(path, "leaves")).st_mtime)
                    keep = KEEP_PASSING_SECONDS if name.startswith(PASSING.hex()) else KEEP_SECONDS
                    if time.time() - touched > keep:
                        remove_tree(path)

    def _path(self, upload: bytes, size: int) -> str:
        if len(upload) != ID_SIZE:
            raise ProtocolError(f"an upload's id has {ID_SIZE} bytes, got {len(upload)}")
        return os.path.join(self._root, f"{upload.hex()}-{size}")


def _is_ours(path: str) -> bool:
    """Whether an upload's bytes are in this file; it is made fit to be written to.

    A server that was killed may have left it read-only, or as a second name of a key. Or half of a removal is done.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    if status.st_nlink > 1:
        os.unlink(path)
        return False
    if not status.st_mode & 0o200:
        os.chmod(path, 0o600)
    return True


def leaf_count(size: int) -> int:
    """How many leaves content of this size has."""
    return max(1, -(-size // LEAF))


def missing(leaves: bytes, index: int) -> bool:
    """Whether a leaf is not there yet, in what ``Upload.recorded`` gives."""
    return leaves[index * DIGEST_SIZE : (index + 1) * DIGEST_SIZE] == _MISSING
