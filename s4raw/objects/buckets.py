"""Buckets: a file each, ``_s3/buckets/<bucket>``, and any directory of the ring's that holds a key.

The file says when the bucket was made, and its tags. A bucket of the ring's gets one once it is used as one of S3's:
from then on it stays when its last key goes. A bucket is deleted under the lock on all of its keys, and a key is
published under its own, so no key comes to lie in a bucket that has just been deleted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from s4raw import tree, walking
from s4raw.disk import disk_errors
from s4raw.errors import BadKey, BucketNotEmpty, NoSuchBucket
from s4raw.keys import Key, check_key
from s4raw.objects import locks
from s4raw.objects.base import Bucket
from s4raw.objects.locks import DIRECTORY, prepare
from s4raw.store import Store

PLACE = f"{DIRECTORY}/buckets"


def all_of(store: Store) -> Sequence[Bucket]:
    """All buckets, in order of their names' UTF-8 bytes."""
    found = {entry.name: Bucket(entry.name, entry.mtime_ns) for entry in store.buckets()}
    with suppress(FileNotFoundError), disk_errors():
        for name in os.listdir(os.path.join(store.data.path, PLACE)):
            if (bucket := _read(store, name)) is not None:
                found[name] = bucket
    return [found[name] for name in sorted(found)]


def create(store: Store, name: str) -> bool:
    """Make a bucket; False when it is there. Raises BadKey."""
    check_key(Key(name, "name"))
    there = holds_key(store, name)
    return _write_new(store, name, _created(store, name) if there else time.time_ns()) and not there


def get(store: Store, name: str) -> Bucket:
    """A bucket. Raises NoSuchBucket."""
    _check(name)
    if (bucket := _read(store, name)) is not None:
        return bucket
    if holds_key(store, name):
        return Bucket(name, _created(store, name))
    raise _no_such(name)


def keep(store: Store, name: str) -> None:
    """Make sure that a bucket of a valid name is there, and that it stays without a key. Raises NoSuchBucket."""
    if not os.access(f"{PLACE}/{name}", os.F_OK, dir_fd=store.data.root):  # whatever is wrong, it is told now
        _write_new(store, name, get(store, name).created_ns)


def tag(store: Store, name: str, tags: Mapping[str, str]) -> None:
    """Replace a bucket's tags. Raises NoSuchBucket."""
    _check(name)
    with locks.of_bucket(store, name):
        bucket = get(store, name)
        keep(store, name)
        _replace(store, bucket._replace(tags=tags))


def delete(store: Store, name: str) -> int:
    """Delete a bucket; when that was, in ns. Raises NoSuchBucket, BucketNotEmpty."""
    _check(name)
    with locks.of_bucket(store, name):
        get(store, name)
        if holds_key(store, name):
            raise BucketNotEmpty("the bucket is not empty", key=str(Key(name, "")))
        deleted_ns = time.time_ns()
        with suppress(FileNotFoundError), disk_errors():
            os.unlink(f"{PLACE}/{name}", dir_fd=store.data.root)
        return deleted_ns


def holds_key(store: Store, name: str) -> bool:
    """Whether the store has a key in a bucket: directories are read only until there is one."""
    with disk_errors():
        return walking.holds_key(store.data.root, name)


def _check(name: str) -> None:
    """Check that the store can have such a bucket. Raises NoSuchBucket."""
    try:
        check_key(Key(name, "name"))
    except BadKey:
        raise _no_such(name) from None


def _no_such(name: str) -> NoSuchBucket:
    return NoSuchBucket(f"there is no bucket {name!r}")


def _created(store: Store, name: str) -> int:
    try:
        with disk_errors():
            return max(0, os.stat(name, dir_fd=store.data.root).st_mtime_ns)
    except FileNotFoundError:
        return time.time_ns()


def _read(store: Store, name: str) -> Bucket | None:
    try:
        with disk_errors(), open(os.open(f"{PLACE}/{name}", tree.FILE, dir_fd=store.data.root), "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(raw)
        return Bucket(name, int(fields["created_ns"]), fields["tags"])
    except (ValueError, TypeError, KeyError):
        return Bucket(name, _created(store, name))  # damaged: the bucket is there, all the same


def _encode(bucket: Bucket) -> bytes:
    return json.dumps({"created_ns": bucket.created_ns, "tags": dict(bucket.tags)}).encode("ascii") + b"\n"


def _write_new(store: Store, name: str, created_ns: int) -> bool:
    """Write a bucket's file in one step, unless there is one."""
    with disk_errors(), store.draft() as fd:
        os.write(fd, _encode(Bucket(name, created_ns)))
        os.fchmod(fd, 0o644)
        for _ in range(2):
            try:
                os.link(f"/proc/self/fd/{fd}", f"{PLACE}/{name}", src_dir_fd=fd, dst_dir_fd=store.data.root)
                return True
            except FileExistsError:
                return False
            except FileNotFoundError:
                prepare(store)
        raise FileNotFoundError(PLACE)


def _replace(store: Store, bucket: Bucket) -> None:
    name = f"bucket-{os.urandom(8).hex()}"
    with disk_errors(), store.draft() as fd:
        os.write(fd, _encode(bucket))
        os.fchmod(fd, 0o644)
        os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd, dst_dir_fd=store.data.tmp)
        try:
            os.rename(name, f"{PLACE}/{bucket.name}", src_dir_fd=store.data.tmp, dst_dir_fd=store.data.root)
        except BaseException:
            os.unlink(name, dir_fd=store.data.tmp)
            raise
