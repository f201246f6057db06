"""Walking the directories of keys: down to one, with directories made on the way, and through all of them in key order.

Every step opens one name relative to an open directory and never follows a symlink, so no path leads outside. A
directory may vanish at any moment, because a delete prunes the empty ones: then FileNotFoundError, and the caller
starts again. A symlink is treated as nothing at all.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

from s4raw import layout
from s4raw.keys import Entry
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
    with _walk_down(root, above, None) as parent:  # a kernel before 5.6, or a sandbox that has no openat2
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
        return Directory(open_at(root, "/".join(names), DIRECTORY) if names else os.dup(root))
    except FileNotFoundError:
        if make is None:
            raise
    return _walk_down(root, names, make)


def _walk_down(root: int, names: list[str], make: Callable[[str, int], None] | None) -> Directory:
    current = Directory(os.dup(root))
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


def walk(fd: int, base: str, prefix: str, recursive: bool) -> Generator[Entry, None, None]:
    """The keys below an open directory, in order of their UTF-8 bytes. Closes ``fd``.

    ``base`` is what the directory contributes to the keys in it; only those that go on with ``prefix`` are given.
    Memory is bounded by the largest directory, and a key may have hundreds of parts: there is no recursion.
    """
    levels: list[tuple[int, str, Iterator[_Child]]] = []
    try:
        levels.append((fd, base, _sorted_children(fd, prefix)))
        while levels:
            fd, base, children = levels[-1]
            child = next(children, None)
            if child is None:
                os.close(levels.pop()[0])
                continue
            share, is_directory, name = child
            if not is_directory:
                yield from _key(fd, base + share, name)
            elif (inner := open_directory(name, fd)) is not None:
                if recursive:
                    levels.append((inner, base + share, _sorted_children(inner, "")))
                elif any(True for _ in walk(inner, "", "", True)):
                    yield Entry(
                        base + share, 0, 0, True
                    )  # one without a key, which a put may be about to fill, is none
    finally:
        for fd, _, _ in levels:
            os.close(fd)


def _key(fd: int, key_name: str, name: str) -> Iterator[Entry]:
    """The key ``name`` in a directory, which may be a file or, by now, a directory that holds it as SELF."""
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            status = os.stat(f"{name}/{layout.SELF}", dir_fd=fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return  # deleted in between, or a directory without a key of its name
    if stat.S_ISREG(status.st_mode):
        yield Entry(key_name, status.st_size, max(0, status.st_mtime_ns))


_Child = tuple[str, bool, str]  # what it sorts by, its share of the key; whether it is a directory; its path on disk


def _sorted_children(fd: int, prefix: str) -> Iterator[_Child]:
    """The children of a directory, in order. Closes ``fd`` if they cannot be read: then nobody else will."""
    try:
        return iter(sorted(_children(fd, prefix)))
    except BaseException:
        os.close(fd)
        raise


def _children(fd: int, prefix: str) -> Iterator[_Child]:
    """What lies in a directory and goes on with ``prefix``; the pieces of a long part count as what lies in them."""
    with os.scandir(fd) as found:
        for entry in found:
            name = entry.name
            if not name.isascii() and not _is_utf8(name):
                continue  # not ours
            if entry.is_dir(follow_symlinks=False):
                share = layout.directory_prefix(name)
                if name.startswith("%+"):
                    yield from _continued(fd, name, share, prefix)
                    continue
                if share.startswith(prefix):
                    yield share, True, name
                if share[:-1].startswith(prefix):
                    yield share[:-1], False, name
            elif entry.is_file(follow_symlinks=False) and name != layout.SELF:
                share = layout.decode(name)
                if share.startswith(prefix):
                    yield share, False, name


def _continued(fd: int, name: str, share: str, prefix: str) -> Iterator[_Child]:
    if (share.startswith(prefix) or prefix.startswith(share)) and (inner := open_directory(name, fd)) is not None:
        try:
            for rest, is_directory, below in _children(inner, prefix[len(share) :]):
                yield share + rest, is_directory, f"{name}/{below}"
        finally:
            os.close(inner)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


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
