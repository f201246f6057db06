"""Signature V2 against the examples of the Amazon S3 developer guide, and against botocore's signers."""

from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from botocore.auth import HmacV1Auth, HmacV1QueryAuth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st
from s3_requests import ACCESS_KEY, BOTO, KEYS, Asked, from_boto, refused
from support import timeless

from s4raw.s3.signing import seconds_of
from s4raw.s3.sigv4 import STREAMING, STREAMING_UNSIGNED, Identity, authenticate

DAY = "Tue, 27 Mar 2007 19:36:42 +0000"
# method, bucket of the host, path, query, headers, signature: "Signing and Authenticating REST Requests", "Examples"
EXAMPLES = {
    "get": ("GET", "awsexamplebucket1", "/photos/puppy.jpg", "", {}, "qgk2+6Sv9/oM7G3qLEjTH1a1l1g="),
    "list": (
        *("GET", "awsexamplebucket1", "/", "prefix=photos&max-keys=50&marker=puppy", {"user-agent": "Mozilla/5.0"}),
        "m0WP8eCtspQl5Ahe6L1SozdX9YA=",
    ),
    "get an acl": ("GET", "awsexamplebucket1", "/", "acl", {}, "82ZHiFIjc+WbcwFKGUVEQspPn+0="),
}
DATES = {"list": "Tue, 27 Mar 2007 19:42:41 +0000", "get an acl": "Tue, 27 Mar 2007 19:44:46 +0000"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_published_examples_are_verified(name: str) -> None:
    method, bucket, path, query, headers, signature = EXAMPLES[name]
    date = DATES.get(name, DAY)
    sent = {**headers, "date": date, "authorization": f"AWS {ACCESS_KEY}:{signature}"}
    now = seconds_of(date)
    assert now
    asked = Asked(method, path, query, sent)
    assert authenticate(asked, KEYS, now, virtual_bucket=bucket) == Identity(ACCESS_KEY)
    with refused("SignatureDoesNotMatch"):
        authenticate(asked, KEYS, now, virtual_bucket="another")


def now() -> float:
    """botocore signs with the clock of this machine."""
    return datetime.now(UTC).timestamp()


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
queries = st.lists(
    st.tuples(st.sampled_from(["acl", "uploads", "uploadId", "response-expires", "prefix", "tagging"]), names),
    max_size=3,
    unique_by=lambda pair: pair[0],
).map(lambda pairs: "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs))
headers = st.dictionaries(
    st.sampled_from(["x-amz-meta-a", "x-amz-acl", "content-type", "content-md5", "range"]), values, max_size=3
)
methods = st.sampled_from(["GET", "PUT", "DELETE"])


def boto_request(method: str, key: str, query: str, headers: dict[str, str]) -> AWSRequest:
    url = f"http://127.0.0.1:33333/bucket/{quote(key, safe='/~')}"
    return AWSRequest(method, f"{url}?{query}" if query else url, headers=headers)


@timeless
@given(methods, names, queries, headers)
def test_what_botocore_signs_is_verified(method: str, key: str, query: str, headers: dict[str, str]) -> None:
    request = boto_request(method, key, query, headers)
    HmacV1Auth(BOTO).add_auth(request)
    asked = from_boto(request)
    assert authenticate(asked, KEYS, now()) == Identity(ACCESS_KEY)
    asked.headers["x-amz-copy-source"] = "/b/secret"
    with refused("SignatureDoesNotMatch"):
        authenticate(asked, KEYS, now())


@timeless
@given(methods, names, queries, headers)
def test_what_botocore_presigns_is_verified(method: str, key: str, query: str, headers: dict[str, str]) -> None:
    request = boto_request(method, key, query, headers)
    HmacV1QueryAuth(BOTO, expires=60).add_auth(request)
    asked = from_boto(request)
    assert authenticate(asked, KEYS, now()) == Identity(ACCESS_KEY)
    for name in headers:  # they stand in the URL, too
        del asked.headers[name]
    assert authenticate(asked, KEYS, now()) == Identity(ACCESS_KEY)
    with refused("AccessDenied", match="Request has expired"):
        authenticate(asked, KEYS, now() + 61)
    asked.query += "&versionId=1"
    with refused("SignatureDoesNotMatch"):
        authenticate(asked, KEYS, now())


@pytest.mark.parametrize("signed", ["/bucket/", "/bucket"])
def test_a_bucket_may_be_signed_with_a_slash_that_is_not_sent(signed: str) -> None:
    request = AWSRequest("GET", "http://127.0.0.1:33333/bucket?acl", auth_path=signed)
    HmacV1Auth(BOTO).add_auth(request)
    asked = from_boto(request)
    assert authenticate(asked, KEYS, now()) == Identity(ACCESS_KEY)
    asked.path = "/bucket/key"
    with refused("SignatureDoesNotMatch"):
        authenticate(asked, KEYS, now())


def presigned() -> Asked:
    request = boto_request("GET", "k", "", {})
    HmacV1QueryAuth(BOTO, expires=60).add_auth(request)
    return from_boto(request)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (f"={ACCESS_KEY}", "=nobody", "InvalidAccessKeyId"),
        ("AWSAccessKeyId=", "x=", "AccessDenied"),
        ("Signature=", "x=", "AccessDenied"),
        ("Signature=", "Signature=A", "SignatureDoesNotMatch"),
        ("Expires=", "x=", "AccessDenied"),
        ("Expires=", "Expires=x", "AccessDenied"),
        ("Expires=", "Expires=1", "SignatureDoesNotMatch"),
    ],
)
def test_each_changed_part_of_a_presigned_url_is_refused(old: str, new: str, code: str) -> None:
    asked = presigned()
    asked.query = asked.query.replace(old, new)
    with refused(code):
        authenticate(asked, KEYS, now())


@pytest.mark.parametrize(
    ("name", "value", "code", "status"),
    [
        ("authorization", "AWS HAHAHA", "InvalidArgument", 400),
        ("authorization", "AWS nobody:FWeDfwojDSdS2Ztmpfeubhd9isU=", "InvalidAccessKeyId", 403),
        ("authorization", f"AWS {ACCESS_KEY}:FWeDfwojDSdS2Ztmpfeubhd9isU=", "SignatureDoesNotMatch", 403),
        ("date", "", "AccessDenied", 403),
        ("date", "Bad Date", "AccessDenied", 403),
        ("x-amz-date", "", "AccessDenied", 403),
        ("date", "Tue, 07 Jul 1950 21:53:04 GMT", "AccessDenied", 403),
        ("date", "Tue, 07 Jul 2010 21:53:04 GMT", "RequestTimeTooSkewed", 403),
        ("date", "Tue, 07 Jul 9999 21:53:04 GMT", "RequestTimeTooSkewed", 403),
        ("x-amz-content-sha256", STREAMING, "SignatureDoesNotMatch", 403),
    ],
)
def test_each_changed_header_is_refused(name: str, value: str, code: str, status: int) -> None:
    request = boto_request("PUT", "k", "", {})
    HmacV1Auth(BOTO).add_auth(request)
    asked = from_boto(request)
    asked.headers[name] = value
    with refused(code, status):
        authenticate(asked, KEYS, now())


def test_the_body_may_be_in_chunks_that_are_not_signed() -> None:
    for payload, code in ((STREAMING_UNSIGNED, ""), (STREAMING, "InvalidArgument")):
        request = boto_request("PUT", "k", "", {"x-amz-content-sha256": payload})
        HmacV1Auth(BOTO).add_auth(request)
        if code:
            with refused(code, 400):
                authenticate(from_boto(request), KEYS, now())
        else:
            assert authenticate(from_boto(request), KEYS, now()) == Identity(ACCESS_KEY, payload)
