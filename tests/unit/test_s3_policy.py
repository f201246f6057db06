"""Browser forms: the published example, botocore's signers, and what a policy refuses."""

import json
from base64 import b64encode
from typing import Any

import pytest
from botocore.auth import HmacV1PostAuth, S3SigV4PostAuth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st
from s3_requests import ACCESS_KEY, BOTO, KEYS, SECRET_KEY, refused
from support import timeless

from s4raw.s3.errors import CODES, S3Error
from s4raw.s3.policy import Policy, check_form, check_length, parse
from s4raw.s3.sigv2 import signature
from s4raw.s3.sigv4 import Identity

NOW = 1451400000.0  # 2015-12-29T14:40:00Z
IDENTITY = Identity(ACCESS_KEY)
# "Example: Browser-Based Upload using HTTP POST (Using AWS Signature Version 4)"
EXAMPLE = b"""{ "expiration": "2015-12-30T12:00:00.000Z",\r
  "conditions": [\r
    {"bucket": "sigv4examplebucket"},\r
    ["starts-with", "$key", "user/user1/"],\r
    {"acl": "public-read"},\r
    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},\r
    ["starts-with", "$Content-Type", "image/"],\r
    {"x-amz-meta-uuid": "14365123651274"},\r
    {"x-amz-server-side-encryption": "AES256"},\r
    ["starts-with", "$x-amz-meta-tag", ""],\r
\r
    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},\r
    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},\r
    {"x-amz-date": "20151229T000000Z" }\r
  ]\r
}"""
EXAMPLE_FIELDS = {
    "key": "user/user1/photo",
    "acl": "public-read",
    "success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html",
    "content-type": "image/jpeg",
    "x-amz-meta-uuid": "14365123651274",
    "x-amz-server-side-encryption": "AES256",
    "x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request",
    "x-amz-algorithm": "AWS4-HMAC-SHA256",
    "x-amz-date": "20151229T000000Z",
    "x-amz-meta-tag": "",
    "policy": b64encode(EXAMPLE).decode(),
    "x-amz-signature": "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e",
}


def test_the_published_form_is_accepted() -> None:
    identity, policy = check_form(EXAMPLE_FIELDS, "sigv4examplebucket", KEYS, NOW)
    assert identity == IDENTITY and policy and policy.expiration == 1451476800
    check_length(policy, 1 << 40)


@pytest.mark.parametrize(
    ("name", "value", "code", "status"),
    [
        ("key", "user/user2/photo", "AccessDenied", 403),
        ("key", None, "AccessDenied", 403),
        ("acl", "private", "AccessDenied", 403),
        ("content-type", "image/jpeg,text/html", "AccessDenied", 403),
        ("x-amz-meta-tag", None, "AccessDenied", 403),
        ("x-amz-meta-other", "x", "AccessDenied", 403),
        ("bucket", "another", "AccessDenied", 403),
        ("x-amz-signature", "0" * 64, "SignatureDoesNotMatch", 403),
        ("x-amz-signature", None, "InvalidArgument", 400),
        ("x-amz-date", None, "InvalidArgument", 400),
        ("x-amz-date", "20151228T000000Z", "InvalidArgument", 400),
        ("x-amz-date", "today", "InvalidArgument", 400),
        ("x-amz-algorithm", "AWS4-HMAC-SHA1", "InvalidArgument", 400),
        ("x-amz-credential", "nobody/20151229/us-east-1/s3/aws4_request", "InvalidAccessKeyId", 403),
        ("x-amz-credential", "nobody", "InvalidArgument", 400),
        ("policy", b64encode(EXAMPLE.replace(b"user1", b"user2")).decode(), "SignatureDoesNotMatch", 403),
        ("policy", None, "InvalidArgument", 400),
    ],
)
def test_each_changed_field_is_refused(name: str, value: str | None, code: str, status: int) -> None:
    fields = {**EXAMPLE_FIELDS, name: value or ""}
    if value is None:
        del fields[name]
    with refused(code, status):
        check_form(fields, "sigv4examplebucket", KEYS, NOW)


def test_a_policy_expires() -> None:
    with refused("AccessDenied", match="Policy expired"):
        check_form(EXAMPLE_FIELDS, "sigv4examplebucket", KEYS, 1451476800)


def test_a_form_that_nobody_signed_is_let_in_only_by_option() -> None:
    with refused("AccessDenied"):
        check_form({"key": "k"}, "b", KEYS, NOW)
    assert check_form({"key": "k"}, "b", KEYS, NOW, anonymous=True) == (Identity(""), None)
    check_length(None, 1)


def form(conditions: Any, *, expiration: Any = "2015-12-30T12:00:00Z", **fields: str) -> dict[str, str]:
    """A form signed with the old signature."""
    return wrap({"expiration": expiration, "conditions": conditions}, **fields)


def wrap(document: Any, **fields: str) -> dict[str, str]:
    policy = b64encode(json.dumps(document).encode()).decode()
    given = {name.replace("_", "-"): value for name, value in fields.items()}
    return {
        "key": "k",
        **given,
        "policy": policy,
        "awsaccesskeyid": ACCESS_KEY,
        "signature": signature(SECRET_KEY, policy),
    }


ORDINARY = [{"bucket": "b"}, ["starts-with", "$key", ""]]


@pytest.mark.parametrize(
    ("conditions", "fields"),
    [
        ([{"bUcKeT": "b"}, ["StArTs-WiTh", "$KeY", "k"], {"AcL": "private"}], {"acl": "private"}),
        ([*ORDINARY, ["EQ", "$x-amz-meta-foo", "bar"]], {"x_amz_meta_foo": "bar"}),
        ([{"bucket": "b"}, ["starts-with", "$key", "\\$foo"]], {"key": "\\$foo.txt"}),
        ([{"bucket": "b"}, ["starts-with", "$key", "\\$foo"]], {"key": "$foo.txt"}),
        (ORDINARY, {"x_ignore_foo": "bar"}),
        (ORDINARY, {"bucket": "b"}),
        ([*ORDINARY, ["starts-with", "$Content-Type", "image/"]], {"content_type": "image/png, image/gif"}),
    ],
)
def test_forms_that_keep_to_their_policy_are_accepted(conditions: Any, fields: dict[str, str]) -> None:
    assert check_form(form(conditions, **fields), "b", KEYS, NOW)[0] == IDENTITY


@pytest.mark.parametrize(
    ("conditions", "fields"),
    [
        ([["starts-with", "$key", ""]], {}),
        ([{"bucket": "b"}], {}),
        ([{"bucket": "c"}, ["starts-with", "$key", ""]], {}),
        ([{"bucket": "c"}, ["starts-with", "$key", ""]], {"bucket": "c"}),
        ([["starts-with", "$bucket", ""], ["starts-with", "$key", ""]], {"bucket": "c"}),
        ([*ORDINARY, {"x-amz-meta-foo": ""}], {"x_amz_meta_foo": "bar"}),
        ([*ORDINARY, ["starts-with", "$x-amz-meta-foo", "bar"]], {}),
        (ORDINARY, {"x_amz_meta_foo": "bar"}),
    ],
)
def test_forms_that_do_not_are_refused(conditions: Any, fields: dict[str, str]) -> None:
    with refused("AccessDenied", match="Invalid according to Policy"):
        check_form(form(conditions, **fields), "b", KEYS, NOW)


@pytest.mark.parametrize(
    "document",
    [
        *({}, [], "x", None, 1),
        {"conditions": ORDINARY},
        {"expiration": "2015-12-30T12:00:00Z"},
        {"EXPIRATION": "2015-12-30T12:00:00Z", "conditions": ORDINARY},
        {"expiration": "2015-12-30T12:00:00Z", "CONDITIONS": ORDINARY},
        {"expiration": "2015-12-30 12:00:00+00:00", "conditions": ORDINARY},
        {"expiration": "2015-13-30T12:00:00Z", "conditions": ORDINARY},
        {"expiration": 5, "conditions": ORDINARY},
        *(
            {"expiration": "2015-12-30T12:00:00Z", "conditions": item}
            for item in ({}, "x", [{}], ["x"], [[]], [[1, 2, 3]])
        ),
        *(
            {"expiration": "2015-12-30T12:00:00Z", "conditions": [*ORDINARY, item]}
            for item in (
                {"a": 1},
                {"a": "b", "c": "d"},
                ["eq", "acl", "x"],
                ["eq", "$acl", 1],
                ["ends-with", "$acl", "x"],
                ["content-length-range", 0],
                ["content-length-range", -1, 0],
                ["content-length-range", "x", 1],
                ["content-length-range", True, 1],
            )
        ),
    ],
)
def test_documents_that_are_no_policies_are_refused(document: Any) -> None:
    with refused("InvalidPolicyDocument", 400):
        check_form(wrap(document), "b", KEYS, NOW)


@pytest.mark.parametrize(
    "text", ["*", "e30", b64encode(b"{").decode(), b64encode(b"\xff").decode(), b64encode(b"[" * 99999)]
)
def test_what_is_not_json_in_base64_is_refused(text: str | bytes) -> None:
    with refused("InvalidPolicyDocument", 400):
        parse(text if isinstance(text, str) else text.decode())


def test_the_length_of_the_file_is_checked() -> None:
    _, policy = check_form(form([*ORDINARY, ["content-length-range", 5, "10"]]), "b", KEYS, NOW)
    for length in (5, 10):
        check_length(policy, length)
    with refused("EntityTooSmall", 400):
        check_length(policy, 4)
    with refused("EntityTooLarge", 400):
        check_length(policy, 11)
    assert parse(
        wrap(
            {
                "expiration": "2015-12-30T12:00:00Z",
                "conditions": [["content-length-range", 1, 9], ["Content-Length-Range", 0, 5]],
            }
        )["policy"]
    ) == Policy(1451476800, [], 1, 5)


@pytest.mark.parametrize("name", ["awsaccesskeyid", "signature"])
def test_an_old_form_without_its_signature_is_refused(name: str) -> None:
    fields = form(ORDINARY)
    with refused("InvalidArgument", 400):
        check_form({**fields, name: ""}, "b", KEYS, NOW)
    with refused("InvalidAccessKeyId" if name == "awsaccesskeyid" else "SignatureDoesNotMatch"):
        check_form({**fields, name: "x"}, "b", KEYS, NOW)


@pytest.mark.parametrize("signer", ["v2", "v4"])
def test_what_botocore_signs_is_accepted(signer: str) -> None:
    request = AWSRequest("POST", "http://127.0.0.1/b")
    fields: dict[str, str] = {"key": "k", "acl": "private"}
    request.context["s3-presign-post-fields"] = fields
    request.context["s3-presign-post-policy"] = {
        "expiration": "2999-12-30T12:00:00Z",
        "conditions": [{"bucket": "b"}, {"key": "k"}, {"acl": "private"}, ["content-length-range", 0, 5]],
    }
    if signer == "v2":
        HmacV1PostAuth(BOTO).add_auth(request)
    else:
        S3SigV4PostAuth(BOTO, "s3", "eu-west-1").add_auth(request)
    fields = {name.lower(): value for name, value in request.context["s3-presign-post-fields"].items()}
    identity, policy = check_form(fields, "b", KEYS, NOW)
    assert identity == IDENTITY and policy and (policy.smallest, policy.largest) == (0, 5)
    with refused("AccessDenied"):
        check_form({**fields, "acl": "public-read"}, "b", KEYS, NOW)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["eq", "$key", "bucket", "b", "k"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["key", "bucket", "acl"]), inner, max_size=2)
    ),
    max_leaves=8,
)


@timeless
@given(
    st.lists(json_values, max_size=4),
    st.dictionaries(st.sampled_from(["acl", "bucket", "x-amz-date"]), st.text(max_size=3)),
)
def test_random_forms_are_s3_errors(conditions: list[Any], fields: dict[str, str]) -> None:
    try:
        check_form({**form([*conditions, *ORDINARY]), **fields}, "b", KEYS, NOW)
    except S3Error as error:
        assert error.code in CODES
        assert error.message.encode()
