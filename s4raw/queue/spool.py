"""The files that belong to the queue: snapshots of a user's file, and bodies that came without one.

A file is on disk when its method returns; its name is once ``sync`` has run, which the journal does before it commits
the row that refers to it. Files without a row were never accepted, and are swept when the queue is opened.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Container
from contextlib import suppress

from s4raw.disk import disk_error
from s4raw.errors import ConfError, Corrupt, LocalFileError
from s4raw.objects.base import Attributes, Source
from s4raw.objects.filling import copy_bytes, receive
from s4raw.objects.sources import Identity

_CLONE = 0x40049409  # FICLONE, linux/fs.h
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL)


class Spool:
    """A directory of files with names of its own. Every method may be called from any thread."""

    def __init__(self, directory: str) -> None:
        """Open or make it. Raises OSError."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.path = os.fsencode(directory)
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the directory: what is called from now on fails."""
        fd, self._fd = self._fd, -1
        os.close(fd)

    def snapshot(self, fd: int, path: bytes) -> tuple[bytes, Identity]:
        """Keep an open file, named ``path``, as it is now; its owner may delete it. Its path in the spool.

        A hard link where one can be made, else a copy that shares the blocks if the file system can do that, else a
        copy. A link has the file's own inode: who writes to it later writes to the snapshot, and its identity tells.
        Raises LocalFileError when the file changes meanwhile, DiskFull, StoreError.
        """
        before = Identity.of(fd)
        with suppress(Corrupt):  # it became shorter
            kept, identity = self.adopt(fd)
            if before.same(Identity.of(fd)) and identity.size == before.size:
                return kept, identity
            self.discard(kept)
        raise LocalFileError(f"the file {os.fsdecode(path)} changed while it was queued")

    def adopt(self, fd: int) -> tuple[bytes, Identity]:
        """Keep an open file to which nobody writes any more, also one without a name. Raises DiskFull, StoreError."""
        name = _new_name()
        try:
            try:
                os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
                return self._create(name, lambda copy: _copy(fd, copy))
            os.fdatasync(fd)  # after the link: on ext4 one commit of its journal holds both
            return self._named(name), Identity.of(fd)
        except OSError as error:
            self.discard(name)
            raise disk_error(error) from error

    def store(self, source: Source, most: int | None = None) -> tuple[bytes, Identity, Attributes]:
        """Write a body, of at most so many bytes: its path, its identity, and what the source says of it in the end.

        Raises what the source does, Corrupt for more bytes, DiskFull, StoreError; then nothing stays.
        """
        sealed: list[Attributes] = []

        def fill(fd: int) -> None:
            receive(fd, source, None, most=most)
            sealed.append(source.seal())

        try:
            return *self._create(_new_name(), fill), sealed[0]
        except OSError as error:
            raise disk_error(error) from error

    def _create(self, name: bytes, fill: Callable[[int], None]) -> tuple[bytes, Identity]:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            fill(fd)
            os.fdatasync(fd)
            return self._named(name), Identity.of(fd)
        except BaseException:
            self.discard(name)
            raise
        finally:
            os.close(fd)

    def _named(self, name: bytes) -> bytes:
        return self.path + b"/" + name

    def open(self, path: bytes) -> int:
        """A descriptor of a file, for reading. Raises OSError."""
        return os.open(_name(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)

    def has(self, path: bytes) -> bool:
        """Whether a file is there; of a spool that is closed nobody can say."""
        return self._fd < 0 or os.access(_name(path), os.F_OK, dir_fd=self._fd)

    def check(self, path: bytes) -> None:
        """Raises LocalFileError for a file that is not there."""
        if not self.has(path):
            raise LocalFileError(f"the file {os.fsdecode(path)} is not in the queue's spool")

    def discard(self, path: bytes) -> None:
        """Delete a file. One that cannot be deleted is swept later."""
        with suppress(OSError):
            os.unlink(_name(path), dir_fd=self._fd)

    def sync(self) -> None:
        """Put the names of all files on disk. Raises OSError."""
        os.fsync(self._fd)

    def names(self) -> list[bytes]:
        """The files that are there."""
        return [os.fsencode(name) for name in os.listdir(self._fd)]

    def sweep(self, keep: Container[bytes]) -> None:
        """Delete all files but those with these names."""
        for name in self.names():
            if name not in keep:
                self.discard(name)


def open_spool(queue: str) -> Spool:
    """The spool in the directory of a queue. Raises ConfError."""
    path = os.path.join(queue, "spool")
    try:
        return Spool(path)
    except OSError as error:
        raise ConfError(f"cannot use the queue's spool {path}: {error.strerror}") from None


def _new_name() -> bytes:
    return os.urandom(12).hex().encode()


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _copy(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError:
        copy_bytes(source, target, 0, os.fstat(source).st_size, None)
