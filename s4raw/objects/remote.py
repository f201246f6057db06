"""Objects at a remote S3: every method is a request, and what the remote answers is what is so.

Nothing is kept here but connections, and for a minute which buckets and uploads there are. What S3 has no word for goes
as far as it does: an ETag is the remote's, times are in seconds, metadata are bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

from s4raw.errors import (
    BadRange,
    InvalidPart,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    PreconditionFailed,
    Refused,
    S4Error,
    UsageError,
)
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
)
from s4raw.objects.sources import FileSource
from s4raw.remote import buckets, listing, parts, uploading, values
from s4raw.remote.bodies import Allowance, spool
from s4raw.remote.buckets import Buckets, Remembered
from s4raw.remote.credentials import settle
from s4raw.remote.reading import RemoteReading, range_text, sayable, span_of
from s4raw.remote.service import Manner, Remote
from s4raw.s3.client import query_of

IN_MEMORY = 256 << 20  # bytes of all bodies that are held in memory at once
COPY_SOURCE = "x-amz-copy-source"
CHECKED = {"x-amz-checksum-mode": "ENABLED"}


@dataclass
class RemoteOptions:
    """Where a remote is and how it is spoken to. None is what the environment says (see ``remote.credentials``).

    ``profile`` and ``region`` are those of shared config; ``access_key`` and ``secret_key`` are used in place of
    credentials that would be found. Of at most ``connections`` at once ``keep`` are kept warm. Times are in seconds;
    ``max_attempts`` are those of one request. A file of more than ``multipart_threshold`` bytes goes in parts of
    ``part_size`` bytes. ``authorities`` is a file of certificates (PEM) to trust instead of the system's.
    ``addressing`` is ``path`` or ``virtual``. ``signed_payload`` None signs the SHA-256 of bodies without TLS only.
    ``via`` is who passes requests on, if that is to be told in a header of each.
    """

    endpoint: str | None = None
    profile: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    connections: int = 25
    keep: int = 25
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    max_attempts: int = 5
    multipart_threshold: int = 100 << 20
    part_size: int = 16 << 20
    authorities: str | None = None
    addressing: str = "path"
    signed_payload: bool | None = None
    via: str = ""


def open_remote(options: RemoteOptions) -> RemoteBackend:
    """The backend of a remote; nothing is asked of it yet. Raises ConfError, UsageError."""
    if options.addressing not in ("path", "virtual"):
        raise UsageError(f"addressing is path or virtual, not {options.addressing!r}")
    if (options.access_key is None) != (options.secret_key is None):
        raise UsageError("an access key goes with its secret key")
    if min(options.connections, options.max_attempts, options.part_size) < 1:
        raise UsageError("connections, max_attempts and part_size are 1 or more")
    pair = (options.access_key, options.secret_key) if options.access_key and options.secret_key else None
    account = settle(options.profile, options.region, options.endpoint, pair)
    times, virtual = (options.connect_timeout, options.read_timeout), options.addressing == "virtual"
    manner = Manner(options.connections, options.keep, *times, options.max_attempts, options.authorities, virtual)
    manner.signed_payload, manner.via = options.signed_payload, options.via
    return RemoteBackend(Remote(account, manner), options.multipart_threshold, options.part_size)


class RemoteBackend:
    """A Backend (see ``objects.base`` for what its methods promise) of a remote S3, from any thread."""

    def __init__(self, remote: Remote, multipart_threshold: int = 100 << 20, part_size: int = 16 << 20) -> None:
        self._remote = remote
        self._threshold = multipart_threshold
        self._part_size = part_size
        self._buckets = Buckets(remote)
        self._memory = Allowance(IN_MEMORY)
        self._uploads: Remembered[Upload] = Remembered()

    @property
    def endpoint(self) -> str:
        """The remote's URL."""
        return self._remote.endpoint

    def warm(self, count: int | None = None) -> None:
        """Open connections beforehand: ``count``, or those that are kept. Raises Unreachable."""
        self._remote.warm(count)

    def close(self) -> None:
        """Close the connections."""
        self._remote.close()

    def cut_off(self) -> None:
        """Close the connections, also those that are in use."""
        self._remote.close(cut_off=True)

    def buckets(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        return self._buckets.all()

    def create_bucket(self, name: str) -> bool:
        """Make a bucket; False when it was there already. Raises BadKey."""
        check_key(Key(name, "name"))
        return self._buckets.create(name)

    def bucket(self, name: str) -> Bucket:
        """A bucket; its time is 0 where buckets may not be listed. Raises Refused where it may not be looked at."""
        return self._buckets.one(name)

    def tag_bucket(self, name: str, tags: Mapping[str, str]) -> None:
        """Replace a bucket's tags."""
        buckets.tag(self._remote, Key(name, ""), tags)

    def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket, and the uploads that are under way in it."""
        self._buckets.delete(name)

    def list(self, bucket: str, query: Query) -> Page:
        """A page of a bucket's objects."""
        if query.limit <= 0:
            self._buckets.check(bucket)
            return Page([], False)
        return listing.objects(self._remote, bucket, query)

    def head(self, key: Key, conditions: Conditions = ALWAYS) -> Info:
        """An object without its bytes."""
        check_key(key)
        asked, rest = values.read_conditions(conditions)
        try:
            reply = self._remote.call("HEAD", key, "", {**CHECKED, **asked})
        except Refused as error:
            raise self._missing(key, error) from None
        self._buckets.seen(key.bucket)
        info = self._info(key, reply.headers, int(reply.headers.get("content-length", "0")))
        if rest is not None:
            rest.check(info)
        return info

    def _missing(self, key: Key, error: Refused) -> S4Error:
        """What a refusal without words means."""
        if error.http != 404:
            return error
        self._buckets.check(key.bucket)
        return NoSuchKey("nothing is stored under the key", key=error.key, server=error.server)

    def _info(self, key: Key, headers: Mapping[str, str], size: int) -> Info:
        return values.info_of(
            headers, size, lambda: buckets.tags(self._remote, key), partial(listing.object_parts, self._remote, key)
        )

    def get(self, key: Key, wanted: Range | None = None, conditions: Conditions = ALWAYS) -> RemoteReading:
        """Open an object, or a range of it."""
        check_key(key)
        asked, rest = values.read_conditions(conditions)
        if rest is not None or not sayable(wanted):
            info = self.head(key, conditions)
            if wanted is not None and not sayable(wanted):
                raise BadRange(f"no byte of the object lies in the range; it has {info.size} bytes", key=str(key))
        query = query_of({"partNumber": str(wanted.part)}) if wanted is not None and wanted.part is not None else ""
        if (text := range_text(wanted)) is not None:
            asked["range"] = text
        try:
            answer, lease = self._remote.open(key, query, {**CHECKED, **asked})
        except Refused as error:
            raise self._missing(key, error) from None
        self._buckets.seen(key.bucket)
        try:
            start, end, size = span_of(answer)
            info = self._info(key, answer.headers, size)
            if text is not None and answer.status == 200 and wanted is not None:
                start, end = wanted.resolve(info)
            return RemoteReading(self._remote, key, info, answer, lease, (start, end))
        except BaseException:
            lease.give_back(False)
            raise

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        """Store an object, in place of what has the key.

        A file is sent in one request, or in parts above the threshold, unless its ``known`` ETag says that it must have
        that of a whole object. A longer source of another kind goes as it comes, and is sent once.
        """
        check_key(key)
        asked = self._asked(key, conditions, values.write_conditions)
        try:
            if isinstance(source, FileSource):
                source.check()
                size, attributes = self._put_file(key, source, asked)
            else:
                self._buckets.check(key.bucket)
                size, attributes = self._put_source(key, source, asked)
        except NoSuchBucket:
            self._buckets.gone(key.bucket)
            raise
        self._buckets.seen(key.bucket)
        return Info(size, time.time_ns(), attributes)

    def _asked(
        self, key: Key, conditions: Conditions, split: Callable[[Conditions], tuple[dict[str, str], Conditions | None]]
    ) -> dict[str, str]:
        """The headers of conditions; those that S3 has no header for are looked at now."""
        if conditions is ALWAYS:
            return {}
        asked, rest = split(conditions)
        if rest is not None:
            try:
                info = self.head(key)
            except NoSuchKey:
                info = None
            rest.check(info, reading=False)
        return asked

    def _put_file(self, key: Key, source: FileSource, asked: Mapping[str, str]) -> tuple[int, Attributes]:
        size = source.identity.size
        whole = values.is_md5(source.known.etag)
        if size > uploading.MAX_SINGLE or (size > self._threshold and not whole) or source.known.parts:
            return parts.put_file(self._remote, key, source, asked, self._part_size)
        return size, uploading.put(self._remote, key, uploading.file_body(source), source.known, asked)

    def _put_source(self, key: Key, source: Source, asked: Mapping[str, str]) -> tuple[int, Attributes]:
        size = source.size
        if size is None:
            file, fd = spool(source)
            try:
                return self._put_file(key, file, asked)
            finally:
                os.close(fd)
        if size > uploading.MAX_SINGLE:
            return parts.put_source(self._remote, key, source, asked, self._part_size)
        return size, uploading.send_source(
            source,
            size,
            self._memory,
            lambda body, attributes: uploading.put(self._remote, key, body, attributes, asked),
        )

    def copy(
        self,
        source: Key,
        target: Key,
        attributes: Attributes | None = None,
        source_conditions: Conditions = ALWAYS,
        conditions: Conditions = ALWAYS,
    ) -> Info:
        """Copy an object at the remote, in parts if it has more than 5 GiB. Its ETag and checksums are the remote's."""
        check_key(target)
        check_key(source)
        named, rest = values.read_conditions(source_conditions, COPY_SOURCE + "-")
        named[COPY_SOURCE] = quote(f"/{source.bucket}/{source.name}", safe="/")
        asked = self._asked(target, conditions, values.write_conditions)
        if rest is not None:
            rest.check(self.head(source), reading=False)
        if attributes is None and source == target:  # S3 takes no copy that changes nothing
            attributes = self.head(source).attributes
        headers = {**named, **asked}
        if attributes is not None:
            directives = {"x-amz-metadata-directive": "REPLACE", "x-amz-tagging-directive": "REPLACE"}
            headers |= {**directives, **values.kept(attributes)}
            if attributes.checksums:
                headers["x-amz-checksum-algorithm"] = next(iter(attributes.checksums))
        try:
            self._remote.call("PUT", target, "", headers, root="CopyObjectResult")
        except Refused as error:
            if error.s3_code not in ("InvalidRequest", "EntityTooLarge") or "larger than" not in error.message:
                raise
            info = self.head(source)
            whole = info.attributes if attributes is None else attributes
            parts.copy(self._remote, named, info.size, target, whole, asked)
        return self.head(target)

    def tag(self, key: Key, tags: Mapping[str, str]) -> None:
        """Replace an object's tags; its time stays."""
        buckets.tag(self._remote, check_key(key), tags)

    def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
        """Delete an object. S3 does not say whether there was one: True then."""
        check_key(key)  # without a name it would be the bucket
        asked = {}
        if conditions is not ALWAYS:
            try:
                asked = self._asked(key, conditions, values.delete_conditions)
            except NoSuchKey:  # only a write wants an object
                return False
        try:
            self._remote.call("DELETE", key, "", asked)
        except NoSuchKey:
            return False
        except PreconditionFailed:
            try:
                self.head(key)
            except NoSuchKey:
                return False
            raise
        self._buckets.seen(key.bucket)
        return True

    def create_upload(self, key: Key, attributes: Attributes, checksum_algorithm: str = "") -> str:
        """Begin a multipart upload; its id."""
        check_key(key)
        found = uploading.create(self._remote, key, attributes, checksum_algorithm)
        self._uploads.add((key, found), Upload(key, found, time.time_ns(), attributes, checksum_algorithm))
        return found

    def upload(self, key: Key, upload: str) -> Upload:
        """What is known of an upload: of one that others began no more than S3 says in lists."""
        found = self._uploads.get((key, upload))
        if found is None:
            self._check_id(key, upload)
            node = listing.part_page(self._remote, key, upload, 0, 1)
            kind = Attributes(checksum_type=node.get("ChecksumType") or "")
            found = Upload(key, upload, 0, kind, node.get("ChecksumAlgorithm") or "")
            self._uploads.add((key, upload), found)
        return found

    def _check_id(self, key: Key, upload: str) -> None:
        """Without an id a request would be about the object, without a name about the bucket."""
        check_key(key)
        if not upload:
            self._buckets.check(key.bucket)
            raise NoSuchUpload(f"there is no upload {upload!r}", key=str(key))

    def put_part(self, key: Key, upload: str, number: int, source: Source) -> Part:
        """Store a part, in place of what has the number."""
        self.upload(key, upload)
        try:
            part = uploading.put_part(self._remote, key, upload, number, source, self._memory)
        except NoSuchUpload:
            self._uploads.forget((key, upload))
            raise
        return part._replace(mtime_ns=time.time_ns())

    def parts(self, key: Key, upload: str, after: int = 0, limit: int = MAX_PARTS) -> Sequence[Part]:
        """The parts that are there, by number, at most ``limit`` of those above ``after``."""
        self._check_id(key, upload)
        found = listing.parts(self._remote, key, upload, after, max(1, limit))
        return found[: max(0, limit)]

    def complete(
        self, key: Key, upload: str, parts: Sequence[Part], attributes: Attributes, conditions: Conditions = ALWAYS
    ) -> Info:
        """Make the parts, joined in this order, the object, with the attributes that the upload was begun with."""
        self._check_id(key, upload)
        if not parts:
            listing.part_page(self._remote, key, upload, 0, 1)
            raise InvalidPart("an object needs a part", key=str(key))
        asked = self._asked(key, conditions, values.write_conditions)
        said = uploading.complete(self._remote, key, upload, parts, asked)
        self._uploads.forget((key, upload))
        size = sum(part.size for part in parts)
        return Info(size, time.time_ns(), values.stored(attributes, said))

    def abort(self, key: Key, upload: str) -> None:
        """Throw an upload away."""
        self._check_id(key, upload)
        self._uploads.forget((key, upload))
        uploading.abort(self._remote, key, upload)

    def uploads(self, bucket: str, query: Query, after_upload: str = "") -> UploadPage:
        """The uploads under way in a bucket, by key, then by id."""
        if query.limit <= 0:
            self._buckets.check(bucket)
            return UploadPage([], [], False)
        return listing.uploads(self._remote, bucket, query, after_upload)
