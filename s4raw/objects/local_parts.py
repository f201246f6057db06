"""Multipart uploads in a data directory: the parts are written where they will lie in the object.

Parts of one size, as nearly all clients send them, lie in one file, which becomes the object as it is; the others are
copied into it, or with it into another one, in the kernel. The files are those of ``upload_files``: nothing is kept in
memory, any process may take any part, and one that is killed at any moment leaves the upload as it was, or the object.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from s4raw.blocks import Record
from s4raw.digest import LEAF, Digest, digest_file
from s4raw.disk import disk_errors
from s4raw.errors import Busy, Corrupt, DiskFull, InvalidPart, NoSuchUpload, S4Error
from s4raw.keys import Key, check_key
from s4raw.objects import publishing, upload_files
from s4raw.objects.base import ALWAYS, MAX_PARTS, Attributes, Conditions, Info, Part, Query, Source, Upload, UploadPage
from s4raw.objects.filling import copy_bytes, receive
from s4raw.objects.locks import DIRECTORY
from s4raw.objects.paging import roll_up_uploads
from s4raw.objects.upload_files import PartRecord, UploadFiles
from s4raw.store import Store

PLACE = f"{DIRECTORY}/uploads"
KEEP_SECONDS = 7 * 24 * 3600.0  # of an upload that nobody touches
SWEEP_SECONDS = 3600.0  # from one sweep to the next, as uploads begin
_WAIT_SECONDS = 2.0  # for a part that still comes in when its upload is completed


class PublishParts(Protocol):
    """Where the objects that are made of parts go."""

    def look(self, key: Key, conditions: Conditions) -> None:
        """Raises what ``publish`` would raise by now."""

    def publish(self, fd: int, key: Key, record: Record, attributes: Attributes, conditions: Conditions) -> Info:
        """Make a file that nobody writes to any more the object. What it raises leaves the upload as it was."""


class _StoreObjects:
    """The objects of the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def look(self, key: Key, conditions: Conditions) -> None:
        publishing.look(self._store, key, conditions)

    def publish(self, fd: int, key: Key, record: Record, attributes: Attributes, conditions: Conditions) -> Info:
        return publishing.publish(self._store, fd, key, record, attributes, conditions)


class LocalUploads:
    """The multipart uploads of a store. Methods are those of ``objects.base.Backend``; buckets are the caller's."""

    def __init__(self, store: Store, keep_seconds: float = KEEP_SECONDS, *, into: PublishParts | None = None) -> None:
        """Sweeps what was left behind. Raises StoreError. ``into`` is where objects go: None for the store itself."""
        self._store = store
        self._into: PublishParts = into or _StoreObjects(store)
        self._root = f"{store.data.path}/{PLACE}"
        self._keep_seconds = keep_seconds
        with disk_errors():
            os.makedirs(self._root, exist_ok=True)
        self.sweep()

    def _path(self, upload: str) -> str:
        if not upload_files.is_id(upload):
            raise NoSuchUpload(f"there is no upload {upload[:80]!r}")
        return f"{self._root}/{upload}"

    def create(self, key: Key, attributes: Attributes, checksum_algorithm: str = "") -> str:
        """Begin an upload; its id. Raises BadKey, DiskFull."""
        check_key(key)
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self.sweep()
        upload = upload_files.new_id()
        prepared = f"{self._store.data.tmp_path}/upload-{upload}"
        with disk_errors(key):
            os.mkdir(prepared, 0o700)
            try:
                upload_files.write_new(prepared, Upload(key, upload, time.time_ns(), attributes, checksum_algorithm))
                os.rename(prepared, self._path(upload))
            except BaseException:
                upload_files.discard(prepared)
                raise
        return upload

    def upload(self, key: Key, upload: str) -> Upload:
        """What is known of an upload. Raises NoSuchUpload."""
        found = upload_files.read_upload(self._path(upload), upload)
        if found is None or found.key != key:
            raise NoSuchUpload(f"there is no upload {upload}", key=str(key))
        return found

    def put_part(self, key: Key, upload: str, number: int, source: Source) -> Part:
        """Store a part, in place of what has the number.

        Raises InvalidPart for a number that no part has, DiskFull, Busy when completing made use of its place.
        """
        self.upload(key, upload)
        if not 1 <= number <= MAX_PARTS:
            raise InvalidPart(f"parts have numbers from 1 to {MAX_PARTS}, not {number}", key=str(key))
        size = source.size
        if size is not None:
            self._check_room(size)
        with UploadFiles(self._path(upload)) as files:
            at = None
            if size is not None:
                with files.locked():
                    at = files.take_slot(number, size, number == 1 or size % LEAF == 0)
            if at is None:
                return _put_apart(files, key, number, source)
            return _put_in_slot(files, key, number, source, at)

    def _check_room(self, size: int) -> None:
        disk = os.statvfs(self._store.data.root)
        if size > disk.f_bavail * disk.f_frsize:
            raise DiskFull(f"the disk has room for {disk.f_bavail * disk.f_frsize} bytes, the part has {size}")

    def parts(self, key: Key, upload: str, after: int = 0, limit: int = MAX_PARTS) -> Sequence[Part]:
        """The parts that are there, by number, at most ``limit`` of those above ``after``."""
        self.upload(key, upload)
        with UploadFiles(self._path(upload)) as files:
            records = files.records()
        return [records[number].part for number in sorted(records) if number > after][: max(0, limit)]

    def complete(
        self, key: Key, upload: str, parts: Sequence[Part], attributes: Attributes, conditions: Conditions = ALWAYS
    ) -> Info:
        """Make the parts, joined in this order, the object.

        Raises NoSuchUpload, InvalidPart, and what ``publishing.publish`` does; then the upload is as it was.
        """
        self.upload(key, upload)
        with UploadFiles(self._path(upload)) as files, files.locked():
            records = files.records()
            chosen = []
            for part in parts:
                record = records.get(part.number)
                if record is None or record.part.etag != part.etag:
                    raise InvalidPart(f"part {part.number} is not there, or is another one by now", key=str(key))
                chosen.append(record)
            self._into.look(key, conditions)  # before the work; publishing asks again, with the key's lock
            if _lie_right(files, chosen, records) and files.have_data_alone(_WAIT_SECONDS):
                files.lose_slots(records)
                info = self._publish(files, files.data, key, chosen, attributes, conditions)
            else:
                with self._store.draft() as fd:
                    info = self._publish(files, fd, key, chosen, attributes, conditions)
            with suppress(S4Error):  # what is left is swept
                files.remove()
            return info

    def _publish(
        self,
        files: UploadFiles,
        fd: int,
        key: Key,
        chosen: Sequence[PartRecord],
        attributes: Attributes,
        conditions: Conditions,
    ) -> Info:
        """Join the parts in ``fd``, which may hold those that lie in slots already, and publish it."""
        total = _join(files, fd, key, chosen)
        with disk_errors(key):
            if os.fstat(fd).st_size < total:
                raise Corrupt("the parts of the upload are shorter than they were", key=str(key))
            os.ftruncate(fd, total)
            record = _record(fd, chosen, total)
            os.utime(fd)
        return self._into.publish(fd, key, record, attributes, conditions)

    def abort(self, key: Key, upload: str) -> None:
        """Throw an upload away. Raises NoSuchUpload."""
        self.upload(key, upload)
        with UploadFiles(self._path(upload)) as files, files.locked():
            files.remove()

    def abort_all(self, bucket: str, before_ns: int) -> None:
        """Throw away the uploads in a bucket that were begun before a moment."""
        for found in self._all(bucket):
            if found.created_ns < before_ns:
                with suppress(NoSuchUpload):
                    self.abort(found.key, found.id)

    def uploads(self, bucket: str, query: Query, after_upload: str = "") -> UploadPage:
        """The uploads under way in a bucket, by key, then by id."""
        found = sorted(self._all(bucket), key=lambda upload: (upload.key.name, upload.id))
        return roll_up_uploads(found, query, after_upload)

    def _all(self, bucket: str) -> Iterator[Upload]:
        with disk_errors():
            names = os.listdir(self._root)
        for name in names:
            with suppress(Corrupt):
                found = upload_files.read_upload(f"{self._root}/{name}", name) if upload_files.is_id(name) else None
                if found is not None and found.key.bucket == bucket:
                    yield found

    def sweep(self) -> int:
        """Remove uploads that nobody has touched for long, and what is left of those that ended; how many."""
        self._swept = time.monotonic()
        count = 0
        with disk_errors():
            names = os.listdir(self._root)
        for name in names:
            count += upload_files.sweep(f"{self._root}/{name}", self._keep_seconds)
        return count


def _put_in_slot(files: UploadFiles, key: Key, number: int, source: Source, at: int) -> Part:
    try:
        state = receive(files.data, source, key, at, files.unit())
        part = _part(number, state, source.seal())
        files.release_data()
        with files.locked():
            if files.is_lost(number):
                raise Busy("the upload was being completed meanwhile: put the part again", key=str(key))
            files.record(PartRecord(part, "", state.leaves()))
        return part
    except BaseException:
        files.release_data()
        with suppress(S4Error), files.locked():
            files.give_slot_back(number)
        raise


def _put_apart(files: UploadFiles, key: Key, number: int, source: Source) -> Part:
    with files.draft() as fd:
        state = receive(fd, source, key, 0)
        part = _part(number, state, source.seal())
        with files.locked():
            files.record_apart(fd, part, state.leaves())
    return part


def _part(number: int, state: Digest, sealed: Attributes) -> Part:
    return Part(number, state.size, sealed.etag, dict(sealed.checksums), time.time_ns())


def _lie_right(files: UploadFiles, chosen: Sequence[PartRecord], records: dict[int, PartRecord]) -> bool:
    """Whether the parts in slots lie where they will in the object, and no part lies in a slot that is not in it."""
    unit, offset = files.unit(), 0
    for record in chosen:
        if not record.file and offset != (record.part.number - 1) * unit:
            return False
        offset += record.part.size
    named = {record.part.number for record in chosen}
    return all(record.file or number in named for number, record in records.items())


def _join(files: UploadFiles, fd: int, key: Key, chosen: Sequence[PartRecord]) -> int:
    """Copy to ``fd`` the parts that are not in it yet, each to its place; the bytes of all."""
    unit, offset = files.unit(), 0
    for record in chosen:
        size, begin = record.part.size, (record.part.number - 1) * unit
        if record.file:
            with files.open_apart(record.file) as apart:
                copy_bytes(apart, fd, 0, size, key, offset)
        elif fd != files.data:
            copy_bytes(files.data, fd, begin, begin + size, key, offset)
        offset += size
    return offset


def _record(fd: int, chosen: Sequence[PartRecord], total: int) -> Record:
    """The record of the joined parts, from their leaves' digests if all but the last consist of whole leaves."""
    filled = [record for record in chosen if record.part.size]
    if filled and all(record.part.size % LEAF == 0 for record in filled[:-1]):
        return Record.of_leaves(total, b"".join([record.leaves for record in filled]))
    return Record.of(digest_file(fd, 0, total))
