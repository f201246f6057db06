"""What docs/s3-compatibility.md says of S3 that stands here for form's sake."""

from typing import Any

import pytest

from .service import Raw, fails


@pytest.mark.parametrize(
    "what",
    ["lifecycle", "encryption", "replication", "website", "ownership_controls", "public_access_block"],
)
def test_deleting_what_no_bucket_has(s3: Any, bucket: str, what: str) -> None:
    name = "delete_public_access_block" if what == "public_access_block" else f"delete_bucket_{what}"
    assert getattr(s3, name)(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    fails("NoSuchBucket", 404, getattr(s3, name), Bucket="nowhere")
    s3.head_bucket(Bucket=bucket)


def test_no_object_is_locked(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"1")
    where = {"Bucket": bucket, "Key": "key"}
    fails("InvalidRequest", 400, s3.get_object_retention, **where)
    fails("InvalidRequest", 400, s3.put_object_retention, **where, Retention={"Mode": "GOVERNANCE"})
    fails("InvalidRequest", 400, s3.get_object_legal_hold, **where)
    fails("InvalidRequest", 400, s3.put_object_legal_hold, **where, LegalHold={"Status": "ON"})
    assert s3.get_object(**where)["Body"].read() == b"1"


def test_a_canned_acl_means_nothing(s3: Any, raw: Raw) -> None:
    s3.create_bucket(Bucket="bucket", ACL="public-read-write")
    s3.put_object(Bucket="bucket", Key="key", Body=b"1", ACL="public-read")
    assert [each["Permission"] for each in s3.get_object_acl(Bucket="bucket", Key="key")["Grants"]] == ["FULL_CONTROL"]
    assert raw("GET", "/bucket/key", sign=False).status == 403


def test_a_storage_class_is_kept_and_changes_nothing(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"1", StorageClass="GLACIER")
    found = s3.get_object(Bucket=bucket, Key="key")
    assert (found["StorageClass"], found["Body"].read()) == ("GLACIER", b"1")
    assert [each["StorageClass"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["STANDARD"]


def test_numbers_of_thousands_of_digits_are_none(raw: Raw, bucket: str, complaints: list[str]) -> None:
    digits = "1" * 5000
    raw("PUT", "/bucket/key", b"1")
    for target in ("/bucket?max-keys=", "/?max-buckets=", "/bucket/key?partNumber=", "/bucket?uploads&max-uploads="):
        assert (raw("GET", target + digits).status, complaints) == (400, [])
    assert raw("DELETE", "/bucket/key", headers={"x-amz-if-match-size": digits}).status == 400
    body = f"<Delete><Object><Key>key</Key><Size>{digits}</Size></Object></Delete>".encode()
    assert b"<Code>InvalidArgument</Code>" in raw("POST", "/bucket?delete", body).body
    upload = raw("POST", "/bucket/key?uploads").body.decode().partition("<UploadId>")[2].partition("<")[0]
    etag = raw("PUT", f"/bucket/key?partNumber=1&uploadId={upload}", b"1").headers["etag"]
    body = (
        f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    )
    sized = {"x-amz-mp-object-size": digits}
    assert raw("POST", f"/bucket/key?uploadId={upload}", body.encode(), headers=sized).status == 400
