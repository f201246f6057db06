"""Headers of objects: what of a request's is kept with an object, and what of it an answer says.

S3's own names for things are those of its API Reference ("PutObject", "GetObject").
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_plus, unquote_to_bytes

from s4raw.objects.base import Attributes, Info
from s4raw.s3 import xml
from s4raw.s3.errors import S3Error

MAX_METADATA = 2048  # bytes of names and values of user metadata
MAX_TAGS = 10
MAX_BUCKET_TAGS = 50
META = "x-amz-meta-"
STORAGE_CLASS = "x-amz-storage-class"
DEFAULT_TYPE = "binary/octet-stream"

SYSTEM = frozenset(
    (
        *("content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires"),
        *(STORAGE_CLASS, "x-amz-website-redirect-location"),
    )
)
_STORAGE_CLASSES = frozenset(
    (
        *("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"),
        *("GLACIER", "DEEP_ARCHIVE", "EXPRESS_ONEZONE", "OUTPOSTS", "SNOW", "FSX_OPENZFS"),
    )
)
_CANNED = frozenset(
    (
        *("private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read"),
        *("bucket-owner-read", "bucket-owner-full-control", "log-delivery-write"),
    )
)
# Promises that are not kept here: refused, so that nobody relies on them.
_REFUSED = (
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock-",
    "x-amz-write-offset-bytes",
    "x-amz-grant-",
)


def refuse(headers: Mapping[str, str]) -> None:
    """Raises NotImplemented for a header whose promise is not kept, InvalidArgument for an ACL that there is not.

    A canned ACL is accepted, and means nothing: everything here belongs to the one who holds the keys.
    """
    for name in headers:
        if name.startswith("x-amz-") and name.startswith(_REFUSED):
            raise S3Error(
                "NotImplemented",
                f"A header you provided implies functionality that is not implemented: {name}",
                Header=name,
            )
    acl = headers.get("x-amz-acl")
    if acl is not None and acl not in _CANNED:
        raise S3Error("InvalidArgument", ArgumentName="x-amz-acl", ArgumentValue=acl)


def attributes(headers: Mapping[str, str]) -> Attributes:
    """What a request wants kept with its object: system and user metadata, and tags. ETag and checksums come later.

    Raises MetadataTooLarge, InvalidStorageClass, InvalidTag, NotImplemented, InvalidArgument.
    """
    system: dict[str, str] = {}
    metadata: dict[str, str] = {}
    tags: Mapping[str, str] = {}
    for name, value in headers.items():
        if name in SYSTEM:
            if value:
                system[name] = value
        elif name.startswith("x-amz-"):
            if name.startswith(META):
                metadata[name[len(META) :]] = value
            elif name == "x-amz-tagging":
                tags = tags_of(value)
            elif name.startswith(_REFUSED) or name == "x-amz-acl":
                refuse(headers)
    if metadata and sum(map(len, metadata)) + sum(map(len, metadata.values())) > MAX_METADATA:
        raise S3Error("MetadataTooLarge", MaxSizeAllowed=str(MAX_METADATA))
    if "content-encoding" in system:
        _strip_chunked(system)
    if STORAGE_CLASS in system:
        if system[STORAGE_CLASS] not in _STORAGE_CLASSES:
            raise S3Error("InvalidStorageClass", StorageClassRequested=system[STORAGE_CLASS])
        if system[STORAGE_CLASS] == "STANDARD":
            del system[STORAGE_CLASS]
    return Attributes(headers=system, metadata=metadata, tags=tags)


def _strip_chunked(system: dict[str, str]) -> None:
    """aws-chunked is about the request, not about the object."""
    codings = [coding.strip() for coding in system["content-encoding"].split(",")]
    kept = [coding for coding in codings if coding and coding.lower() != "aws-chunked"]
    if not kept:
        del system["content-encoding"]
    elif len(kept) < len(codings):
        system["content-encoding"] = ", ".join(kept)


def tags_of(text: str) -> dict[str, str]:
    """The tags of an x-amz-tagging header: ``a=1&b=2``, form-encoded. Raises InvalidTag, InvalidArgument."""
    pairs = []
    for pair in text.split("&") if text else ():
        name, _, value = pair.partition("=")
        try:
            pairs.append((unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")))
        except UnicodeDecodeError:
            raise S3Error("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8") from None
    return check_tags(pairs)


def check_tags(pairs: list[tuple[str, str]], limit: int = MAX_TAGS) -> dict[str, str]:
    """Tags as they are kept, by name. At most ``limit`` of them, which XML can hold. Raises InvalidTag."""
    if len(pairs) > limit:
        whose = "Object" if limit == MAX_TAGS else "Bucket"
        raise S3Error("InvalidTag", f"{whose} tags cannot be greater than {limit}")
    found: dict[str, str] = {}
    for name, value in pairs:
        if not (1 <= len(name) <= 128 and xml.can_hold(name)):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=name)
        if len(value) > 256 or not xml.can_hold(value):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=name, TagValue=value)
        if name.startswith("aws:"):
            raise S3Error("InvalidTag", "System tags cannot be added/updated by requester", TagKey=name)
        if name in found:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key", TagKey=name)
        found[name] = value
    return dict(sorted(found.items()))


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(4096)
def date(seconds: int) -> str:
    """A time in seconds since 1970 as HTTP writes it (RFC 9110, 5.6.7), in whatever locale."""
    year, month, day, hours, minutes, rest, weekday, _, _ = time.gmtime(seconds)
    return f"{_DAYS[weekday]}, {day:02d} {MONTHS[month - 1]} {year:04d} {hours:02d}:{minutes:02d}:{rest:02d} GMT"


def of_info(info: Info) -> list[tuple[str, str]]:
    """What GET and HEAD say of any object: its ETag, its time and its metadata."""
    attributes = info.attributes
    system = attributes.headers
    found = [
        ("Last-Modified", date(info.mtime_ns // 1_000_000_000)),
        ("ETag", f'"{attributes.etag}"'),
        ("Accept-Ranges", "bytes"),
    ]
    if "content-type" not in system:
        found.append(("Content-Type", DEFAULT_TYPE))
    for name, value in system.items():
        found.append((_TITLES.get(name, name), value))
    for name, value in attributes.metadata.items():
        found.append((META + name, value))
    if attributes.tags:
        found.append(("x-amz-tagging-count", str(len(attributes.tags))))
    return found


_TITLES = {name: name.title() for name in SYSTEM if not name.startswith("x-amz-")}


def of_checksums(attributes: Attributes) -> list[tuple[str, str]]:
    """An object's checksums as headers."""
    if not attributes.checksums:
        return []
    found = [(f"x-amz-checksum-{name.lower()}", value) for name, value in attributes.checksums.items()]
    if attributes.checksum_type:
        found.append(("x-amz-checksum-type", attributes.checksum_type))
    return found


def utf8(value: str) -> str:
    """A percent-encoded header as text; raw UTF-8 in it is taken for what it is. Raises InvalidArgument."""
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeError:
        raise S3Error("InvalidArgument", "A header is not percent-encoded UTF-8", ArgumentValue=value) from None
