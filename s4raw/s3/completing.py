"""CompleteMultipartUpload: the parts that a client names become the object, once all that it says of them is true.

Sources: Amazon S3 API Reference, "CompleteMultipartUpload"; Amazon S3 User Guide, "Checking object integrity".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from s4raw.errors import NoSuchKey, NoSuchUpload
from s4raw.objects.base import MAX_PARTS, MIN_PART, Attributes, Part, Upload
from s4raw.s3 import checksums, conditions, xml
from s4raw.s3.buckets import answer
from s4raw.s3.call import MAX_BODY, Answer, Call
from s4raw.s3.errors import S3Error
from s4raw.s3.payload import Payload, read_small

_ELEMENTS = {f"Checksum{name}": name for name in checksums.SIZES}


class _Named(NamedTuple):
    """A part as the request names it."""

    number: int
    etag: str
    checksums: Mapping[str, str]


def complete(call: Call) -> Answer:
    """CompleteMultipartUpload: POST ?uploadId.

    Completing an upload that was completed is answered as the first time, while its object is still there: clients
    repeat a request whose answer was lost.
    """
    named = _named(_body(call))
    upload_id = call.params["uploadId"]
    try:
        upload = call.backend.upload(call.key, upload_id)
        stored = {part.number: part for part in call.backend.parts(call.key, upload_id)}
        attributes, parts = _checked(call.headers, upload, stored, named)
        call.backend.complete(call.key, upload_id, parts, attributes, conditions.of_write(call.headers))
    except NoSuchUpload:
        found = _completed(call, named)
        if found is None:
            raise
        attributes = found
    return _answer(call, attributes)


def _body(call: Call) -> bytes:
    """The request's body, verified, but not by its checksum headers: here they say what the object is to have."""
    request = call.request
    about_it = {
        name: value
        for name, value in call.headers.items()
        if not name.startswith("x-amz-checksum-") and name != "x-amz-sdk-checksum-algorithm"
    }
    if request.length is None and not request.chunked:
        return b""
    payload = Payload(call.pieces(), about_it, request.length, call.identity, chunked=request.chunked)
    try:
        return read_small(payload, MAX_BODY)
    except ValueError:
        raise S3Error("MaxMessageLengthExceeded") from None


def _named(body: bytes) -> list[_Named]:
    """The parts in the request's body. Raises MalformedXML, InvalidPartOrder, InvalidArgument.

    S3 refuses a number that is named twice in a row; here the later one counts, as in Ceph, which its conformance suite
    asks for (test_multipart_resend_first_finishes_last).
    """
    found: dict[int, _Named] = {}
    last = 0
    nodes = xml.read(body, "CompleteMultipartUpload").all("Part")
    if not 1 <= len(nodes) <= MAX_PARTS:
        raise xml.malformed()
    for node in nodes:
        text = node.need("PartNumber").strip()
        etag = node.need("ETag").strip().strip('"')
        if not text.isascii() or not text.removeprefix("-").isdecimal() or len(text) > 10:
            raise xml.malformed()
        number = int(text)
        if number < 1:
            raise S3Error("InvalidArgument", "PartNumber must be >= 1", ArgumentName="PartNumber", ArgumentValue=text)
        if number < last:
            raise S3Error("InvalidPartOrder")
        given = {_ELEMENTS[child.name]: child.text.strip() for child in node.children if child.name in _ELEMENTS}
        last = number
        found[number] = _Named(number, etag, given)
    return list(found.values())


def _checked(
    headers: Mapping[str, str], upload: Upload, stored: Mapping[int, Part], named: Sequence[_Named]
) -> tuple[Attributes, list[Part]]:
    """The object's attributes and the stored parts that become it, once what the request says of them holds.

    Raises InvalidPart, EntityTooSmall, InvalidRequest, BadDigest.
    """
    parts = [_stored(upload, stored, part) for part in named]
    for part in parts[:-1]:
        if part.size < MIN_PART:
            raise S3Error(
                "EntityTooSmall",
                ETag=part.etag,
                PartNumber=str(part.number),
                ProposedSize=str(part.size),
                MinSizeAllowed=str(MIN_PART),
            )
    _check_size(headers, sum(part.size for part in parts))
    algorithm, kind, value = _checksum(upload, parts)
    _check_whole(headers, upload, value)
    for part, given in zip(parts, named, strict=True):
        for name, claimed in given.checksums.items():
            if part.checksums.get(name, claimed) != claimed:
                raise _invalid(upload, given)
    attributes = upload.attributes._replace(
        etag=etag_of([part.etag for part in parts]) or "",
        checksums={algorithm: value} if value else {},
        checksum_type=kind if value else "",
        parts=[
            Part(part.number, part.size, checksums={algorithm: part.checksums[algorithm]} if value else {})
            for part in parts
        ],
    )
    return attributes, parts


def _stored(upload: Upload, stored: Mapping[int, Part], named: _Named) -> Part:
    part = stored.get(named.number)
    if part is None or part.etag != named.etag:
        raise _invalid(upload, named)
    return part


def _invalid(upload: Upload, named: _Named) -> S3Error:
    return S3Error("InvalidPart", UploadId=upload.id, PartNumber=str(named.number), ETag=named.etag)


def _check_size(headers: Mapping[str, str], size: int) -> None:
    expected = headers.get("x-amz-mp-object-size")
    if expected is None:
        return
    if not (expected.isascii() and expected.isdecimal() and len(expected) < 20):
        raise S3Error("InvalidRequest", "Value for x-amz-mp-object-size header is invalid.")
    if int(expected) != size:
        raise S3Error(
            "InvalidRequest",
            f"The provided 'x-amz-mp-object-size' header value {expected} does not match what was computed: {size}",
        )


def _checksum(upload: Upload, parts: Sequence[Part]) -> tuple[str, str, str]:
    """The object's checksum as (algorithm, type, value), out of those of its parts; all empty if they have none.

    An upload that named no algorithm has a CRC, when all of its parts have the same one.
    """
    algorithm, kind = upload.checksum_algorithm, upload.attributes.checksum_type
    if not algorithm:
        shared = set.intersection(*(set(part.checksums) for part in parts))
        algorithm = next((name for name in sorted(shared) if checksums.FULL_OBJECT in checksums.TYPES[name]), "")
        kind = checksums.FULL_OBJECT
    if not algorithm or any(algorithm not in part.checksums for part in parts):
        return "", "", ""
    if kind == checksums.COMPOSITE:
        return algorithm, kind, checksums.composite(algorithm, [part.checksums[algorithm] for part in parts])
    sizes = [(part.checksums[algorithm], part.size) for part in parts]
    return algorithm, kind, checksums.full_object(algorithm, sizes)


def _check_whole(headers: Mapping[str, str], upload: Upload, value: str) -> None:
    """Check what a request says of the whole object's checksum, unless the upload named no algorithm, as in S3.

    Whatever is not the value, also what is no checksum at all, is BadDigest. A composite one may come without ``-N``.
    """
    algorithm = upload.checksum_algorithm
    if not algorithm:
        return
    kind = headers.get("x-amz-checksum-type", "").upper()
    if kind and kind != upload.attributes.checksum_type:
        raise S3Error("BadDigest", f"The upload was created with the {upload.attributes.checksum_type} checksum type.")
    given = checksums.header_of(headers)
    if given is None:
        return
    if given[0] != algorithm:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.lower()}, "
            f"actual checksum Type: {given[0].lower()}",
        )
    if given[1] not in (value, value.partition("-")[0]):
        raise S3Error("BadDigest", f"The {algorithm.lower()} you specified did not match the calculated checksum.")


def etag_of(etags: Sequence[str]) -> str | None:
    """The ETag of an object from those of its parts: the MD5 of their MD5s, and ``-N``; None if one is no MD5."""
    try:
        digests = [bytes.fromhex(etag) for etag in etags]
    except ValueError:
        return None
    if any(len(digest) != 16 for digest in digests):
        return None
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def _completed(call: Call, named: Sequence[_Named]) -> Attributes | None:
    """The attributes of the object if it is the one that these parts made, else None."""
    etag = etag_of([part.etag for part in named])
    try:
        attributes = call.backend.head(call.key).attributes
    except NoSuchKey:
        return None
    return attributes if attributes.etag == etag else None


def _answer(call: Call, attributes: Attributes) -> Answer:
    key = call.key
    told = [
        xml.element("Location", call.url(key.name)),
        xml.element("Bucket", key.bucket),
        f"<Key>{xml.plain(key.name)}</Key>",
        xml.element("ETag", f'"{attributes.etag}"'),
    ]
    told += [xml.element(f"Checksum{name}", value) for name, value in attributes.checksums.items()]
    if attributes.checksum_type:
        told.append(xml.element("ChecksumType", attributes.checksum_type))
    return answer("CompleteMultipartUploadResult", "".join(told))
