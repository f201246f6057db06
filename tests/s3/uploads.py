"""What the tests of multipart uploads do with boto3."""

import hashlib
from typing import Any

import pytest
from botocore.exceptions import ClientError

MIB = 1 << 20
PART = 5 * MIB
KEY = "dir/a b+c.bin"


def code(raised: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    """The status and the code of an error."""
    answer = raised.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def content(size: int, seed: int = 1) -> bytes:
    """Bytes of which no two stretches are alike."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


def begin(s3: Any, bucket: str, key: str = KEY, **options: Any) -> str:
    return str(s3.create_multipart_upload(Bucket=bucket, Key=key, **options)["UploadId"])


def put(s3: Any, bucket: str, upload: str, number: int, body: bytes, key: str = KEY, **options: Any) -> dict[str, Any]:
    """Put a part; how it is named to complete the upload."""
    found = s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body, **options)
    return {"PartNumber": number, "ETag": found["ETag"]}


def finish(s3: Any, bucket: str, upload: str, parts: list[dict[str, Any]], key: str = KEY, **options: Any) -> Any:
    return s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **options
    )


def etag_of(*parts: bytes) -> str:
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    return f'"{hashlib.md5(digests).hexdigest()}-{len(parts)}"'


def get(s3: Any, bucket: str, key: str = KEY) -> bytes:
    return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
