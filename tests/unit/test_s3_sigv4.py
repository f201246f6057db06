"""What Signature V4 refuses, with which code."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3_requests import ACCESS_KEY, EXAMPLE_TIME, HOST, KEYS, SECRET_KEY, Asked, refused
from support import timeless

from s4raw.s3.credentials import Credentials
from s4raw.s3.errors import CODES, S3Error
from s4raw.s3.signing import (
    canonical_headers,
    canonical_query,
    canonical_request,
    presign,
    sign_headers,
    signing_key,
    string_to_sign,
)
from s4raw.s3.sigv4 import STREAMING, STREAMING_UNSIGNED, Identity, authenticate

NOW = EXAMPLE_TIME
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
MALFORMED = "AuthorizationHeaderMalformed"
QUERY_ERROR = "AuthorizationQueryParametersError"


def signed(*, payload: str = EMPTY, region: str = "us-east-1", key: str = ACCESS_KEY, **more: str) -> Asked:
    headers = {"host": HOST, "x-amz-meta-a": "1", **{name.replace("_", "-"): value for name, value in more.items()}}
    sent = sign_headers("PUT", "/b/k", "acl&a=1", headers, key, SECRET_KEY, now=NOW, region=region, payload=payload)
    return Asked("PUT", "/b/k", "acl&a=1", sent)


def presigned(*, expires: int = 600, key: str = ACCESS_KEY, region: str = "us-east-1") -> Asked:
    query = presign("PUT", "/b/k", "a=1", HOST, key, SECRET_KEY, now=NOW, expires=expires, region=region)
    return Asked("PUT", "/b/k", query, {"host": HOST})


def test_an_untouched_request_is_accepted() -> None:
    assert authenticate(signed(), KEYS, NOW) == Identity(ACCESS_KEY, EMPTY)
    assert authenticate(presigned(), KEYS, NOW) == Identity(ACCESS_KEY)


def in_authorization(old: str, new: str) -> Callable[[Asked], None]:
    def change(asked: Asked) -> None:
        assert old in asked.headers["authorization"]
        asked.headers["authorization"] = asked.headers["authorization"].replace(old, new)

    return change


def in_query(old: str, new: str) -> Callable[[Asked], None]:
    def change(asked: Asked) -> None:
        assert old in asked.query
        asked.query = asked.query.replace(old, new)

    return change


def header(name: str, value: str | None) -> Callable[[Asked], None]:
    def change(asked: Asked) -> None:
        asked.headers.pop(name, None)
        if value is not None:
            asked.headers[name] = value

    return change


def part(name: str, value: str) -> Callable[[Asked], None]:
    return lambda asked: setattr(asked, name, value)


DIFFERENT = ("SignatureDoesNotMatch", 403)
DENIED = ("AccessDenied", 403)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (part("method", "GET"), DIFFERENT),
        (part("path", "/b/K"), DIFFERENT),
        (part("path", "/b//k"), DIFFERENT),
        (part("path", "/b/./k"), DIFFERENT),
        (part("path", "/b/k%20"), DIFFERENT),
        (part("query", "acl&a=2"), DIFFERENT),
        (part("query", "a=1"), DIFFERENT),
        (part("query", "acl&a=1&b"), DIFFERENT),
        (header("host", "elsewhere"), DIFFERENT),
        (header("x-amz-meta-a", "2"), DIFFERENT),
        (header("x-amz-meta-a", None), DIFFERENT),
        (header("x-amz-meta-b", "2"), DENIED),
        (header("x-amz-content-sha256", "0" * 64), DIFFERENT),
        (header("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), DIFFERENT),
        (header("x-amz-content-sha256", None), ("InvalidRequest", 400)),
        (header("x-amz-content-sha256", "cake"), ("InvalidArgument", 400)),
        (header("x-amz-content-sha256", ""), ("InvalidArgument", 400)),
        (header("x-amz-content-sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), ("NotImplemented", 501)),
        (header("x-amz-date", "20130524T000001Z"), DIFFERENT),
        (header("x-amz-date", "20130523T235959Z"), (MALFORMED, 400)),
        (header("x-amz-date", "Bad Date"), DENIED),
        (header("x-amz-date", ""), DENIED),
        (header("x-amz-date", None), DENIED),
        (in_authorization(ACCESS_KEY, "nobody"), ("InvalidAccessKeyId", 403)),
        (in_authorization(ACCESS_KEY, "other"), DIFFERENT),
        (in_authorization(ACCESS_KEY + "/", "/"), (MALFORMED, 400)),
        (in_authorization("20130524/", "20130523/"), (MALFORMED, 400)),
        (in_authorization("20130524/", "/"), (MALFORMED, 400)),
        (in_authorization("us-east-1", "eu-west-1"), DIFFERENT),
        (in_authorization("/s3/", "/sts/"), (MALFORMED, 400)),
        (in_authorization("aws4_request", "aws3_request"), (MALFORMED, 400)),
        (in_authorization("/s3", ""), (MALFORMED, 400)),
        (in_authorization("host;", ""), DENIED),
        (in_authorization("x-amz-meta-a", "x-amz-meta-b"), DENIED),
        (in_authorization("host;", "host;range;"), DIFFERENT),
        (in_authorization("Signature=", "Signature=0"), DIFFERENT),
        (in_authorization("Signature=", "Signature=\xe9"), DIFFERENT),
        (in_authorization("Signature=", "Sig="), (MALFORMED, 400)),
        (in_authorization("SignedHeaders=", "Signed="), (MALFORMED, 400)),
        (in_authorization("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Signature=0,"), (MALFORMED, 400)),
        (in_authorization("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), ("InvalidRequest", 400)),
        (header("authorization", "AWS4-HMAC-SHA256"), (MALFORMED, 400)),
        (header("authorization", "AWS4-HMAC-SHA256 Credential=HAHAHA"), (MALFORMED, 400)),
        (header("authorization", "Basic eDp5"), ("InvalidArgument", 400)),
        (header("authorization", ""), DENIED),
        (header("authorization", None), DENIED),
    ],
)
def test_each_changed_part_is_refused(change: Callable[[Asked], None], code: tuple[str, int]) -> None:
    asked = signed()
    change(asked)
    with refused(*code):
        authenticate(asked, KEYS, NOW)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (part("method", "DELETE"), DIFFERENT),
        (part("path", "/b/K"), DIFFERENT),
        (in_query("a=1", "a=2"), DIFFERENT),
        (in_query("a=1", "a=1&b=1"), DIFFERENT),
        (in_query("Expires=600", "Expires=601"), DIFFERENT),
        (in_query("20130524T000000Z", "20130524T000001Z"), DIFFERENT),
        (in_query("Date=20130524T000000Z", "Date=Fri,%2024%20May%202013%2000:00:00%20GMT"), (QUERY_ERROR, 400)),
        (in_query("%2F20130524", "%2F20130523"), (QUERY_ERROR, 400)),
        (in_query("us-east-1", "us-east-2"), DIFFERENT),
        (in_query("%2Fs3%2F", "%2Fec2%2F"), (QUERY_ERROR, 400)),
        (in_query(ACCESS_KEY, "nobody"), ("InvalidAccessKeyId", 403)),
        (in_query("Signature=", "Signature=0"), DIFFERENT),
        (in_query("X-Amz-Signature=", "X-Amz-Signature=0&X-Amz-Signature="), (QUERY_ERROR, 400)),
        (in_query("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), (QUERY_ERROR, 400)),
        (in_query("Expires=600", "Expires=soon"), (QUERY_ERROR, 400)),
        (in_query("Expires=600", "Expires="), (QUERY_ERROR, 400)),
        (in_query("X-Amz-Expires=600", "x=600"), (QUERY_ERROR, 400)),
        (in_query("X-Amz-Signature=", "x="), (QUERY_ERROR, 400)),
        (in_query("Expires=600", "Expires=604801"), (QUERY_ERROR, 403)),
        (in_query("Expires=600", "Expires=-7"), (QUERY_ERROR, 403)),
        (in_query("Expires=600", "Expires=0"), DIFFERENT),
        (in_query("SignedHeaders=host", "SignedHeaders=range"), DENIED),
        (header("host", "elsewhere"), DIFFERENT),
        (header("x-amz-acl", "private"), DENIED),
        (header("x-amz-copy-source", "/b/secret"), DENIED),
        (header("x-amz-content-sha256", EMPTY), DIFFERENT),
        (header("authorization", "AWS4-HMAC-SHA256 x"), ("InvalidArgument", 400)),
    ],
)
def test_each_changed_part_of_a_presigned_url_is_refused(
    change: Callable[[Asked], None], code: tuple[str, int]
) -> None:
    asked = presigned()
    change(asked)
    with refused(*code):
        authenticate(asked, KEYS, NOW)


def test_a_clock_may_differ_by_15_minutes() -> None:
    for skew in (-900, 900):
        assert authenticate(signed(), KEYS, NOW + skew)
        with refused("RequestTimeTooSkewed"):
            authenticate(signed(), KEYS, NOW + skew + (1 if skew > 0 else -1))


def test_a_presigned_url_expires() -> None:
    asked = presigned(expires=604800)
    assert authenticate(asked, KEYS, NOW + 604799)
    with refused("AccessDenied", match="Request has expired"):
        authenticate(asked, KEYS, NOW + 604800)
    assert authenticate(asked, KEYS, NOW - 900)
    with refused("AccessDenied", match="not yet valid"):
        authenticate(asked, KEYS, NOW - 901)


def test_what_was_checked_once_is_not_believed_of_anything_else() -> None:
    keys = Credentials({ACCESS_KEY: SECRET_KEY})
    assert authenticate(presigned(), keys, NOW) is authenticate(presigned(), keys, NOW)
    for change in (part("path", "/b/x"), part("method", "GET"), header("host", "x"), in_query("a=1", "a=2")):
        asked = presigned()
        change(asked)
        with refused("SignatureDoesNotMatch"):
            authenticate(asked, keys, NOW)
    with refused("AccessDenied"):
        authenticate(presigned(), keys, NOW + 600)
    with refused("InvalidAccessKeyId"):
        authenticate(presigned(), Credentials({"a": "b"}), NOW)
    with refused(QUERY_ERROR, 400):
        authenticate(presigned(region="here"), keys, NOW, region="there")


def test_each_body_of_a_presigned_url_has_its_own_chunks() -> None:
    query = canonical_query(presigned().query.replace("a=1", f"X-Amz-Content-Sha256={STREAMING}"), "X-Amz-Signature")
    scope, key = "20130524/us-east-1/s3/aws4_request", signing_key(SECRET_KEY, "20130524", "us-east-1")
    canonical = canonical_request("PUT", "/b/k", query, f"host:{HOST}\n", "host", STREAMING)
    seed = key.sign(string_to_sign("20130524T000000Z", scope, canonical))
    first = key.sign(f"AWS4-HMAC-SHA256-PAYLOAD\n20130524T000000Z\n{scope}\n{seed}\n{EMPTY}\n{EMPTY}")
    for _ in range(2):
        asked = Asked("PUT", "/b/k", f"{query}&X-Amz-Signature={seed}", {"host": HOST})
        found = authenticate(asked, KEYS, NOW)
        assert found.payload == STREAMING and found.chunks
        found.chunks.chunk(first, EMPTY)


def test_a_presigned_url_may_sign_headers() -> None:
    headers = {"content-type": "text/plain", "x-amz-acl": "private"}
    query = presign("PUT", "/b/k", "", HOST, ACCESS_KEY, SECRET_KEY, now=NOW, headers=headers)
    assert authenticate(Asked("PUT", "/b/k", query, {"host": HOST, **headers}), KEYS, NOW)
    with refused("SignatureDoesNotMatch"):
        authenticate(Asked("PUT", "/b/k", query, {"host": HOST}), KEYS, NOW)


@pytest.mark.parametrize("make", [signed, presigned])
def test_a_region_is_checked_where_one_is_asked_for(make: Callable[..., Asked]) -> None:
    code = MALFORMED if make is signed else QUERY_ERROR
    for region in ("anywhere", "", "us-east-1"):
        assert authenticate(make(region=region), KEYS, NOW)
    for region in ("eu-west-1", "", "us-east-1"):
        assert authenticate(make(region=region), KEYS, NOW, region="eu-west-1")
    with refused(code, 400, "expecting 'eu-west-1'"):
        authenticate(make(region="anywhere"), KEYS, NOW, region="eu-west-1")


def test_nobody_is_let_in_only_by_option_and_a_wrong_signature_never() -> None:
    asked = Asked("GET", "/b/k", "prefix=X-Amz-", {"host": HOST})
    assert authenticate(asked, KEYS, NOW, anonymous=True) == Identity("")
    with refused("AccessDenied"):
        authenticate(asked, KEYS, NOW)
    with refused("InvalidAccessKeyId"):
        authenticate(signed(key="nobody"), KEYS, NOW, anonymous=True)
    asked.headers["x-amz-content-sha256"] = STREAMING_UNSIGNED
    assert authenticate(asked, KEYS, NOW, anonymous=True) == Identity("", STREAMING_UNSIGNED)
    asked.headers["x-amz-content-sha256"] = STREAMING
    with refused("InvalidArgument", 400):
        authenticate(asked, KEYS, NOW, anonymous=True)


def test_a_session_token_is_ignored() -> None:
    assert authenticate(signed(x_amz_security_token="token"), KEYS, NOW)
    asked = signed()
    asked.headers["x-amz-security-token"] = "not signed"
    assert authenticate(asked, KEYS, NOW)
    asked = signed(x_amz_security_token="token")
    asked.headers["x-amz-security-token"] = "another"
    with refused("SignatureDoesNotMatch"):
        authenticate(asked, KEYS, NOW)


def test_a_payload_hash_in_a_presigned_url_counts() -> None:
    query = presign("PUT", "/b/k", "", HOST, ACCESS_KEY, SECRET_KEY, now=NOW)
    asked = Asked("PUT", "/b/k", query, {"host": HOST, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"})
    assert authenticate(asked, KEYS, NOW).payload == "UNSIGNED-PAYLOAD"


def test_a_hash_in_upper_case_is_told_in_lower_case() -> None:
    assert authenticate(signed(payload=EMPTY.upper()), KEYS, NOW).payload == EMPTY


def test_inner_space_of_headers_is_one_space() -> None:
    assert authenticate(signed(x_amz_meta_b="  a   b\tc "), KEYS, NOW)


def by_hand(path: str, canonical_path: str) -> Asked:
    """A request with a Date header whose client has its own idea of the canonical path."""
    headers = {"host": HOST, "date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-content-sha256": EMPTY}
    names = sorted(headers)
    lines = canonical_headers(headers, names)
    canonical = canonical_request("GET", canonical_path, "", lines, ";".join(names), EMPTY)
    scope = "20130524/us-east-1/s3/aws4_request"
    text = string_to_sign("20130524T000000Z", scope, canonical)
    signature = signing_key(SECRET_KEY, "20130524", "us-east-1").sign(text)
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope},SignedHeaders={';'.join(names)},Signature={signature}"
    )
    return Asked("GET", path, "", headers)


def test_a_date_header_stands_in_for_x_amz_date() -> None:
    assert authenticate(by_hand("/", "/"), KEYS, NOW)


def test_a_path_may_be_signed_as_it_was_sent() -> None:
    assert authenticate(by_hand("/b/a(1)%2Fb", "/b/a(1)%2Fb"), KEYS, NOW)
    assert authenticate(by_hand("/b/a(1)%2Fb", "/b/a%281%29/b"), KEYS, NOW)
    with refused("SignatureDoesNotMatch"):
        authenticate(by_hand("/b/a(1)%2Fb", "/b/a(1)/b"), KEYS, NOW)


def test_a_mismatch_says_what_was_signed() -> None:
    asked = signed()
    asked.path = "/b/l"
    with pytest.raises(S3Error) as caught:
        authenticate(asked, KEYS, NOW)
    assert caught.value.extra["CanonicalRequest"].startswith("PUT\n/b/l\na=1&acl=\n")
    assert caught.value.extra["StringToSign"].startswith("AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/us-east-1/s3/")
    assert SECRET_KEY not in str(caught.value.extra)


pieces = st.sampled_from(
    [
        *(
            "AWS4-HMAC-SHA256 ",
            "AWS ",
            "Credential=",
            f"{ACCESS_KEY}/20130524/us-east-1/s3/aws4_request",
            ",",
            ";",
            "=",
            "/",
        ),
        *("SignedHeaders=", "host", "Signature=", "&", "%", "%2F", "+", ":", "X-Amz-Algorithm=", "AWS4-HMAC-SHA256"),
        *("X-Amz-Credential=", "X-Amz-Date=", "20130524T000000Z", "X-Amz-Expires=", "600", "X-Amz-SignedHeaders="),
        *("X-Amz-Signature=", "AWSAccessKeyId=", "Expires=", "2000000000", "x-amz-date", ACCESS_KEY),
    ]
)
garbage = st.lists(pieces | st.text(max_size=4), max_size=14).map("".join)


@timeless
@given(garbage, garbage, garbage, st.booleans())
def test_random_heads_are_s3_errors(authorization: str, query: str, path: str, dated: bool) -> None:
    headers = {"host": HOST, "x-amz-content-sha256": EMPTY, "authorization": authorization}
    if dated:
        headers["x-amz-date"] = "20130524T000000Z"
    for region in ("", "us-east-1"):
        try:
            assert authenticate(Asked("GET", "/" + path, query, headers), KEYS, NOW, region=region) is None
        except S3Error as error:
            assert error.code in CODES


@timeless
@given(st.lists(st.sampled_from(["X-Amz-Date", "X-Amz-Expires", "X-Amz-Credential", "X-Amz-SignedHeaders"])), garbage)
def test_random_presigned_urls_are_s3_errors(names: list[str], value: str) -> None:
    asked = presigned()
    for name in names:
        asked.query = asked.query.replace(name + "=", f"{name}={value}")
    try:
        assert authenticate(asked, KEYS, NOW) == Identity(ACCESS_KEY) and (not names or not value)
    except S3Error as error:
        assert error.code in CODES
