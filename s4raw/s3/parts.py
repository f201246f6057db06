"""Parts of multipart uploads: sent by the client, or copied out of an object that is here.

Sources: Amazon S3 API Reference, "UploadPart" and "UploadPartCopy".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from s4raw.errors import NotModified
from s4raw.objects.base import MAX_PARTS, Part, Range, Reading, Upload
from s4raw.s3 import checksums, conditions, xml
from s4raw.s3 import headers as object_headers
from s4raw.s3.buckets import answer
from s4raw.s3.call import Answer, Call
from s4raw.s3.copying import source_of
from s4raw.s3.errors import S3Error
from s4raw.s3.multipart import of_checksums
from s4raw.s3.payload import Payload

MAX_PART = 5 << 30  # bytes
_RANGE = re.compile(r"bytes=([0-9]{1,19})-([0-9]{1,19})")


def upload_part(call: Call) -> Answer:
    """UploadPart: PUT ?uploadId&partNumber."""
    number = _number(call.params)
    object_headers.refuse(call.headers)
    upload = call.backend.upload(call.key, call.params["uploadId"])
    _check_algorithm(call.headers, upload)
    with call.source(algorithm=upload.checksum_algorithm or checksums.DEFAULT) as source:
        if source.size is not None and source.size > MAX_PART:
            raise S3Error("EntityTooLarge", ProposedSize=str(source.size), MaxSizeAllowed=str(MAX_PART))
        part = call.backend.put_part(call.key, upload.id, number, source)
    told = [("ETag", f'"{part.etag}"')]
    told += [(f"x-amz-checksum-{name.lower()}", value) for name, value in part.checksums.items()]
    return Answer(headers=told)


def upload_part_copy(call: Call) -> Answer:
    """UploadPartCopy: PUT ?uploadId&partNumber with x-amz-copy-source."""
    number = _number(call.params)
    object_headers.refuse(call.headers)
    wanted = _range(call.headers)
    source = source_of(call.headers)
    upload = call.backend.upload(call.key, call.params["uploadId"])
    try:
        reading = call.backend.get(source, wanted, conditions.of(call.headers, "x-amz-copy-source-"))
    except NotModified:
        raise S3Error("PreconditionFailed") from None
    with reading:
        part = _copy(call, upload, number, reading, wanted)
    return answer(
        "CopyPartResult",
        f"<LastModified>{xml.timestamp(part.mtime_ns)}</LastModified><ETag>&quot;{part.etag}&quot;</ETag>"
        f"{''.join(of_checksums(part))}",
    )


def _copy(call: Call, upload: Upload, number: int, reading: Reading, wanted: Range | None) -> Part:
    size = reading.end - reading.start
    if wanted is not None and wanted.last is not None and wanted.last >= reading.info.size:
        raise S3Error(
            "InvalidRange",
            f"Range specified is not valid for source object of size: {reading.info.size}",
            RangeRequested=call.headers["x-amz-copy-source-range"],
            ActualObjectSize=str(reading.info.size),
        )
    if size > MAX_PART:
        raise S3Error(
            "InvalidRequest",
            f"The specified copy source is larger than the maximum allowable size for a copy source: {MAX_PART}",
        )
    algorithm = upload.checksum_algorithm or checksums.DEFAULT
    with Payload(reading.pieces(), {}, size, algorithm=algorithm) as source:
        return call.backend.put_part(call.key, upload.id, number, source)


def _number(params: Mapping[str, str]) -> int:
    """The number of the part. Raises InvalidArgument."""
    text = params.get("partNumber", "")
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 1 <= int(text) <= MAX_PARTS):
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {MAX_PARTS}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text,
        )
    return int(text)


def _check_algorithm(headers: Mapping[str, str], upload: Upload) -> None:
    """Check that a checksum is of the upload's algorithm. Raises InvalidRequest.

    S3 also refuses a part that has none when the upload named an algorithm; here it is computed.
    """
    expected = checksums.expected(headers)
    if upload.checksum_algorithm and expected is not None and expected.algorithm != upload.checksum_algorithm:
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type: {upload.checksum_algorithm.lower()}, "
            f"actual checksum Type: {expected.algorithm.lower()}",
        )


def _range(headers: Mapping[str, str]) -> Range | None:
    """The part of the source that is copied, None for all of it. Raises InvalidArgument."""
    text = headers.get("x-amz-copy-source-range")
    if text is None:
        return None
    match = _RANGE.fullmatch(text.strip())
    if match is None or int(match[1]) > int(match[2]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=text,
        )
    return Range(int(match[1]), int(match[2]))
