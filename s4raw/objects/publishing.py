"""How an object comes to be, is found, changes and goes: one step on the disk each, under the key's lock.

An object is a key of the store, with attributes (see ``attributes``). What is decided by conditions is decided under
the lock, which is the same for all threads and processes that serve S3. The ring's own verbs do not take it: they never
replace a key, and an object that one of them deletes was there, or was not, for whoever looked.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from s4raw.blocks import Record
from s4raw.disk import disk_error, disk_errors
from s4raw.errors import DiskFull, KeyExists, NoSuchKey, S4Error, StoreError
from s4raw.keys import Key, check_key
from s4raw.objects import attributes as codec
from s4raw.objects import buckets, locks, sidecars
from s4raw.objects.base import ALWAYS, Attributes, Conditions, Info
from s4raw.objects.remembered import Remembered
from s4raw.store import RECORD_ATTRIBUTE, Store

_DRAFT_MODE, _KEY_MODE = 0o600, 0o444
_RACES = 1000  # how often a step that lost a race is tried again


class Found(NamedTuple):
    """An object that is open. Whoever asked for it closes ``fd``."""

    fd: int
    record: Record
    info: Info
    sidecar: str  # the name of the one that it has, if it has one


_remembered = Remembered()  # by device and inode, so it serves every store of this process


def find(store: Store, key: Key, remembered: Remembered = _remembered) -> Found:
    """Open an object. Raises NoSuchKey, Corrupt, StoreError."""
    for _ in range(_RACES):
        fd, status, path = store.open_file(key)
        if (known := remembered.get(status)) is not None:
            return Found(fd, *known, "")
        now_ns = time.time_ns()
        _, record, mtime_ns, _ = store.read_record(fd, status, path, key)
        try:
            found = attributes_of(store, fd, record)
            if found is not None:
                info = Info(record.size, mtime_ns, found[0])
                if not found[1]:
                    remembered.keep(status, now_ns, record, info)
                return Found(fd, record, info, found[1])
            os.close(fd)  # replaced or deleted since it was opened, its attributes have gone already
        except BaseException as error:
            os.close(fd)
            if isinstance(error, S4Error):
                error.at(key=str(key))
            raise
    raise StoreError("gave up: the object changed again and again", key=str(key))


def attributes_of(store: Store, fd: int, record: Record) -> tuple[Attributes, str] | None:
    """The attributes of an open key, and the name of its sidecar if it has one. Raises Corrupt, StoreError.

    None when it was replaced or deleted meanwhile. Of a sidecar that was lost the object's ETag and checksums are left.
    """
    before = ""
    for _ in range(_RACES):
        found, sidecar = codec.unseal(_sealed(fd), record)
        if not sidecar:
            return found, ""
        status = os.fstat(fd)
        if sidecars.inode_of(sidecar) != status.st_ino:
            return found, ""  # somebody has copied the file, with its extended attributes
        if (encoded := sidecars.read(store, sidecar)) is not None:
            return codec.decode(encoded), sidecar
        if not status.st_nlink:
            return None
        if sidecar == before:
            return found, sidecar
        before = sidecar
    raise StoreError("gave up: the object's attributes changed again and again")


def _sealed(fd: int) -> bytes | None:
    try:
        return os.getxattr(fd, codec.ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise disk_error(error) from error


def publish(
    store: Store, fd: int, key: Key, record: Record, attributes: Attributes, conditions: Conditions = ALWAYS
) -> Info:
    """Make the file behind ``fd`` the object, in place of what has the key, in one step.

    ``fd`` may be a draft, or any file of the store's disk that nobody writes to any more; ``record`` is that of its
    content. Raises NoSuchBucket, PreconditionFailed, BadKey, DiskFull, StoreError; then nothing has changed.
    """
    check_key(key)
    with disk_errors(key):
        status = os.fstat(fd)
        _summarize(fd, status.st_ino, record, attributes)  # first, for it is to have room in the inode
        os.setxattr(fd, RECORD_ATTRIBUTE, record.encode())  # must find room; the attributes have somewhere else to go
    sidecar = _attach(store, fd, status.st_ino, key, record, attributes, _DRAFT_MODE)
    try:
        with locks.of_key(store, key):
            buckets.keep(store, key.bucket)
            replaced = _put(store, fd, key, conditions)
    except BaseException:
        sidecars.remove(store, sidecar)
        with suppress(OSError):
            os.fchmod(fd, _DRAFT_MODE)  # somebody may try once more
        raise
    sidecars.remove(store, replaced)
    return Info(record.size, max(0, status.st_mtime_ns), attributes)


def _put(store: Store, fd: int, key: Key, conditions: Conditions) -> str:
    """Publish or replace a file that has its record; the name of the sidecar of what was replaced, if it had one."""
    for _ in range(_RACES):
        if conditions is not ALWAYS or not store.seems_free(key):
            try:
                sidecar = _look(store, key, conditions)
            except NoSuchKey:
                conditions.check(None, reading=False)
            else:
                store.replace(fd, key, None)
                return sidecar
        try:
            store.publish(fd, key, None)
            return ""
        except KeyExists:  # by the ring's own verbs, in between
            os.fchmod(fd, _DRAFT_MODE)
    raise StoreError("gave up: the key came and went again and again", key=str(key))


def look(store: Store, key: Key, conditions: Conditions) -> None:
    """Raise what ``publish`` would now, so that it can be told before the work: PreconditionFailed, NoSuchKey."""
    if conditions is not ALWAYS:
        try:
            _look(store, key, conditions)
        except NoSuchKey:
            conditions.check(None, reading=False)


def _look(store: Store, key: Key, conditions: Conditions) -> str:
    """The sidecar of an object that fulfils conditions. Raises NoSuchKey, PreconditionFailed.

    A damaged object may be replaced and deleted, unless there are conditions: then Corrupt.
    """
    if conditions is ALWAYS:
        fd, status, _ = store.open_file(key)
        try:
            sidecar = codec.sidecar_of(_sealed(fd))
        finally:
            os.close(fd)
        return sidecar if sidecars.inode_of(sidecar) == status.st_ino else ""
    found = find(store, key)
    os.close(found.fd)
    conditions.check(found.info, reading=False)
    return found.sidecar


def _attach(store: Store, fd: int, inode: int, key: Key, record: Record, attributes: Attributes, mode: int) -> str:
    """Write an object's attributes to its file; the name of their sidecar, if they need one. Raises DiskFull.

    The file has ``mode`` afterwards, or the one it had.
    """
    encoded = codec.encode(attributes)
    if len(encoded) <= codec.INLINE_BYTES:
        with suppress(DiskFull), disk_errors(key):  # ext4 with blocks of 1 KiB has less room for extended attributes
            _set(fd, codec.seal(encoded, record, inode), mode)
            return ""
    sidecar = sidecars.write(store, key, inode, encoded)
    try:
        with disk_errors(key):
            _set(fd, codec.seal_reference(attributes, record, sidecar), mode)
    except BaseException:
        sidecars.remove(store, sidecar)
        raise
    return sidecar


def _summarize(fd: int, inode: int, record: Record, attributes: Attributes) -> None:
    """Write what listings show of an object that is about to be."""
    summary = codec.summarize(attributes, inode, record.size)
    if summary is None:
        with suppress(OSError):
            os.removexattr(fd, codec.SUMMARY)
        return
    try:
        os.setxattr(fd, codec.SUMMARY, summary)
    except PermissionError:  # the file is read-only since an attempt that failed
        os.fchmod(fd, _DRAFT_MODE)
        os.setxattr(fd, codec.SUMMARY, summary)


def _set(fd: int, sealed: bytes, mode: int) -> None:
    """Set the extended attribute, also of a file that is read-only, which only root may do without more ado."""
    try:
        os.setxattr(fd, codec.ATTRIBUTE, sealed)
    except PermissionError:
        os.fchmod(fd, _DRAFT_MODE | mode)
        try:
            os.setxattr(fd, codec.ATTRIBUTE, sealed)
        finally:
            os.fchmod(fd, mode)


def tag(store: Store, key: Key, tags: Mapping[str, str]) -> None:
    """Replace an object's tags. Raises NoSuchKey."""
    check_key(key)
    with locks.of_key(store, key):
        found = find(store, key)
        try:
            with disk_errors(key):
                inode = os.fstat(found.fd).st_ino
            _attach(store, found.fd, inode, key, found.record, found.info.attributes._replace(tags=tags), _KEY_MODE)
            sidecars.remove(store, found.sidecar)
        finally:
            os.close(found.fd)


def delete(store: Store, key: Key, conditions: Conditions = ALWAYS) -> bool:
    """Delete an object; whether there was one. Raises NoSuchBucket, PreconditionFailed."""
    check_key(key)
    with locks.of_key(store, key):
        buckets.keep(store, key.bucket)
        try:
            sidecar = _look(store, key, conditions)
            store.remove(key)
        except NoSuchKey:
            return False
        sidecars.remove(store, sidecar)
    return True
