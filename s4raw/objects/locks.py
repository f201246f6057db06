"""Locks on keys and on buckets, between threads and between processes.

One file, ``_s3/lock``: a key is a byte of it, a bucket the range that all its keys lie in. They are locks of the open
file (Linux: F_OFD_SETLKW), so a thread that opens the file for itself excludes every other. What is locked for is
short: a check and a rename, never a body on its way. Nobody holds two.
"""

from __future__ import annotations

import fcntl
import os
from struct import Struct
from zlib import crc32

from s4raw.disk import disk_errors
from s4raw.keys import Key
from s4raw.store import Store

DIRECTORY = "_s3"
PLACES = ("buckets", "attributes")  # the directories in it
_PATH = f"{DIRECTORY}/lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_FLOCK = Struct("@hhqqi0q")  # struct flock: type, whence, start, length, pid, padding to its alignment
_KEYS_BITS = 32  # of a bucket's range


class Lock:
    """A lock while a ``with`` block lasts."""

    __slots__ = ("_fd", "_length", "_start", "_store")

    def __init__(self, store: Store, start: int, length: int) -> None:
        self._store = store
        self._start = start
        self._length = length

    def __enter__(self) -> None:
        with disk_errors():
            self._fd = self._open()
            try:
                wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, self._start, self._length, 0)
                fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, wanted)
            except BaseException:
                os.close(self._fd)
                raise

    def _open(self) -> int:
        try:
            return os.open(_PATH, _FLAGS, 0o644, dir_fd=self._store.data.root)
        except FileNotFoundError:
            prepare(self._store)
            return os.open(_PATH, _FLAGS, 0o644, dir_fd=self._store.data.root)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def of_key(store: Store, key: Key) -> Lock:
    """The lock on a key: it is not replaced, deleted or tagged by anybody else, nor is its bucket deleted."""
    return Lock(store, _bucket(key.bucket) | crc32(key.name.encode()), 1)


def of_bucket(store: Store, bucket: str) -> Lock:
    """The lock on all keys of a bucket."""
    return Lock(store, _bucket(bucket), 1 << _KEYS_BITS)


def _bucket(bucket: str) -> int:
    return (crc32(bucket.encode()) & 0x3FFFFFFF) << _KEYS_BITS


def prepare(store: Store) -> None:
    """Make the directories of S3's own in a data directory that does not have them yet."""
    with disk_errors():
        for name in (DIRECTORY, *(f"{DIRECTORY}/{place}" for place in PLACES)):
            try:
                os.mkdir(name, 0o755, dir_fd=store.data.root)
            except FileExistsError:
                continue
