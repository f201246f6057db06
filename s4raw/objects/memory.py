"""Objects in memory: the reference that says what every other backend does. Simple before fast; nothing is kept."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from s4raw.errors import BucketNotEmpty, InvalidPart, NoSuchBucket, NoSuchKey, NoSuchUpload
from s4raw.keys import Key, check_key
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
    copied,
)
from s4raw.objects.paging import listed, roll_up, roll_up_uploads

PIECE = 1 << 20


class MemoryReading:
    """An open object: bytes never change."""

    def __init__(self, info: Info, content: bytes, start: int, end: int) -> None:
        self.info = info
        self.start = start
        self.end = end
        self._content = memoryview(content)

    def pieces(self) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``end``, 1 MiB at a time."""
        for start in range(self.start, self.end, PIECE):
            yield self._content[start : min(start + PIECE, self.end)]

    def file(self) -> int | None:
        """None: there is no file."""
        return None

    def __enter__(self) -> MemoryReading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class _Bucket:
    """A bucket's objects and uploads."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.objects: dict[str, tuple[Info, bytes]] = {}
        self.uploads: dict[tuple[str, str], _Upload] = {}  # by name and id


class _Upload:
    """An upload and its parts, by number."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.parts: dict[int, tuple[Part, bytes]] = {}


class MemoryBackend:
    """A Backend (see ``objects.base`` for what its methods promise) in dictionaries, under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        self._count = 0  # of the uploads so far

    def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        with self._lock:
            return [self._buckets[name].bucket for name in sorted(self._buckets)]

    def create_bucket(self, name: str) -> bool:
        """Make a bucket; False when it was there already. Raises BadKey."""
        check_key(Key(name, "name"))
        with self._lock:
            if name in self._buckets:
                return False
            self._buckets[name] = _Bucket(Bucket(name, time.time_ns()))
            return True

    def bucket(self, name: str) -> Bucket:
        """A bucket."""
        with self._lock:
            return self._bucket(name).bucket

    def tag_bucket(self, name: str, tags: Mapping[str, str]) -> None:
        """Replace a bucket's tags."""
        with self._lock:
            bucket = self._bucket(name)
            bucket.bucket = bucket.bucket._replace(tags=dict(tags))

    def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket, and the uploads that are under way in it."""
        with self._lock:
            if self._bucket(name).objects:
                raise BucketNotEmpty(f"there are objects in the bucket {name}")
            del self._buckets[name]

    def list(self, bucket: str, query: Query) -> Page:
        """A page of a bucket's objects."""
        with self._lock:
            objects = self._bucket(bucket).objects
            names = sorted(objects)
            return roll_up(
                lambda start: iter(names[bisect_left(names, start) :]),
                lambda name: listed(name, objects[name][0]),
                query,
            )

    def head(self, key: Key, conditions: Conditions = ALWAYS) -> Info:
        """An object without its bytes."""
        with self._lock:
            info, _ = self._object(key)
            conditions.check(info)
            return info

    def get(self, key: Key, wanted: Range | None = None, conditions: Conditions = ALWAYS) -> MemoryReading:
        """Open an object, or a range of it."""
        with self._lock:
            info, content = self._object(key)
        conditions.check(info)
        start, end = wanted.resolve(info) if wanted is not None else (0, info.size)
        return MemoryReading(info, content, start, end)

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        """Store an object, in place of what has the key."""
        self.bucket(key.bucket)
        content, attributes = _receive(key, source)
        with self._lock:
            return self._store(key, content, attributes, conditions)

    def copy(
        self,
        source: Key,
        target: Key,
        attributes: Attributes | None = None,
        source_conditions: Conditions = ALWAYS,
        conditions: Conditions = ALWAYS,
    ) -> Info:
        """Copy an object's bytes, with its attributes or with others."""
        check_key(target)
        with self._lock:
            info, content = self._object(source)
            source_conditions.check(info, reading=False)
            return self._store(target, content, info.attributes if attributes is None else attributes, conditions)

    def tag(self, key: Key, tags: Mapping[str, str]) -> None:
        """Replace an object's tags; its time stays."""
        with self._lock:
            info, content = self._object(key)
            tagged = info._replace(attributes=info.attributes._replace(tags=dict(tags)))
            self._bucket(key.bucket).objects[key.name] = tagged, content

    def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
        """Delete an object; whether there was one."""
        with self._lock:
            objects = self._bucket(key.bucket).objects
            if key.name not in objects:
                return False
            conditions.check(objects[key.name][0], reading=False)
            del objects[key.name]
            return True

    def create_upload(self, key: Key, attributes: Attributes, checksum_algorithm: str = "") -> str:
        """Begin a multipart upload; its id."""
        check_key(key)
        with self._lock:
            bucket = self._bucket(key.bucket)
            self._count += 1
            upload = Upload(key, f"{self._count:016x}", time.time_ns(), copied(attributes), checksum_algorithm)
            bucket.uploads[key.name, upload.id] = _Upload(upload)
            return upload.id

    def upload(self, key: Key, upload: str) -> Upload:
        """What is known of an upload."""
        with self._lock:
            return self._upload(key, upload).upload

    def put_part(self, key: Key, upload: str, number: int, source: Source) -> Part:
        """Store a part, in place of what has the number."""
        self.upload(key, upload)
        content, sealed = _receive(key, source)
        part = Part(number, len(content), sealed.etag, dict(sealed.checksums), time.time_ns())
        with self._lock:
            self._upload(key, upload).parts[number] = part, content
        return part

    def parts(self, key: Key, upload: str, after: int = 0, limit: int = MAX_PARTS) -> Sequence[Part]:
        """The parts that are there, by number, at most ``limit`` of those above ``after``."""
        with self._lock:
            parts = self._upload(key, upload).parts
            return [parts[number][0] for number in sorted(parts) if number > after][:limit]

    def complete(
        self, key: Key, upload: str, parts: Sequence[Part], attributes: Attributes, conditions: Conditions = ALWAYS
    ) -> Info:
        """Make the parts, joined in this order, the object."""
        with self._lock:
            stored = self._upload(key, upload).parts
            for part in parts:
                if part.number not in stored or stored[part.number][0].etag != part.etag:
                    raise InvalidPart(f"part {part.number} is not there, or is another one by now", key=str(key))
            content = b"".join(stored[part.number][1] for part in parts)
            info = self._store(key, content, attributes, conditions)
            del self._bucket(key.bucket).uploads[key.name, upload]
            return info

    def abort(self, key: Key, upload: str) -> None:
        """Throw an upload away."""
        with self._lock:
            self._upload(key, upload)
            del self._bucket(key.bucket).uploads[key.name, upload]

    def uploads(self, bucket: str, query: Query, after_upload: str = "") -> UploadPage:
        """The uploads under way in a bucket, by key, then by id."""
        with self._lock:
            uploads = self._bucket(bucket).uploads
            return roll_up_uploads((uploads[at].upload for at in sorted(uploads)), query, after_upload)

    def close(self) -> None:
        """Nothing is held but memory."""

    # All below are called with the lock held.

    def _bucket(self, name: str) -> _Bucket:
        if name not in self._buckets:
            raise NoSuchBucket(f"there is no bucket {name!r}")
        return self._buckets[name]

    def _object(self, key: Key) -> tuple[Info, bytes]:
        objects = self._bucket(key.bucket).objects
        if key.name not in objects:
            raise NoSuchKey("nothing is stored under the key", key=str(key))
        return objects[key.name]

    def _upload(self, key: Key, upload: str) -> _Upload:
        uploads = self._bucket(key.bucket).uploads
        if (key.name, upload) not in uploads:
            raise NoSuchUpload(f"there is no upload {upload!r}", key=str(key))
        return uploads[key.name, upload]

    def _store(self, key: Key, content: bytes, attributes: Attributes, conditions: Conditions) -> Info:
        objects = self._bucket(key.bucket).objects
        conditions.check(objects[key.name][0] if key.name in objects else None, reading=False)
        info = Info(len(content), time.time_ns(), copied(attributes))
        objects[key.name] = info, content
        return info


def _receive(key: Key, source: Source) -> tuple[bytes, Attributes]:
    check_key(key)
    content = b"".join(bytes(piece) for piece in source)
    return content, source.seal()
