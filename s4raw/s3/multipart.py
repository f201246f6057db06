"""Multipart uploads: begin one, list them and their parts, give one up. Codes and limits are those of S3.

Sources: Amazon S3 API Reference, "CreateMultipartUpload", "ListParts", "ListMultipartUploads", "AbortMultipartUpload".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import quote

from s4raw.objects.base import MAX_PARTS, Part, Query, Upload
from s4raw.s3 import checksums, xml
from s4raw.s3 import headers as object_headers
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error

MAX_LISTED = 1000
XML = ("Content-Type", "application/xml")


def create(call: Call) -> Answer:
    """CreateMultipartUpload: POST ?uploads."""
    attributes = object_headers.attributes(call.headers)
    algorithm, kind = checksums.wanted(call.headers)
    upload = call.backend.create_upload(call.key, attributes._replace(checksum_type=kind), algorithm)
    told = [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)] if algorithm else []
    body = xml.document(
        "InitiateMultipartUploadResult",
        xml.element("Bucket", call.key.bucket) + xml.element("Key", call.key.name) + xml.element("UploadId", upload),
    )
    return Answer(headers=[*told, XML], body=body)


def abort(call: Call) -> Answer:
    """AbortMultipartUpload: DELETE ?uploadId."""
    call.backend.abort(call.key, call.params["uploadId"])
    return Answer(204)


def list_parts(call: Call) -> Answer:
    """ListParts: GET ?uploadId."""
    params = call.params
    limit = min(_number(params, "max-parts", MAX_LISTED), MAX_LISTED)
    after = _number(params, "part-number-marker", 0)
    upload = call.backend.upload(call.key, params["uploadId"])
    parts = call.backend.parts(call.key, upload.id, min(after, MAX_PARTS), limit + 1) if limit else []
    return Answer(headers=[XML], body=xml.document("ListPartsResult", _parts_page(call, upload, parts, after, limit)))


def _parts_page(call: Call, upload: Upload, parts: Sequence[Part], after: int, limit: int) -> Iterator[str]:
    page = parts[:limit]
    encode = _encoder(call.params)
    yield xml.element("Bucket", call.key.bucket)
    yield xml.element("Key", encode(call.key.name))
    yield xml.element("UploadId", upload.id)
    yield xml.owner(call.owner, "Initiator")
    yield xml.owner(call.owner)
    yield xml.element("StorageClass", upload.attributes.headers.get(object_headers.STORAGE_CLASS, "STANDARD"))
    yield xml.element("PartNumberMarker", after)
    yield xml.element("NextPartNumberMarker", page[-1].number if page else after)
    yield xml.element("MaxParts", limit)
    yield xml.element("IsTruncated", "true" if len(parts) > limit else "false")
    yield from _checksum_elements(upload)
    if "encoding-type" in call.params:
        yield xml.element("EncodingType", "url")
    for part in page:
        sums = "".join(xml.element(f"Checksum{name}", value) for name, value in part.checksums.items())
        yield (
            f"<Part><PartNumber>{part.number}</PartNumber><LastModified>{xml.timestamp(part.mtime_ns)}</LastModified>"
            f"<ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size}</Size>{sums}</Part>"
        )


def list_uploads(call: Call) -> Answer:
    """ListMultipartUploads: GET ?uploads of a bucket."""
    params = call.params
    limit = min(_number(params, "max-uploads", MAX_LISTED), MAX_LISTED)
    after = params.get("key-marker", "")
    after_upload = params.get("upload-id-marker", "") if after else ""
    query = Query(params.get("prefix", ""), params.get("delimiter", ""), after, limit)
    page = call.backend.uploads(call.key.bucket, query, after_upload)
    encode = _encoder(params)
    told = [
        xml.element("Bucket", call.key.bucket),
        xml.element("KeyMarker", encode(after)),
        xml.element("UploadIdMarker", after_upload),
    ]
    if page.truncated:
        upload_key = page.uploads[-1].key.name if page.uploads else ""
        prefix = page.prefixes[-1] if page.prefixes else ""
        told.append(xml.element("NextKeyMarker", encode(max(upload_key, prefix))))
        told.append(xml.element("NextUploadIdMarker", page.uploads[-1].id if upload_key > prefix else ""))
    told.append(xml.element("Prefix", encode(query.prefix)))
    if query.delimiter:
        told.append(xml.element("Delimiter", encode(query.delimiter)))
    if "encoding-type" in params:
        told.append(xml.element("EncodingType", "url"))
    told.append(xml.element("MaxUploads", limit))
    told.append(xml.element("IsTruncated", "true" if page.truncated else "false"))
    for upload in page.uploads:
        told.append(
            f"<Upload>{xml.element('Key', encode(upload.key.name))}{xml.element('UploadId', upload.id)}"
            f"{xml.owner(call.owner, 'Initiator')}{xml.owner(call.owner)}"
            f"{xml.element('StorageClass', upload.attributes.headers.get(object_headers.STORAGE_CLASS, 'STANDARD'))}"
            f"<Initiated>{xml.timestamp(upload.created_ns)}</Initiated>{''.join(_checksum_elements(upload))}</Upload>"
        )
    for prefix in page.prefixes:
        told.append(f"<CommonPrefixes>{xml.element('Prefix', encode(prefix))}</CommonPrefixes>")
    return Answer(headers=[XML], body=xml.document("ListMultipartUploadsResult", told))


def _checksum_elements(upload: Upload) -> Iterator[str]:
    if upload.checksum_algorithm:
        yield xml.element("ChecksumAlgorithm", upload.checksum_algorithm)
        yield xml.element("ChecksumType", upload.attributes.checksum_type)


def _encoder(params: Mapping[str, str]) -> Callable[[str], str]:
    """What keys go through with ``encoding-type=url``, so that XML can hold them. Raises InvalidArgument."""
    kind = params.get("encoding-type")
    if kind is None:
        return str
    if kind.lower() != "url":
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            ArgumentName="encoding-type",
            ArgumentValue=kind,
        )
    return lambda text: quote(text, safe="/-_.~")


def _number(params: Mapping[str, str], name: str, default: int) -> int:
    """A number of the query, which S3 takes up to 2^31 - 1. Raises InvalidArgument."""
    value = params.get(name)
    if not value:
        return default
    if not (value.isascii() and value.isdecimal() and len(value) <= 10 and int(value) < 1 << 31):
        raise S3Error(
            "InvalidArgument",
            f"Provided {name} not an integer or within integer range",
            ArgumentName=name,
            ArgumentValue=value,
        )
    return int(value)
