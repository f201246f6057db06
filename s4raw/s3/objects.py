"""Operations on one object: get, head, put, delete, tags, attributes, and fixed answers. (``deleting`` has many.)"""

from __future__ import annotations

import re
from collections.abc import Mapping

from s4raw.errors import BadRange
from s4raw.objects.base import Info, Range, Reading
from s4raw.s3 import conditions, headers, xml
from s4raw.s3.buckets import NO_CONTENT, acl, answer, put_acl, read_tags, tag_set
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error
from s4raw.s3.headers import MAX_TAGS

MAX_PART_NUMBER = 10_000
CUSTOMER_KEY = "x-amz-server-side-encryption-customer-algorithm"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_OVERRIDES = {
    "response-content-type": "Content-Type",
    "response-content-language": "Content-Language",
    "response-expires": "Expires",
    "response-cache-control": "Cache-Control",
    "response-content-disposition": "Content-Disposition",
    "response-content-encoding": "Content-Encoding",
}
_UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f]")


def check_version(call: Call) -> None:
    """Every object has one version, ``null``. Raises NoSuchVersion, InvalidArgument."""
    version = call.params.get("versionId")
    if version is not None and version != "null":
        raise no_version(version)


def no_version(version: str) -> S3Error:
    """The error for a version that no object here has."""
    if len(version) == 32:
        return S3Error("NoSuchVersion", VersionId=version)
    words = "Invalid version id specified" if version else "Version id cannot be the empty string"
    return S3Error("InvalidArgument", words, ArgumentName="versionId", ArgumentValue=version)


def range_of(text: str) -> Range | None:
    """What a Range header asks for; None for several ranges and what is none, which S3 answers with everything."""
    found = _RANGE.fullmatch(text.strip())
    if found is None or len(text) > 60:
        return None
    first, last = found[1], found[2]
    if not first:
        return Range(suffix=int(last)) if last else None
    if last and int(last) < int(first):
        return None
    return Range(first=int(first), last=int(last) if last else None)


def _wanted(call: Call) -> Range | None:
    text, part = call.headers.get("range"), call.params.get("partNumber")
    if part is not None:
        if text is not None:
            raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
        if not (part.isascii() and part.isdecimal() and len(part) <= 10 and 1 <= int(part) <= MAX_PART_NUMBER):
            raise S3Error(
                "InvalidArgument",
                f"Part number must be an integer between 1 and {MAX_PART_NUMBER}, inclusive",
                ArgumentName="partNumber",
                ArgumentValue=part,
            )
        return Range(part=int(part))
    if text is None:
        return None
    wanted = range_of(text)
    if wanted is not None and (validator := call.headers.get("if-range")) is not None:
        info = call.backend.head(call.key)  # RFC 9110, 13.1.5: another object is sent whole
        if info.attributes.etag not in conditions.etags(validator):
            seconds = conditions.seconds_of(validator)
            if seconds is None or info.mtime_ns // 1_000_000_000 != seconds:
                return None
    return wanted


def _out_of_range(call: Call, wanted: Range | None) -> S3Error:
    if wanted is not None and wanted.part is not None:
        return S3Error("InvalidPartNumber", PartNumberRequested=str(wanted.part))
    size = call.backend.head(call.key).size
    return S3Error(
        "InvalidRange",
        headers=[("Content-Range", f"bytes */{size}")],
        RangeRequested=call.headers.get("range", ""),
        ActualObjectSize=str(size),
    )


def _overrides(call: Call, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    wanted = {_OVERRIDES[name]: value for name, value in call.params.items() if name in _OVERRIDES}
    if not wanted:
        return found
    if call.identity is None or not call.identity.access_key:
        raise S3Error("InvalidRequest", "Request specific response headers cannot be used for anonymous GET requests.")
    for name, value in wanted.items():
        if _UNSAFE.search(value):
            raise S3Error("InvalidArgument", "A response header cannot hold control characters", ArgumentName=name)
    kept = [(name, value) for name, value in found if name not in wanted]
    return kept + [(name, value.encode().decode("latin-1")) for name, value in wanted.items()]


def _described(call: Call, info: Info, wanted: Range | None, start: int, end: int) -> tuple[int, list[tuple[str, str]]]:
    """The status and the headers of an answer with the bytes from ``start`` to ``end``."""
    found, attributes = headers.of_info(info), info.attributes
    if call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED" and attributes.checksums:
        if wanted is not None and wanted.part is not None and attributes.parts:
            part = attributes.parts[wanted.part - 1]
            found += headers.of_checksums(attributes._replace(checksums=part.checksums))
        elif start == 0 and end == info.size:
            found += headers.of_checksums(attributes)
    status = 200
    if wanted is not None:
        if wanted.part is None or info.size:
            found.append(("Content-Range", f"bytes {start}-{end - 1}/{info.size}"))
            status = 206
        if wanted.part is not None and attributes.parts:
            found.append(("x-amz-mp-parts-count", str(len(attributes.parts))))
    if call.params:
        found = _overrides(call, found)
    return status, found


def _check_read(call: Call) -> None:
    if call.params:
        check_version(call)
    if CUSTOMER_KEY in call.headers:
        headers.refuse(call.headers)


def get_object(call: Call) -> Answer:
    """GetObject: the object, a range of it, or a part."""
    _check_read(call)
    wanted = _wanted(call)
    try:
        reading: Reading = call.backend.get(call.key, _whole_if_empty(call, wanted), conditions.of(call.headers))
    except BadRange:
        raise _out_of_range(call, wanted) from None
    try:
        status, found = _described(call, reading.info, wanted, reading.start, reading.end)
    except BaseException:
        reading.__exit__(None, None, None)
        raise
    return Answer(status, found, reading=reading)


def _whole_if_empty(call: Call, wanted: Range | None) -> Range | None:
    """Part 1 of an object without bytes is the object, though no byte lies in it."""
    if wanted is not None and wanted.part == 1 and call.backend.head(call.key).size == 0:
        return None
    return wanted


def head_object(call: Call) -> Answer:
    """HeadObject: what GetObject says, without the bytes."""
    _check_read(call)
    wanted = _wanted(call)
    info = call.backend.head(call.key, conditions.of(call.headers))
    start, end = 0, info.size
    if wanted is not None and not (wanted.part == 1 and not info.size):
        try:
            start, end = wanted.resolve(info)
        except BadRange:
            raise _out_of_range(call, wanted) from None
    status, found = _described(call, info, wanted, start, end)
    return Answer(status, found, length=end - start)


def put_object(call: Call) -> Answer:
    """PutObject: stores the body in place of what has the key."""
    kept = headers.attributes(call.headers)
    source = call.source(kept)
    if source.size is not None and source.size > call.settings.max_object_size:
        raise S3Error(
            "EntityTooLarge", ProposedSize=str(source.size), MaxSizeAllowed=str(call.settings.max_object_size)
        )
    attributes = call.backend.put(call.key, source, conditions.of_write(call.headers)).attributes
    return Answer(200, [("ETag", f'"{attributes.etag}"'), *headers.of_checksums(attributes)])


def delete_object(call: Call) -> Answer:
    """DeleteObject: 204 also where there is none, whatever its conditions."""
    check_version(call)
    given = call.headers
    asked = conditions.of_delete(
        given.get("if-match"), given.get("x-amz-if-match-last-modified-time"), given.get("x-amz-if-match-size")
    )
    call.backend.delete(call.key, asked)
    return NO_CONTENT


def get_object_tagging(call: Call) -> Answer:
    """GetObjectTagging: by name; an object without tags has an empty set."""
    check_version(call)
    return answer("Tagging", tag_set(call.backend.head(call.key).attributes.tags))


def put_object_tagging(call: Call) -> Answer:
    """PutObjectTagging: at most 10 tags."""
    check_version(call)
    tags = read_tags(call, MAX_TAGS)
    call.backend.tag(call.key, tags)
    return Answer()


def delete_object_tagging(call: Call) -> Answer:
    """DeleteObjectTagging."""
    check_version(call)
    call.backend.tag(call.key, {})
    return NO_CONTENT


_ATTRIBUTES = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")


def get_object_attributes(call: Call) -> Answer:
    """GetObjectAttributes: those that ``x-amz-object-attributes`` names."""
    check_version(call)
    asked = {name.strip() for name in call.headers.get("x-amz-object-attributes", "").split(",")} - {""}
    if not asked or not asked.issubset(_ATTRIBUTES):
        raise S3Error("InvalidArgument", "Invalid attribute name specified.", ArgumentName="x-amz-object-attributes")
    info = call.backend.head(call.key)
    attributes, inner = info.attributes, ""
    if "ETag" in asked:
        inner += xml.element("ETag", attributes.etag)
    if "Checksum" in asked and attributes.checksums:
        inner += f"<Checksum>{_checksums(attributes.checksums)}{xml.element('ChecksumType', attributes.checksum_type)}"
        inner += "</Checksum>"
    if "ObjectParts" in asked and attributes.parts:
        inner += _parts(call, info)
    if "StorageClass" in asked:
        inner += xml.element("StorageClass", attributes.headers.get(headers.STORAGE_CLASS, "STANDARD"))
    if "ObjectSize" in asked:
        inner += xml.element("ObjectSize", info.size)
    found = answer("GetObjectAttributesResponse", inner)
    return found._replace(headers=[*found.headers, ("Last-Modified", headers.date(info.mtime_ns // 1_000_000_000))])


def _checksums(checksums: Mapping[str, str]) -> str:
    return "".join(xml.element(f"Checksum{name}", value) for name, value in checksums.items())


def _number(call: Call, name: str, default: int) -> int:
    text = call.headers.get(name)
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise S3Error("InvalidArgument", f"{name} is not a number", ArgumentName=name, ArgumentValue=text)
    return int(text)


def _parts(call: Call, info: Info) -> str:
    parts = info.attributes.parts
    limit, marker = min(1000, _number(call, "x-amz-max-parts", 1000)), _number(call, "x-amz-part-number-marker", 0)
    after = [part for part in parts if part.number > marker]
    page = after[:limit]
    inner = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><Size>{part.size}</Size>{_checksums(part.checksums)}</Part>"
        for part in page
    )
    return (
        f"<ObjectParts><PartsCount>{len(parts)}</PartsCount><PartNumberMarker>{marker}</PartNumberMarker>"
        f"<NextPartNumberMarker>{page[-1].number if page else marker}</NextPartNumberMarker>"
        f"<MaxParts>{limit}</MaxParts><IsTruncated>{str(len(page) < len(after)).lower()}</IsTruncated>"
        f"{inner}</ObjectParts>"
    )


def get_object_acl(call: Call) -> Answer:
    """GetObjectAcl: all is the owner's."""
    check_version(call)
    call.backend.head(call.key)
    return acl(call)


def put_object_acl(call: Call) -> Answer:
    """PutObjectAcl: ``private`` is so already, anything else is not implemented."""
    check_version(call)
    call.backend.head(call.key)
    return put_acl(call)


def object_lock(call: Call) -> Answer:
    """GetObjectRetention, GetObjectLegalHold and what sets them: no bucket here has object lock, says S3 then."""
    call.backend.bucket(call.key.bucket)
    raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")
