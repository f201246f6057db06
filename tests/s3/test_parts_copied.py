"""Parts that are copied out of objects."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from .uploads import KEY, PART, begin, code, content, etag_of, finish, get, put


def copied(s3: Any, bucket: str, upload: str, number: int, source: str, **options: Any) -> dict[str, Any]:
    """Copy a part; how it is named to complete the upload."""
    found = s3.upload_part_copy(
        Bucket=bucket,
        Key=KEY,
        UploadId=upload,
        PartNumber=number,
        CopySource={"Bucket": bucket, "Key": source},
        **options,
    )["CopyPartResult"]
    assert found["LastModified"]
    return {"PartNumber": number, "ETag": found["ETag"]}


@pytest.mark.also_on_a_ring
def test_parts_are_copied_by_ranges(s3: Any, bucket: str) -> None:
    source = content(2 * PART + 100)
    s3.put_object(Bucket=bucket, Key="source", Body=source)
    upload = begin(s3, bucket)
    parts = [
        copied(s3, bucket, upload, 1, "source", CopySourceRange=f"bytes=1-{PART}"),
        copied(s3, bucket, upload, 2, "source"),
        copied(s3, bucket, upload, 3, "source", CopySourceRange=f"bytes={2 * PART + 99}-{2 * PART + 99}"),
    ]
    done = finish(s3, bucket, upload, parts)
    bodies = [source[1 : PART + 1], source, source[-1:]]
    assert get(s3, bucket) == b"".join(bodies)
    assert done["ETag"] == etag_of(*bodies)


def test_a_part_is_copied_from_another_bucket(s3: Any, bucket: str, other_bucket: str) -> None:
    s3.put_object(Bucket=other_bucket, Key="source", Body=b"x")
    upload = begin(s3, bucket)
    found = s3.upload_part_copy(
        Bucket=bucket, Key=KEY, UploadId=upload, PartNumber=1, CopySource=f"{other_bucket}/source"
    )
    finish(s3, bucket, upload, [{"PartNumber": 1, "ETag": found["CopyPartResult"]["ETag"]}])
    assert get(s3, bucket) == b"x"


@pytest.mark.parametrize("name", [" ", "_", "__", "?versionId", "a+b", "%", "é/ü", "a%25b"])
def test_any_name_can_be_a_source(s3: Any, bucket: str, name: str) -> None:
    s3.put_object(Bucket=bucket, Key=name, Body=name.encode())
    upload = begin(s3, bucket)
    finish(s3, bucket, upload, [copied(s3, bucket, upload, 1, name)])
    assert get(s3, bucket) == name.encode()


def test_a_name_is_decoded_once(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="anyfilename%25.txt", Body=b"x")
    upload = begin(s3, bucket)
    with pytest.raises(ClientError) as raised:
        copied(s3, bucket, upload, 1, "anyfilename%.txt")
    assert code(raised) == (404, "NoSuchKey")


@pytest.mark.parametrize(
    "text",
    ["0-2", "bytes=0", "bytes=hello-world", "bytes=0-bar", "bytes=hello-", "bytes=0-2,3-5", "bytes=3-2", "bytes=-2"],
)
def test_ranges_that_are_none(s3: Any, bucket: str, text: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"12345")
    upload = begin(s3, bucket)
    with pytest.raises(ClientError) as raised:
        copied(s3, bucket, upload, 1, "source", CopySourceRange=text)
    assert code(raised) == (400, "InvalidArgument")


@pytest.mark.parametrize("text", ["bytes=0-5", "bytes=0-21", "bytes=5-5", "bytes=7-9"])
def test_ranges_beyond_the_end(s3: Any, bucket: str, text: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"12345")
    upload = begin(s3, bucket)
    with pytest.raises(ClientError) as raised:
        copied(s3, bucket, upload, 1, "source", CopySourceRange=text)
    assert code(raised) == (416, "InvalidRange")
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload)
    copied(s3, bucket, upload, 1, "source", CopySourceRange="bytes=4-4")


def test_conditions_on_the_source(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="source", Body=b"x")["ETag"]
    upload = begin(s3, bucket)
    for options in (
        {"CopySourceIfMatch": etag},
        {"CopySourceIfNoneMatch": '"other"'},
        {"CopySourceIfModifiedSince": "Sat, 29 Oct 1994 19:43:31 GMT"},
        {"CopySourceIfUnmodifiedSince": "Sat, 29 Oct 2094 19:43:31 GMT"},
    ):
        copied(s3, bucket, upload, 1, "source", **options)
    for options in (
        {"CopySourceIfMatch": '"other"'},
        {"CopySourceIfNoneMatch": etag},
        {"CopySourceIfUnmodifiedSince": "Sat, 29 Oct 1994 19:43:31 GMT"},
        {"CopySourceIfModifiedSince": "Sat, 29 Oct 2094 19:43:31 GMT"},
    ):
        with pytest.raises(ClientError) as raised:
            copied(s3, bucket, upload, 1, "source", **options)
        assert code(raised) == (412, "PreconditionFailed")


def test_what_is_not_there_cannot_be_copied(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    upload = begin(s3, bucket)
    for source, expected in (
        (f"{bucket}/missing", (404, "NoSuchKey")),
        ("no-such-bucket-anywhere/source", (404, "NoSuchBucket")),
        (bucket, (400, "InvalidArgument")),
        ("/", (400, "InvalidArgument")),
    ):
        with pytest.raises(ClientError) as raised:
            s3.upload_part_copy(Bucket=bucket, Key=KEY, UploadId=upload, PartNumber=1, CopySource=source)
        assert code(raised) == expected
    with pytest.raises(ClientError) as raised:
        copied(s3, bucket, "no-such-upload", 1, "source")
    assert code(raised) == (404, "NoSuchUpload")
    with pytest.raises(ClientError) as raised:
        copied(s3, bucket, upload, 10_001, "source")
    assert code(raised) == (400, "InvalidArgument")


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_a_copied_part_has_the_checksum_of_its_upload(s3: Any, bucket: str, algorithm: str) -> None:
    body = content(PART)
    s3.put_object(Bucket=bucket, Key="source", Body=body)
    upload = begin(s3, bucket, ChecksumAlgorithm=algorithm)
    parts = [copied(s3, bucket, upload, 1, "source"), put(s3, bucket, upload, 2, b"x", ChecksumAlgorithm=algorithm)]
    listed = s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload)["Parts"]
    assert all(f"Checksum{algorithm}" in part for part in listed)
    assert finish(s3, bucket, upload, parts)[f"Checksum{algorithm}"]
    assert get(s3, bucket) == body + b"x"
