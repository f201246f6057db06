"""Keys on disk: commit, open, list, delete. The file system is the index; nothing is remembered in memory.

A key is a read-only file under ``ROOT/<bucket>/``, with its size and digest in the extended attribute ``user.s4raw``.
Publishing is one atomic step: an unnamed file (O_TMPFILE) is filled, marked with its record, and linked into place,
which refuses to replace. A crash leaves the whole key or nothing. ``docs/format.md`` describes what is on disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from struct import Struct
from typing import NamedTuple

from s4raw import layout, tree
from s4raw.digest import DIGEST_SIZE, digest_file, verify
from s4raw.disk import DataDirectory, disk_errors
from s4raw.errors import BadKey, Corrupt, KeyExists, NoSuchKey, S4Error, StoreError
from s4raw.keys import Entry, Key, check_key, check_prefix

RECORD_ATTRIBUTE = "user.s4raw"
RECORD_VERSION, XXH3_128 = 1, 1
_RECORD = Struct(f"<BBQ{DIGEST_SIZE}s")
_RACES = 1000  # how often a step that lost a race against a delete in the same directory is tried again


class Record(NamedTuple):
    """What is stored with a key: its size in bytes and its digest."""

    size: int
    digest: bytes

    def encode(self) -> bytes:
        """The record as it stands in the extended attribute."""
        return _RECORD.pack(RECORD_VERSION, XXH3_128, self.size, self.digest)

    @classmethod
    def decode(cls, raw: bytes) -> Record:
        """Raises Corrupt for a record of another version, and for what is no record at all."""
        if len(raw) >= 1 and raw[0] != RECORD_VERSION:
            raise Corrupt(f"the key's record has version {raw[0]}, this server knows version {RECORD_VERSION}")
        if len(raw) != _RECORD.size or raw[1] != XXH3_128:
            raise Corrupt(f"the key's record is damaged: {raw.hex()}")
        _, _, size, found = _RECORD.unpack(raw)
        return cls(size, found)


class Stored(NamedTuple):
    """An open key. Whoever asked for it closes ``fd``."""

    fd: int
    record: Record
    mtime_ns: int


class Store:
    """The keys of one server, in its data directory."""

    def __init__(self, data: DataDirectory) -> None:
        self.data = data

    @contextmanager
    def draft(self) -> Iterator[int]:
        """An unnamed, empty file on the store's disk: a descriptor to write a key to. It is gone unless published."""
        with disk_errors():
            fd = os.open(self.data.path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)

    def publish(self, fd: int, key: Key, record: Record) -> None:
        """Make the file behind ``fd`` the key, in one step. Raises KeyExists, BadKey, DiskFull, StoreError.

        ``fd`` may be a draft, or any file of the same file system that nobody writes to any more.
        """
        check_key(key)
        names = [key.bucket, *layout.to_names(key.name)]
        try:
            with disk_errors(key):
                os.setxattr(fd, RECORD_ATTRIBUTE, record.encode())
                os.fchmod(fd, 0o444)
                self._link(fd, names, key)
        except BaseException:
            tree.prune(self.data.root, names[:-1])
            raise

    def _link(self, fd: int, names: list[str], key: Key) -> None:
        for _ in range(_RACES):
            try:
                with tree.descend(self.data.root, names[:-1], self._make_directory) as parent:
                    return _link(fd, names[-1], parent)
            except FileExistsError:
                raise KeyExists("key already exists", key=str(key)) from None
            except FileNotFoundError:
                continue  # a delete pruned the directory in between
        raise StoreError("gave up: the key's directory vanished again and again", key=str(key))

    def publish_file(self, fd: int, key: Key) -> Record:
        """Digest the file behind ``fd`` and publish it as the key."""
        with disk_errors(key):
            record = Record(*digest_file(fd))
        self.publish(fd, key, record)
        return record

    def _make_directory(self, name: str, parent: int) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            with self.data.removals(alone=True):
                tree.make_way(name, parent, self.data.tmp)

    def open(self, key: Key) -> Stored:
        """Open a key. Raises NoSuchKey, StoreError, and Corrupt for a damaged record or a file of another size."""
        fd, _ = self._open_file(key)
        try:
            with disk_errors(key):
                status = os.fstat(fd)
                record = Record.decode(_read_record(fd))
            if record.size != status.st_size:
                raise Corrupt(f"the file has {status.st_size} bytes, its record says {record.size}")
            return Stored(fd, record, max(0, status.st_mtime_ns))
        except BaseException as error:
            os.close(fd)
            if isinstance(error, S4Error):
                error.at(key=str(key))
            raise

    def open_verified(self, key: Key) -> Stored:
        """Open a key and read all of it against its digest. Raises what ``open`` does, and Corrupt."""
        stored = self.open(key)
        try:
            with disk_errors(key):
                _, found = digest_file(stored.fd)
            verify("the file", found, stored.record.digest, key=str(key))
        except BaseException:
            os.close(stored.fd)
            raise
        return stored

    def _open_file(self, key: Key) -> tuple[int, list[str]]:
        """A descriptor of the key's file, and the names on disk that lead to it. Raises NoSuchKey."""
        check_key(key)
        names = [key.bucket, *layout.to_names(key.name)]
        try:
            with disk_errors(key), tree.descend(self.data.root, names[:-1]) as parent:
                fd = tree.open_file(names[-1], parent)
                if fd is None:
                    with tree.descend(parent, names[-1:]) as directory:
                        names.append(layout.SELF)
                        fd = tree.open_file(layout.SELF, directory)
        except FileNotFoundError:
            fd = None
        if fd is None:
            raise NoSuchKey("no such key", key=str(key))
        return fd, names

    def exists(self, key: Key) -> bool:
        """Whether a key is stored."""
        try:
            os.close(self._open_file(key)[0])
        except NoSuchKey:
            return False
        return True

    def path(self, key: Key) -> str:
        """The absolute path of a stored key, for commands. Raises NoSuchKey."""
        fd, names = self._open_file(key)
        os.close(fd)
        return os.path.join(self.data.path, *names)

    def buckets(self) -> Generator[Entry, None, None]:
        """The buckets that hold a key, in order; the time is the directory's."""
        with disk_errors():
            names = [name for name in os.listdir(self.data.root) if _is_bucket(name)]
            for name in sorted(names):
                if any(True for _ in self.list(Key(name, ""), recursive=True)):
                    try:
                        yield Entry(name, 0, max(0, os.stat(name, dir_fd=self.data.root).st_mtime_ns))
                    except FileNotFoundError:
                        continue  # pruned in between

    def list(self, prefix: Key, recursive: bool) -> Generator[Entry, None, None]:
        """The keys that begin with ``prefix.name``, in order of their UTF-8 bytes.

        Not recursive: only those without a further ``/``, and common prefixes (with their ``/``) for the others.
        """
        check_prefix(prefix)
        directory, slash, rest = prefix.name.rpartition("/")
        names = [prefix.bucket, *(layout.to_names(directory) if slash else [])]
        with disk_errors(prefix):
            try:
                innermost = tree.descend(self.data.root, names)
            except FileNotFoundError:
                return
            yield from tree.walk(innermost.fd, directory + slash, rest, recursive)

    def names(self, directory: Key) -> Iterator[str]:
        """The names of all keys below a directory, in order of their UTF-8 bytes."""
        return (entry.name for entry in self.list(directory, recursive=True))

    def remove(self, key: Key) -> None:
        """Delete a key and the directories it leaves empty. Raises NoSuchKey, StoreError."""
        check_key(key)
        names = [key.bucket, *layout.to_names(key.name)]
        with disk_errors(key), self.data.removals(alone=False):
            try:
                with tree.descend(self.data.root, names[:-1]) as parent:
                    _unlink(names[-1], parent)
            except FileNotFoundError:
                raise NoSuchKey("no such key", key=str(key)) from None
            tree.prune(self.data.root, names)

    def remove_prefix(self, prefix: Key, each: Callable[[], None] = lambda: None) -> int:
        """Delete every key that begins with ``prefix.name``; returns how many. Calls ``each`` after every one."""
        count = 0
        for entry in self.list(prefix, recursive=True):
            try:
                self.remove(Key(prefix.bucket, entry.name))
            except NoSuchKey:
                continue  # somebody else was faster
            count += 1
            each()
        return count


def _unlink(name: str, parent: int) -> None:
    """Delete the file of a key: ``name``, or SELF in the directory of that name. Raises FileNotFoundError."""
    for _ in range(_RACES):
        if not tree.is_directory(name, parent):
            if tree.is_file(name, parent):
                return os.unlink(name, dir_fd=parent)
            raise FileNotFoundError(errno.ENOENT, "no such key", name)
        try:
            return os.unlink(f"{name}/{layout.SELF}", dir_fd=parent)
        except NotADirectoryError:
            continue  # pruned, and put again as a file, in between
    raise StoreError("gave up: the key kept changing between a file and a directory")


def _read_record(fd: int) -> bytes:
    try:
        return os.getxattr(fd, RECORD_ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.ENODATA:
            raise Corrupt("the key's file has no record") from None
        raise


def _is_bucket(name: str) -> bool:
    try:
        check_prefix(Key(name, ""))
    except BadKey:
        return False
    return True


def _link(fd: int, name: str, parent: int) -> None:
    """Give the file behind ``fd`` its name in ``parent``. Raises FileExistsError when a key has it already."""
    source = f"/proc/self/fd/{fd}"
    try:
        os.link(source, name, src_dir_fd=fd, dst_dir_fd=parent)
    except FileExistsError:
        directory = tree.open_directory(name, parent)
        if directory is None:
            if not tree.is_missing(name, parent):
                raise
            raise FileNotFoundError(errno.ENOENT, "a directory of that name has just gone", name) from None
        try:
            os.link(source, layout.SELF, src_dir_fd=fd, dst_dir_fd=directory)
        finally:
            os.close(directory)
