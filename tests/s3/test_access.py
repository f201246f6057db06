"""Canned ACLs: kept and shown always; for those who do not sign they count by option."""

import http.client
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config

from .service import REGION, Raw, Service, fails

ALL, SIGNED = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)
OWNER = (None, "FULL_CONTROL")
GRANTS = {
    "private": [OWNER],
    "bucket-owner-full-control": [OWNER],
    "public-read": [(ALL, "READ"), OWNER],
    "public-read-write": [(ALL, "READ"), (ALL, "WRITE"), OWNER],
    "authenticated-read": [(SIGNED, "READ"), OWNER],
}


@pytest.fixture
def open_service(serve: Callable[..., Service]) -> Service:
    return serve(public_acls=True)


@pytest.fixture
def owner(open_service: Service, new_client: Callable[..., BaseClient]) -> Any:
    return new_client(open_service)


@pytest.fixture
def anybody(open_service: Service) -> Iterator[Any]:
    config = Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=open_service.endpoint, region_name=REGION, config=config)
    yield client
    client.close()


def grants(answer: dict[str, Any]) -> list[tuple[str | None, str]]:
    return [(grant["Grantee"].get("URI"), grant["Permission"]) for grant in answer["Grants"]]


@pytest.mark.parametrize("acl", GRANTS)
def test_an_acl_is_kept_and_shown(s3: Any, bucket: str, acl: str) -> None:
    where = {"Bucket": bucket, "Key": "key"}
    s3.put_bucket_acl(Bucket=bucket, ACL=acl)
    s3.create_bucket(Bucket="made-with", ACL=acl)
    s3.put_object(**where, ACL=acl)
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == GRANTS[acl] == grants(s3.get_bucket_acl(Bucket="made-with"))
    assert grants(s3.get_object_acl(**where)) == GRANTS[acl]
    s3.put_object_acl(**where, ACL="private")
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    assert grants(s3.get_object_acl(**where)) == [OWNER] == grants(s3.get_bucket_acl(Bucket=bucket))


def test_an_acl_is_no_tag(s3: Any, bucket: str, raw: Raw) -> None:
    where, tags = {"Bucket": bucket, "Key": "key"}, {"TagSet": [{"Key": "a", "Value": "1"}]}
    s3.put_object(**where, ACL="public-read")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert s3.get_object_tagging(**where)["TagSet"] == []
    assert "x-amz-tagging-count" not in raw("HEAD", "/bucket/key").headers
    fails("NoSuchTagSet", 404, s3.get_bucket_tagging, Bucket=bucket)
    s3.put_object_tagging(**where, Tagging=tags)
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tags)
    assert s3.get_object_tagging(**where)["TagSet"] == tags["TagSet"] == s3.get_bucket_tagging(Bucket=bucket)["TagSet"]
    assert raw("HEAD", "/bucket/key").headers["x-amz-tagging-count"] == "1"
    s3.delete_object_tagging(**where)
    s3.delete_bucket_tagging(Bucket=bucket)
    assert grants(s3.get_object_acl(**where)) == GRANTS["public-read"] == grants(s3.get_bucket_acl(Bucket=bucket))
    fails("InvalidTag", 400, s3.put_object, **where, Tagging="aws:acl=public-read")


def test_a_copy_is_private_unless_it_says_so(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", ACL="public-read", Tagging="a=1")
    for acl, options in (("private", {}), ("public-read-write", {"ACL": "public-read-write"})):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key", **options)
        assert grants(s3.get_object_acl(Bucket=bucket, Key="copy")) == GRANTS[acl]
        assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "a", "Value": "1"}]


def test_without_the_option_an_acl_lets_nobody_in(s3: Any, raw: Raw) -> None:
    s3.create_bucket(Bucket="bucket", ACL="public-read-write")
    s3.put_object(Bucket="bucket", Key="key", ACL="public-read-write")
    for method, target in (("GET", "/bucket"), ("GET", "/bucket/key"), ("PUT", "/bucket/key"), ("GET", "/none")):
        assert raw(method, target, sign=False).status == 403
    assert s3.get_bucket_policy_status(Bucket="bucket")["PolicyStatus"]["IsPublic"] is False


def test_nobody_may_do_anything_with_what_is_private(owner: Any, anybody: Any) -> None:
    owner.create_bucket(Bucket="bucket")
    where = {"Bucket": "bucket", "Key": "key"}
    owner.put_object(**where)
    for call in (anybody.get_object, anybody.delete_object, anybody.put_object, anybody.get_object_acl):
        fails("AccessDenied", 403, call, **where)
    fails("AccessDenied", 403, anybody.get_object, Bucket="bucket", Key="none")
    fails("AccessDenied", 403, anybody.list_objects_v2, Bucket="bucket")
    fails("AccessDenied", 403, anybody.list_buckets)
    fails("AccessDenied", 403, anybody.create_bucket, Bucket="another")
    fails("NoSuchBucket", 404, anybody.get_object, Bucket="no-bucket", Key="key")


def test_public_read_is_for_reading(owner: Any, anybody: Any) -> None:
    owner.create_bucket(Bucket="bucket", ACL="public-read")
    owner.put_object(Bucket="bucket", Key="open", Body=b"1", ACL="public-read")
    owner.put_object(Bucket="bucket", Key="closed", Body=b"1")
    assert [entry["Key"] for entry in anybody.list_objects(Bucket="bucket")["Contents"]] == ["closed", "open"]
    assert anybody.get_object(Bucket="bucket", Key="open")["Body"].read() == b"1"
    assert anybody.head_object(Bucket="bucket", Key="open")["ContentLength"] == 1
    fails("AccessDenied", 403, anybody.get_object, Bucket="bucket", Key="closed")
    fails("NoSuchKey", 404, anybody.get_object, Bucket="bucket", Key="none")
    fails("AccessDenied", 403, anybody.put_object, Bucket="bucket", Key="open", Body=b"2")
    fails("AccessDenied", 403, anybody.delete_object, Bucket="bucket", Key="open")
    fails("AccessDenied", 403, anybody.put_bucket_acl, Bucket="bucket", ACL="public-read-write")
    fails("AccessDenied", 403, anybody.copy_object, Bucket="bucket", Key="copy", CopySource="bucket/open")
    fails("AccessDenied", 403, anybody.list_objects, Bucket="bucket", ExpectedBucketOwner="another")
    assert owner.get_bucket_policy_status(Bucket="bucket")["PolicyStatus"]["IsPublic"] is True


def test_an_object_may_be_public_in_a_private_bucket(owner: Any, anybody: Any) -> None:
    owner.create_bucket(Bucket="bucket")
    owner.put_object(Bucket="bucket", Key="key", Body=b"1", ACL="public-read")
    assert anybody.get_object(Bucket="bucket", Key="key")["Body"].read() == b"1"
    owner.put_object(Bucket="bucket", Key="key", Body=b"2")
    fails("AccessDenied", 403, anybody.get_object, Bucket="bucket", Key="key")


def test_public_read_write_is_for_writing_too(owner: Any, anybody: Any, open_service: Service) -> None:
    owner.create_bucket(Bucket="bucket", ACL="public-read-write")
    anybody.put_object(Bucket="bucket", Key="key", Body=b"1")
    fails("AccessDenied", 403, anybody.get_object, Bucket="bucket", Key="key")
    upload = anybody.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    where = {"Bucket": "bucket", "Key": "parts", "UploadId": upload}
    etag = anybody.upload_part(**where, PartNumber=1, Body=b"2")["ETag"]
    anybody.complete_multipart_upload(**where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})
    assert owner.get_object(Bucket="bucket", Key="parts")["Body"].read() == b"2"
    connection = http.client.HTTPConnection("127.0.0.1", open_service.port, timeout=30)
    fields = {"key": "form", "acl": "public-read", "file": "3"}
    body = "".join(f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{fields[name]}\r\n' for name in fields)
    statuses = []
    for acl in ("public-read-write", "public-read"):
        owner.put_bucket_acl(Bucket="bucket", ACL=acl)
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        connection.request("POST", "/bucket", f"{body}--b--\r\n", headers)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    assert statuses == [204, 403]
    assert anybody.get_object(Bucket="bucket", Key="form")["Body"].read() == b"3"
    owner.put_bucket_acl(Bucket="bucket", ACL="public-read-write")
    anybody.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "form"}, {"Key": "key"}, {"Key": "parts"}]})
    assert "Contents" not in anybody.list_objects_v2(Bucket="bucket")
