"""Keys on disk: commit, open, list, delete. The file system is the index; nothing is remembered in memory.

A key is a read-only file under ``ROOT/<bucket>/``, its record (see ``blocks``) the extended attribute ``user.s4raw``.
Publishing is one atomic step: an unnamed file (O_TMPFILE) is filled, marked with its record, and linked into place,
which refuses to replace; ``replace``, which S3 needs, renames it into place. A crash leaves the whole key or nothing.
``docs/format.md`` describes what is on disk.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from s4raw import layout, placing, tree, walking
from s4raw.blocks import Record
from s4raw.digest import verify
from s4raw.disk import DataDirectory, Draft, disk_error, disk_errors
from s4raw.errors import BadKey, Corrupt, KeyChanged, KeyExists, NoSuchKey, S4Error, StoreError
from s4raw.keys import Entry, Key, check_key, check_prefix

RECORD_ATTRIBUTE = "user.s4raw"
_RACES = 1000  # how often a step that lost a race against a delete in the same directory is tried again


class Stored(NamedTuple):
    """An open key, and its path below the data directory. Whoever asked for it closes ``fd``."""

    fd: int
    record: Record
    mtime_ns: int
    path: str


class Siblings:
    """A ``with`` block for keys that are published one after the other, and lie beside each other in a store.

    Their directory is kept open. One that a delete has pruned meanwhile takes no name; then it is made again.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._names: list[str] = []
        self._directory: tree.Directory | None = None

    def directory(self, names: list[str]) -> int:
        """The descriptor of the innermost of these directories. Raises FileNotFoundError."""
        if self._directory is None or names != self._names:
            self.close()
            self._directory, self._names = self.store.descend(names), names
        return self._directory.fd

    def close(self) -> None:
        """Close the directory."""
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def __enter__(self) -> Siblings:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Store:
    """The keys of one server, in its data directory."""

    def __init__(self, data: DataDirectory) -> None:
        self.data = data

    def draft(self) -> Draft:
        """An unnamed, empty file on the store's disk: a descriptor to write a key to. It is gone unless published."""
        return Draft(self.data.places)

    def publish(self, fd: int, key: Key, record: Record | None) -> None:
        """Make the file behind ``fd`` the key, in one step. Raises KeyExists, BadKey, DiskFull, StoreError.

        ``fd`` may be a draft, or any file of the same file system that nobody writes to any more; with None for a
        ``record`` it is marked with its record already.
        """
        self._publish(fd, key, record, self._link)

    def replace(self, fd: int, key: Key, record: Record | None) -> None:
        """Make the file behind ``fd`` the key, also in place of another, in one step: readers see either of them.

        Raises BadKey, DiskFull, StoreError. ``fd`` and ``record`` as in ``publish``.
        """
        self._publish(fd, key, record, self._rename)

    def _publish(self, fd: int, key: Key, record: Record | None, place: Callable[[int, list[str], Key], None]) -> None:
        path = layout.to_path(*key)
        names = path.split("/") if path else [check_key(key).bucket, *layout.to_names(key.name)]
        try:
            with disk_errors(key):
                if record is not None:
                    os.setxattr(fd, RECORD_ATTRIBUTE, record.encode())
                os.fchmod(fd, 0o444)
                place(fd, names, key)
        except BaseException:
            tree.prune(self.data.root, names[:-1])
            raise

    def _link(self, fd: int, names: list[str], key: Key, siblings: Siblings | None = None) -> None:
        for _ in range(_RACES):
            try:
                if siblings:
                    return placing.link(fd, names[-1], siblings.directory(names[:-1]))
                with self.descend(names[:-1]) as parent:
                    return placing.link(fd, names[-1], parent)
            except FileExistsError:
                raise KeyExists("key already exists", key=str(key)) from None
            except FileNotFoundError:
                if siblings:
                    siblings.close()
                continue  # a delete pruned the directory in between
        raise StoreError("gave up: the key's directory vanished again and again", key=str(key))

    def _rename(self, fd: int, names: list[str], key: Key) -> None:
        temporary = f"replace-{os.getpid()}-{threading.get_ident()}"
        os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, dst_dir_fd=self.data.tmp)
        try:
            for _ in range(_RACES):
                try:
                    with (
                        self.descend(names[:-1]) as parent,
                        self.data.removals(alone=False),  # or what makes way at this moment would undo it
                    ):
                        return placing.rename(temporary, self.data.tmp, names[-1], parent)
                except FileNotFoundError:
                    continue  # a delete pruned the directory in between
            raise StoreError("gave up: the key's directory vanished again and again", key=str(key))
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self.data.tmp)
            raise

    def publish_file(self, fd: int, key: Key, siblings: Siblings | None = None) -> Record:
        """Digest the file behind ``fd`` and publish it as the key, beside ``siblings``."""
        with disk_errors(key):
            record = Record.of_file(fd)
        self._publish(fd, key, record, partial(self._link, siblings=siblings) if siblings else self._link)
        return record

    def descend(self, names: list[str]) -> tree.Directory:
        """The innermost of nested directories, which are made where they are missing. Raises FileNotFoundError."""
        return tree.descend(self.data.root, names, self._make_directory)

    def _make_directory(self, name: str, parent: int) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            with self.data.removals(alone=True):
                tree.make_way(name, parent, self.data.tmp)

    def open(self, key: Key) -> Stored:
        """Open a key. Raises NoSuchKey, StoreError, and Corrupt for a damaged record or a file of another size."""
        return self.read_record(*self.open_file(key), key)

    def read_record(self, fd: int, status: os.stat_result, path: str, key: Key) -> Stored:
        """The same for what ``open_file`` gave; ``fd`` is closed when this raises."""
        try:
            record = Record.decode(os.getxattr(fd, RECORD_ATTRIBUTE))
            if record.size != status.st_size:
                raise Corrupt(f"the file has {status.st_size} bytes, its record says {record.size}")
            return Stored(fd, record, max(0, status.st_mtime_ns), path)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError):
                if error.errno == errno.ENODATA:
                    raise Corrupt("the key's file has no record", key=str(key)) from None
                raise disk_error(error, key) from error
            if isinstance(error, S4Error):
                error.at(key=str(key))
            raise

    def read_small(self, key: Key, most: int) -> tuple[bytes, bytes, int] | None:
        """Content, digest and mtime of an ordinary key that has at most ``most`` bytes, and one leaf.

        None for all others, also for those that are missing or damaged: ``open`` says which, and takes longer.
        """
        path = layout.to_path(*key)
        if path is None:
            return None
        try:
            fd = tree.open_at(self.data.root, path, tree.FILE)
        except OSError:
            return None
        try:
            raw = os.getxattr(fd, RECORD_ATTRIBUTE)
            small = Record.decode_small(raw)
            if small is None or small[0] > most:
                return None
            size, digest = small
            content = os.pread(fd, size + 1, 0)  # a byte more would come if the file were longer than its record says
            return (content, digest, max(0, os.fstat(fd).st_mtime_ns)) if len(content) == size else None
        except OSError:
            return None
        finally:
            os.close(fd)

    def open_verified(self, key: Key) -> Stored:
        """Open a key and read all of it against its digest. Raises what ``open`` does, and Corrupt."""
        stored = self.open(key)
        try:
            with disk_errors(key):
                found = Record.of_file(stored.fd).digest
            verify("the file", found, stored.record.digest, key=str(key))
        except BaseException:
            os.close(stored.fd)
            raise
        return stored

    def open_file(self, key: Key) -> tuple[int, os.stat_result, str]:
        """A descriptor of the key's file, its status, and its path below the data directory. Raises NoSuchKey."""
        path = layout.to_path(*key) or "/".join([check_key(key).bucket, *layout.to_names(key.name)])
        try:
            fd = tree.open_at(self.data.root, path, tree.FILE)
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                os.close(fd)
                path = f"{path}/{layout.SELF}"
                fd = tree.open_at(self.data.root, path, tree.FILE)
                status = os.fstat(fd)
        except FileNotFoundError:
            raise NoSuchKey("no such key", key=str(key)) from None
        except OSError as error:
            raise disk_error(error, key) from error
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise NoSuchKey("no such key", key=str(key))
        return fd, status, path

    def exists(self, key: Key) -> bool:
        """Whether a key is stored."""
        try:
            os.close(self.open_file(key)[0])
        except NoSuchKey:
            return False
        return True

    def seems_free(self, key: Key) -> bool:
        """Whether an ordinary key is not stored, as it seems at a glance; whoever publishes will be told for sure."""
        path = layout.to_path(*key)
        if path is None:
            return False
        try:
            os.stat(path, dir_fd=self.data.root, follow_symlinks=False)
        except FileNotFoundError:
            return True
        except OSError:
            pass  # whoever looks closer will say what it is
        return False

    def path(self, key: Key) -> str:
        """The absolute path of a stored key, for commands. Raises NoSuchKey."""
        fd, _, path = self.open_file(key)
        os.close(fd)
        return os.path.join(self.data.path, path)

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
            yield from walking.walk(innermost.fd, directory + slash, rest, recursive)

    def names(self, directory: Key) -> Iterator[str]:
        """The names of all keys below a directory, in order of their UTF-8 bytes."""
        return (entry.name for entry in self.list(directory, recursive=True))

    def move(self, key: Key, target: Key) -> None:
        """Give a key another name, which must be free. Raises NoSuchKey, KeyExists, and what ``publish`` does.

        It has the new name before it loses the old one: a crash in between leaves both.
        """
        stored = self.open(key)
        try:
            inode = os.fstat(stored.fd).st_ino
            names = [target.bucket, *layout.to_names(check_key(target).name)]
            try:
                with disk_errors(target):
                    self._link(stored.fd, names, target)
            except BaseException:
                tree.prune(self.data.root, names[:-1])
                if not os.fstat(stored.fd).st_nlink:  # what has no name any more cannot be given another one
                    raise NoSuchKey("no such key", key=str(key)) from None
                raise
            try:
                self._remove(key, inode)
            except NoSuchKey:  # deleted, or moved by somebody else, in between: then this is not a move
                self._remove(target, inode)
                raise
        finally:
            os.close(stored.fd)

    def remove(self, key: Key, digest: bytes | None = None) -> None:
        """Delete a key and the directories it leaves empty. Raises NoSuchKey, StoreError.

        With ``digest`` only if the key has it. Raises KeyChanged.
        """
        if digest is None:
            return self._remove(key)
        stored = self.open(key)
        try:
            if stored.record.digest != digest:
                raise KeyChanged("the key has another content by now: it was not deleted", key=str(key))
            self._remove(key, os.fstat(stored.fd).st_ino)
        finally:
            os.close(stored.fd)

    def _remove(self, key: Key, inode: int | None = None) -> None:
        """Delete a key, unless it has become another file than ``inode``."""
        check_key(key)
        names = [key.bucket, *layout.to_names(key.name)]
        with disk_errors(key), self.data.removals(alone=False):
            try:
                with tree.descend(self.data.root, names[:-1]) as parent:
                    _unlink(names[-1], parent, inode)
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


def _unlink(name: str, parent: int, inode: int | None) -> None:
    """Delete the file of a key: ``name``, or SELF in the directory of that name. Raises FileNotFoundError."""
    for _ in range(_RACES):
        if tree.is_directory(name, parent):
            path = f"{name}/{layout.SELF}"
        elif tree.is_file(name, parent):
            path = name
        else:
            raise FileNotFoundError(errno.ENOENT, "no such key", name)
        try:
            if inode is not None and os.stat(path, dir_fd=parent, follow_symlinks=False).st_ino != inode:
                raise FileNotFoundError(errno.ENOENT, "another key by now", name)
            return os.unlink(path, dir_fd=parent)
        except (NotADirectoryError, IsADirectoryError):
            continue  # from a file to a directory, or back, in between
    raise StoreError("gave up: the key kept changing between a file and a directory")


def _is_bucket(name: str) -> bool:
    try:
        check_prefix(Key(name, ""))
    except BadKey:
        return False
    return True
