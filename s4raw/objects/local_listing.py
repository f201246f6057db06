"""Pages of the objects in a bucket, straight from its directories.

A page costs what it shows: the walk begins where the page does, opens nothing that lies before, and with the delimiter
``/`` nothing that a common prefix covers, beyond its first key. What large directories hold is remembered (see
``children``), or every page would read and sort all of the names in one.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from s4raw import layout, tree, walking
from s4raw.blocks import Record
from s4raw.children import ChildrenCache
from s4raw.disk import disk_errors
from s4raw.errors import BadKey, Corrupt
from s4raw.keys import Key, check_prefix
from s4raw.objects import attributes as codec
from s4raw.objects.base import Listed, Page, Query
from s4raw.objects.paging import roll_up
from s4raw.store import RECORD_ATTRIBUTE, Store

SETTLED_NS = 2_000_000_000  # file systems' times have steps: of some milliseconds, or of a second
_remembered = ChildrenCache()  # by device and inode, so it serves every store of this process


def list_page(store: Store, bucket: str, query: Query, cache: ChildrenCache = _remembered) -> Page:
    """A page of a bucket's objects; an empty one if there is no such bucket. Raises StoreError."""
    prefix = Key(bucket, query.prefix)
    try:
        check_prefix(prefix)
    except BadKey:
        return Page([], False)  # no object has such a name
    with disk_errors(prefix), _Names(store, prefix, query.delimiter, cache) as names:
        return roll_up(names.seek, names.describe, query)


class _Directory(NamedTuple):
    """A directory that the walk has open: what it contributes to names, and where it is, with a slash."""

    fd: int
    name: str
    path: str

    @classmethod
    def of(cls, fd: int, name: str) -> _Directory:
        """An open one. Where its path is not known, nothing is found below what is said instead."""
        try:
            return cls(fd, name, f"{os.readlink(f'/proc/self/fd/{fd}')}/")
        except OSError:
            return cls(fd, name, "/proc/self/fd/none/")


class _Names:
    """The names of a bucket's objects in order, and what is known of the last one given."""

    def __init__(self, store: Store, prefix: Key, delimiter: str, cache: ChildrenCache) -> None:
        self._store = store
        self._prefix = prefix
        self._recursive = delimiter != "/"
        self._cache = cache
        self._places: Generator[walking.Place, str | None, None] | None = None
        self._at = (-1, "")
        self._settled_ns = time.time_ns() - SETTLED_NS
        self._directory = _Directory(-1, "", "")

    def seek(self, start: str) -> Iterator[str]:
        """The names from ``start`` on; when ``/`` is the delimiter, common prefixes for what they cover."""
        if self._places is None:
            self._places = self._walk(start)
            first = next(self._places, None)
        else:
            first = self._send(self._places, start)
        for fd, path, name, _ in chain((first,), self._places) if first else ():
            if not path.endswith(walking.SELF_PATH) or os.access(path, os.F_OK, dir_fd=fd):
                self._at = fd, path
                yield name

    def _walk(self, start: str) -> Generator[walking.Place, str | None, None]:
        if not start.startswith(self._prefix.name):
            return _nothing()  # it lies behind them all
        directory, slash, rest = self._prefix.name.rpartition("/")
        with suppress(FileNotFoundError):
            names = [self._prefix.bucket, *(layout.to_names(directory) if slash else [])]
            innermost = tree.descend(self._store.data.root, names)
            base = directory + slash
            return walking.places(innermost.fd, base, rest, self._recursive, start, self._cache.read)
        return _nothing()

    @staticmethod
    def _send(places: Generator[walking.Place, str | None, None], start: str) -> walking.Place | None:
        try:
            return places.send(start)
        except StopIteration:
            return None

    def describe(self, name: str) -> Listed | None:
        """The line of the object that was named last; None when it has gone."""
        fd, path = self._at
        if (found := self._glance(fd, path, name)) is not None:
            return found
        try:
            file = os.open(path, tree.FILE, dir_fd=fd)
        except OSError:
            return self._describe_again(fd, path, name)
        try:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode):
                return _line(name, file, status)
        finally:
            os.close(file)
        return self._describe_again(fd, path, name)

    def _glance(self, fd: int, path: str, name: str) -> Listed | None:
        """The line of an ordinary object that nobody has touched lately, by two system calls instead of four.

        Its summary is read by its path, then its status: a file that was not changed, linked or renamed for some time
        has been at that path when the summary was read, or the times would say so. None where that cannot be told.
        """
        base_fd, base_name, base_path = self._directory
        if fd != base_fd or name != base_name + path:
            if not name.endswith(path) or "/" in path:
                return None
            self._directory = _Directory.of(fd, name.removesuffix(path))
            base_path = self._directory.path
        try:
            raw = os.getxattr(base_path + path, codec.SUMMARY, follow_symlinks=False)
            status = os.stat(path, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return None
        if status.st_ctime_ns > self._settled_ns or not stat.S_ISREG(status.st_mode):
            return None
        size, mtime_ns = status.st_size, status.st_mtime_ns
        found = codec.read_summary(raw, status.st_ino, size)
        return None if found is None else Listed(name, size, mtime_ns if mtime_ns > 0 else 0, *found)

    def _describe_again(self, fd: int, path: str, name: str) -> Listed | None:
        """The same for a file that has become, at this moment, a directory that holds it."""
        with suppress(FileNotFoundError, NotADirectoryError):
            file = os.open(path + walking.SELF_PATH, tree.FILE, dir_fd=fd)
            try:
                return _line(name, file, os.fstat(file))
            finally:
                os.close(file)
        return None

    def __enter__(self) -> _Names:
        return self

    def __exit__(self, *_: object) -> None:
        if self._places is not None:
            self._places.close()


def _nothing() -> Generator[walking.Place, str | None, None]:
    yield from ()


def _line(name: str, file: int, status: os.stat_result) -> Listed:
    """An object's line. One that is damaged is listed all the same, without an ETag."""
    size = status.st_size
    try:
        found = codec.read_summary(os.getxattr(file, codec.SUMMARY), status.st_ino, size)
    except OSError:
        found = None
    if found is None:  # a key of the ring's, or one with an unusual ETag
        try:
            found = _summary(file)
        except (OSError, Corrupt):
            found = "", (), ""
    mtime_ns = status.st_mtime_ns
    return Listed(name, size, mtime_ns if mtime_ns > 0 else 0, *found)


def _summary(file: int) -> tuple[str, tuple[str, ...], str]:
    """What a summary would say, from the attributes themselves."""
    record = Record.decode(os.getxattr(file, RECORD_ATTRIBUTE))
    try:
        sealed = os.getxattr(file, codec.ATTRIBUTE)
    except OSError:
        sealed = None
    found = codec.unseal(sealed, record)[0]
    return found.etag, tuple(sorted(found.checksums)), found.checksum_type
