"""Single objects, through boto3: get, head, put, delete, conditions, ranges, metadata."""

import datetime
import io
import os
import socket
from collections.abc import Callable
from threading import Barrier
from typing import Any

import pytest

from s4raw.keys import Key
from s4raw.objects.base import ALWAYS, Conditions
from s4raw.objects.memory import MemoryBackend

from .service import Raw, Service, fails

BODY = b"0123456789" * 10


def put(s3: Any, bucket: str, key: str = "key", body: bytes = BODY, **options: Any) -> Any:
    return s3.put_object(Bucket=bucket, Key=key, Body=body, **options)


@pytest.mark.also_on_a_ring
def test_what_is_put_is_got(s3: Any, bucket: str) -> None:
    etag = put(s3, bucket)["ETag"]
    assert etag == '"45e0a8db01ae4e1ee3a4b0ea0a0ad7a2"' or len(etag) == 34
    found = s3.get_object(Bucket=bucket, Key="key")
    assert found["Body"].read() == BODY
    assert found["ETag"] == etag
    assert found["ContentLength"] == len(BODY)
    assert found["ContentType"] == "binary/octet-stream"
    assert found["AcceptRanges"] == "bytes"
    head = s3.head_object(Bucket=bucket, Key="key")
    assert (head["ContentLength"], head["ETag"]) == (len(BODY), etag)
    assert head["LastModified"] == found["LastModified"]


@pytest.mark.also_on_a_ring
def test_an_overwrite_replaces_bytes_and_metadata(s3: Any, bucket: str) -> None:
    put(s3, bucket, Metadata={"a": "1"}, ContentType="text/plain")
    put(s3, bucket, body=b"new")
    found = s3.get_object(Bucket=bucket, Key="key")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"]) == (b"new", {}, "binary/octet-stream")


@pytest.mark.parametrize(
    "key", ["a//b", "trail/", "/lead", ".", "..", "a/../b", "a b+c", "ü/é", "🎈", "a?b#c%20&=", "\x7f\x01"]
)
def test_any_key(s3: Any, bucket: str, key: str) -> None:
    put(s3, bucket, key)
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == BODY
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
    s3.delete_object(Bucket=bucket, Key=key)
    fails("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key=key)


def test_a_key_beside_its_directory(s3: Any, bucket: str) -> None:
    put(s3, bucket, "a", b"1")
    put(s3, bucket, "a/b", b"2")
    assert s3.get_object(Bucket=bucket, Key="a")["Body"].read() == b"1"
    assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"2"


def test_a_key_is_at_most_1024_bytes(s3: Any, bucket: str) -> None:
    put(s3, bucket, "k" * 1024)
    fails("KeyTooLongError", 400, put, s3=s3, bucket=bucket, key="k" * 1025)


def test_system_headers_are_kept(s3: Any, bucket: str) -> None:
    given = {
        "CacheControl": "public, max-age=14400",
        "ContentDisposition": 'attachment; filename="a.txt"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ContentType": "text/html; charset=utf-8",
        "WebsiteRedirectLocation": "/other",
        "StorageClass": "STANDARD_IA",
    }
    put(s3, bucket, Expires=datetime.datetime(2031, 1, 2, 3, 4, 5), **given)
    found = s3.head_object(Bucket=bucket, Key="key")
    assert {name: found[name] for name in given} == given
    assert found["ResponseMetadata"]["HTTPHeaders"]["expires"] == "Thu, 02 Jan 2031 03:04:05 GMT"


@pytest.mark.also_on_a_ring
def test_user_metadata_is_kept(s3: Any, bucket: str, raw: Raw) -> None:
    put(s3, bucket, Metadata={"one": "1", "Two-Words": "a  b, c", "empty": ""})
    assert s3.head_object(Bucket=bucket, Key="key")["Metadata"] == {"one": "1", "two-words": "a  b, c", "empty": ""}
    raw("PUT", "/bucket/other", BODY, {"x-amz-meta-name": "Hello World\xe9"})
    assert raw("GET", "/bucket/other").headers["x-amz-meta-name"] == "Hello World\xe9"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("deflate, gzip", "deflate, gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("aws-chunked,gzip", "gzip"),
        ("deflate, gzip, aws-chunked", "deflate, gzip"),
        ("aws-chunked", None),
    ],
)
def test_a_coding_of_the_request_is_not_the_objects(plain: Any, bucket: str, sent: str, kept: str | None) -> None:
    put(plain, bucket, ContentEncoding=sent)
    assert plain.head_object(Bucket=bucket, Key="key").get("ContentEncoding") == kept


def test_user_metadata_has_a_limit(s3: Any, bucket: str) -> None:
    put(s3, bucket, Metadata={"n": "x" * 2047})
    fails("MetadataTooLarge", 400, put, s3=s3, bucket=bucket, Metadata={"n": "x" * 2048})


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=4-7", 4, 8),
        ("bytes=4-", 4, 100),
        ("bytes=-7", 93, 100),
        ("bytes=-500", 0, 100),
        ("bytes=90-500", 90, 100),
        ("bytes=0-0", 0, 1),
    ],
)
def test_ranges(s3: Any, bucket: str, asked: str, start: int, end: int) -> None:
    put(s3, bucket)
    for call in (s3.get_object, s3.head_object):
        found = call(Bucket=bucket, Key="key", Range=asked)
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert found["ContentRange"] == f"bytes {start}-{end - 1}/100"
        assert found["ContentLength"] == end - start
        if "Body" in found:
            assert found["Body"].read() == BODY[start:end]


@pytest.mark.parametrize("asked", ["bytes=8-4", "bytes=0-1,4-5", "lines=1-2", "bytes=-", "bytes=a-b", "4-5"])
def test_what_is_no_single_range_gives_all(s3: Any, bucket: str, asked: str) -> None:
    put(s3, bucket)
    found = s3.get_object(Bucket=bucket, Key="key", Range=asked)
    assert (found["ResponseMetadata"]["HTTPStatusCode"], found["Body"].read()) == (200, BODY)


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_beyond_the_end(s3: Any, bucket: str, raw: Raw, asked: str) -> None:
    put(s3, bucket)
    found = fails("InvalidRange", 416, s3.get_object, Bucket=bucket, Key="key", Range=asked)
    assert found["ResponseMetadata"]["HTTPHeaders"]["content-range"] == "bytes */100"
    assert found["Error"]["ActualObjectSize"] == "100"
    head = raw("HEAD", "/bucket/key", headers={"Range": asked})
    assert (head.status, head.body, head.headers["content-range"]) == (416, b"", "bytes */100")


def test_a_range_of_an_empty_object(s3: Any, bucket: str) -> None:
    put(s3, bucket, body=b"")
    fails("InvalidRange", 416, s3.get_object, Bucket=bucket, Key="key", Range="bytes=0-5")
    assert s3.get_object(Bucket=bucket, Key="key", PartNumber=1)["Body"].read() == b""


def test_if_range(s3: Any, bucket: str, raw: Raw) -> None:
    etag = put(s3, bucket)["ETag"]
    assert raw("GET", "/bucket/key", headers={"Range": "bytes=1-2", "If-Range": etag}).body == b"12"
    assert raw("GET", "/bucket/key", headers={"Range": "bytes=1-2", "If-Range": '"other"'}).body == BODY
    modified = raw("HEAD", "/bucket/key").headers["last-modified"]
    assert raw("GET", "/bucket/key", headers={"Range": "bytes=1-2", "If-Range": modified}).body == b"12"


def test_part_numbers_of_a_plain_object(s3: Any, bucket: str) -> None:
    put(s3, bucket)
    found = s3.get_object(Bucket=bucket, Key="key", PartNumber=1)
    assert (found["ContentRange"], found["Body"].read()) == ("bytes 0-99/100", BODY)
    assert "PartsCount" not in found
    fails("InvalidPartNumber", 416, s3.get_object, Bucket=bucket, Key="key", PartNumber=2)
    fails("InvalidArgument", 400, s3.get_object, Bucket=bucket, Key="key", PartNumber=0)
    fails("InvalidRequest", 400, s3.get_object, Bucket=bucket, Key="key", PartNumber=1, Range="bytes=0-1")


def test_conditions_of_reads(s3: Any, bucket: str) -> None:
    etag = put(s3, bucket)["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="key")["LastModified"]
    second = datetime.timedelta(seconds=1)
    for call, no_body in ((s3.get_object, False), (s3.head_object, True)):
        where = {"Bucket": bucket, "Key": "key"}
        for good in (
            {"IfMatch": etag},
            {"IfMatch": etag.strip('"')},
            {"IfMatch": f'"other", {etag}'},
            {"IfMatch": "*"},
            {"IfNoneMatch": '"other"'},
            {"IfModifiedSince": modified - second},
            {"IfUnmodifiedSince": modified},
            {"IfMatch": etag, "IfUnmodifiedSince": modified - second},
            {"IfNoneMatch": '"other"', "IfModifiedSince": modified},
        ):
            call(**where, **good)
        for bad in ({"IfMatch": '"other"'}, {"IfUnmodifiedSince": modified - second}):
            fails("412" if no_body else "PreconditionFailed", 412, call, **where, **bad)
        for same in (
            {"IfNoneMatch": etag},
            {"IfNoneMatch": "*"},
            {"IfModifiedSince": modified},
            {"IfNoneMatch": etag, "IfModifiedSince": modified - second},
        ):
            found = fails("304", 304, call, **where, **same)
            assert found["ResponseMetadata"]["HTTPHeaders"]["etag"] == etag


def test_conditional_reads_of_a_missing_object(s3: Any, bucket: str) -> None:
    fails("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="no", IfMatch="*")
    fails("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="no", IfNoneMatch="*")


@pytest.mark.parametrize(
    "form", ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
)
def test_dates_in_all_three_forms(s3: Any, bucket: str, raw: Raw, form: str) -> None:
    put(s3, bucket)
    assert raw("GET", "/bucket/key", headers={"If-Unmodified-Since": form}).status == 412
    assert raw("GET", "/bucket/key", headers={"If-Modified-Since": form}).status == 200
    assert raw("GET", "/bucket/key", headers={"If-Unmodified-Since": "no date"}).status == 200


@pytest.mark.also_on_a_ring
def test_conditions_of_writes(s3: Any, bucket: str) -> None:
    fails("NoSuchKey", 404, put, s3=s3, bucket=bucket, IfMatch="*")
    etag = put(s3, bucket, IfNoneMatch="*")["ETag"]
    fails("PreconditionFailed", 412, put, s3=s3, bucket=bucket, IfNoneMatch="*")
    fails("PreconditionFailed", 412, put, s3=s3, bucket=bucket, IfMatch='"other"')
    put(s3, bucket, body=b"new", IfMatch=etag)
    fails("PreconditionFailed", 412, put, s3=s3, bucket=bucket, IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"new"


@pytest.mark.also_on_a_ring
def test_conditions_of_deletes(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "key"}
    etag = put(s3, bucket)["ETag"]
    modified = s3.head_object(**where)["LastModified"]
    fails("PreconditionFailed", 412, s3.delete_object, **where, IfMatch='"other"')
    fails("PreconditionFailed", 412, s3.delete_object, **where, IfMatchSize=1)
    fails("PreconditionFailed", 412, s3.delete_object, **where, IfMatchLastModifiedTime=datetime.datetime(2015, 1, 1))
    s3.delete_object(**where, IfMatch=etag, IfMatchSize=100, IfMatchLastModifiedTime=modified)
    s3.delete_object(**where, IfMatch='"other"')  # nothing is there any more


def test_delete(s3: Any, bucket: str) -> None:
    put(s3, bucket)
    assert s3.delete_object(Bucket=bucket, Key="key")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.delete_object(Bucket=bucket, Key="key", VersionId="null")["ResponseMetadata"]["HTTPStatusCode"] == 204
    fails("404", 404, s3.head_object, Bucket=bucket, Key="key")
    fails("NoSuchBucket", 404, s3.delete_object, Bucket="nowhere", Key="key")


def test_versions(s3: Any, bucket: str, raw: Raw) -> None:
    put(s3, bucket)
    assert s3.get_object(Bucket=bucket, Key="key", VersionId="null")["Body"].read() == BODY
    fails("NoSuchVersion", 404, s3.get_object, Bucket=bucket, Key="key", VersionId="v" * 32)
    fails("InvalidArgument", 400, s3.delete_object, Bucket=bucket, Key="key", VersionId="1")
    assert raw("GET", "/bucket/key?versionId").status == 400
    s3.head_object(Bucket=bucket, Key="key")


def test_response_overrides(s3: Any, bucket: str, raw: Raw) -> None:
    put(s3, bucket, ContentType="text/plain")
    found = s3.get_object(
        Bucket=bucket,
        Key="key",
        ResponseContentType="text/html",
        ResponseContentDisposition='attachment; filename="ü"',
        ResponseCacheControl="no-cache",
        ResponseContentEncoding="aaa",
        ResponseContentLanguage="esperanto",
        ResponseExpires=datetime.datetime(2031, 1, 1),
    )
    assert (found["ContentType"], found["CacheControl"]) == ("text/html", "no-cache")
    assert (found["ContentEncoding"], found["ContentLanguage"]) == ("aaa", "esperanto")
    assert found["ContentDisposition"].encode("latin-1").decode() == 'attachment; filename="ü"'
    assert raw("GET", "/bucket/key?response-content-type=a%0D%0AX-Evil%3A%201").status == 400


def test_checksums_are_kept_and_told(s3: Any, bucket: str) -> None:
    told = put(s3, bucket, ChecksumAlgorithm="SHA256")
    head = s3.head_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == told["ChecksumSHA256"]
    assert head["ChecksumType"] == "FULL_OBJECT"
    assert "ChecksumSHA256" not in s3.head_object(Bucket=bucket, Key="key")
    ranged = s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED", Range="bytes=0-5")
    assert "ChecksumSHA256" not in ranged
    assert s3.get_object(Bucket=bucket, Key="key", ChecksumMode="ENABLED")["Body"].read() == BODY


def test_a_wrong_checksum_stores_nothing(s3: Any, bucket: str) -> None:
    fails("BadDigest", 400, put, s3=s3, bucket=bucket, ChecksumCRC32="AAAAAA==")
    fails("BadDigest", 400, put, s3=s3, bucket=bucket, ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    fails("InvalidDigest", 400, put, s3=s3, bucket=bucket, ContentMD5="abc")
    fails("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="key")


def test_put_into_no_bucket(s3: Any) -> None:
    fails("NoSuchBucket", 404, put, s3=s3, bucket="nowhere")


def test_put_needs_a_length(raw: Raw, service: Any, s3: Any, bucket: str) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as sock:
        url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "key"})
        target = url.removeprefix(service.endpoint)
        sock.sendall(f"PUT {target} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n\r\n".encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 411 ")


def test_promises_that_are_not_kept_are_refused(s3: Any, bucket: str) -> None:
    fails("NotImplemented", 501, put, s3=s3, bucket=bucket, ServerSideEncryption="AES256")
    fails("NotImplemented", 501, put, s3=s3, bucket=bucket, ObjectLockLegalHoldStatus="ON")
    fails("NotImplemented", 501, put, s3=s3, bucket=bucket, WriteOffsetBytes=100)
    fails("NotImplemented", 501, put, s3=s3, bucket=bucket, GrantRead="id=x")
    fails("InvalidArgument", 400, put, s3=s3, bucket=bucket, ACL="bogus")
    fails("InvalidStorageClass", 400, put, s3=s3, bucket=bucket, StorageClass="BOGUS")
    put(s3, bucket, ACL="private")


def test_bodies_of_any_framing(s3: Any, bucket: str, service: Any, new_client: Any) -> None:
    for options in ({}, {"request_checksum_calculation": "when_required"}):
        client = new_client(service, **options)
        client.put_object(Bucket=bucket, Key="key", Body=io.BytesIO(BODY * 1000))
        assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == BODY * 1000
        assert "ContentEncoding" not in client.head_object(Bucket=bucket, Key="key")


@pytest.mark.also_on_a_ring
def test_large_objects(s3: Any, bucket: str) -> None:
    body = os.urandom((3 << 20) + 5)
    put(s3, bucket, body=body)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == body
    assert (
        s3.get_object(Bucket=bucket, Key="key", Range="bytes=1000000-2500000")["Body"].read() == body[1000000:2500001]
    )


@pytest.mark.also_on_a_ring
def test_tags(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket, "Key": "key"}
    put(s3, bucket, Tagging="b=2&a=1%201&c=")
    assert s3.get_object_tagging(**where)["TagSet"] == [
        {"Key": "a", "Value": "1 1"},
        {"Key": "b", "Value": "2"},
        {"Key": "c", "Value": ""},
    ]
    assert s3.head_object(**where)["ResponseMetadata"]["HTTPHeaders"]["x-amz-tagging-count"] == "3"
    tags = [{"Key": f"k{number}", "Value": "v"} for number in range(10)]
    s3.put_object_tagging(**where, Tagging={"TagSet": tags})
    assert s3.get_object_tagging(**where)["TagSet"] == tags
    for bad in (
        [*tags, {"Key": "k10", "Value": "v"}],
        [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}],
        [{"Key": "k" * 129, "Value": ""}],
        [{"Key": "k", "Value": "v" * 257}],
        [{"Key": "aws:k", "Value": ""}],
    ):
        fails("InvalidTag", 400, s3.put_object_tagging, **where, Tagging={"TagSet": bad})
    for bad in ("k=%01", "%EF%BF%BF=v"):  # no answer could tell them
        fails("InvalidTag", 400, s3.put_object, **where, Tagging=bad)
    assert s3.get_object_tagging(**where)["TagSet"] == tags
    assert s3.delete_object_tagging(**where)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.get_object_tagging(**where)["TagSet"] == []
    fails("NoSuchKey", 404, s3.get_object_tagging, Bucket=bucket, Key="no")


def test_object_attributes(s3: Any, bucket: str) -> None:
    etag = put(s3, bucket, ChecksumAlgorithm="CRC32C")["ETag"]
    names = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    found = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=names)
    assert found["ETag"] == etag.strip('"')
    assert found["ObjectSize"] == 100
    assert found["StorageClass"] == "STANDARD"
    assert found["Checksum"]["ChecksumType"] == "FULL_OBJECT"
    assert "ChecksumCRC32C" in found["Checksum"]
    assert "ObjectParts" not in found
    assert "ETag" not in s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["ObjectSize"])
    fails("InvalidArgument", 400, s3.get_object_attributes, Bucket=bucket, Key="key", ObjectAttributes=["Bogus"])


def test_fixed_answers(s3: Any, bucket: str, raw: Raw) -> None:
    put(s3, bucket)
    where = {"Bucket": bucket, "Key": "key"}
    grant = s3.get_object_acl(**where)["Grants"]
    assert [each["Permission"] for each in grant] == ["FULL_CONTROL"]
    s3.put_object_acl(**where, ACL="private")
    fails("NotImplemented", 501, s3.put_object_acl, **where, ACL="public-read")
    fails("InvalidRequest", 400, s3.get_object_legal_hold, **where)
    fails("InvalidRequest", 400, s3.get_object_retention, **where)
    for method, target in (
        ("GET", "/bucket/key?torrent"),
        ("POST", "/bucket/key?restore"),
        ("POST", "/bucket/key?select&select-type=2"),
        ("PUT", "/bucket/key?append&position=0"),
        ("DELETE", "/bucket/key?annotation=x"),
        ("DELETE", "/bucket/key?what=ever"),
        ("DELETE", "/bucket?bogus"),
        ("PUT", "/bucket/key?bogus"),
    ):
        assert raw(method, target).status == 501, (method, target)
    assert s3.get_object(**where)["Body"].read() == BODY
    assert raw("GET", "/bucket/key?what=ever").body == BODY


@pytest.mark.also_on_a_ring
def test_copies(s3: Any, bucket: str) -> None:
    put(s3, bucket, "a b+ü", Metadata={"m": "1"}, ContentType="text/plain", Tagging="t=1", StorageClass="GLACIER_IR")
    source = {"Bucket": bucket, "Key": "a b+ü"}
    found = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert found["CopyObjectResult"]["ETag"] == head["ETag"]
    assert (head["Metadata"], head["ContentType"]) == ({"m": "1"}, "text/plain")
    assert "StorageClass" not in head
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == BODY
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "t", "Value": "1"}]
    s3.copy_object(
        Bucket=bucket,
        Key="copy",
        CopySource={**source, "VersionId": "null"},
        MetadataDirective="REPLACE",
        Metadata={"n": "2"},
        TaggingDirective="REPLACE",
        Tagging="u=2",
    )
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert (head["Metadata"], head["ContentType"]) == ({"n": "2"}, "binary/octet-stream")
    assert s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"] == [{"Key": "u", "Value": "2"}]


def test_a_copy_onto_itself_needs_a_change(s3: Any, bucket: str) -> None:
    put(s3, bucket, Metadata={"m": "1"})
    where = {"Bucket": bucket, "Key": "key", "CopySource": {"Bucket": bucket, "Key": "key"}}
    fails("InvalidRequest", 400, s3.copy_object, **where)
    s3.copy_object(**where, MetadataDirective="REPLACE", Metadata={"m": "2"})
    found = s3.get_object(Bucket=bucket, Key="key")
    assert (found["Metadata"], found["Body"].read()) == ({"m": "2"}, BODY)


def test_a_copy_takes_another_checksum(s3: Any, bucket: str) -> None:
    put(s3, bucket, ChecksumAlgorithm="CRC32")
    source = {"Bucket": bucket, "Key": "key"}
    found = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, ChecksumAlgorithm="SHA256")
    put(s3, bucket, "direct", ChecksumAlgorithm="SHA256")
    direct = s3.head_object(Bucket=bucket, Key="direct", ChecksumMode="ENABLED")
    assert found["CopyObjectResult"]["ChecksumSHA256"] == direct["ChecksumSHA256"]
    assert s3.head_object(Bucket=bucket, Key="copy")["ETag"] == direct["ETag"]


def test_copies_that_fail(s3: Any, bucket: str) -> None:
    etag = put(s3, bucket)["ETag"]
    source = {"Bucket": bucket, "Key": "key"}
    target = {"Bucket": bucket, "Key": "copy"}
    fails("NoSuchKey", 404, s3.copy_object, **target, CopySource=f"{bucket}/no")
    fails("NoSuchBucket", 404, s3.copy_object, **target, CopySource="nowhere/no")
    fails("NoSuchBucket", 404, s3.copy_object, Bucket="nowhere", Key="k", CopySource=source)
    fails("InvalidArgument", 400, s3.copy_object, **target, CopySource="nothing")
    fails("InvalidArgument", 400, s3.copy_object, **target, CopySource=source, MetadataDirective="BOGUS")
    fails("PreconditionFailed", 412, s3.copy_object, **target, CopySource=source, CopySourceIfMatch='"other"')
    fails("PreconditionFailed", 412, s3.copy_object, **target, CopySource=source, CopySourceIfNoneMatch=etag)
    s3.copy_object(
        **target, CopySource=source, CopySourceIfMatch=etag, CopySourceIfNoneMatch='"other"', IfNoneMatch="*"
    )
    fails("PreconditionFailed", 412, s3.copy_object, **target, CopySource=source, IfNoneMatch="*")


@pytest.mark.also_on_a_ring
def test_delete_objects(s3: Any, bucket: str) -> None:
    keys = ["a", "b/ü", "<c>&", "d"]
    for key in keys[:3]:
        put(s3, bucket, key)
    wanted = [{"Key": key} for key in keys] + [{"Key": "a", "VersionId": "null"}]
    found = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert found["Deleted"] == wanted
    assert "Errors" not in found
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted, "Quiet": True})


def test_delete_objects_tells_each_error(s3: Any, bucket: str) -> None:
    etag = put(s3, bucket)["ETag"]
    wanted = [{"Key": "key", "ETag": '"other"'}, {"Key": "k", "VersionId": "v" * 32}, {"Key": "x" * 1025}]
    found = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert [error["Code"] for error in found["Errors"]] == ["PreconditionFailed", "NoSuchVersion", "KeyTooLongError"]
    assert s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "key", "ETag": etag}]})["Deleted"]


def test_delete_objects_has_a_limit(s3: Any, bucket: str) -> None:
    wanted = [{"Key": f"k{number}"} for number in range(1001)]
    assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted[:1000]})["Deleted"]) == 1000
    fails("MalformedXML", 400, s3.delete_objects, Bucket=bucket, Delete={"Objects": wanted})
    fails("NoSuchBucket", 404, s3.delete_objects, Bucket="nowhere", Delete={"Objects": wanted[:1]})


def test_deletes_go_side_by_side_where_each_takes_long(new_client: Callable[..., Any], complaints: list[str]) -> None:
    meeting = Barrier(4)

    class Slow(MemoryBackend):
        def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
            meeting.wait(20)
            return super().delete(key, conditions)

    names = [f"{number:02}" for number in range(20)]
    wanted = [{"Key": name} for name in names]
    with Service(Slow(), complaints, deletes_at_once=4) as service:
        s3 = new_client(service)
        s3.create_bucket(Bucket="bucket")
        found = s3.delete_objects(Bucket="bucket", Delete={"Objects": wanted})
        assert [entry["Key"] for entry in found["Deleted"]] == names
        fails("NoSuchBucket", 404, s3.delete_objects, Bucket="nowhere", Delete={"Objects": wanted[:4]})
