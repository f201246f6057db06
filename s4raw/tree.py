"""Going down the directories of keys, to one of them, with directories made on the way; and removing empty ones.

Every step opens one name relative to an open directory and never follows a symlink, so no path leads outside. A
directory may vanish at any moment, because a delete prunes the empty ones: then FileNotFoundError, and the caller
starts again. A symlink is treated as nothing at all.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress

from s4raw import layout
from s4raw.syscalls import exchange, open_beneath

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Directory:
    """An open directory, a context manager that gives its descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def enter(self, name: str) -> None:
        """Become the directory ``name`` in this one. Raises FileNotFoundError when there is none."""
        inner = open_directory(name, self.fd)
        if inner is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory", name)
        os.close(self.fd)
        self.fd = inner

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        self.close()


def open_directory(name: str, parent: int) -> int | None:
    """Open a directory in ``parent``; None when there is none of that name: nothing, a file, a symlink."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise


def open_at(root: int, path: str, flags: int) -> int:
    """Open what lies at a path of ordinary names below ``root``. Raises FileNotFoundError when nothing does.

    A symlink is nothing, wherever it stands.
    """
    try:
        return open_beneath(root, path, flags)
    except OSError as error:
        if error.errno in (*_NOT_THERE, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "nothing is there", path) from None
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    *above, name = path.split("/")
    with _walk_down(
        Directory(os.dup(root)), above, None
    ) as parent:  # a kernel before 5.6, or a sandbox that has no openat2
        try:
            return os.open(name, flags, dir_fd=parent)
        except OSError as error:
            if error.errno in (*_NOT_THERE, errno.ENXIO):
                raise FileNotFoundError(errno.ENOENT, "nothing is there", path) from None
            raise


def descend(root: int, names: list[str], make: Callable[[str, int], None] | None = None) -> Directory:
    """The innermost of nested directories below ``root``.

    A missing one is made with ``make(name, parent)``. Raises FileNotFoundError when one is missing or vanishes.
    """
    try:
        return _open(root, names)
    except FileNotFoundError:
        if make is None:
            raise
    try:
        return _walk_down(_open(root, names[:-1]), names[-1:], make)  # mostly it is the last one that is missing
    except FileNotFoundError:
        return _walk_down(_open(root, []), names, make)


def _open(root: int, names: list[str]) -> Directory:
    return Directory(open_at(root, "/".join(names), DIRECTORY) if names else os.dup(root))


def _walk_down(current: Directory, names: list[str], make: Callable[[str, int], None] | None) -> Directory:
    try:
        for name in names:
            try:
                current.enter(name)
            except FileNotFoundError:
                if make is None:
                    raise
                make(name, current.fd)
                current.enter(name)
    except BaseException:
        current.close()
        raise
    return current


def is_missing(name: str, parent: int) -> bool:
    """Whether nothing has this name in ``parent``, or a directory that came in between."""
    mode = _mode(name, parent)
    return mode is None or stat.S_ISDIR(mode)


def is_directory(name: str, parent: int) -> bool:
    """Whether a directory has this name in ``parent``."""
    mode = _mode(name, parent)
    return mode is not None and stat.S_ISDIR(mode)


def is_file(name: str, parent: int) -> bool:
    """Whether a regular file has this name in ``parent``."""
    mode = _mode(name, parent)
    return mode is not None and stat.S_ISREG(mode)


def _mode(name: str, parent: int) -> int | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def prune(root: int, names: list[str]) -> None:
    """Remove nested directories that are empty, from the innermost outwards; one that was just filled stays."""
    for depth in range(len(names), 0, -1):
        try:
            with descend(root, names[: depth - 1]) as parent:
                os.rmdir(names[depth - 1], dir_fd=parent)
        except FileNotFoundError:
            continue  # never made, or pruned by somebody else
        except OSError:
            return


def make_way(name: str, parent: int, spare: int) -> None:
    """Turn the file ``name`` into a directory that holds it as SELF, in one atomic step; a reader always finds it.

    ``spare`` is a directory of the same file system to prepare it in. The caller holds the lock against deletes. Does
    nothing when a directory is there already or the file has gone; raises NotADirectoryError for anything else.
    """
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        return
    if not stat.S_ISREG(mode):
        raise NotADirectoryError(errno.ENOTDIR, "neither a file nor a directory", name)
    prepared = f"way-{os.getpid()}-{threading.get_ident()}"
    os.mkdir(prepared, 0o755, dir_fd=spare)
    try:
        os.link(name, f"{prepared}/{layout.SELF}", src_dir_fd=parent, dst_dir_fd=spare, follow_symlinks=False)
        exchange(parent, name, spare, prepared)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(f"{prepared}/{layout.SELF}", dir_fd=spare)
        os.rmdir(prepared, dir_fd=spare)
        raise
    os.unlink(prepared, dir_fd=spare)
