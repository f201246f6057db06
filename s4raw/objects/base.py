"""The protocol that every place where S3 objects can live speaks, and the small values it is made of.

A backend is streaming and knows nothing of HTTP, XML or signatures. Buckets are made and deleted; objects are replaced
as a whole, atomically: a reader sees the old one or the new one. Every method may be called from any thread, and raises
``S4Error`` subclasses only: NoSuchBucket, NoSuchKey, NoSuchUpload, BucketNotEmpty, PreconditionFailed, NotModified,
BadRange, InvalidPart, BadKey, DiskFull, and what the store or the network raise; what a Source raises passes through.

Every method that takes a bucket, or a key in one, raises NoSuchBucket when it is not there. What writes raises BadKey
for a name that ``keys.check_key`` refuses (what reads may say NoSuchKey). A method that takes a Source looks for the
bucket, and for the upload, before it asks for the first piece, so that a client can be told before it sends the body;
conditions hold at the moment of the change, and may be looked at before the body as well.

A backend keeps what it is given: mappings and sequences come back equal, in any order of a mapping's items.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol

from s4raw.errors import BadRange, NoSuchKey, NotModified, PreconditionFailed
from s4raw.keys import Key

MIN_PART = 5 << 20  # bytes of a part that is not the last
MAX_PARTS = 10_000


class Attributes(NamedTuple):
    """What is kept with an object, beside its bytes.

    ``etag`` is without quotes: the MD5 in hex, ``md5-of-md5s-N`` after a multipart upload. ``headers`` are the system
    metadata (lower-case names: content-type, cache-control, ...), ``metadata`` what came as ``x-amz-meta-NAME``.
    ``checksums`` maps an algorithm (CRC32, CRC32C, CRC64NVME, SHA1, SHA256) to its value in base64 (with ``-N`` if
    composite); ``checksum_type`` is FULL_OBJECT or COMPOSITE, empty without checksums. ``parts`` are those of a
    multipart upload, in order.
    """

    etag: str = ""
    headers: Mapping[str, str] = {}
    metadata: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}
    checksums: Mapping[str, str] = {}
    checksum_type: str = ""
    parts: Sequence[Part] = ()


class Part(NamedTuple):
    """A part of a multipart upload. As an object's part only number, size and checksums are kept: the rest is empty."""

    number: int
    size: int
    etag: str = ""
    checksums: Mapping[str, str] = {}
    mtime_ns: int = 0


def copied(attributes: Attributes) -> Attributes:
    """A copy that nobody else can change, of ordinary mappings, with no more of the parts than an object keeps."""
    return Attributes(
        attributes.etag,
        dict(attributes.headers),
        dict(attributes.metadata),
        dict(attributes.tags),
        dict(attributes.checksums),
        attributes.checksum_type,
        [Part(part.number, part.size, checksums=dict(part.checksums)) for part in attributes.parts],
    )


class Info(NamedTuple):
    """An object: its size in bytes, when it was written, and its attributes."""

    size: int
    mtime_ns: int
    attributes: Attributes


class Bucket(NamedTuple):
    """A bucket: its name, when it was made, and its tags."""

    name: str
    created_ns: int
    tags: Mapping[str, str] = {}


class Listed(NamedTuple):
    """An object in a listing, or (``is_prefix``) a common prefix of several."""

    name: str
    size: int = 0
    mtime_ns: int = 0
    etag: str = ""
    checksums: Sequence[str] = ()  # the algorithms alone
    checksum_type: str = ""
    is_prefix: bool = False


class Query(NamedTuple):
    """What to list: at most ``limit`` objects and common prefixes whose names sort after ``after``.

    Names begin with ``prefix``; with a delimiter (any text), those that have it behind the prefix are rolled up into
    the common prefix that ends with it. A common prefix counts as listed once ``after`` begins with it or sorts after
    it. With a limit of 0 nothing is listed, and nothing is called truncated, as in S3.
    """

    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    limit: int = 1000


class Page(NamedTuple):
    """Objects and common prefixes in the order of their names' UTF-8 bytes, and whether more follow: exactly.

    The name of the last entry is the ``after`` of the next page. (Texts compare as their UTF-8 bytes do.)
    """

    entries: Sequence[Listed]
    truncated: bool


class Upload(NamedTuple):
    """A multipart upload that is under way."""

    key: Key
    id: str
    created_ns: int
    attributes: Attributes = Attributes()
    checksum_algorithm: str = ""


class UploadPage(NamedTuple):
    """Uploads by key and then by id, common prefixes, and whether more follow. Both together count for the limit.

    The next page begins after the last upload (its key and id) or the last prefix, whichever sorts higher.
    """

    uploads: Sequence[Upload]
    prefixes: Sequence[str]
    truncated: bool


class Range(NamedTuple):
    """A part of an object: from ``first`` to ``last``, both included; the ``suffix`` last bytes; or a ``part``.

    A field that is None was not given. Positions are in bytes, parts count from 1.
    """

    first: int | None = None
    last: int | None = None
    suffix: int | None = None
    part: int | None = None

    def resolve(self, info: Info) -> tuple[int, int]:
        """From where (included) to where (not included). Raises BadRange when no byte of the object lies in it."""
        size = info.size
        if self.part is not None:
            return _part_span(self.part, info)
        if self.suffix is not None:
            start, end = max(0, size - self.suffix), size
        else:
            start, end = self.first or 0, size if self.last is None else min(size, self.last + 1)
        if start >= end:
            raise BadRange(f"no byte of the object lies in the range; it has {size} bytes")
        return start, end


def _part_span(number: int, info: Info) -> tuple[int, int]:
    parts = info.attributes.parts or [Part(1, info.size)]
    if not 1 <= number <= len(parts):
        raise BadRange(f"the object has {len(parts)} parts, there is no part {number}")
    start = sum(part.size for part in parts[: number - 1])
    return start, start + parts[number - 1].size


class Conditions(NamedTuple):
    """What must hold for a request to be done. ETags are without quotes, ``*`` stands for any; None: not asked.

    Times are whole seconds since 1970; ``if_size`` and ``if_mtime`` (equal, to the second) are those of conditional
    deletes. ``check`` follows RFC 9110, 13.2.2, and what S3 documents of its own.
    """

    if_match: Sequence[str] | None = None
    if_none_match: Sequence[str] | None = None
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None
    if_size: int | None = None
    if_mtime: int | None = None

    def check(self, info: Info | None, reading: bool = True) -> None:
        """Raises PreconditionFailed, or for a read NotModified (with the object's ETag as its detail).

        ``info`` is None when there is no object: for a write with If-Match that is NoSuchKey (S3, conditional writes),
        every other condition holds. Whoever reads says NoSuchKey without asking here, and a delete has nothing to do.
        """
        if info is None:
            if self.if_match is not None:
                raise NoSuchKey("If-Match: there is no such object")
            return
        etag, seconds = info.attributes.etag, info.mtime_ns // 1_000_000_000
        if self.if_match is not None:
            if not _matches(etag, self.if_match):
                raise PreconditionFailed("If-Match: the object has another ETag")
        elif self.if_unmodified_since is not None and seconds > self.if_unmodified_since:
            raise PreconditionFailed("If-Unmodified-Since: the object was modified since")
        if self.if_size is not None and info.size != self.if_size:
            raise PreconditionFailed("the object has another size")
        if self.if_mtime is not None and seconds != self.if_mtime:
            raise PreconditionFailed("the object has another time")
        if self.if_none_match is not None:
            if _matches(etag, self.if_none_match):
                if reading:
                    raise NotModified("the object is not modified", detail=etag.encode())
                raise PreconditionFailed("If-None-Match: the object is there")
        elif self.if_modified_since is not None and seconds <= self.if_modified_since:
            if reading:
                raise NotModified("the object is not modified", detail=etag.encode())
            raise PreconditionFailed("If-Modified-Since: the object was not modified since")


def _matches(etag: str, wanted: Sequence[str]) -> bool:
    return "*" in wanted or etag in wanted


ALWAYS = Conditions()


class Source(Protocol):
    """A body on its way to a backend, in pieces; read once, by one thread.

    ``size`` is how many bytes it will give, None if nobody knows. ``known`` are the attributes as far as they are known
    before the body: headers, metadata and tags, and the checksums that its sender announced. Iterating gives pieces
    that are valid until the next one; it raises when the body breaks off or does not match what its sender said of it,
    and then nothing is stored. After the last piece ``seal`` gives the attributes to store: ETag and checksums are
    known only then. It is called once, and raises as the pieces do.
    """

    size: int | None

    @property
    def known(self) -> Attributes: ...

    def __iter__(self) -> Iterator[memoryview]: ...

    def seal(self) -> Attributes: ...


class Reading(Protocol):
    """An open object, a context manager. What it reads stays the same, whatever happens to the key meanwhile.

    It belongs to one thread. Leaving the context closes it, its descriptor too; ``pieces`` may be left before its end.
    """

    info: Info
    start: int  # of the range that was asked for
    end: int

    def pieces(self) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``end``; each piece is valid until the next one."""

    def file(self) -> int | None:
        """A descriptor for sendfile, with offsets from ``start`` to ``end``; None where there is no file.

        It is the reading's own, and its position means nothing.
        """

    def __enter__(self) -> Reading: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Backend(Protocol):
    """A place where S3 objects live."""

    def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""

    def create_bucket(self, name: str) -> bool:
        """Make a bucket; False when it was there already."""

    def bucket(self, name: str) -> Bucket:
        """A bucket. Raises NoSuchBucket."""

    def tag_bucket(self, name: str, tags: Mapping[str, str]) -> None:
        """Replace a bucket's tags. Raises NoSuchBucket."""

    def delete_bucket(self, name: str) -> None:
        """Delete a bucket. Raises NoSuchBucket, BucketNotEmpty. Uploads that are under way in it are thrown away."""

    def list(self, bucket: str, query: Query) -> Page:
        """A page of a bucket's objects. Raises NoSuchBucket."""

    def head(self, key: Key, conditions: Conditions = ALWAYS) -> Info:
        """An object without its bytes. Raises NoSuchBucket, NoSuchKey, PreconditionFailed, NotModified."""

    def get(self, key: Key, wanted: Range | None = None, conditions: Conditions = ALWAYS) -> Reading:
        """Open an object, or a range of it. Raises what ``head`` does, and only then BadRange."""

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        """Store an object, in place of what has the key.

        Raises NoSuchBucket, PreconditionFailed, NoSuchKey (If-Match without an object), DiskFull.
        """

    def copy(
        self,
        source: Key,
        target: Key,
        attributes: Attributes | None = None,
        source_conditions: Conditions = ALWAYS,
        conditions: Conditions = ALWAYS,
    ) -> Info:
        """Copy an object's bytes, with its attributes or with others: their ETag and checksums are kept as given.

        The new object's time is now. The source may be the target. A source condition that does not hold is
        PreconditionFailed, never NotModified. Raises NoSuchBucket and NoSuchKey for the source, and what ``put`` does.
        """

    def tag(self, key: Key, tags: Mapping[str, str]) -> None:
        """Replace an object's tags; its time and its ETag stay. Raises NoSuchBucket, NoSuchKey."""

    def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
        """Delete an object; whether there was one. Raises NoSuchBucket, PreconditionFailed.

        Without an object no condition fails. A place that is not told whether there was one says True.
        """

    def create_upload(self, key: Key, attributes: Attributes, checksum_algorithm: str = "") -> str:
        """Begin a multipart upload; its id, which is opaque.

        The attributes are those that its object is to have; they are kept for ``upload`` and not used otherwise.
        """

    def upload(self, key: Key, upload: str) -> Upload:
        """What is known of an upload. Raises NoSuchUpload, as all that follow do, also for the id of another key."""

    def put_part(self, key: Key, upload: str, number: int, source: Source) -> Part:
        """Store a part, in place of what has the number, with the ETag and checksums of the source's seal.

        Raises NoSuchUpload also when the upload has ended meanwhile.
        """

    def parts(self, key: Key, upload: str, after: int = 0, limit: int = MAX_PARTS) -> Sequence[Part]:
        """The parts that are there, by number, at most ``limit`` of those above ``after``."""

    def complete(
        self, key: Key, upload: str, parts: Sequence[Part], attributes: Attributes, conditions: Conditions = ALWAYS
    ) -> Info:
        """Make the parts, joined in this order, the object. Raises NoSuchUpload, InvalidPart, and what ``put`` does.

        Each is named by its number and ETag, as ``parts`` gave them; ``attributes`` are the object's own, whole. The
        caller has checked numbers, sizes and checksums; a part that was put again meanwhile, with another ETag, is
        InvalidPart. Parts that are not named are thrown away. After an error the upload is still there.
        """

    def abort(self, key: Key, upload: str) -> None:
        """Throw an upload away. Raises NoSuchUpload."""

    def uploads(self, bucket: str, query: Query, after_upload: str = "") -> UploadPage:
        """The uploads under way in a bucket, by key, then by id. Raises NoSuchBucket.

        With ``after_upload`` those of the key ``query.after`` whose id is higher are given, too. (Ids that begin with a
        time, or a counter, of a fixed width give S3's order: by key and then by time.)
        """

    def close(self) -> None:
        """Release what the backend holds."""
