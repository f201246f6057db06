"""What lies in one directory of keys, in the order of the keys: read from the disk, or remembered while it holds.

The pieces of a part that is too long for one name (``%+``, see ``layout``) count as what lies in them.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator

from s4raw import layout
from s4raw.record import NamedTuple
from s4raw.tree import open_directory

_TICK_NS = 20_000_000  # a kernel's coarse clock, which stamps directories, lags behind by up to 10 ms
_COARSE_NS = 2_000_000_000  # of file systems that keep whole seconds
_SECOND_NS = 1_000_000_000
MAX_NAMES = 2_000_000  # remembered by a process: some 80 bytes each, and what the names have
SMALL = 1000  # a directory of fewer names is read again each time

Child = tuple[str, str]  # its share of the keys, which ends in ``/`` if it is a directory; its path on disk


class Children(NamedTuple):
    """The children of a directory, by their share of the keys: ``dir/`` of a directory, ``file`` of a file.

    A directory also counts as the file that may lie in it as SELF. ``paths`` has the paths that are not what the share
    says, ``long`` the directories that hold the rest of long parts, by what they contribute.
    """

    shares: list[str]
    paths: dict[str, str]
    long: list[str]


Read = Callable[[int, str], Children]


def read_children(fd: int, prefix: str = "") -> Children:
    """Read a directory: what goes on with ``prefix``, and maybe more."""
    shares: list[str] = []
    paths: dict[str, str] = {}
    long: list[str] = []
    with os.scandir(fd) as found:
        for entry in found:
            name = entry.name
            if not name.isascii() and not is_utf8(name):
                continue  # not ours
            if entry.is_dir(follow_symlinks=False):
                if name.startswith("%+"):
                    long.append(name[2:])
                    continue
                share = layout.directory_prefix(name)
                if share.startswith(prefix):
                    shares.append(share)
                    if len(share) != len(name) + 1:
                        paths[share] = name
                if share.startswith(prefix, 0, -1):
                    shares.append(share[:-1])
                    paths[share[:-1]] = f"{name}/{layout.SELF}"
            elif entry.is_file(follow_symlinks=False) and name != layout.SELF:
                share = layout.decode(name)
                if share.startswith(prefix):
                    shares.append(share)
                    if len(share) != len(name):
                        paths[share] = name
    shares.sort()
    long.sort()
    return Children(shares, paths, long)


def is_utf8(name: str) -> bool:
    """Whether a name that came from the disk is text; any other is not ours."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def in_order(fd: int, children: Children, prefix: str, start: str, read: Read) -> Iterator[Child]:
    """The children of a directory whose keys go on with ``prefix`` and may not sort before ``start``, in order.

    Only the first one may hold keys that do: it is the directory that ``start`` leads into.
    """
    low = start[: start.find("/") + 1] or start
    low = max(low, prefix)
    if children.long:
        yield from _merged(fd, children, prefix, low, read)
        return
    shares, paths = children.shares, children.paths
    for index in range(bisect_left(shares, low), len(shares)):
        share = shares[index]
        if prefix and not share.startswith(prefix):
            return
        yield share, (paths and paths.get(share)) or share.removesuffix("/")


def _merged(fd: int, children: Children, prefix: str, low: str, read: Read) -> Iterator[Child]:
    """The same, where there are long parts: each directory of them is opened when its turn comes."""
    from heapq import heappop, heappush

    heap: list[tuple[str, int, str, bool, Iterator[tuple[str, str, bool]]]] = []
    count = 0

    def push(found: Iterator[tuple[str, str, bool]]) -> None:
        nonlocal count
        if (first := next(found, None)) is not None:
            count += 1
            heappush(heap, (first[0], count, first[1], first[2], found))

    push(_files(children, "", "", low))
    push(_long(children, "", "", low))
    while heap:
        share, _, path, is_long, found = heappop(heap)
        push(found)
        if not is_long:
            if share.startswith(prefix):
                yield share, path
            elif share > prefix:
                return
        elif (share.startswith(prefix) or prefix.startswith(share)) and (inner := open_directory(path, fd)) is not None:
            try:
                below = read(inner, prefix[len(share) :])
            finally:
                os.close(inner)
            rest = low[len(share) :] if low.startswith(share) else ""
            push(_files(below, share, path + "/", rest))
            push(_long(below, share, path + "/", rest))


def _files(children: Children, share: str, path: str, low: str) -> Iterator[tuple[str, str, bool]]:
    for index in range(bisect_left(children.shares, low), len(children.shares)):
        name = children.shares[index]
        yield share + name, path + (children.paths.get(name) or name.removesuffix("/")), False


def _long(children: Children, share: str, path: str, low: str) -> Iterator[tuple[str, str, bool]]:
    """The directories of long parts that hold something from ``low`` on."""
    begin = bisect_left(children.long, low)
    for end in range(1, min(len(low), layout.PIECE_BYTES + 1)):  # those that ``low`` goes on from
        index = bisect_left(children.long, low[:end])
        if index < begin and children.long[index] == low[:end]:
            yield share + low[:end], f"{path}%+{low[:end]}", True
    for index in range(begin, len(children.long)):
        yield share + children.long[index], f"{path}%+{children.long[index]}", True


class _Kept(NamedTuple):
    stamp: tuple[int, int]
    children: Children


class ChildrenCache:
    """Remembers what lies in large directories, so that a page of a listing does not read and sort all of one again.

    What is remembered of a directory holds as long as its times are the same: making, deleting and renaming a name in
    it all stamp them. A stamp is only trusted if it was old when the reading began, for a change within the same tick
    of the kernel's clock would have left it as it was. Any thread may call; a change that was complete before a call
    is seen by it, whichever process made it.
    """

    def __init__(self, max_names: int = MAX_NAMES, small: int = SMALL) -> None:
        from threading import Lock

        self._max_names = max_names
        self._small = small
        self._lock = Lock()
        self._kept: dict[tuple[int, int], _Kept] = {}  # the one that was used last comes last
        self.names = 0  # how many are remembered

    @property
    def remembered(self) -> int:
        """How many directories are remembered."""
        return len(self._kept)

    def read(self, fd: int, prefix: str = "") -> Children:
        """What ``read_children`` gives, but all of the directory."""
        now = time.time_ns()
        status = os.fstat(fd)
        key, stamp = (status.st_dev, status.st_ino), (status.st_mtime_ns, status.st_ctime_ns)
        if (kept := self._kept.get(key)) is not None and kept.stamp == stamp:
            with self._lock:
                if self._kept.get(key) is kept:
                    self._kept[key] = self._kept.pop(key)
            return kept.children
        children = read_children(fd, "")
        if _count(children) >= self._small and all(is_settled(time_ns, now) for time_ns in stamp):
            self._keep(key, _Kept(stamp, children))
        elif kept is not None:
            with self._lock:
                self._drop(key)
        return children

    def _keep(self, key: tuple[int, int], kept: _Kept) -> None:
        with self._lock:
            self._drop(key)
            self._kept[key] = kept
            self.names += _count(kept.children)
            while self.names > self._max_names and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[int, int]) -> None:
        if (kept := self._kept.pop(key, None)) is not None:
            self.names -= _count(kept.children)


def _count(children: Children) -> int:
    return len(children.shares) + len(children.long)


def is_settled(stamp: int, now: int) -> bool:
    """Whether a change from now on leaves another stamp."""
    return stamp + (_TICK_NS if stamp % _SECOND_NS else _COARSE_NS) < now
