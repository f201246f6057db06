"""Multipart uploads: begin one, list them and their parts, give one up. Codes and limits are those of S3.

Sources: Amazon S3 API Reference, "CreateMultipartUpload", "ListParts", "ListMultipartUploads", "AbortMultipartUpload".
"""

from __future__ import annotations

from collections.abc import Iterator

from s4raw.objects.base import MAX_PARTS, Part, Query, Upload
from s4raw.s3 import checksums, headers, xml
from s4raw.s3.buckets import NO_CONTENT, XML_HEADERS, answer
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error
from s4raw.s3.listing import echo, encode, encoder_of, limit_of


def create(call: Call) -> Answer:
    """CreateMultipartUpload: POST ?uploads."""
    attributes = headers.attributes(call.headers)
    algorithm, kind = checksums.wanted(call.headers)
    upload = call.backend.create_upload(call.key, attributes._replace(checksum_type=kind), algorithm)
    told = [("x-amz-checksum-algorithm", algorithm), ("x-amz-checksum-type", kind)] if algorithm else []
    place = xml.element("Bucket", call.key.bucket) + f"<Key>{xml.plain(call.key.name)}</Key>"
    body = xml.document("InitiateMultipartUploadResult", place + xml.element("UploadId", upload))
    return Answer(headers=[*told, *XML_HEADERS], body=body)


def abort(call: Call) -> Answer:
    """AbortMultipartUpload: DELETE ?uploadId."""
    call.backend.abort(call.key, call.params["uploadId"])
    return NO_CONTENT


def list_parts(call: Call) -> Answer:
    """ListParts: GET ?uploadId."""
    encoding, url = encoder_of(call)
    limit, after = limit_of(call, "max-parts"), _marker(call)
    upload = call.backend.upload(call.key, call.params["uploadId"])
    parts = call.backend.parts(call.key, upload.id, after, limit + 1) if limit else []
    page = parts[:limit]
    return answer(
        "ListPartsResult",
        f"{xml.element('Bucket', call.key.bucket)}<Key>{echo(call.key.name, url)}</Key>"
        f"{xml.element('UploadId', upload.id)}{_owned(call, upload)}<PartNumberMarker>{after}</PartNumberMarker>"
        f"<NextPartNumberMarker>{page[-1].number if page else after}</NextPartNumberMarker><MaxParts>{limit}</MaxParts>"
        f"<IsTruncated>{str(len(parts) > limit).lower()}</IsTruncated>{encoding}{''.join(map(_part, page))}",
    )


def _part(part: Part) -> str:
    return (
        f"<Part><PartNumber>{part.number}</PartNumber><LastModified>{xml.timestamp(part.mtime_ns)}</LastModified>"
        f"<ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size}</Size>{''.join(of_checksums(part))}</Part>"
    )


def of_checksums(part: Part) -> Iterator[str]:
    """The checksums of a part as XML."""
    for name, value in part.checksums.items():
        yield f"<Checksum{name}>{value}</Checksum{name}>"


def _marker(call: Call) -> int:
    """The number of the part after which a page begins. Raises InvalidArgument."""
    text = call.params.get("part-number-marker") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise S3Error(
            "InvalidArgument",
            "Provided part-number-marker not an integer or within integer range",
            ArgumentName="part-number-marker",
            ArgumentValue=text,
        )
    return min(int(text), MAX_PARTS)


def list_uploads(call: Call) -> Answer:
    """ListMultipartUploads: GET ?uploads of a bucket."""
    params = call.params
    encoding, url = encoder_of(call)
    limit, after = limit_of(call, "max-uploads"), params.get("key-marker", "")
    after_upload = params.get("upload-id-marker", "") if after else ""
    query = Query(params.get("prefix", ""), params.get("delimiter", ""), after, limit)
    page = call.backend.uploads(call.key.bucket, query, after_upload)
    following = ""
    if page.truncated:
        name = page.uploads[-1].key.name if page.uploads else ""
        prefix = page.prefixes[-1] if page.prefixes else ""
        following = f"<NextKeyMarker>{encode(max(name, prefix), url)}</NextKeyMarker>"
        following += xml.element("NextUploadIdMarker", page.uploads[-1].id if name > prefix else "")
    delimiter = f"<Delimiter>{echo(query.delimiter, url)}</Delimiter>" if query.delimiter else ""
    uploads = [_upload(call, upload, url) for upload in page.uploads]
    prefixes = [f"<CommonPrefixes><Prefix>{encode(prefix, url)}</Prefix></CommonPrefixes>" for prefix in page.prefixes]
    return answer(
        "ListMultipartUploadsResult",
        f"{xml.element('Bucket', call.key.bucket)}<KeyMarker>{echo(after, url)}</KeyMarker>"
        f"<UploadIdMarker>{xml.plain(after_upload)}</UploadIdMarker>{following}"
        f"<Prefix>{echo(query.prefix, url)}</Prefix>{delimiter}<MaxUploads>{limit}</MaxUploads>{encoding}"
        f"<IsTruncated>{str(page.truncated).lower()}</IsTruncated>{''.join(uploads)}{''.join(prefixes)}",
    )


def _upload(call: Call, upload: Upload, url: bool) -> str:
    return (
        f"<Upload><Key>{encode(upload.key.name, url)}</Key>{xml.element('UploadId', upload.id)}{_owned(call, upload)}"
        f"<Initiated>{xml.timestamp(upload.created_ns)}</Initiated></Upload>"
    )


def _owned(call: Call, upload: Upload) -> str:
    """Whose an upload is, its storage class, and its checksum's algorithm and type."""
    found = (
        f"{xml.owner(call.owner, 'Initiator')}{xml.owner(call.owner)}"
        f"{xml.element('StorageClass', upload.attributes.headers.get(headers.STORAGE_CLASS, 'STANDARD'))}"
    )
    if upload.checksum_algorithm:
        found += xml.element("ChecksumAlgorithm", upload.checksum_algorithm)
        found += xml.element("ChecksumType", upload.attributes.checksum_type)
    return found
