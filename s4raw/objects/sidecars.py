"""Attributes that are too long for an extended attribute: files of their own, which the extended attribute names.

    _s3/attributes/<inode in hex>-<random>    {"bucket": ..., "name": ...}, a newline, the attributes

One is written before its object is published, and removed once the object is replaced or deleted. What a crash or the
ring's own ``rm`` leaves behind is swept when the backend opens: a sidecar tells which key it was written for, and by
the inode a key that the ring has moved since is found again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container
from contextlib import suppress

from s4raw import layout, tree
from s4raw.blocks import Record
from s4raw.disk import disk_errors
from s4raw.errors import Corrupt, S4Error
from s4raw.keys import Key
from s4raw.objects.attributes import ATTRIBUTE, unseal
from s4raw.objects.locks import DIRECTORY, prepare
from s4raw.store import RECORD_ATTRIBUTE, Store

PLACE = f"{DIRECTORY}/attributes"


def write(store: Store, key: Key, inode: int, encoded: bytes) -> str:
    """Write the attributes of the object that will have this inode; the sidecar's name. Raises DiskFull."""
    name = f"{inode:x}-{os.urandom(8).hex()}"
    _write(store, name, key, encoded)
    return name


def _write(store: Store, name: str, key: Key, encoded: bytes) -> None:
    """Write a sidecar, or write it anew: it is the old or the new one at any moment."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    root, tmp = store.data.root, store.data.tmp
    with disk_errors(key):
        try:
            with open(os.open(name, flags, 0o644, dir_fd=tmp), "wb") as file:
                file.write(json.dumps(key._asdict()).encode("ascii") + b"\n" + encoded)
            try:
                os.rename(name, f"{PLACE}/{name}", src_dir_fd=tmp, dst_dir_fd=root)
            except FileNotFoundError:
                prepare(store)
                os.rename(name, f"{PLACE}/{name}", src_dir_fd=tmp, dst_dir_fd=root)
        except BaseException:
            with suppress(OSError):
                os.unlink(name, dir_fd=tmp)
            raise


def read(store: Store, name: str) -> bytes | None:
    """The attributes in a sidecar; None when it has gone, with its object or after a tag was set. Raises Corrupt."""
    found = _read(store, name)
    return None if found is None else found[1]


def _read(store: Store, name: str) -> tuple[Key, bytes] | None:
    try:
        with disk_errors():
            fd = os.open(f"{PLACE}/{name}", tree.FILE, dir_fd=store.data.root)
            with open(fd, "rb", closefd=True) as file:
                head, _, encoded = file.read().partition(b"\n")
    except FileNotFoundError:
        return None
    try:
        return Key(**json.loads(head)), encoded
    except (ValueError, TypeError):
        raise Corrupt(f"the attributes in {PLACE}/{name} are damaged") from None


def remove(store: Store, name: str) -> None:
    """Remove a sidecar; with an empty name, none."""
    if name:
        with suppress(OSError):
            os.unlink(f"{PLACE}/{name}", dir_fd=store.data.root)


def inode_of(name: str) -> int:
    """The inode of the object that a sidecar was written for; 0 if it is none's."""
    try:
        return int(name.partition("-")[0], 16)
    except ValueError:
        return 0


def sweep(store: Store) -> int:
    """Remove the sidecars that no object refers to; how many. Nobody else uses the store yet."""
    try:
        names = os.listdir(os.path.join(store.data.path, PLACE))
    except FileNotFoundError:
        return 0
    lost: dict[int, list[str]] = {}
    for name in names:
        key = _key(store, name)
        if key is None or _refers(store, key, name) is False:
            lost.setdefault(inode_of(name), []).append(name)
    moved = _moved(store, lost) if lost else {}
    count = 0
    for inode, old in lost.items():
        for name in old:
            if inode in moved and _keep(store, moved[inode], name):
                continue
            remove(store, name)
            count += 1
    return count


def _key(store: Store, name: str) -> Key | None:
    try:
        found = _read(store, name)
    except S4Error:
        return None
    return found[0] if found else None


def _refers(store: Store, key: Key, name: str) -> bool:
    """Whether a key's file names this sidecar."""
    try:
        path = store.path(key)
        record = Record.decode(os.getxattr(path, RECORD_ATTRIBUTE))
        return unseal(os.getxattr(path, ATTRIBUTE), record)[1] == name
    except (OSError, S4Error):
        return False


def _moved(store: Store, inodes: Container[int]) -> dict[int, Key]:
    """The keys whose files have these inodes, found by looking at the names of all there are."""
    found = {}
    for bucket in (entry.name for entry in store.buckets()):
        directories = [(os.path.join(store.data.path, bucket), "")]
        while directories:
            path, base = directories.pop()
            with suppress(OSError), os.scandir(path) as entries:  # pruned in between
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        directories.append((entry.path, base + layout.directory_prefix(entry.name)))
                    elif entry.inode() in inodes:
                        name = base[:-1] if entry.name == layout.SELF else base + layout.decode(entry.name)
                        found[entry.inode()] = Key(bucket, name)
    return found


def _keep(store: Store, key: Key, name: str) -> bool:
    """Write down where the object of a sidecar lies by now; whether it is its object at all."""
    if not _refers(store, key, name) or (found := _read(store, name)) is None:
        return False
    _write(store, name, key, found[1])
    return True
