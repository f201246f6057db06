"""Multipart uploads by boto3: what they become, what they refuse, and how they are listed."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from .uploads import KEY, PART, begin, code, content, etag_of, finish, get, put


@pytest.mark.also_on_a_ring
def test_parts_become_an_object(s3: Any, bucket: str) -> None:
    first, second = content(PART), content(123, 2)
    upload = begin(
        s3, bucket, ContentType="text/bla", Metadata={"foo": "bar"}, Tagging="a=1&b=2", CacheControl="no-cache"
    )
    parts = [put(s3, bucket, upload, 3, first), put(s3, bucket, upload, 7, second)]
    done = finish(s3, bucket, upload, parts)
    assert done["ETag"] == etag_of(first, second)
    assert done["Bucket"] == bucket and done["Key"] == KEY
    assert done["Location"].endswith(f"/{bucket}/dir/a%20b%2Bc.bin")
    found = s3.get_object(Bucket=bucket, Key=KEY)
    assert found["Body"].read() == first + second
    assert found["ETag"] == done["ETag"] and found["ContentType"] == "text/bla" and found["CacheControl"] == "no-cache"
    assert found["Metadata"] == {"foo": "bar"}
    tags = s3.get_object_tagging(Bucket=bucket, Key=KEY)["TagSet"]
    assert tags == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_parts_of_an_object_are_read_one_by_one(s3: Any, bucket: str) -> None:
    bodies = [content(PART), content(PART, 2), content(10, 3)]
    upload = begin(s3, bucket)
    finish(s3, bucket, upload, [put(s3, bucket, upload, n + 1, body) for n, body in enumerate(bodies)])
    for n, body in enumerate(bodies):
        found = s3.get_object(Bucket=bucket, Key=KEY, PartNumber=n + 1)
        assert found["PartsCount"] == 3 and found["Body"].read() == body


def test_etags_may_come_without_quotes(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    part = put(s3, bucket, upload, 1, b"x")
    finish(s3, bucket, upload, [{**part, "ETag": part["ETag"].strip('"')}])
    assert get(s3, bucket) == b"x"


def test_a_part_that_is_put_again_replaces_the_first(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    old = put(s3, bucket, upload, 1, b"old")
    new = put(s3, bucket, upload, 1, b"new")
    with pytest.raises(ClientError) as raised:
        finish(s3, bucket, upload, [old])
    assert code(raised) == (400, "InvalidPart")
    finish(s3, bucket, upload, [new])
    assert get(s3, bucket) == b"new"


def test_a_number_that_is_named_twice_is_the_later_part(s3: Any, bucket: str) -> None:
    """As s3-tests' test_multipart_resend_first_finishes_last has it."""
    upload = begin(s3, bucket)
    old = put(s3, bucket, upload, 1, b"B")
    new = put(s3, bucket, upload, 1, b"A")
    finish(s3, bucket, upload, [old, new])
    assert get(s3, bucket) == b"A"


def test_an_upload_without_its_parts_stays_invisible(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    put(s3, bucket, upload, 1, b"x")
    with pytest.raises(ClientError) as raised:
        s3.get_object(Bucket=bucket, Key=KEY)
    assert code(raised) == (404, "NoSuchKey")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_completing_again_is_answered_alike(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket, ChecksumAlgorithm="SHA256")
    parts = [put(s3, bucket, upload, 1, b"x", ChecksumAlgorithm="SHA256")]
    first, second = finish(s3, bucket, upload, parts), finish(s3, bucket, upload, parts)
    for name in ("ETag", "Location", "Bucket", "Key", "ChecksumSHA256", "ChecksumType"):
        assert first[name] == second[name]
    s3.put_object(Bucket=bucket, Key=KEY, Body=b"another")
    with pytest.raises(ClientError) as raised:
        finish(s3, bucket, upload, parts)
    assert code(raised) == (404, "NoSuchUpload")
    s3.delete_object(Bucket=bucket, Key=KEY)
    with pytest.raises(ClientError) as raised:
        finish(s3, bucket, upload, parts)
    assert code(raised) == (404, "NoSuchUpload")


@pytest.mark.parametrize("etag", ["1234", "", "zz" * 16])
def test_completing_what_was_never_begun(s3: Any, bucket: str, etag: str) -> None:
    with pytest.raises(ClientError) as raised:
        finish(s3, bucket, "abc1234def", [{"PartNumber": 1, "ETag": etag}])
    assert code(raised) == (404, "NoSuchUpload")


def test_an_upload_is_of_its_key(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    part = put(s3, bucket, upload, 1, b"x")
    for call in (
        lambda: put(s3, bucket, upload, 1, b"x", key="another"),
        lambda: finish(s3, bucket, upload, [part], key="another"),
        lambda: s3.list_parts(Bucket=bucket, Key="another", UploadId=upload),
        lambda: s3.abort_multipart_upload(Bucket=bucket, Key="another", UploadId=upload),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert code(raised) == (404, "NoSuchUpload")


def test_completing_with_no_parts_is_malformed(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    for options in ({}, {"MultipartUpload": {}}, {"MultipartUpload": {"Parts": []}}):
        with pytest.raises(ClientError) as raised:
            s3.complete_multipart_upload(Bucket=bucket, Key=KEY, UploadId=upload, **options)
        assert code(raised) == (400, "MalformedXML")


def test_parts_must_be_in_order_there_and_large_enough(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    one, two = put(s3, bucket, upload, 1, b"x" * 10_000), put(s3, bucket, upload, 2, b"y")
    for parts, expected in (
        ([two, one], "InvalidPartOrder"),
        ([one, {**two, "PartNumber": 9999}], "InvalidPart"),
        ([one, {**two, "ETag": '"ffffffffffffffffffffffffffffffff"'}], "InvalidPart"),
        ([one, two], "EntityTooSmall"),
        ([{**one, "PartNumber": 0}], "InvalidArgument"),
        ([{"PartNumber": 1}], "MalformedXML"),
        ([{"ETag": one["ETag"]}], "MalformedXML"),
    ):
        with pytest.raises(ClientError) as raised:
            finish(s3, bucket, upload, parts)
        assert code(raised) == (400, expected)
    finish(s3, bucket, upload, [one])
    assert get(s3, bucket) == b"x" * 10_000


@pytest.mark.parametrize("number", [0, 10_001, -1])
def test_numbers_of_parts(s3: Any, bucket: str, number: int) -> None:
    upload = begin(s3, bucket)
    with pytest.raises(ClientError) as raised:
        put(s3, bucket, upload, number, b"x")
    assert code(raised) == (400, "InvalidArgument")
    put(s3, bucket, upload, 10_000, b"x")


def test_conditions_of_completion(s3: Any, bucket: str) -> None:
    def attempt(**conditions: str) -> str:
        upload = begin(s3, bucket)
        part = put(s3, bucket, upload, 1, b"abc")
        try:
            return str(finish(s3, bucket, upload, [part], **conditions)["ETag"])
        except ClientError as error:
            assert s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload)["Parts"]
            return str(error.response["Error"]["Code"])

    assert attempt(IfMatch="*") == "NoSuchKey"
    assert attempt(IfMatch='"bad"') == "NoSuchKey"
    etag = attempt(IfNoneMatch="*")
    assert etag.endswith('-1"')
    assert attempt(IfNoneMatch="*") == "PreconditionFailed"
    assert attempt(IfNoneMatch=etag) == "PreconditionFailed"
    assert attempt(IfNoneMatch='"bad"') == etag
    assert attempt(IfMatch='"bad"') == "PreconditionFailed"
    assert attempt(IfMatch=etag) == etag
    assert attempt(IfMatch="*") == etag


def test_the_size_of_the_whole_is_checked(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    parts = [put(s3, bucket, upload, 1, b"abc")]
    with pytest.raises(ClientError) as raised:
        finish(s3, bucket, upload, parts, MpuObjectSize=4)
    assert code(raised) == (400, "InvalidRequest")
    finish(s3, bucket, upload, parts, MpuObjectSize=3)


@pytest.mark.also_on_a_ring
def test_an_upload_is_given_up_once(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    put(s3, bucket, upload, 1, b"x")
    assert (
        s3.abort_multipart_upload(Bucket=bucket, Key=KEY, UploadId=upload)["ResponseMetadata"]["HTTPStatusCode"] == 204
    )
    for call in (
        lambda: s3.abort_multipart_upload(Bucket=bucket, Key=KEY, UploadId=upload),
        lambda: put(s3, bucket, upload, 1, b"x"),
        lambda: s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload),
    ):
        with pytest.raises(ClientError) as raised:
            call()
        assert code(raised) == (404, "NoSuchUpload")


def test_a_bucket_that_is_not_there(s3: Any) -> None:
    with pytest.raises(ClientError) as raised:
        begin(s3, "no-such-bucket-anywhere")
    assert code(raised) == (404, "NoSuchBucket")
    with pytest.raises(ClientError) as raised:
        s3.list_multipart_uploads(Bucket="no-such-bucket-anywhere")
    assert code(raised) == (404, "NoSuchBucket")


def test_parts_are_listed_in_pages(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket)
    numbers = [2, 3, 5, 8, 13]
    etags = {n: put(s3, bucket, upload, n, bytes([n]) * n)["ETag"] for n in reversed(numbers)}
    whole = s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload)
    assert whole["Key"] == KEY and whole["UploadId"] == upload and whole["StorageClass"] == "STANDARD"
    assert not whole["IsTruncated"] and whole["MaxParts"] == 1000 and whole["NextPartNumberMarker"] == 13
    assert whole["Owner"] == whole["Initiator"]
    pages = s3.get_paginator("list_parts").paginate(
        Bucket=bucket, Key=KEY, UploadId=upload, PaginationConfig={"PageSize": 2}
    )
    found = [part for page in pages for part in page["Parts"]]
    assert [part["PartNumber"] for part in found] == numbers
    assert [(part["ETag"], part["Size"]) for part in found] == [(etags[n], n) for n in numbers]
    rest = s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload, PartNumberMarker=5, MaxParts=1)
    assert [part["PartNumber"] for part in rest["Parts"]] == [8]
    assert rest["IsTruncated"] and rest["PartNumberMarker"] == 5 and rest["NextPartNumberMarker"] == 8
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload, PartNumberMarker=99_999)


@pytest.mark.also_on_a_ring
def test_uploads_are_listed_by_key_and_by_time(s3: Any, bucket: str) -> None:
    names = ["b/1", "a", "b/2", "a", "c", "é~ü%"]
    begun = [(name, begin(s3, bucket, key=name)) for name in names]
    expected = sorted(begun)
    listed = s3.list_multipart_uploads(Bucket=bucket)
    assert [(u["Key"], u["UploadId"]) for u in listed["Uploads"]] == expected
    assert not listed["IsTruncated"]
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, PaginationConfig={"PageSize": 1})
    assert [(u["Key"], u["UploadId"]) for page in pages for u in page.get("Uploads", [])] == expected
    rolled = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in rolled["CommonPrefixes"]] == ["b/"]
    assert [u["Key"] for u in rolled["Uploads"]] == ["a", "a", "c", "é~ü%"]
    below = s3.list_multipart_uploads(Bucket=bucket, Prefix="b/")
    assert [u["Key"] for u in below["Uploads"]] == ["b/1", "b/2"]
    after = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a")
    assert [u["Key"] for u in after["Uploads"]] == ["b/1", "b/2", "c", "é~ü%"]
    within = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a", UploadIdMarker=expected[0][1])
    assert [u["Key"] for u in within["Uploads"]] == ["a", "b/1", "b/2", "c", "é~ü%"]
    encoded = s3.list_multipart_uploads(Bucket=bucket, Prefix="é", EncodingType="url")
    assert encoded["Uploads"][0]["Key"] == "%C3%A9~%C3%BC%25"


@pytest.mark.parametrize("size", [1, 2, 3])
def test_pages_of_uploads_with_common_prefixes(s3: Any, bucket: str, size: int) -> None:
    ids = {name: begin(s3, bucket, key=name) for name in ("a", "b/1", "b/2", "c", "d/1")}
    found: list[str] = []
    marker: dict[str, str] = {}
    for _ in range(10):
        page = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/", MaxUploads=size, **marker)
        names = [u["Key"] for u in page.get("Uploads", [])] + [p["Prefix"] for p in page.get("CommonPrefixes", [])]
        found += sorted(names)
        if not page["IsTruncated"]:
            break
        marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        assert marker == {"KeyMarker": found[-1], "UploadIdMarker": ids.get(found[-1], "")}
    assert found == ["a", "b/", "c", "d/"]
