"""ListObjects in its two versions, and ListObjectVersions, in which every object has the one version ``null``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import quote

from s4raw.objects.base import Listed, Page, Query
from s4raw.s3 import xml
from s4raw.s3.buckets import answer, name_token, token_name
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error

MAX_KEYS = 1000
_ORDINARY = re.compile(r"[A-Za-z0-9_./~-]*").fullmatch


def limit_of(call: Call, name: str = "max-keys") -> int:
    """How many entries are wanted, at most 1000. Raises InvalidArgument."""
    text = call.params.get(name)
    if not text:
        return MAX_KEYS
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < 1 << 31):
        raise S3Error(
            "InvalidArgument",
            f"Provided {name} not an integer or within integer range",
            ArgumentName=name,
            ArgumentValue=text,
        )
    return min(MAX_KEYS, int(text))


def encoder_of(call: Call) -> tuple[str, bool]:
    """The element that names the encoding of an answer, and whether names in it are to be percent-encoded."""
    wanted = call.params.get("encoding-type")
    if not wanted:
        return "", False
    if wanted.lower() != "url":
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            ArgumentName="encoding-type",
            ArgumentValue=wanted,
        )
    return "<EncodingType>url</EncodingType>", True


def encode(name: str, url: bool) -> str:
    """A name in XML: percent-encoded (``/`` stays), or escaped."""
    if _ORDINARY(name):
        return name  # twice as fast as quote
    return quote(name, safe="/") if url else xml.text(name)


def echo(value: str, url: bool) -> str:
    """What the client itself has sent, in XML; an answer that every parser reads is worth more than a lost letter."""
    return encode(value, url) if url else xml.plain(value)


def page_of(call: Call, after: str, limit: int) -> Page:
    """What the bucket has after a name."""
    params = call.params
    return call.backend.list(
        call.key.bucket, Query(params.get("prefix", ""), params.get("delimiter", ""), after, limit)
    )


def head_of(call: Call, url: bool, url_prefix: bool) -> str:
    """The elements that begin every listing; whether names are percent-encoded, and whether the prefix is, too."""
    params = call.params
    found = f"{xml.element('Name', call.key.bucket)}<Prefix>{echo(params.get('prefix', ''), url_prefix)}</Prefix>"
    if delimiter := params.get("delimiter"):
        found += f"<Delimiter>{echo(delimiter, url)}</Delimiter>"
    return found


def prefix_of(entry: Listed, url: bool) -> str:
    """A common prefix."""
    return f"<CommonPrefixes><Prefix>{encode(entry.name, url)}</Prefix></CommonPrefixes>"


@lru_cache(64)
def _checksums(names: Sequence[str], kind: str) -> str:
    found = "".join(f"<ChecksumAlgorithm>{name}</ChecksumAlgorithm>" for name in names)
    return f"{found}<ChecksumType>{kind}</ChecksumType>" if kind else found


def _contents(entry: Listed, url: bool, owner: str) -> str:
    name, size, mtime_ns, etag, algorithms, kind, _ = entry
    checksums = _checksums(tuple(algorithms), kind) if algorithms else ""
    return (
        f"<Contents><Key>{name if _ORDINARY(name) else encode(name, url)}</Key>"
        f"<LastModified>{xml.timestamp(mtime_ns)}</LastModified>"
        f"<ETag>&quot;{etag}&quot;</ETag>{checksums}<Size>{size}</Size>{owner}"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


def _entries(page: Page, url: bool, owner: str) -> str:
    found = [_contents(entry, url, owner) for entry in page.entries if not entry.is_prefix]
    found += [prefix_of(entry, url) for entry in page.entries if entry.is_prefix]
    return "".join(found)


def list_objects(call: Call) -> Answer:
    """ListObjects, version 1 or 2 by ``list-type``."""
    version = call.params.get("list-type")
    if version == "2":
        return list_objects_v2(call)
    if version is not None:
        raise S3Error(
            "InvalidArgument",
            "Invalid List Type specified in Request",
            ArgumentName="list-type",
            ArgumentValue=version,
        )
    encoding, url = encoder_of(call)
    limit, marker = limit_of(call), call.params.get("marker", "")
    page = page_of(call, marker, limit)
    following = ""
    if page.truncated and call.params.get("delimiter"):
        following = f"<NextMarker>{encode(page.entries[-1].name, url)}</NextMarker>"
    # botocore, which asks for the encoding unless its user does, takes it off all names here but the prefix.
    head = head_of(call, url, url and not xml.can_hold(call.params.get("prefix", "")))
    return answer(
        "ListBucketResult",
        f"{head}<Marker>{echo(marker, url)}</Marker>{following}<MaxKeys>{limit}</MaxKeys>{encoding}"
        f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>{_entries(page, url, xml.owner(call.owner))}",
    )


def list_objects_v2(call: Call) -> Answer:
    """ListObjectsV2."""
    params = call.params
    encoding, url = encoder_of(call)
    limit, token, start = limit_of(call), params.get("continuation-token"), params.get("start-after")
    page = page_of(call, token_name(token) if token else start or "", limit)
    inner = head_of(call, url, url)
    if token is not None:
        inner += xml.element("ContinuationToken", token)
    if start is not None:
        inner += f"<StartAfter>{echo(start, url)}</StartAfter>"
    if page.truncated:
        inner += xml.element("NextContinuationToken", name_token(page.entries[-1].name))
    owner = xml.owner(call.owner) if params.get("fetch-owner", "").lower() == "true" else ""
    return answer(
        "ListBucketResult",
        f"{inner}<KeyCount>{len(page.entries)}</KeyCount><MaxKeys>{limit}</MaxKeys>{encoding}"
        f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>{_entries(page, url, owner)}",
    )


def _version(entry: Listed, url: bool, owner: str) -> str:
    inner = _contents(entry, url, owner).removeprefix("<Contents>").removesuffix("</Contents>")
    return f"<Version>{inner}<VersionId>null</VersionId><IsLatest>true</IsLatest></Version>"


def list_object_versions(call: Call) -> Answer:
    """ListObjectVersions: each object is its only version."""
    params = call.params
    encoding, url = encoder_of(call)
    limit, marker, version = limit_of(call), params.get("key-marker", ""), params.get("version-id-marker", "")
    if version and not marker:
        raise S3Error(
            "InvalidArgument",
            "A version-id marker cannot be specified without a key marker.",
            ArgumentName="version-id-marker",
            ArgumentValue=version,
        )
    page = page_of(call, marker, limit)
    owner = xml.owner(call.owner)
    inner = (
        f"{head_of(call, url, url)}<KeyMarker>{echo(marker, url)}</KeyMarker>"
        f"<VersionIdMarker>{xml.plain(version)}</VersionIdMarker><MaxKeys>{limit}</MaxKeys>{encoding}"
        f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>"
    )
    if page.truncated:
        last = page.entries[-1]
        inner += f"<NextKeyMarker>{encode(last.name, url)}</NextKeyMarker>"
        if not last.is_prefix:
            inner += "<NextVersionIdMarker>null</NextVersionIdMarker>"
    inner += "".join(_version(entry, url, owner) for entry in page.entries if not entry.is_prefix)
    inner += "".join(prefix_of(entry, url) for entry in page.entries if entry.is_prefix)
    return answer("ListVersionsResult", inner)
