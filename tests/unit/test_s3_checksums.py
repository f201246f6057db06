"""Checksums: values, combinations, and what requests may say of them."""

import hashlib
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4raw.s3 import checksums
from s4raw.s3.errors import S3Error

CRCS = ["CRC32", "CRC32C", "CRC64NVME"]
CHECKS = {  # of b"123456789"; the CRCs' are in every catalogue of CRCs
    "CRC32": bytes.fromhex("cbf43926"),
    "CRC32C": bytes.fromhex("e3069283"),
    "CRC64NVME": bytes.fromhex("ae8b14860a799888"),
    "SHA1": hashlib.sha1(b"123456789").digest(),
    "SHA256": hashlib.sha256(b"123456789").digest(),
}
each = pytest.mark.parametrize("algorithm", list(checksums.SIZES))
each_crc = pytest.mark.parametrize("algorithm", CRCS)


def of(algorithm: str, *data: bytes) -> str:
    state = checksums.new(algorithm)
    for piece in data:
        state.update(memoryview(piece))
    return checksums.encode(state.digest())


@each
def test_has_the_published_value(algorithm: str) -> None:
    assert of(algorithm, b"123456789") == b64encode(CHECKS[algorithm]).decode()
    assert of(algorithm, b"1234", b"", b"56789") == of(algorithm, b"123456789")
    assert checksums.decode(algorithm, of(algorithm, b"123456789")) == CHECKS[algorithm]


@each_crc
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_full_object_is_the_checksum_of_the_whole(algorithm: str, parts: list[bytes]) -> None:
    whole = of(algorithm, b"".join(parts))
    assert checksums.full_object(algorithm, [(of(algorithm, part), len(part)) for part in parts]) == whole


@each_crc
def test_full_object_of_large_parts(algorithm: str) -> None:
    block, count = b"\x5a" * (1 << 20), 70
    first, second = of(algorithm, b"begin"), of(algorithm, *[block] * count, b"odd")
    sizes = [(first, 5), (second, (count << 20) + 3)]
    assert checksums.full_object(algorithm, sizes) == of(algorithm, b"begin", *[block] * count, b"odd")


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "SHA1", "SHA256"])
def test_composite_is_the_checksum_of_the_checksums(algorithm: str) -> None:
    parts = [b"one", b"two", b"three"]
    raw = b"".join(checksums.decode(algorithm, of(algorithm, part)) for part in parts)
    assert checksums.composite(algorithm, [of(algorithm, part) for part in parts]) == of(algorithm, raw) + "-3"
    if algorithm == "CRC32":
        assert (
            checksums.composite(algorithm, ["y/Q5Jg=="])
            == b64encode(zlib.crc32(CHECKS["CRC32"]).to_bytes(4, "big")).decode() + "-1"
        )


@each
@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: "",
        lambda value: value[4:],
        lambda value: "AAAA" + value,
        lambda value: value + "\n",
        lambda value: value[0] + "^" + value[1:],
        lambda value: "^" * len(value),
        lambda value: value + "-1",
        lambda value: value.rstrip("=")[:-1] + "/" + "=" * value.count("="),  # bits that base64 leaves over
    ],
)
def test_an_invalid_value_is_refused(algorithm: str, spoil: object) -> None:
    value = spoil(of(algorithm, b"123456789"))  # type: ignore[operator]
    with pytest.raises(S3Error) as caught:
        checksums.expected({f"x-amz-checksum-{algorithm.lower()}": value})
    assert caught.value.code == "InvalidRequest"
    assert caught.value.message == f"Value for x-amz-checksum-{algorithm.lower()} header is invalid."


def test_a_value_that_was_cut_off_does_not_match(algorithm: str = "CRC64NVME") -> None:
    with pytest.raises(S3Error) as caught:
        checksums.expected({f"x-amz-checksum-{algorithm.lower()}": of(algorithm, b"123456789").rstrip("=")})
    assert caught.value.code == "BadDigest"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-amz-checksum-mode": "ENABLED", "x-amz-checksum-type": "FULL_OBJECT"}, None),
        ({"x-amz-checksum-crc32": "y/Q5Jg=="}, ("CRC32", CHECKS["CRC32"])),
        ({"x-amz-checksum-crc32": "y/Q5Jg==", "x-amz-sdk-checksum-algorithm": "CRC32"}, ("CRC32", CHECKS["CRC32"])),
        ({"x-amz-trailer": "x-amz-checksum-crc64nvme"}, ("CRC64NVME", None)),
        ({"x-amz-trailer": "X-Amz-Checksum-SHA1", "x-amz-sdk-checksum-algorithm": "SHA1"}, ("SHA1", None)),
    ],
)
def test_headers_say_what_to_expect(headers: dict[str, str], found: object) -> None:
    assert checksums.expected(headers) == found


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (
            {"x-amz-checksum-crc32": "y/Q5Jg==", "x-amz-checksum-sha1": "98O8HYCOBHMq32eZZczDTKeuNEE="},
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        ),
        (
            {"x-amz-checksum-crc32": "y/Q5Jg==", "x-amz-trailer": "x-amz-checksum-crc32"},
            "Expecting a single x-amz-checksum- header",
        ),
        ({"x-amz-checksum-crc32": "y/Q5Jg==,y/Q5Jg=="}, "Value for x-amz-checksum-crc32 header is invalid."),
        ({"x-amz-checksum-md4": "y/Q5Jg=="}, "The algorithm type you specified in x-amz-checksum- header is invalid."),
        ({"x-amz-trailer": "x-amz-meta-a"}, "The value specified in the x-amz-trailer header is not supported"),
        (
            {"x-amz-trailer": "x-amz-checksum-crc32,x-amz-checksum-sha1"},
            "The value specified in the x-amz-trailer header is not supported",
        ),
        (
            {"x-amz-checksum-crc32": "y/Q5Jg==", "x-amz-sdk-checksum-algorithm": "SHA1"},
            "Value for x-amz-sdk-checksum-algorithm header is invalid.",
        ),
        (
            {"x-amz-sdk-checksum-algorithm": "CRC32"},
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found.",
        ),
    ],
)
def test_contradictions_are_refused(headers: dict[str, str], message: str) -> None:
    with pytest.raises(S3Error) as caught:
        checksums.expected(headers)
    assert (caught.value.code, caught.value.status, caught.value.message) == ("InvalidRequest", 400, message)


@pytest.mark.parametrize("value", ["", "abc", "y/Q5Jg==", "rL0Y20zC+Fzt72VPzMSk2A", "rL0Y20zC+Fzt72VPz^Sk2A=="])
def test_a_malformed_content_md5_is_refused(value: str) -> None:
    with pytest.raises(S3Error) as caught:
        checksums.expected_md5({"content-md5": value})
    assert (caught.value.code, caught.value.status) == ("InvalidDigest", 400)


@pytest.mark.parametrize(
    ("algorithm", "kind", "found"),
    [
        ("", "", ("", "")),
        ("CRC32", "", ("CRC32", "COMPOSITE")),
        ("crc32", "FULL_OBJECT", ("CRC32", "FULL_OBJECT")),
        ("CRC64NVME", "", ("CRC64NVME", "FULL_OBJECT")),
        ("SHA256", "", ("SHA256", "COMPOSITE")),
        ("SHA256", "FULL_OBJECT", None),
        ("CRC64NVME", "COMPOSITE", None),
        ("", "FULL_OBJECT", None),
        ("MD4", "", None),
        ("CRC32", "HALF_OBJECT", None),
    ],
)
def test_an_upload_gets_the_type_it_can_have(algorithm: str, kind: str, found: object) -> None:
    headers = {"x-amz-checksum-algorithm": algorithm, "x-amz-checksum-type": kind}
    headers = {name: value for name, value in headers.items() if value}
    if found is not None:
        assert checksums.wanted(headers) == found
        return
    with pytest.raises(S3Error) as caught:
        checksums.wanted(headers)
    assert caught.value.code == "InvalidRequest"
