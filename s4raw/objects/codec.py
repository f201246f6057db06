"""The values of ``objects.base`` as JSON, for the wire between the S3 daemon and the ring's servers.

Named tuples become arrays of their fields, which ``json.dumps`` does by itself; these functions are the way back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from s4raw.errors import BadKey, ProtocolError
from s4raw.keys import Key
from s4raw.objects.base import (
    Attributes,
    Bucket,
    Conditions,
    Info,
    Listed,
    Page,
    Part,
    Query,
    Range,
    Upload,
    UploadPage,
)

Decode = Callable[[Any], Any]


def dumps(value: object) -> bytes:
    """A value as JSON. Raises BadKey for a text that is not UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise BadKey(f"this is not UTF-8: {error.object!r}") from None


def loads(raw: bytes | str, decode: Decode) -> Any:
    """What ``decode`` makes of JSON. Raises ProtocolError for anything else."""
    try:
        return decode(json.loads(raw))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ProtocolError(f"not what this call should carry: {error}") from None


def text(raw: Any) -> str:
    """A string."""
    if not isinstance(raw, str):
        raise TypeError(f"need a string, got {raw!r}")
    return raw


def number(raw: Any) -> int:
    """An integer."""
    if not isinstance(raw, int):
        raise TypeError(f"need an integer, got {raw!r}")
    return raw


def texts(raw: Any) -> dict[str, str]:
    """Names and values, all strings."""
    return {text(name): text(value) for name, value in raw.items()}


def optional(decode: Decode) -> Decode:
    """A decoder that lets null through."""
    return lambda raw: None if raw is None else decode(raw)


def each(decode: Decode) -> Decode:
    """A decoder of arrays."""
    return lambda raw: [decode(item) for item in raw]


def key(raw: Any) -> Key:
    """A Key."""
    bucket, name = raw
    return Key(text(bucket), text(name))


def part(raw: Any) -> Part:
    """A Part."""
    return Part(*raw)


def attributes(raw: Any) -> Attributes:
    """Attributes."""
    etag, headers, metadata, tags, checksums, checksum_type, parts = raw
    found = text(etag), texts(headers), texts(metadata), texts(tags), texts(checksums), text(checksum_type)
    return Attributes(*found, [part(item) for item in parts])


def info(raw: Any) -> Info:
    """An Info."""
    size, mtime_ns, found = raw
    return Info(size, mtime_ns, attributes(found))


def bucket(raw: Any) -> Bucket:
    """A Bucket."""
    return Bucket(*raw)


def conditions(raw: Any) -> Conditions:
    """Conditions."""
    return Conditions(*raw)


def span(raw: Any) -> Range:
    """A Range."""
    return Range(*raw)


def query(raw: Any) -> Query:
    """A Query."""
    return Query(*raw)


def page(raw: Any) -> Page:
    """A Page."""
    entries, truncated = raw
    return Page([_listed(*entry) for entry in entries], truncated)


def _listed(*fields: Any) -> Listed:
    entry = Listed(*fields)
    return entry._replace(checksums=tuple(entry.checksums))


def upload(raw: Any) -> Upload:
    """An Upload."""
    where, identity, created_ns, found, algorithm = raw
    return Upload(key(where), identity, created_ns, attributes(found), algorithm)


def upload_page(raw: Any) -> UploadPage:
    """An UploadPage."""
    uploads, prefixes, truncated = raw
    return UploadPage([upload(item) for item in uploads], prefixes, truncated)


def nothing(raw: Any) -> None:
    """Null."""


def boolean(raw: Any) -> bool:
    """True or false."""
    return bool(raw)


# Method of a backend: how to decode its arguments, and its answer.
CALLS: dict[str, tuple[Sequence[Decode], Decode]] = {
    "buckets": ((), each(bucket)),
    "create_bucket": ((text,), boolean),
    "bucket": ((text,), bucket),
    "tag_bucket": ((text, texts), nothing),
    "delete_bucket": ((text,), nothing),
    "list": ((text, query), page),
    "head": ((key, conditions), info),
    "copy": ((key, key, optional(attributes), conditions, conditions), info),
    "tag": ((key, texts), nothing),
    "delete": ((key, conditions), boolean),
    "create_upload": ((key, attributes, text), text),
    "upload": ((key, text), upload),
    "parts": ((key, text, number, number), each(part)),
    "complete": ((key, text, each(part), attributes, conditions), info),
    "abort": ((key, text), nothing),
    "uploads": ((text, query, text), upload_page),
}


def arguments(name: str, raw: Sequence[Any]) -> list[Any]:
    """A call's arguments. Raises ProtocolError for a method that there is not."""
    if name not in CALLS:
        raise ProtocolError(f"no such call on objects: {name!r}")
    decoders = CALLS[name][0]
    if len(decoders) != len(raw):
        raise ProtocolError(f"the call {name} has {len(decoders)} arguments, got {len(raw)}")
    return [decode(item) for decode, item in zip(decoders, raw, strict=True)]
