"""Objects on the servers of a ring: each on the server that its key is placed on, by the ring's own protocol.

Buckets are on all servers. A listing is merged from those of all. What one server does with its part is atomic as the
local backend says; a copy between two servers is a get and a put.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from s4raw import bodies, wire
from s4raw.connection import Connection, Lease, Pool
from s4raw.digest import Digest, digest, verify
from s4raw.errors import (
    BucketNotEmpty,
    ConnectionLost,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    NotModified,
    PeerTimeout,
    PreconditionFailed,
    ProtocolError,
    S4Error,
)
from s4raw.keys import Key, check_key
from s4raw.objects import codec
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
from s4raw.objects.paging import merge, merge_uploads
from s4raw.objects.sources import ReadingSource
from s4raw.ring import Topology

MAX_KNOWN = 10_000  # buckets that are remembered to be there

Result = TypeVar("Result")


class RingBackend:
    """The objects of all servers of a ring, as one Backend."""

    def __init__(self, topology: Topology, secret: bytes) -> None:
        self._pool = Pool(topology, secret)
        self._topology = topology
        self._known: set[str] = set()  # buckets that were made sure of on all servers: whether to look again, no more
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()

    # Buckets

    def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        found: dict[str, Bucket] = {}
        for bucket in (bucket for answer in self._everywhere("buckets") for bucket in answer):
            found[bucket.name] = _together(found.get(bucket.name), bucket)
        return sorted(found.values(), key=lambda bucket: bucket.name.encode())

    def create_bucket(self, name: str) -> bool:
        """Make a bucket on every server; False when one of them had it already."""
        known = [answer for answer in self._everywhere("bucket", name) if answer is not None]
        self._everywhere("create_bucket", name)
        return not known

    def bucket(self, name: str) -> Bucket:
        """A bucket. Raises NoSuchBucket when no server has it."""
        found: Bucket | None = None
        for answer in self._everywhere("bucket", name):
            found = _together(found, answer) if answer is not None else found
        if found is None:
            raise NoSuchBucket(f"no such bucket: {name}")
        return found

    def tag_bucket(self, name: str, tags: Mapping[str, str]) -> None:
        """Replace a bucket's tags, on every server. Raises NoSuchBucket."""
        self.bucket(name)
        self._everywhere("tag_bucket", name, tags)

    def delete_bucket(self, name: str) -> None:
        """Delete a bucket on every server. Raises NoSuchBucket, BucketNotEmpty: then it is on all of them again."""
        tags = self.bucket(name).tags
        self._forget(name)
        if self.list(name, Query(limit=1)).entries:  # before any server throws away the uploads of its part
            raise BucketNotEmpty(f"the bucket is not empty: {name}")
        try:
            self._everywhere("delete_bucket", name)
        except BucketNotEmpty:
            self._everywhere("create_bucket", name)
            self._everywhere("tag_bucket", name, tags)
            raise

    def _ensure(self, key: Key) -> None:
        """See to it that the key's server has its bucket, if any server has a key in it. Raises NoSuchBucket, BadKey.

        Buckets are made everywhere; but the ring's own verbs make one where they put a key.
        """
        check_key(key)
        name = key.bucket
        if name in self._known:
            return
        try:
            self._at(key, NoSuchBucket, "bucket", name)
        except NoSuchBucket:
            if not self.list(name, Query(limit=1)).entries:
                raise
            self._everywhere("create_bucket", name)
        with self._lock:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known.add(name)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._known.discard(name)

    # Objects

    def list(self, bucket: str, query: Query) -> Page:
        """A page of a bucket's objects, merged from those of all servers. Raises NoSuchBucket."""
        pages = [page for page in self._everywhere("list", bucket, query) if page is not None]
        if not pages:
            raise NoSuchBucket(f"no such bucket: {bucket}")
        return merge(pages, query.limit)

    def head(self, key: Key, conditions: Conditions = ALWAYS) -> Info:
        """An object without its bytes. Raises NoSuchBucket, NoSuchKey, PreconditionFailed, NotModified."""
        info: Info = self._at(key, NoSuchKey, "head", key, conditions)
        return info

    def get(self, key: Key, wanted: Range | None = None, conditions: Conditions = ALWAYS) -> RingReading:
        """Open an object, or a range of it. Raises what ``head`` does, and BadRange."""
        check_key(key)
        call = codec.dumps([key, wanted, conditions]).decode()
        try:
            return RingReading(self._pool.lease(self._topology.place(key)), key, call)
        except NoSuchBucket:
            raise self._missing(key, NoSuchKey) from None

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        """Store an object, in place of what has the key. Raises NoSuchBucket, PreconditionFailed, DiskFull."""
        self._ensure(key)
        try:
            info: Info = self._send(key, source, ["put", key, conditions, source.size], codec.info)
        except NoSuchBucket:  # deleted through another daemon, and maybe made again by the ring's own verbs
            raise self._missing(key, NoSuchBucket) from None
        return info

    def copy(
        self,
        source: Key,
        target: Key,
        attributes: Attributes | None = None,
        source_conditions: Conditions = ALWAYS,
        conditions: Conditions = ALWAYS,
    ) -> Info:
        """Copy an object's bytes, with its attributes or with others: their ETag and checksums are kept as given."""
        try:
            self._ensure(target)
        except NoSuchBucket:
            with self._open_source(source, source_conditions):  # what is wrong with the source is told first
                raise
        if self._topology.place(source) == self._topology.place(target):
            info: Info = self._at(source, NoSuchKey, "copy", source, target, attributes, source_conditions, conditions)
            return info
        with self._open_source(source, source_conditions) as reading:
            if attributes is None:  # as a whole: what came with the bytes lacks the checksums of parts
                attributes = self.head(source, Conditions(if_match=[reading.info.attributes.etag])).attributes
            return self.put(target, ReadingSource(reading, attributes), conditions)

    def _open_source(self, source: Key, conditions: Conditions) -> RingReading:
        try:
            return self.get(source, None, conditions)
        except NotModified as error:
            raise PreconditionFailed(error.message, key=error.key) from None

    def tag(self, key: Key, tags: Mapping[str, str]) -> None:
        """Replace an object's tags; its time stays."""
        self._at(key, NoSuchKey, "tag", key, tags)

    def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
        """Delete an object; whether there was one. Raises NoSuchBucket, PreconditionFailed."""
        try:
            return bool(self._at(key, NoSuchKey, "delete", key, conditions))
        except NoSuchKey:
            return False

    # Multipart uploads

    def create_upload(self, key: Key, attributes: Attributes, checksum_algorithm: str = "") -> str:
        """Begin a multipart upload, whose object will have these attributes; its id."""
        self._ensure(key)
        return str(self._at(key, NoSuchBucket, "create_upload", key, attributes, checksum_algorithm))

    def upload(self, key: Key, upload: str) -> Upload:
        """What is known of an upload. Raises NoSuchUpload."""
        found: Upload = self._at(key, NoSuchUpload, "upload", key, upload)
        return found

    def put_part(self, key: Key, upload: str, number: int, source: Source) -> Part:
        """Store a part, in place of what has the number."""
        self.upload(key, upload)
        part: Part = self._send(key, source, ["put_part", key, upload, number, source.size], codec.part)
        return part

    def parts(self, key: Key, upload: str, after: int = 0, limit: int = MAX_PARTS) -> Sequence[Part]:
        """The parts that are there, by number, at most ``limit`` of those above ``after``."""
        found: Sequence[Part] = self._at(key, NoSuchUpload, "parts", key, upload, after, limit)
        return found

    def complete(
        self, key: Key, upload: str, parts: Sequence[Part], attributes: Attributes, conditions: Conditions = ALWAYS
    ) -> Info:
        """Make the parts, joined in this order, the object. Raises NoSuchUpload, InvalidPart, PreconditionFailed."""
        info: Info = self._at(key, NoSuchUpload, "complete", key, upload, parts, attributes, conditions)
        return info

    def abort(self, key: Key, upload: str) -> None:
        """Throw an upload away. Raises NoSuchUpload."""
        self._at(key, NoSuchUpload, "abort", key, upload)

    def uploads(self, bucket: str, query: Query, after_upload: str = "") -> UploadPage:
        """The uploads under way in a bucket, by key, then by id."""
        pages = [page for page in self._everywhere("uploads", bucket, query, after_upload) if page is not None]
        if not pages:
            raise NoSuchBucket(f"no such bucket: {bucket}")
        return merge_uploads(pages, query.limit)

    # Calls

    def _at(self, key: Key, missing: type[S4Error], name: str, *arguments: object) -> Any:
        """A call at the server of a key; ``missing`` is raised where only other servers have the bucket."""
        check_key(key)
        with self._pool.lease(self._topology.place(key)) as connection:
            answer = _said(connection, lambda: _answer(connection, name, _ask(connection, name, arguments)))
        if isinstance(answer, NoSuchBucket):
            raise self._missing(key, missing)
        if isinstance(answer, S4Error):
            raise answer
        return answer

    def _missing(self, key: Key, missing: type[S4Error]) -> S4Error:
        """What to say when the server of a key does not have its bucket."""
        self._forget(key.bucket)
        if missing is not NoSuchBucket and any(self._everywhere("bucket", key.bucket)):
            return missing(f"nothing is there: {key.name!r}", key=str(key))
        return NoSuchBucket(f"no such bucket: {key.bucket}")

    def _everywhere(self, name: str, *arguments: object) -> Sequence[Any]:
        """A call at every server, all at once: their answers, None where there is no such bucket."""
        answers: list[Any] = []
        failed: S4Error | None = None
        with ExitStack() as stack:
            asked = []
            for server in self._topology.servers:
                connection = stack.enter_context(self._pool.lease(server))
                asked.append((connection, _ask(connection, name, arguments)))
            for connection, request in asked:
                try:
                    answers.append(_answer(connection, name, request))
                except NoSuchBucket:
                    answers.append(None)
                except BucketNotEmpty as error:
                    failed = error
        if failed is not None:
            raise failed
        return answers

    def _send(self, key: Key, source: Source, call: Sequence[object], decode: codec.Decode) -> Any:
        """Send a body; what the server says of it.

        If the body breaks off the connection is closed, at which the server throws away what it has.
        """
        with self._pool.lease(self._topology.place(key)) as connection:
            request, state = connection.next_request(), Digest()
            channel = connection.channel
            channel.queue(wire.encode(wire.OBJECT_PUT, request, wire.STREAM, call=codec.dumps(call).decode()))
            for piece in source:
                state.update(piece)
                channel.send(wire.encode(wire.DATA, request, 0, len(piece)), piece)
                if channel.readable():  # the server has failed already
                    connection.receive_ok(request)
            sealed = codec.dumps(source.seal())
            fields: dict[str, wire.Value] = {"size": state.size, "digest": state.digest(), "sealed": digest(sealed)}
            channel.send(wire.encode(wire.END, request, 0, len(sealed), **fields), sealed)
            return _body(connection, connection.receive_ok(request), decode)


class RingReading:
    """An object that is being read from its server."""

    def __init__(self, lease: Lease, key: Key, call: str) -> None:
        self._lease = lease
        self._key = key
        self._connection = connection = lease.__enter__()
        try:
            frame = _said(connection, lambda: connection.call(wire.OBJECT_GET, call=call))
            if isinstance(frame, wire.Frame):
                self._frame = frame
                (self.start, self.end), self.info = codec.loads(frame.text("call"), _described)
        except BaseException as error:
            lease.__exit__(type(error), error, None)
            raise
        if isinstance(frame, S4Error):
            lease.__exit__(None, None, None)
            raise frame

    def pieces(self) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``end``, each block verified before its last piece is given. Raises Corrupt."""
        if self.start == self.end:
            return
        at = self._frame.uint("offset", 0)
        for piece, _ in bodies.receive_pieces(self._connection, self._frame, self._key):
            wanted = piece[max(0, self.start - at) : max(0, self.end - at)]
            at += len(piece)
            if wanted:
                yield wanted

    def file(self) -> int | None:
        """None: the bytes come over the network."""
        return None

    def __enter__(self) -> RingReading:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        unread = self._connection.channel.body_left > 0
        self._lease.__exit__(kind or (BaseException if unread else None), error, trace)


def _described(raw: Any) -> tuple[tuple[int, int], Info]:
    (start, end), info = raw
    return (start, end), codec.info(info)


def _together(first: Bucket | None, second: Bucket) -> Bucket:
    """What two servers say of one bucket: it is as old as the older one."""
    if first is None:
        return second
    return second._replace(created_ns=min(first.created_ns, second.created_ns), tags=first.tags or second.tags)


def _said(connection: Connection, ask: Callable[[], Result]) -> Result | S4Error:
    """What a call gives, or the error that the server answered with: the connection is as good as before."""
    try:
        return ask()
    except (ConnectionLost, PeerTimeout, ProtocolError):
        raise
    except S4Error as error:
        return error.at(server=connection.server)


def _ask(connection: Connection, name: str, arguments: Sequence[object]) -> int:
    raw = codec.dumps([name, *arguments])
    request = connection.next_request()
    connection.channel.send(wire.encode(wire.OBJECT, request, 0, len(raw), digest=digest(raw)), raw)
    return request


def _answer(connection: Connection, name: str, request: int) -> Any:
    return _body(connection, connection.receive_ok(request), codec.CALLS[name][1])


def _body(connection: Connection, frame: wire.Frame, decode: codec.Decode) -> Any:
    raw = connection.channel.read_bytes(frame.body_length)
    verify("what came", digest(raw), frame.blob("digest"), server=connection.server)
    return codec.loads(raw, decode)
