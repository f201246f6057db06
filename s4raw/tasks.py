"""The commands of map calls: what one is given, and what becomes of what it made."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

from s4raw import bulk
from s4raw.blocks import Record
from s4raw.disk import disk_errors
from s4raw.errors import BadKey, CommandFailed, KeyExists, S4Error, StoreError
from s4raw.keys import Key, check_key, check_speakable
from s4raw.nearby import Nearby
from s4raw.node import Node
from s4raw.store import Siblings, Store

MAX_PATH_LINES = 64 << 20  # bytes of paths that one map-to-n command may print


class Task(Protocol):
    """One command of a map call. ``bytes_in`` and ``bytes_out`` are what it was given and what was published of it."""

    key: Key
    bytes_in: int
    bytes_out: int

    def inputs(self) -> Sequence[Key]:
        """The keys that it reads."""

    def output(self) -> str:
        """The key that it makes, or what its keys begin with."""

    def is_done(self) -> bool:
        """Whether an earlier call has made its output."""

    def stdin(self) -> int:
        """A descriptor for the command to read."""

    def stdout(self) -> AbstractContextManager[int]:
        """A file for the command to write."""

    def finish(self, stdout: int, cwd: str, again: bool, nearby: Nearby) -> Sequence[bulk.Item]:
        """Publish what the command wrote, here and nearby; returns the files that are to be sent to other servers.

        ``again`` says that an earlier attempt may have published some of it.
        """


@dataclass
class MapTask:
    """1:1. The key is stdin; stdout becomes the output."""

    node: Node
    key: Key
    target: Key
    bytes_in: int = 0
    bytes_out: int = 0

    def inputs(self) -> Sequence[Key]:
        """The key."""
        return [self.key]

    def output(self) -> str:
        """The key that it becomes."""
        return str(self.target)

    def is_done(self) -> bool:
        """Whether the output is there."""
        return self.node.store.exists(self.target)

    def stdin(self) -> int:
        """The key's file itself."""
        _refuse_existing(self.node, self.target)
        fd, self.bytes_in = _open_stdin(self.node, self.key)
        return fd

    def stdout(self) -> AbstractContextManager[int]:
        """The output, before it has a name."""
        return self.node.store.draft()

    def finish(self, stdout: int, cwd: str, again: bool, nearby: Nearby) -> Sequence[bulk.Item]:
        """Publish stdout."""
        self.bytes_out = self.node.store.publish_file(stdout, self.node.check_place(self.target)).size
        return ()


@dataclass
class MapToNTask:
    """1:n. The key is stdin; the files whose paths are printed go to their servers."""

    node: Node
    key: Key
    target: Key
    bytes_in: int = 0
    bytes_out: int = 0

    def inputs(self) -> Sequence[Key]:
        """The key."""
        return [self.key]

    def output(self) -> str:
        """The directory of its outputs."""
        return f"{self.target}/"

    def is_done(self) -> bool:
        """Never: only the command knows its outputs."""
        return False

    def stdin(self) -> int:
        """The key's file itself."""
        fd, self.bytes_in = _open_stdin(self.node, self.key)
        return fd

    def stdout(self) -> AbstractContextManager[int]:
        """Memory for the paths. (A file on the disk, once it is gone, is in the way of the next ones on ext4.)"""
        return _in_memory()

    def finish(self, stdout: int, cwd: str, again: bool, nearby: Nearby) -> Sequence[bulk.Item]:
        """Publish the printed files that belong here or nearby; none before all are known to be there."""
        outputs: dict[Key, str] = {}
        directory = self.target.join("").name
        for path in _printed_paths(stdout, self.key):
            key = self._output_key(directory, path)
            if key in outputs:
                message = f"the command printed two paths for one key, {key.basename!r}"
                raise CommandFailed(message, key=str(self.key), status=1)
            outputs[key], size = _output_path(path, cwd, self.key)
            self.bytes_out += size
        with ExitStack() as stack:
            places: dict[str, Siblings | None] = {}
            remote, place_of = [], self.node.ring.topology.place
            for key, path in outputs.items():
                server = place_of(key)
                if server not in places:
                    store = self.node.store if server == self.node.me else nearby.store(server)
                    places[server] = stack.enter_context(Siblings(store)) if store else None
                place = places[server]
                if place is None:
                    remote.append(bulk.Item(key, path))
                    continue
                try:
                    _publish_output(place, path, key, again)
                except S4Error as error:
                    error.at(server=server)
                    raise
            return remote

    def _output_key(self, directory: str, path: str) -> Key:
        try:
            return check_key(Key(self.target.bucket, directory + check_speakable(path.rpartition(os.sep)[2])))
        except BadKey as error:
            message = f"the command printed a path whose name cannot be a key: {error.message}"
            raise CommandFailed(message, key=str(self.key), status=1) from None


@dataclass
class MapFromNTask:
    """n:1. The paths of the keys are stdin; stdout becomes the output."""

    node: Node
    key: Key  # the output, which names the task
    sources: list[Key]
    bytes_in: int = 0
    bytes_out: int = 0

    def inputs(self) -> Sequence[Key]:
        """The keys of the group."""
        return self.sources

    def output(self) -> str:
        """The key that they become."""
        return str(self.key)

    def is_done(self) -> bool:
        """Whether the output is there."""
        return self.node.store.exists(self.key)

    def stdin(self) -> int:
        """An unnamed file that lists the inputs' paths, a line each."""
        _refuse_existing(self.node, self.key)
        root = self.node.store.data.path
        with disk_errors(self.key), _in_memory() as fd, os.fdopen(fd, "wb", closefd=False) as file:
            for key in self.sources:
                stored = self.node.store.open_verified(self.node.check_place(key))
                os.close(stored.fd)
                self.bytes_in += stored.record.size
                file.write(os.fsencode(f"{root}/{stored.path}\n"))
            file.flush()
            file.seek(0)
            return os.dup(fd)

    def stdout(self) -> AbstractContextManager[int]:
        """The output, before it has a name."""
        return self.node.store.draft()

    def finish(self, stdout: int, cwd: str, again: bool, nearby: Nearby) -> Sequence[bulk.Item]:
        """Publish stdout."""
        self.bytes_out = self.node.store.publish_file(stdout, self.node.check_place(self.key)).size
        return ()


@contextmanager
def _in_memory() -> Iterator[int]:
    """An unnamed file that takes no disk."""
    with disk_errors():
        fd = os.memfd_create("s4raw", os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_stdin(node: Node, key: Key) -> tuple[int, int]:
    """A key's file to read, and its size. It is verified: a damaged key must not become one with a good digest."""
    stored = node.store.open_verified(node.check_place(key))
    os.set_blocking(stored.fd, True)
    return stored.fd, stored.record.size


def _refuse_existing(node: Node, key: Key) -> None:
    if node.store.exists(key):
        raise KeyExists("key already exists", key=str(key))


def _printed_paths(stdout: int, key: Key) -> list[str]:
    with disk_errors(key):
        size = os.fstat(stdout).st_size
        if size > MAX_PATH_LINES:
            raise StoreError(
                f"the command printed {size} bytes of paths, at most {MAX_PATH_LINES} are taken", key=str(key)
            )
        text = os.pread(stdout, size, 0)
    return [os.fsdecode(line) for line in text.split(b"\n") if line]


def _output_path(path: str, cwd: str, key: Key) -> tuple[str, int]:
    """The path of a file that a command printed, and its size.

    Raises CommandFailed unless it is a regular file inside ``cwd``.
    """
    plain = os.sep not in path
    real = f"{cwd}/{path}" if plain else os.path.realpath(os.path.join(cwd, path))
    status = _lstat(real)
    if plain and status is not None and stat.S_ISREG(status.st_mode):  # needs no second look
        return real, status.st_size
    if plain:
        real = os.path.realpath(real)
        status = _lstat(real)
    if not real.startswith(cwd + os.sep):
        raise CommandFailed(f"the command printed a path outside its directory: {path!r}", key=str(key), status=1)
    if status is None or not stat.S_ISREG(status.st_mode):
        raise CommandFailed(f"the command printed a path that is no file: {path!r}", key=str(key), status=1)
    return real, status.st_size


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (OSError, ValueError):
        return None


def _publish_output(place: Siblings, path: str, key: Key, again: bool) -> None:
    """Publish a command's file: by linking it, which copies nothing, unless it has another name to write to it by.

    ``again``: a key that is there with the same content is as good as published.
    """
    with disk_errors(key):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if status.st_nlink > 1:
                with place.store.draft() as draft:
                    offset = 0
                    while count := os.sendfile(draft, fd, offset, 1 << 30):
                        offset += count
                    return _publish_fd(place, draft, key, again)
            if not status.st_mode & stat.S_IWUSR:  # who may not write cannot record the digest
                os.fchmod(fd, 0o644)
            _publish_fd(place, fd, key, again)
        finally:
            os.close(fd)


def _publish_fd(place: Siblings, fd: int, key: Key, again: bool) -> None:
    try:
        place.store.publish_file(fd, key, place)
    except KeyExists:
        if not again:
            raise
        if not _holds(place.store, key, fd):
            raise KeyExists("key already exists, with another content", key=str(key)) from None


def _holds(store: Store, key: Key, fd: int) -> bool:
    """Whether a key has the content of a file."""
    stored = store.open(key)
    os.close(stored.fd)
    with disk_errors(key):
        return stored.record == Record.of_file(fd)
