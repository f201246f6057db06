"""Objects in a data directory: each is a key of the store, so that the ring's verbs see it, and a file like any other.

What an object has beside its bytes, and how it is replaced, is in ``attributes`` and ``publishing``; multipart uploads
are ``local_parts``, listings ``local_listing``. What is kept in memory (``remembered``) counts only while the file is
as it was: any process of a server may do anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from s4raw.blocks import Record
from s4raw.disk import DataDirectory
from s4raw.errors import NoSuchBucket, NoSuchKey, NoSuchUpload
from s4raw.keys import Key, check_key
from s4raw.objects import buckets, locks, publishing, sidecars
from s4raw.objects.base import (
    ALWAYS,
    MAX_PARTS,
    Attributes,
    Bucket,
    Conditions,
    Info,
    Page,
    Part,
    Query,
    Range,
    Source,
    Upload,
    UploadPage,
)
from s4raw.objects.filling import copy_bytes, receive
from s4raw.objects.local_listing import list_page
from s4raw.objects.local_parts import LocalUploads
from s4raw.objects.reading import FileReading
from s4raw.store import Store


class LocalReading(FileReading):
    """An open object, with the record of its bytes."""

    __slots__ = ("record",)

    def __init__(self, fd: int, record: Record, info: Info, start: int, end: int) -> None:
        super().__init__(fd, info, start, end)
        self.record = record


class LocalBackend:
    """A Backend (see ``objects.base`` for what its methods promise) over the store of a data directory."""

    def __init__(self, store: Store) -> None:
        """Raises DiskFull, StoreError. To be called before the server has several processes."""
        self.store = store
        self._data: DataDirectory | None = None
        locks.prepare(store)
        sidecars.sweep(store)
        self._uploads = LocalUploads(store)

    def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        return buckets.all_of(self.store)

    def create_bucket(self, name: str) -> bool:
        """Make a bucket; False when it was there already, or when the ring has keys in it. Raises BadKey."""
        return buckets.create(self.store, name)

    def bucket(self, name: str) -> Bucket:
        """A bucket."""
        return buckets.get(self.store, name)

    def tag_bucket(self, name: str, tags: Mapping[str, str]) -> None:
        """Replace a bucket's tags."""
        buckets.tag(self.store, name, tags)

    def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket, and the uploads that are under way in it."""
        deleted_ns = buckets.delete(self.store, name)
        self._uploads.abort_all(name, deleted_ns)  # not those of a bucket that has its name since

    def list(self, bucket: str, query: Query) -> Page:
        """A page of a bucket's objects."""
        buckets.get(self.store, bucket)
        return list_page(self.store, bucket, query)

    def head(self, key: Key, conditions: Conditions = ALWAYS) -> Info:
        """An object without its bytes."""
        found = self._find(key)
        os.close(found.fd)
        if conditions is not ALWAYS:
            conditions.check(found.info)
        return found.info

    def get(self, key: Key, wanted: Range | None = None, conditions: Conditions = ALWAYS) -> LocalReading:
        """Open an object, or a range of it."""
        fd, record, info, _ = self._find(key)
        try:
            if conditions is not ALWAYS:
                conditions.check(info)
            start, end = (0, info.size) if wanted is None else wanted.resolve(info)
            return LocalReading(fd, record, info, start, end)
        except BaseException:
            os.close(fd)
            raise

    def _find(self, key: Key) -> publishing.Found:
        """An open object. Raises NoSuchBucket, NoSuchKey."""
        try:
            return publishing.find(self.store, key)
        except NoSuchKey:
            buckets.get(self.store, key.bucket)
            raise

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        """Store an object, in place of what has the key."""
        store = self.store
        self._check_target(key, conditions)
        with store.draft() as fd:
            record = Record.of(receive(fd, source, key))
            return publishing.publish(store, fd, key, record, source.seal(), conditions)

    def _check_target(self, key: Key, conditions: Conditions) -> None:
        """Tell early what would be told after the body: that there is no such bucket, that a condition does not hold.

        It is asked again, then with the key's lock.
        """
        check_key(key)
        buckets.keep(self.store, key.bucket)
        publishing.look(self.store, key, conditions)

    def copy(
        self,
        source: Key,
        target: Key,
        attributes: Attributes | None = None,
        source_conditions: Conditions = ALWAYS,
        conditions: Conditions = ALWAYS,
    ) -> Info:
        """Copy an object's bytes, in the kernel, with its attributes or with others."""
        found = self._find(source)
        try:
            source_conditions.check(found.info, reading=False)
            self._check_target(target, conditions)
            with self.store.draft() as fd:
                copy_bytes(found.fd, fd, 0, found.record.size, target)
                own = found.info.attributes if attributes is None else attributes
                return publishing.publish(self.store, fd, target, found.record, own, conditions)
        finally:
            os.close(found.fd)

    def tag(self, key: Key, tags: Mapping[str, str]) -> None:
        """Replace an object's tags; its time stays."""
        try:
            publishing.tag(self.store, key, tags)
        except NoSuchKey:
            buckets.get(self.store, key.bucket)
            raise

    def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
        """Delete an object; whether there was one."""
        return publishing.delete(self.store, key, conditions)

    def create_upload(self, key: Key, attributes: Attributes, checksum_algorithm: str = "") -> str:
        """Begin a multipart upload; its id."""
        buckets.keep(self.store, check_key(key).bucket)
        upload = self._uploads.create(key, attributes, checksum_algorithm)
        try:
            buckets.keep(self.store, key.bucket)
        except NoSuchBucket:  # deleted in between; its uploads may have been thrown away before this one was there
            with suppress(NoSuchUpload):
                self._uploads.abort(key, upload)
            raise
        return upload

    def upload(self, key: Key, upload: str) -> Upload:
        """What is known of an upload."""
        self.bucket(key.bucket)
        return self._uploads.upload(key, upload)

    def put_part(self, key: Key, upload: str, number: int, source: Source) -> Part:
        """Store a part, in place of what has the number."""
        self.bucket(key.bucket)
        return self._uploads.put_part(key, upload, number, source)

    def parts(self, key: Key, upload: str, after: int = 0, limit: int = MAX_PARTS) -> Sequence[Part]:
        """The parts that are there, by number, at most ``limit`` of those above ``after``."""
        self.bucket(key.bucket)
        return self._uploads.parts(key, upload, after, limit)

    def complete(
        self, key: Key, upload: str, parts: Sequence[Part], attributes: Attributes, conditions: Conditions = ALWAYS
    ) -> Info:
        """Make the parts, joined in this order, the object."""
        self.bucket(key.bucket)
        return self._uploads.complete(key, upload, parts, attributes, conditions)

    def abort(self, key: Key, upload: str) -> None:
        """Throw an upload away."""
        self.bucket(key.bucket)
        self._uploads.abort(key, upload)

    def uploads(self, bucket: str, query: Query, after_upload: str = "") -> UploadPage:
        """The uploads under way in a bucket, by key, then by id."""
        self.bucket(bucket)
        return self._uploads.uploads(bucket, query, after_upload)

    def close(self) -> None:
        """Close the data directory, if it was opened for this backend."""
        if self._data is not None:
            self._data.close()
            self._data = None


def open_local(path: str) -> LocalBackend:
    """The objects in a data directory, which is made if need be. Raises ConfError when it is in use or unfit."""
    data = DataDirectory(path)
    try:
        backend = LocalBackend(Store(data))
        backend._data = data
        return backend
    except BaseException:
        data.close()
        raise
