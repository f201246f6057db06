"""A remote store behind a durable queue: what is written is accepted here, seen here at once, and delivered later.

What is pending for a key overlays what the remote has (``pending``); whoever looks at both looks at the queue first.
Changes to a key are accepted one at a time, under its lock, after a look at its conditions. What is sent to the remote
at once (a copy there, tags) is so only while nothing is pending for the key that it changes. Buckets are the remote's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence

from s4raw.blocks import Record
from s4raw.disk import DataDirectory, disk_errors
from s4raw.errors import BucketNotEmpty, Busy, NoSuchBucket, NoSuchKey, Refused, S4Error
from s4raw.keys import Key, check_key
from s4raw.objects.base import (
    ALWAYS,
    MAX_PARTS,
    Attributes,
    Backend,
    Bucket,
    Conditions,
    Info,
    Page,
    Part,
    Query,
    Range,
    Reading,
    Source,
    Upload,
    UploadPage,
    copied,
)
from s4raw.objects.emptying import delete_bucket
from s4raw.objects.key_locks import KeyLocks
from s4raw.objects.known_buckets import KnownBuckets, is_away
from s4raw.objects.local_parts import LocalUploads
from s4raw.objects.overlay_listing import list_page
from s4raw.objects.pending import Pending, View, tagged
from s4raw.objects.reading import FileReading
from s4raw.objects.sources import Identity, ReadingSource
from s4raw.queue.entries import DELETE, PUT, TAG, Order
from s4raw.queue.queue import Queue
from s4raw.queue.room import Reservation
from s4raw.store import Store
from s4raw.via import VIA

WAIT_SECONDS = 30.0  # for room in the queue
_TIMES = 200  # that a pending object may be delivered or replaced while it is opened
_PAUSE_SECONDS = 0.005


class QueuedBackend:
    """A Backend (see ``objects.base`` for what its methods promise) over a remote one, with a queue in between.

    ``delete`` says True where it does not know whether there was an object: it does not ask the remote.
    """

    def __init__(
        self, remote: Backend, queue: Queue, directory: str, alias: str = "", *, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        """Uploads in parts and the names of known buckets lie in ``directory``, on the disk of the queue.

        ``alias`` is what orders are queued for. A write waits ``wait_seconds`` for room in a queue that is full, and
        then is QueueFull. The queue and the remote stay the caller's. Raises ConfError, DiskFull, StoreError.
        """
        self._remote = remote
        self._queue = queue
        self._alias = alias
        self._wait_seconds = wait_seconds
        self._pending = Pending(queue, alias)
        self._locks = KeyLocks()
        with disk_errors():
            os.makedirs(directory, exist_ok=True)
        self._known = KnownBuckets(f"{directory}/buckets.json")
        self._data = DataDirectory(f"{directory}/parts")
        try:
            self._uploads = LocalUploads(Store(self._data), into=self)
        except BaseException:
            self._data.close()
            raise

    # Buckets

    def buckets(self) -> Sequence[Bucket]:
        """All buckets of the remote, by name."""
        return self._remote.buckets()

    def create_bucket(self, name: str) -> bool:
        """Make a bucket at the remote; False when it was there already."""
        asked_at = self._known.moment  # and no lock: a remote that is silent must not hold up who writes
        made = self._remote.create_bucket(name)
        if made:
            self._known.add(Bucket(name, time.time_ns()), asked_at)
        else:
            self._learn(name)
        return made

    def bucket(self, name: str) -> Bucket:
        """A bucket of the remote; while that is away, as it was last seen."""
        asked_at = self._known.moment
        try:
            found = self._remote.bucket(name)
        except NoSuchBucket:
            self._known.forget(name)
            raise
        except S4Error as error:
            last = self._known.get(name)
            if last is None or not is_away(error):
                raise
            return last
        self._known.add(found, asked_at)
        return found

    def tag_bucket(self, name: str, tags: Mapping[str, str]) -> None:
        """Replace a bucket's tags, at the remote."""
        self._remote.tag_bucket(name, tags)
        self._learn(name)

    def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket at the remote, and the uploads that are under way in it.

        Objects that are pending count; deletes that are pending in it are done first. Raises Busy or PeerTimeout when
        what is on its way does not end.
        """
        if self.list(name, Query(limit=1)).entries:  # before all writes wait, perhaps for a remote that is silent
            raise BucketNotEmpty(f"there are objects in the bucket {name}")
        with self._locks.bucket(name):
            deleted_ns = time.time_ns()
            delete_bucket(self._remote, self._queue, self._alias, name, self.list, self._known.forget)
        self._uploads.abort_all(name, deleted_ns)  # without the lock: completing, which waits for it, holds them

    def _need(self, name: str) -> None:
        """Raises NoSuchBucket; asks the remote only about a bucket that it has not told of yet."""
        if self._known.get(name) is None:
            self._learn(name)

    def _learn(self, name: str) -> None:
        """Look at a bucket; one that may not be looked at may still be written to."""
        asked_at = self._known.moment
        try:
            self.bucket(name)
        except Refused as error:
            if error.http != 403:
                raise
            self._known.add(Bucket(name, 0), asked_at)

    # Objects

    def list(self, bucket: str, query: Query) -> Page:
        """A page of a bucket's objects, of those that are pending and of the remote's."""
        return list_page(self._pending, self._remote, bucket, query)

    def head(self, key: Key, conditions: Conditions = ALWAYS) -> Info:
        """An object without its bytes."""
        view = self._look(key)
        if view is None:
            return self._remote.head(key, conditions)
        if (info := view.info) is not None:
            conditions.check(info)
            return info
        return tagged(self._remote.head(key, conditions), view.tags or {})

    def get(self, key: Key, wanted: Range | None = None, conditions: Conditions = ALWAYS) -> Reading:
        """Open an object, or a range of it."""
        for _ in _tries(key):
            view = self._look(key)
            if view is None or view.entry is None:
                reading = self._remote.get(key, wanted, conditions)
                if view is not None:
                    reading.info = tagged(reading.info, view.tags or {})
                return reading
            fd = self._pending.open(view.entry)
            if fd is None:
                continue
            try:
                info = _of(view)
                conditions.check(info)
                start, end = (0, info.size) if wanted is None else wanted.resolve(info)
                return FileReading(fd, info, start, end)
            except BaseException:
                os.close(fd)
                raise
        raise AssertionError("not reached")

    def _look(self, key: Key) -> View | None:
        """What is pending for a key; None if nothing is. Raises BadKey, NoSuchKey for what is being deleted."""
        view = self._pending.look(check_key(key))
        if view is not None and view.deleted:
            raise NoSuchKey("nothing is stored under the key", key=str(key))
        return view

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        """Store an object, in place of what has the key."""
        self.look(key, conditions)
        if source.size is None:
            return self._store(key, source, conditions)
        with self._queue.reserve(source.size, self._wait_seconds) as room:  # before the body comes, and lies here
            return self._store(key, source, conditions, room)

    def _store(self, key: Key, source: Source, conditions: Conditions, room: Reservation | None = None) -> Info:
        path, identity, attributes = self._queue.spool.store(source)
        return self._accept(self._order(key, path, identity, attributes), conditions, room)

    def look(self, key: Key, conditions: Conditions = ALWAYS) -> None:
        """Raises what a write to a key would raise by now: BadKey, NoSuchBucket, PreconditionFailed, NoSuchKey."""
        self._need(check_key(key).bucket)
        if conditions is not ALWAYS:
            conditions.check(self._there(key), reading=False)

    def _there(self, key: Key) -> Info | None:
        try:
            return self.head(key)
        except NoSuchKey:
            return None

    def _order(self, key: Key, path: bytes, identity: Identity, attributes: Attributes) -> Order:
        return Order(self._alias, key, PUT, path, True, identity, copied(attributes), via=VIA.get())

    def _accept(self, order: Order, conditions: Conditions, room: Reservation | None = None) -> Info:
        """Queue a PUT, whose file is thrown away if that fails."""
        try:
            with self._locks.key(order.key):
                self.look(order.key, conditions)
                entry = self._queue.add(order, timeout=self._wait_seconds, room=room)
        except BaseException:
            self._queue.spool.discard(order.path)
            raise
        return Info(order.size, entry.created_ns, order.attributes)

    def copy(
        self,
        source: Key,
        target: Key,
        attributes: Attributes | None = None,
        source_conditions: Conditions = ALWAYS,
        conditions: Conditions = ALWAYS,
    ) -> Info:
        """Copy an object's bytes, with its attributes or with others.

        A pending one shares its file; of the remote's, the remote makes a copy unless the target has something pending.
        """
        check_key(target)
        if attributes is not None:
            attributes = copied(attributes)  # now, for some may still have to be asked for
        for _ in _tries(source):
            view = self._look(source)
            if view is None or view.entry is None:
                return self._copy_of_remote(source, target, view, attributes, source_conditions, conditions)
            fd = self._pending.open(view.entry)
            if fd is None:
                continue
            try:
                info = _of(view)
                source_conditions.check(info, reading=False)
                path, identity = self._queue.spool.adopt(fd)
            finally:
                os.close(fd)
            own = info.attributes if attributes is None else attributes
            return self._accept(self._order(target, path, identity, own), conditions)
        raise AssertionError("not reached")

    def _copy_of_remote(
        self,
        source: Key,
        target: Key,
        view: View | None,
        attributes: Attributes | None,
        source_conditions: Conditions,
        conditions: Conditions,
    ) -> Info:
        """Copy what the remote has, with the tags that are pending for it."""
        if view is not None or self._known.get(target.bucket) is None:  # what is wrong with the source is told first
            info = self._remote.head(source)
            source_conditions.check(info, reading=False)
        if attributes is None and view is not None:
            source_conditions = Conditions(if_match=[info.attributes.etag])
            attributes = copied(tagged(info, view.tags or {}).attributes)
        with self._locks.key(target):
            self._need(target.bucket)
            if self._pending.look(target) is None:
                self._wait_gone(target)
                return self._remote.copy(source, target, attributes, source_conditions, conditions)
        with self._remote.get(source) as reading:
            source_conditions.check(reading.info, reading=False)
            if attributes is None:  # as a whole: what comes with bytes may lack some
                info = self._remote.head(source, Conditions(if_match=[reading.info.attributes.etag]))
                attributes = copied(info.attributes)
            return self._store(target, ReadingSource(reading, attributes), conditions)

    def _wait_gone(self, key: Key) -> None:
        """Before a key of which nothing is pending is changed at the remote: after a crash there is nothing, either."""
        self._queue.wait_gone(self._alias, key.bucket, key.name, self._wait_seconds)

    def tag(self, key: Key, tags: Mapping[str, str]) -> None:
        """Replace an object's tags; its time stays. At the remote, if nothing is pending for it."""
        with self._locks.key(check_key(key)):
            if self._look(key) is None:
                self._wait_gone(key)
                self._remote.tag(key, tags)
            else:
                order = Order(self._alias, key, TAG, attributes=Attributes(tags=dict(tags)), via=VIA.get())
                self._queue.add(order, timeout=self._wait_seconds)

    def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
        """Delete an object; False if there is none, as far as is known here."""
        with self._locks.key(check_key(key)):
            self._need(key.bucket)
            view = self._pending.look(key)
            if view is not None and view.deleted:
                self._drop_failed(key)
                return False
            if conditions is not ALWAYS:
                info = self._there(key)
                if info is None:
                    return False
                conditions.check(info, reading=False)
            failed = any(entry.attempts for entry in self._queue.pending(self._alias, key))
            room = self._queue.reserve(0, self._wait_seconds, always=failed)
            self._queue.add(Order(self._alias, key, DELETE, via=VIA.get()), room=room)
            self._drop_failed(key)
            return True

    def _drop_failed(self, key: Key) -> None:
        """Drop what failed and is to be deleted: what the remote never takes would hold up its delete for ever."""
        before = self._queue.pending(self._alias, key)[:-1]
        self._queue.drop([entry.id for entry in before if entry.attempts])

    # Multipart uploads: in parts, here

    def create_upload(self, key: Key, attributes: Attributes, checksum_algorithm: str = "") -> str:
        """Begin a multipart upload; its id."""
        with self._locks.key(check_key(key)):
            self._need(key.bucket)
            return self._uploads.create(key, attributes, checksum_algorithm)

    def upload(self, key: Key, upload: str) -> Upload:
        """What is known of an upload."""
        self._need(key.bucket)
        return self._uploads.upload(key, upload)

    def put_part(self, key: Key, upload: str, number: int, source: Source) -> Part:
        """Store a part, in place of what has the number."""
        self._need(key.bucket)
        return self._uploads.put_part(key, upload, number, source)

    def parts(self, key: Key, upload: str, after: int = 0, limit: int = MAX_PARTS) -> Sequence[Part]:
        """The parts that are there, by number, at most ``limit`` of those above ``after``."""
        self._need(key.bucket)
        return self._uploads.parts(key, upload, after, limit)

    def complete(
        self, key: Key, upload: str, parts: Sequence[Part], attributes: Attributes, conditions: Conditions = ALWAYS
    ) -> Info:
        """Make the parts, joined in this order, the object: their file goes to the queue."""
        self._need(key.bucket)
        return self._uploads.complete(key, upload, parts, attributes, conditions)

    def publish(self, fd: int, key: Key, record: Record, attributes: Attributes, conditions: Conditions) -> Info:
        """Queue the file of joined parts. Raises what ``put`` does; then the upload is as it was."""
        path, identity = self._queue.spool.adopt(fd)
        return self._accept(self._order(key, path, identity, attributes), conditions)

    def abort(self, key: Key, upload: str) -> None:
        """Throw an upload away."""
        self._need(key.bucket)
        self._uploads.abort(key, upload)

    def uploads(self, bucket: str, query: Query, after_upload: str = "") -> UploadPage:
        """The uploads under way in a bucket, by key, then by id."""
        self._need(bucket)
        return self._uploads.uploads(bucket, query, after_upload)

    def close(self) -> None:
        """Close the directory of the parts. The queue and the remote are the caller's to close, after this."""
        self._data.close()


def _tries(key: Key) -> Iterator[int]:
    """Turns in which a pending object may be found gone, each a little later. Raises Busy in the end."""
    for at in range(_TIMES):
        if at > 1:
            time.sleep(_PAUSE_SECONDS)
        yield at
    raise Busy("the object was delivered or replaced again and again while it was opened", key=str(key))


def _of(view: View) -> Info:
    info = view.info
    if info is None:
        raise AssertionError("nothing is pending")
    return info
