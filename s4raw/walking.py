"""All keys below a directory, in the order of their UTF-8 bytes, from any of them on.

There is one walk for all listings. It opens a directory when its turn comes, and none that lies before where it is to
start. Memory is bounded by the largest directory, and a key may have hundreds of parts: there is no recursion.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator

from s4raw import layout
from s4raw.children import Child, Children, Read, in_order, is_utf8, read_children
from s4raw.keys import Entry
from s4raw.tree import open_directory

Place = tuple[int, str, str, bool]  # a directory's descriptor, a path below it, the key's name; whether it is a prefix


class _Level:
    """A directory on the way, and where the walk is in it."""

    __slots__ = ("base", "children", "fd", "prefix", "read", "rest")

    def __init__(self, fd: int, base: str, prefix: str, start: str, read: Read) -> None:
        self.fd = fd
        self.base = base
        self.prefix = prefix
        self.read = read
        try:
            self.children: Children = read(fd, prefix)
            self.seek(start)
        except BaseException:
            os.close(fd)  # nobody else will
            raise

    def seek(self, start: str) -> None:
        """Go on at a key's name; at the first one if it is not below this directory."""
        rest = start[len(self.base) :] if start.startswith(self.base) else ""
        self.rest: Iterator[Child] = in_order(self.fd, self.children, self.prefix, rest, self.read)


def places(
    fd: int, base: str, prefix: str, recursive: bool, start: str = "", read: Read = read_children
) -> Generator[Place, str | None, None]:
    """Where the keys below an open directory may be, in order, from the name ``start`` on. Closes ``fd``.

    ``base`` is what the directory contributes to the keys in it; only those that go on with ``prefix`` are given. Not
    recursive: a directory that holds a key is given as a prefix. A name that is sent is where to go on; it must sort
    behind the last one given. Not everything that is given is a key: see ``find``.
    """
    levels: list[_Level] = []
    try:
        levels.append(_Level(fd, base, prefix, start, read))
        while levels:
            level = levels[-1]
            for share, path in level.rest:
                name, sought = level.base + share, None
                if not share.endswith("/"):
                    sought = yield level.fd, path, name, False
                elif recursive:
                    if (inner := open_directory(path, level.fd)) is not None:
                        levels.append(_Level(inner, name, "", start, read))
                        break
                elif holds_key(level.fd, path):
                    sought = yield level.fd, path, name, True
                if sought is not None:
                    start = sought
                    while levels and not start.startswith(levels[-1].base):
                        os.close(levels.pop().fd)
                    if levels:
                        levels[-1].seek(start)
                    break
            else:
                os.close(levels.pop().fd)
    finally:
        for level in levels:
            os.close(level.fd)


def walk(fd: int, base: str, prefix: str, recursive: bool) -> Iterator[Entry]:
    """The keys below an open directory and, not recursive, the common prefixes: see ``places``. Closes ``fd``."""
    for parent, path, name, is_prefix in places(fd, base, prefix, recursive):
        if is_prefix:
            yield Entry(name, 0, 0, True)
        elif (status := find(parent, path)) is not None:
            yield Entry(name, status.st_size, max(0, status.st_mtime_ns))


def find(fd: int, path: str) -> os.stat_result | None:
    """The status of the key at a place; None when there is none (any more).

    Its file may have become the directory that holds it as SELF, or the other way round.
    """
    if path.endswith(SELF_PATH) and not os.access(path, os.F_OK, dir_fd=fd):  # as nearly always
        return None
    try:
        status = os.stat(path, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            status = os.stat(path + SELF_PATH, dir_fd=fd, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None  # deleted in between
    return status if stat.S_ISREG(status.st_mode) else None


SELF_PATH = f"/{layout.SELF}"


def holds_key(fd: int, path: str) -> bool:
    """Whether a key lies below a directory: nothing is read further than to the first one.

    A directory without one, which a put may be about to fill, counts as nothing. The key that lies in the directory as
    SELF does not lie below it.
    """
    levels: list[tuple[int, os._ScandirIterator[str]]] = []
    try:
        inner = open_directory(path, fd)
        while inner is not None or levels:
            if inner is not None:
                levels.append((inner, _scan(inner)))
            inner = None
            for entry in levels[-1][1]:
                if entry.is_dir(follow_symlinks=False):
                    if (inner := open_directory(entry.name, levels[-1][0])) is not None:
                        break
                elif len(levels) == 1 and entry.name == layout.SELF:
                    continue
                elif entry.is_file(follow_symlinks=False) and is_utf8(entry.name):
                    return True
            else:
                _close(*levels.pop())
        return False
    finally:
        for level in levels:
            _close(*level)


def _close(fd: int, entries: os._ScandirIterator[str]) -> None:
    entries.close()
    os.close(fd)


def _scan(fd: int) -> os._ScandirIterator[str]:
    """What lies in an open directory. Closes ``fd`` if it cannot be read."""
    try:
        return os.scandir(fd)
    except BaseException:
        os.close(fd)
        raise
