"""Listings through boto3: order, pages, common prefixes, encodings, versions."""

from typing import Any

import pytest

from .service import Raw, fails

KEYS = ["asdf", "boo/bar", "boo/baz/xyzzy", "cquux/bla", "cquux/thud", "foo", "ü/1"]


@pytest.fixture
def filled(s3: Any, bucket: str) -> str:
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    return bucket


def keys(found: Any) -> list[str]:
    return [entry["Key"] for entry in found.get("Contents", [])]


def prefixes(found: Any) -> list[str]:
    return [entry["Prefix"] for entry in found.get("CommonPrefixes", [])]


def test_all_of_a_bucket(s3: Any, filled: str) -> None:
    for call in (s3.list_objects, s3.list_objects_v2):
        found = call(Bucket=filled)
        assert (found["Name"], found["Prefix"], found["MaxKeys"], found["IsTruncated"]) == (filled, "", 1000, False)
        assert keys(found) == KEYS
        assert "Delimiter" not in found
    assert found["KeyCount"] == len(KEYS)
    entry, head = found["Contents"][0], s3.head_object(Bucket=filled, Key="asdf")
    assert (entry["ETag"], entry["Size"], entry["LastModified"]) == (head["ETag"], 4, head["LastModified"])
    assert (entry["StorageClass"], entry["ChecksumAlgorithm"]) == ("STANDARD", ["CRC32"])
    assert "Owner" not in entry
    assert s3.list_objects_v2(Bucket=filled, FetchOwner=True)["Contents"][0]["Owner"]["ID"] == "s4raw"
    assert s3.list_objects(Bucket=filled)["Contents"][0]["Owner"]["ID"] == "s4raw"


@pytest.mark.also_on_a_ring
def test_common_prefixes(s3: Any, filled: str) -> None:
    for call in (s3.list_objects, s3.list_objects_v2):
        found = call(Bucket=filled, Delimiter="/")
        assert (keys(found), prefixes(found)) == (["asdf", "foo"], ["boo/", "cquux/", "ü/"])
        assert found["Delimiter"] == "/"
        found = call(Bucket=filled, Delimiter="/", Prefix="boo/")
        assert (keys(found), prefixes(found)) == (["boo/bar"], ["boo/baz/"])
        found = call(Bucket=filled, Delimiter="a", Prefix="boo/b")
        assert prefixes(found) == ["boo/ba"]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_pages(s3: Any, filled: str, size: int) -> None:
    for name in ("list_objects", "list_objects_v2"):
        pages = list(s3.get_paginator(name).paginate(Bucket=filled, PaginationConfig={"PageSize": size}))
        assert [key for page in pages for key in keys(page)] == KEYS
        assert len(pages) == -(-len(KEYS) // size)
        pages = list(s3.get_paginator(name).paginate(Bucket=filled, Delimiter="/", PaginationConfig={"PageSize": size}))
        assert [key for page in pages for key in keys(page)] == ["asdf", "foo"]
        assert [prefix for page in pages for prefix in prefixes(page)] == ["boo/", "cquux/", "ü/"]
        assert len(pages) == -(-5 // size)


@pytest.mark.also_on_a_ring
def test_markers(s3: Any, filled: str) -> None:
    found = s3.list_objects(Bucket=filled, Marker="boo/baz")
    assert (found["Marker"], keys(found)) == ("boo/baz", KEYS[2:])
    found = s3.list_objects(Bucket=filled, MaxKeys=2, Delimiter="/")
    assert (found["NextMarker"], found["IsTruncated"]) == ("boo/", True)
    assert "NextMarker" not in s3.list_objects(Bucket=filled, MaxKeys=2)
    found = s3.list_objects_v2(Bucket=filled, StartAfter="foo")
    assert (found["StartAfter"], keys(found)) == ("foo", KEYS[6:])
    first = s3.list_objects_v2(Bucket=filled, StartAfter="asdf", MaxKeys=1)
    token = first["NextContinuationToken"]
    found = s3.list_objects_v2(Bucket=filled, StartAfter="asdf", ContinuationToken=token)
    assert (found["ContinuationToken"], found["StartAfter"], keys(found)) == (token, "asdf", KEYS[2:])
    found = s3.list_objects_v2(Bucket=filled, ContinuationToken="")
    assert (found["ContinuationToken"], keys(found)) == ("", KEYS)
    fails("InvalidArgument", 400, s3.list_objects_v2, Bucket=filled, ContinuationToken="bogus")


def test_how_many(s3: Any, filled: str, raw: Raw) -> None:
    for call in (s3.list_objects, s3.list_objects_v2):
        found = call(Bucket=filled, MaxKeys=0)
        assert (keys(found), found["IsTruncated"], found["MaxKeys"]) == ([], False, 0)
        assert call(Bucket=filled, MaxKeys=5000)["MaxKeys"] == 1000
        fails("InvalidArgument", 400, call, Bucket=filled, MaxKeys=-1)
        fails("NoSuchBucket", 404, call, Bucket="nowhere", MaxKeys=0)
    for bad in ("max-keys=blah", "max-keys=2147483648", "encoding-type=bogus", "list-type=3"):
        assert raw("GET", f"/{filled}?{bad}").status == 400
    assert raw("GET", f"/{filled}?max-keys=").status == 200


def test_encoded_names(s3: Any, bucket: str, raw: Raw) -> None:
    names = ["asdf+b", "foo+1/bar", "foo/bar/xyzzy", "quux ab/thud", "c\x01\n&<"]
    for key in names:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    found = s3.list_objects_v2(Bucket=bucket, Delimiter="/", EncodingType="url")
    assert found["EncodingType"] == "url"
    assert keys(found) == ["asdf%2Bb", "c%01%0A%26%3C"]
    assert prefixes(found) == ["foo%2B1/", "foo/", "quux%20ab/"]
    assert sorted(keys(s3.list_objects(Bucket=bucket))) == sorted(names)
    assert b"<Key>c&#x1;\n&amp;&lt;</Key>" in raw("GET", f"/{bucket}?prefix=c").body
    for odd in ("\n", "&", "%2F", " "):
        assert s3.list_objects(Bucket=bucket, Prefix=odd, Marker=odd, Delimiter=odd)["Prefix"] == odd


def test_versions(s3: Any, filled: str) -> None:
    pages = list(s3.get_paginator("list_object_versions").paginate(Bucket=filled, PaginationConfig={"PageSize": 3}))
    found = [version for page in pages for version in page["Versions"]]
    assert [version["Key"] for version in found] == KEYS
    assert {(version["VersionId"], version["IsLatest"]) for version in found} == {("null", True)}
    assert len(pages) == 3
    found = s3.list_object_versions(Bucket=filled, Delimiter="/", Prefix="boo/")
    assert ([version["Key"] for version in found["Versions"]], prefixes(found)) == (["boo/bar"], ["boo/baz/"])
    fails("InvalidArgument", 400, s3.list_object_versions, Bucket=filled, VersionIdMarker="null")
    wanted = [{"Key": key, "VersionId": "null"} for key in KEYS]
    assert s3.delete_objects(Bucket=filled, Delete={"Objects": wanted})["Deleted"] == wanted
    assert "Versions" not in s3.list_object_versions(Bucket=filled)
