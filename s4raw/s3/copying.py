"""CopyObject: a new object out of the bytes of another. (Parts out of objects are in ``parts``.)"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from s4raw.errors import PreconditionFailed
from s4raw.keys import Key, check_key
from s4raw.objects.base import ALWAYS, Attributes, Conditions, Info
from s4raw.s3 import checksums, conditions, headers, xml
from s4raw.s3.buckets import answer
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error
from s4raw.s3.objects import no_version
from s4raw.s3.payload import Payload

SOURCE = "x-amz-copy-source"
MAX_COPY = 5 << 30  # bytes
ATTEMPTS = 5
_OWN = (headers.STORAGE_CLASS, "x-amz-website-redirect-location")  # never taken over from the source


def source_of(given: Mapping[str, str]) -> Key:
    """The source of a copy: ``[/]BUCKET/KEY[?versionId=null]``, form-encoded. Raises InvalidArgument, NoSuchVersion."""
    text, _, version = given.get(SOURCE, "").partition("?versionId=")
    try:
        path = unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode()
    except UnicodeError:
        raise _bad_source("Copy Source must be UTF-8, percent-encoded.", text) from None
    bucket, _, name = path.removeprefix("/").partition("/")
    if not bucket or not name:
        raise _bad_source("Copy Source must mention the source bucket and key: sourcebucket/sourcekey", text)
    if version and version != "null":
        raise no_version(version)
    return check_key(Key(bucket, name))


def _bad_source(message: str, value: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=SOURCE, ArgumentValue=value)


def _replaces(call: Call, name: str) -> bool:
    """Whether a directive says REPLACE. Raises InvalidArgument."""
    directive = call.headers.get(name, "COPY")
    if directive not in ("COPY", "REPLACE"):
        what = "metadata" if "metadata" in name else "tagging"
        raise S3Error("InvalidArgument", f"Unknown {what} directive.", ArgumentName=name, ArgumentValue=directive)
    return directive == "REPLACE"


def copy_object(call: Call) -> Answer:
    """CopyObject: bytes, and metadata and tags unless they are replaced; in one step, also onto itself."""
    source = source_of(call.headers)
    given = headers.attributes(call.headers)
    replaces, retags = _replaces(call, "x-amz-metadata-directive"), _replaces(call, "x-amz-tagging-directive")
    if source == call.key and not replaces and not any(name in call.headers for name in _OWN):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes.",
        )
    algorithm, _ = checksums.wanted(call.headers)
    asked, target = conditions.of(call.headers, SOURCE + "-"), conditions.of_write(call.headers)
    for attempt in range(ATTEMPTS):
        before = call.backend.head(source)
        asked.check(before, reading=False)
        if before.size > MAX_COPY:
            raise S3Error(
                "InvalidRequest",
                f"The specified copy source is larger than the maximum allowable size for a copy source: {MAX_COPY}",
            )
        wanted = _attributes(before.attributes, given, replaces, retags)
        try:
            info = _copy(call, source, before, wanted, algorithm, target)
            break
        except _SourceChanged:
            if attempt == ATTEMPTS - 1:
                raise S3Error("OperationAborted", "The copy source was replaced again and again.") from None
    attributes = info.attributes
    inner = (
        f"<LastModified>{xml.timestamp(info.mtime_ns)}</LastModified><ETag>&quot;{xml.text(attributes.etag)}&quot;</ETag>"
        + "".join(xml.element(f"Checksum{name}", value) for name, value in attributes.checksums.items())
        + (xml.element("ChecksumType", attributes.checksum_type) if attributes.checksum_type else "")
    )
    return answer("CopyObjectResult", inner)


def _attributes(source: Attributes, given: Attributes, replaces: bool, retags: bool) -> Attributes:
    """What the new object has beside its bytes, still with the source's ETag and checksums."""
    if replaces:
        system, metadata = given.headers, given.metadata
    else:
        system = {name: value for name, value in source.headers.items() if name not in _OWN}
        system |= {name: given.headers[name] for name in _OWN if name in given.headers}
        metadata = source.metadata
    return source._replace(headers=system, metadata=metadata, tags=given.tags if retags else source.tags)


class _SourceChanged(Exception):
    """The source was replaced between the look at it and its copy."""


def _copy(call: Call, source: Key, before: Info, wanted: Attributes, algorithm: str, target: Conditions) -> Info:
    unchanged = Conditions(if_match=[before.attributes.etag])
    kept = before.attributes
    if (
        "-" not in kept.etag
        and kept.checksum_type != checksums.COMPOSITE
        and (not algorithm or algorithm in kept.checksums)
    ):
        try:
            return call.backend.copy(source, call.key, wanted, unchanged, target)
        except PreconditionFailed:
            _check_changed(call, source, unchanged, target)
            raise
    try:
        reading = call.backend.get(source, None, unchanged)
    except PreconditionFailed:
        raise _SourceChanged from None
    algorithm = algorithm or next(iter(kept.checksums), checksums.DEFAULT)
    bare = wanted._replace(etag="", checksums={}, checksum_type="", parts=())
    size = reading.end - reading.start
    with reading, Payload(reading.pieces(), {}, size, attributes=bare, algorithm=algorithm) as payload:
        return call.backend.put(call.key, payload, target)


def _check_changed(call: Call, source: Key, unchanged: Conditions, target: Conditions) -> None:
    """Raises _SourceChanged when it was the source's condition that failed."""
    try:
        call.backend.head(source, unchanged)
    except PreconditionFailed:
        raise _SourceChanged from None
    if target is ALWAYS:
        raise _SourceChanged from None
