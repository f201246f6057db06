"""Signature V4 against the examples of the Amazon S3 API Reference, and against botocore's signers."""

from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st
from s3_requests import ACCESS_KEY, BOTO, EXAMPLE_TIME, HOST, KEYS, SECRET_KEY, Asked, from_boto, refused
from support import timeless

from s4raw.s3.signing import canonical_path, canonical_query, presign, seconds_of, sign_headers, timestamp_of
from s4raw.s3.sigv4 import STREAMING, STREAMING_TRAILER, Identity, authenticate

EMPTY = sha256(b"").hexdigest()
WELCOME = sha256(b"Welcome to Amazon S3.").hexdigest()
# method, path, query, further headers, payload, signature
EXAMPLES = {
    "get a range": (
        *("GET", "/test.txt", "", {"range": "bytes=0-9"}, EMPTY),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "put": (
        *("PUT", "/test%24file.text", ""),
        {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        *(WELCOME, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
    ),
    "get a lifecycle": (
        *("GET", "/", "lifecycle", {}, EMPTY),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list": (
        *("GET", "/", "max-keys=2&prefix=J", {}, EMPTY),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}


def at(seconds: float = EXAMPLE_TIME) -> str:
    return timestamp_of(seconds)


def authorization(names: str, signature: str) -> str:
    return (
        f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20130524/us-east-1/s3/aws4_request,"
        f"SignedHeaders={names},Signature={signature}"
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_published_examples_are_verified_and_made(name: str) -> None:
    method, path, query, headers, payload, signature = EXAMPLES[name]
    whole = {"host": HOST, "x-amz-date": at(), "x-amz-content-sha256": payload, **headers}
    whole["authorization"] = authorization(";".join(sorted(whole)), signature)
    assert authenticate(Asked(method, path, query, whole), KEYS, EXAMPLE_TIME) == Identity(ACCESS_KEY, payload)
    made = sign_headers(
        method, path, query, {"host": HOST, **headers}, ACCESS_KEY, SECRET_KEY, now=EXAMPLE_TIME, payload=payload
    )
    assert made["authorization"].replace(", ", ",") == whole["authorization"]


PRESIGNED = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
)


def test_the_published_presigned_url_is_verified_and_made() -> None:
    request = Asked("GET", "/test.txt", PRESIGNED, {"host": HOST})
    assert authenticate(request, KEYS, EXAMPLE_TIME + 86399) == Identity(ACCESS_KEY, "UNSIGNED-PAYLOAD")
    made = presign("GET", "/test.txt", "", HOST, ACCESS_KEY, SECRET_KEY, now=EXAMPLE_TIME, expires=86400)
    assert made == PRESIGNED


def streaming(payload: str, seed: str, **more: str) -> Identity:
    headers = {
        "host": "s3.amazonaws.com",
        "content-encoding": "aws-chunked",
        "x-amz-content-sha256": payload,
        "x-amz-date": at(),
        "x-amz-decoded-content-length": "66560",
        "x-amz-storage-class": "REDUCED_REDUNDANCY",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    headers["authorization"] = authorization(";".join(sorted(headers)), seed)
    return authenticate(Asked("PUT", "/examplebucket/chunkObject.txt", "", headers), KEYS, EXAMPLE_TIME)


CHUNKS = [sha256(b"a" * 65536).hexdigest(), sha256(b"a" * 1024).hexdigest(), EMPTY]
CHUNK_SIGNATURES = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
]
TRAILED_SIGNATURES = [
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
]


def test_the_published_chunks_are_verified() -> None:
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    found = streaming(STREAMING, seed, content_length="66824")
    assert found.access_key == ACCESS_KEY and found.payload == STREAMING and found.chunks
    for digest, signature in zip(CHUNKS, CHUNK_SIGNATURES, strict=True):
        found.chunks.chunk(signature, digest)


def test_the_published_trailer_is_verified() -> None:
    seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    found = streaming(STREAMING_TRAILER, seed, x_amz_trailer="x-amz-checksum-crc32c")
    assert found.chunks
    for digest, signature in zip(CHUNKS, TRAILED_SIGNATURES, strict=True):
        found.chunks.chunk(signature, digest)
    trailer = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
    with refused("SignatureDoesNotMatch"):
        found.chunks.trailer(trailer, b"x-amz-checksum-crc32c:sOO8/R==\n")
    found.chunks.trailer(trailer, b"x-amz-checksum-crc32c:sOO8/Q==\n")


def test_chunks_that_are_changed_repeated_or_left_out_are_refused() -> None:
    seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
    for digest, signature in [
        (CHUNKS[1], CHUNK_SIGNATURES[0]),
        (CHUNKS[0], CHUNK_SIGNATURES[1]),
        (CHUNKS[1], CHUNK_SIGNATURES[1]),
        (CHUNKS[0], ""),
        (CHUNKS[0], "\xff" * 64),
    ]:
        found = streaming(STREAMING, seed, content_length="66824")
        assert found.chunks
        with refused("SignatureDoesNotMatch"):
            found.chunks.chunk(signature, digest)
        found.chunks.chunk(CHUNK_SIGNATURES[0], CHUNKS[0])
        with refused("SignatureDoesNotMatch"):
            found.chunks.chunk(CHUNK_SIGNATURES[0], CHUNKS[0])


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("/a//b/./../c/", "/a//b/./../c/"),
        ("/a%2520b", "/a%2520b"),
        ("/a%2fb%7e", "/a/b~"),
        ("/a+b", "/a%2Bb"),
        ("/a b!*'()", "/a%20b%21%2A%27%28%29"),
        ("/%c3%a9", "/%C3%A9"),
        ("/%zz%", "/%25zz%25"),
    ],
)
def test_paths_are_encoded_once_and_otherwise_left(sent: str, canonical: str) -> None:
    assert canonical_path(sent) == canonical


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("acl", "acl="),
        ("b=2&a=1&&a=0&a-b=3", "a=0&a=1&a-b=3&b=2"),
        ("p=a+b&q=a%2Bb", "p=a%20b&q=a%2Bb"),
        ("p=a=b%3d/", "p=a%3Db%3D%2F"),
        ("%61=%7e", "a=~"),
    ],
)
def test_queries_are_sorted_and_encoded_once(sent: str, canonical: str) -> None:
    assert canonical_query(sent) == canonical


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20130524T000000Z", 1369353600),
        ("Fri, 24 May 2013 00:00:00 GMT", 1369353600),
        ("Fri, 24 May 2013 02:00:00 +0200", 1369353600),
        ("20130524T000060Z", None),
        ("20131324T000000Z", None),
        ("Tue, 07 Jul 1950 21:53:04 GMT", None),
        ("Bad Date", None),
        ("", None),
    ],
)
def test_times_are_read(text: str, seconds: int | None) -> None:
    assert seconds_of(text) == seconds


def test_a_url_cannot_be_presigned_for_more_than_a_week() -> None:
    for expires in (0, 604801):
        with pytest.raises(ValueError, match="604800"):
            presign("GET", "/", "", HOST, ACCESS_KEY, SECRET_KEY, now=EXAMPLE_TIME, expires=expires)


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
queries = st.lists(st.tuples(names, names), max_size=4).map(
    lambda pairs: "&".join(f"{quote('q' + name, safe='')}={quote(value, safe='')}" for name, value in pairs)
)
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
headers = st.dictionaries(
    st.sampled_from(["x-amz-meta-a", "x-amz-meta-b-c", "range", "content-type", "x-amz-acl"]), header_values, max_size=3
)
methods = st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"])


def boto_request(method: str, key: str, query: str, headers: dict[str, str], body: bytes = b"") -> AWSRequest:
    url = f"http://127.0.0.1:33333/bucket/{quote(key, safe='/~')}"
    return AWSRequest(method, f"{url}?{query}" if query else url, headers=headers, data=body)


def now() -> float:
    """botocore signs with the clock of this machine."""
    return datetime.now(UTC).timestamp()


@timeless
@given(methods, names, queries, headers)
def test_what_botocore_signs_is_verified(method: str, key: str, query: str, headers: dict[str, str]) -> None:
    request = boto_request(method, key, query, headers, b"body")
    request.context["payload_signing_enabled"] = True
    S3SigV4Auth(BOTO, "s3", "eu-west-1").add_auth(request)
    asked = from_boto(request)
    assert authenticate(asked, KEYS, now()) == Identity(ACCESS_KEY, sha256(b"body").hexdigest())
    asked.path += "x"
    with refused("SignatureDoesNotMatch"):
        authenticate(asked, KEYS, now())


def test_a_url_presigned_for_no_time_has_expired() -> None:
    request = boto_request("GET", "k", "", {})
    S3SigV4QueryAuth(BOTO, "s3", "eu-west-1", expires=0).add_auth(request)
    with refused("AccessDenied", match="Request has expired"):
        authenticate(from_boto(request), KEYS, now())


def test_headers_in_utf_8_are_verified() -> None:
    request = boto_request("PUT", "k", "", {"x-amz-meta-a": "\u20ac \u00e0  \u00e5"})
    S3SigV4Auth(BOTO, "s3", "eu-west-1").add_auth(request)
    asked = from_boto(request)
    asked.headers["x-amz-meta-a"] = asked.headers["x-amz-meta-a"].encode().decode("latin-1")  # as they come
    assert authenticate(asked, KEYS, now())


@timeless
@given(methods, names, queries, headers)
def test_what_botocore_presigns_is_verified(method: str, key: str, query: str, headers: dict[str, str]) -> None:
    request = boto_request(method, key, query, headers)
    S3SigV4QueryAuth(BOTO, "s3", "eu-west-1", expires=60).add_auth(request)
    asked = from_boto(request)
    assert authenticate(asked, KEYS, now()) == Identity(ACCESS_KEY, "UNSIGNED-PAYLOAD")
    asked.query += "&versionId=1"
    with refused("SignatureDoesNotMatch"):
        authenticate(asked, KEYS, now())


@timeless
@given(methods, names, queries, headers, st.sampled_from(["us-east-1", "eu-west-1"]))
def test_what_our_client_signs_is_verified(
    method: str, key: str, query: str, headers: dict[str, str], region: str
) -> None:
    path = f"/bucket/{quote(key, safe='/~')}"
    sent = sign_headers(
        *(method, path, query, {"host": HOST, **headers}, ACCESS_KEY, SECRET_KEY), now=EXAMPLE_TIME, region=region
    )
    asked = Asked(method, path, query, sent)
    assert authenticate(asked, KEYS, EXAMPLE_TIME, region=region) == Identity(ACCESS_KEY)
    signed = presign(
        method, path, query, HOST, ACCESS_KEY, SECRET_KEY, now=EXAMPLE_TIME, region=region, headers=headers
    )
    asked = Asked(method, path, signed, {"host": HOST, **headers})
    assert authenticate(asked, KEYS, EXAMPLE_TIME, region=region) == Identity(ACCESS_KEY)
