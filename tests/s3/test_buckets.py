"""Buckets through boto3: making, naming, tagging, deleting, and what is asked of every bucket."""

from typing import Any

import pytest

from .service import Raw, fails


@pytest.mark.also_on_a_ring
def test_buckets_come_and_go(s3: Any) -> None:
    made = s3.create_bucket(Bucket="one")
    assert made["Location"] == "/one"
    s3.create_bucket(Bucket="two")
    found = s3.list_buckets()
    assert [bucket["Name"] for bucket in found["Buckets"]] == ["one", "two"]
    assert found["Owner"]["ID"] == found["Owner"]["DisplayName"] == "s4raw"
    assert s3.head_bucket(Bucket="one")["BucketRegion"] == "us-east-1"
    s3.delete_bucket(Bucket="one")
    fails("404", 404, s3.head_bucket, Bucket="one")
    fails("NoSuchBucket", 404, s3.delete_bucket, Bucket="one")


def test_ones_own_bucket_can_be_made_again(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"1")
    s3.create_bucket(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"1"


@pytest.mark.also_on_a_ring
def test_a_bucket_with_objects_stays(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"1")
    fails("BucketNotEmpty", 409, s3.delete_bucket, Bucket=bucket)


@pytest.mark.parametrize(
    "name",
    [
        *("a", "aa", "_alphasoup", "Upper", "alpha!soup", "a" * 64, "a" * 256, "foo_bar", "foo-", "-foo", "foo..bar"),
        *("foo.-bar", "foo-.bar", "192.168.5.123", "xn--foo", ".foo", "foo."),
    ],
)
def test_names_that_are_refused(raw: Raw, name: str) -> None:
    found = raw("PUT", f"/{name}")
    assert (found.status, b"<Code>InvalidBucketName</Code>" in found.body) == (400, True)


@pytest.mark.parametrize("name", ["abc", "a" * 63, "0starts", "ends0", "foo-bar", "foo.bar", "foo--bar", "1.2.3"])
def test_names_that_are_good(s3: Any, name: str) -> None:
    s3.create_bucket(Bucket=name)
    s3.head_bucket(Bucket=name)


def test_no_name(raw: Raw) -> None:
    assert raw("PUT", "/").status == 405


def test_places(s3: Any, serve: Any, new_client: Any) -> None:
    for place in ("us-east-1", "eu-west-1"):
        s3 = new_client(serve(region=place))
        s3.create_bucket(Bucket="here", CreateBucketConfiguration={"LocationConstraint": place})
        s3.create_bucket(Bucket="there", CreateBucketConfiguration={"LocationConstraint": "us-east-1"})
        expected = None if place == "us-east-1" else place
        assert s3.get_bucket_location(Bucket="here")["LocationConstraint"] == expected
        wrong = {"LocationConstraint": "ap-south-2"}
        fails("InvalidLocationConstraint", 400, s3.create_bucket, Bucket="nope", CreateBucketConfiguration=wrong)
        fails("404", 404, s3.head_bucket, Bucket="nope")


def test_a_place_is_good_that_the_client_signs_for(serve: Any, new_client: Any) -> None:
    client = new_client(serve(), region_name="ap-south-2")
    client.create_bucket(Bucket="here", CreateBucketConfiguration={"LocationConstraint": "ap-south-2"})


def test_pages_of_buckets(s3: Any, raw: Raw) -> None:
    names = [f"b-{number}" for number in range(5)]
    for name in [*names, "other"]:
        s3.create_bucket(Bucket=name)
    pages = list(s3.get_paginator("list_buckets").paginate(Prefix="b-", PaginationConfig={"PageSize": 2}))
    assert [[bucket["Name"] for bucket in page["Buckets"]] for page in pages] == [names[:2], names[2:4], names[4:]]
    assert pages[0]["Prefix"] == "b-"
    fails("InvalidArgument", 400, s3.list_buckets, ContinuationToken="bogus")
    for wrong in ("0", "10001", "x"):
        assert raw("GET", f"/?max-buckets={wrong}").status == 400


def test_tags(s3: Any, bucket: str) -> None:
    fails("NoSuchTagSet", 404, s3.get_bucket_tagging, Bucket=bucket)
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "&<>"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags[::-1]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)
    fails("NoSuchTagSet", 404, s3.get_bucket_tagging, Bucket=bucket)
    fails("NoSuchBucket", 404, s3.put_bucket_tagging, Bucket="nowhere", Tagging={"TagSet": tags})


def test_what_no_bucket_has(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket}
    assert "Status" not in s3.get_bucket_versioning(**where)
    assert [grant["Permission"] for grant in s3.get_bucket_acl(**where)["Grants"]] == ["FULL_CONTROL"]
    assert s3.get_bucket_policy_status(**where)["PolicyStatus"] == {"IsPublic": False}
    assert "LoggingEnabled" not in s3.get_bucket_logging(**where)
    assert s3.get_bucket_request_payment(**where)["Payer"] == "BucketOwner"
    assert "Status" not in s3.get_bucket_accelerate_configuration(**where)
    assert not set(s3.get_bucket_notification_configuration(**where)) - {"ResponseMetadata"}
    fails("NoSuchBucketPolicy", 404, s3.get_bucket_policy, **where)
    fails("NoSuchCORSConfiguration", 404, s3.get_bucket_cors, **where)
    fails("NoSuchLifecycleConfiguration", 404, s3.get_bucket_lifecycle_configuration, **where)
    fails("ServerSideEncryptionConfigurationNotFoundError", 404, s3.get_bucket_encryption, **where)
    fails("ReplicationConfigurationNotFoundError", 404, s3.get_bucket_replication, **where)
    fails("NoSuchWebsiteConfiguration", 404, s3.get_bucket_website, **where)
    fails("OwnershipControlsNotFoundError", 404, s3.get_bucket_ownership_controls, **where)
    fails("NoSuchPublicAccessBlockConfiguration", 404, s3.get_public_access_block, **where)
    fails("ObjectLockConfigurationNotFoundError", 404, s3.get_object_lock_configuration, **where)
    fails("NoSuchBucket", 404, s3.get_bucket_policy, Bucket="nowhere")
    s3.delete_bucket_policy(**where)
    s3.delete_bucket_cors(**where)
    s3.put_bucket_acl(**where, ACL="private")


def test_what_no_bucket_can_have(s3: Any, bucket: str) -> None:
    where = {"Bucket": bucket}
    fails("NotImplemented", 501, s3.put_bucket_policy, **where, Policy="{}")
    versioning = {"Status": "Enabled"}
    fails("NotImplemented", 501, s3.put_bucket_versioning, **where, VersioningConfiguration=versioning)
    fails("NotImplemented", 501, s3.put_bucket_acl, **where, ACL="public-read")
    fails("NotImplemented", 501, s3.list_bucket_metrics_configurations, **where)
    fails("NotImplemented", 501, s3.create_bucket, Bucket="locked", ObjectLockEnabledForBucket=True)
    s3.head_bucket(Bucket=bucket)


def test_bodies_that_are_not_the_xml(raw: Raw, bucket: str) -> None:
    for body in (
        b"<Tagging><TagSet>",
        b"<Other/>",
        b"<Tagging/>",
        b"",
        b'<!DOCTYPE x [<!ENTITY a "b">]><Tagging><TagSet><Tag><Key>&a;</Key><Value/></Tag></TagSet></Tagging>',
        b"<Tagging><TagSet><Tag><Value>1</Value></Tag></TagSet></Tagging>",
        b"<a>" * 1000,
        b'<?xml version="1.0" encoding="bogus"?><Tagging/>',
    ):
        found = raw("PUT", f"/{bucket}?tagging", body)
        assert (found.status, b"<Code>MalformedXML</Code>" in found.body) == (400, True), body
    assert raw("PUT", f"/{bucket}?tagging", b"<Tagging>" + b" " * (5 << 20)).status == 400
    tag = b"<x:Tag><x:Key>a</x:Key><x:Value>1</x:Value></x:Tag>"
    good = b'<x:Tagging xmlns:x="urn:x"><x:TagSet>' + tag + b"</x:TagSet></x:Tagging>"
    assert raw("PUT", f"/{bucket}?tagging", good).status == 204
