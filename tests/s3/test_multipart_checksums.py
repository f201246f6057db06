"""Checksums of multipart uploads: which are asked for, checked, combined, kept; and what clients make of them."""

import base64
import hashlib
import io
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from awscrt import checksums as crt
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from .uploads import KEY, MIB, PART, begin, code, content, etag_of, finish, get, put

FULL, COMPOSITE = "FULL_OBJECT", "COMPOSITE"
ALGORITHMS = ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"]
IMPOSSIBLE = {("CRC64NVME", COMPOSITE), ("SHA1", FULL), ("SHA256", FULL)}
DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
    "CRC32C": lambda body: crt.crc32c(body).to_bytes(4, "big"),
    "CRC64NVME": lambda body: crt.crc64nvme(body).to_bytes(8, "big"),
    "SHA1": lambda body: hashlib.sha1(body).digest(),
    "SHA256": lambda body: hashlib.sha256(body).digest(),
}
# s3-tests' three parts of 5 MiB of A, B and C: type, their checksums, the object's
VECTORS = {
    "SHA256": (
        COMPOSITE,
        [
            "275VF5loJr1YYawit0XSHREhkFXYkkPKGuoK0x9VKxI=",
            "mrHwOfjTL5Zwfj74F05HOQGLdUb7E5szdCbxgUSq6NM=",
            "Vw7oB/nKQ5xWb3hNgbyfkvDiivl+U+/Dft48nfJfDow=",
        ],
        "uWBwpe1dxI4Vw8Gf0X9ynOdw/SS6VBzfWm9giiv1sf4=-3",
    ),
    "SHA1": (
        COMPOSITE,
        ["iIaTCGbm+vdVjNqIMF2S0T7ibMk=", "LS/TJ32bAVKEwRu+sE3X7awh/lk=", "6DDwovUaHwrKNXDMzOGbuvj9kxI="],
        "sizjvY4eud3MrcHdZM3cQ/ol39o=-3",
    ),
    "CRC64NVME": (FULL, ["L/E4WYn8v98=", "xW1l19VobYM=", "cK5MnNaWrW4="], "i+6LR0y3eFo="),
    "CRC32": (FULL, ["JRTCyQ==", "QoZTGg==", "YAgjqw=="], "WgDhBQ=="),
    "CRC32C": (FULL, ["MDaLrw==", "TH4EZg==", "Z7mBIQ=="], "xU+Krw=="),
}


def value(algorithm: str, body: bytes) -> str:
    return base64.b64encode(DIGESTS[algorithm](body)).decode()


def composite(algorithm: str, *bodies: bytes) -> str:
    digests = b"".join(DIGESTS[algorithm](body) for body in bodies)
    return f"{value(algorithm, digests)}-{len(bodies)}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_known_checksums_of_three_parts(s3: Any, bucket: str, algorithm: str) -> None:
    kind, expected, whole = VECTORS[algorithm]
    name = f"Checksum{algorithm}"
    begun = s3.create_multipart_upload(Bucket=bucket, Key=KEY, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    assert (begun["ChecksumAlgorithm"], begun["ChecksumType"]) == (algorithm, kind)
    upload = begun["UploadId"]
    parts = []
    for number, letter in enumerate(b"ABC"):
        given = {name: expected[number]}
        part = put(s3, bucket, upload, number + 1, bytes([letter]) * PART, ChecksumAlgorithm=algorithm, **given)
        parts.append({**part, **given})
    listed = s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload)
    assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (algorithm, kind)
    assert [part[name] for part in listed["Parts"]] == expected
    (found,) = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert (found["ChecksumAlgorithm"], found["ChecksumType"]) == (algorithm, kind)
    done = finish(s3, bucket, upload, parts, **{name: whole, "ChecksumType": kind})
    assert (done[name], done["ChecksumType"]) == (whole, kind)
    assert done["ETag"] == '"b2add96cc9702bbf4efb0ccdfc6b7747-3"'
    assert name not in s3.head_object(Bucket=bucket, Key=KEY)
    head = s3.head_object(Bucket=bucket, Key=KEY, ChecksumMode="ENABLED")
    assert (head[name], head["ChecksumType"]) == (whole, kind)
    attributes = s3.get_object_attributes(Bucket=bucket, Key=KEY, ObjectAttributes=["Checksum", "ObjectParts"])
    assert attributes["Checksum"] == {name: whole.partition("-")[0], "ChecksumType": kind} or (
        attributes["Checksum"] == {name: whole, "ChecksumType": kind}
    )
    assert [part[name] for part in attributes["ObjectParts"]["Parts"]] == expected
    for number in (1, 2, 3):
        part = s3.get_object(Bucket=bucket, Key=KEY, PartNumber=number, ChecksumMode="ENABLED")
        assert (part[name], part["ChecksumType"]) == (expected[number - 1], kind)
        part["Body"].read()


def test_the_only_part_has_a_checksum_of_its_own(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket, ChecksumAlgorithm="SHA256")
    finish(s3, bucket, upload, [put(s3, bucket, upload, 1, b"x", ChecksumAlgorithm="SHA256")])
    for number, expected in ({"PartNumber": 1}, value("SHA256", b"x")), ({}, composite("SHA256", b"x")):
        found = s3.head_object(Bucket=bucket, Key=KEY, ChecksumMode="ENABLED", **number)
        assert found["ChecksumSHA256"] == expected


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [(name, kind) for name in ALGORITHMS for kind in (FULL, COMPOSITE) if (name, kind) not in IMPOSSIBLE],
)
def test_checksums_of_either_type(s3: Any, bucket: str, algorithm: str, kind: str) -> None:
    bodies = [content(PART), content(PART + 1, 2), content(3, 3)]
    upload = begin(s3, bucket, ChecksumAlgorithm=algorithm, ChecksumType=kind)
    parts = [put(s3, bucket, upload, n + 1, b, ChecksumAlgorithm=algorithm) for n, b in enumerate(bodies)]
    done = finish(s3, bucket, upload, parts)
    expected = value(algorithm, b"".join(bodies)) if kind == FULL else composite(algorithm, *bodies)
    assert (done[f"Checksum{algorithm}"], done["ChecksumType"]) == (expected, kind)
    assert get(s3, bucket) == b"".join(bodies)  # which botocore verifies against a checksum of the full object


def test_the_type_that_an_algorithm_has_by_itself(s3: Any, bucket: str) -> None:
    for algorithm in ALGORITHMS:
        begun = s3.create_multipart_upload(Bucket=bucket, Key=KEY, ChecksumAlgorithm=algorithm)
        assert begun["ChecksumType"] == (FULL if algorithm == "CRC64NVME" else COMPOSITE)


@pytest.mark.parametrize(
    "options",
    [
        {"ChecksumAlgorithm": "CRC64NVME", "ChecksumType": COMPOSITE},
        {"ChecksumAlgorithm": "SHA1", "ChecksumType": FULL},
        {"ChecksumAlgorithm": "SHA256", "ChecksumType": FULL},
        {"ChecksumAlgorithm": "CRC32", "ChecksumType": "NONE"},
        {"ChecksumAlgorithm": "CRC99"},
        {"ChecksumType": FULL},
        {"ChecksumType": COMPOSITE},
    ],
)
def test_checksums_that_no_upload_can_have(s3: Any, bucket: str, options: dict[str, str]) -> None:
    with pytest.raises(ClientError) as raised:
        begin(s3, bucket, **options)
    assert code(raised) == (400, "InvalidRequest")


def test_a_part_must_be_what_its_checksum_says(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket, ChecksumAlgorithm="SHA256")
    for given, expected in (
        ({"ChecksumSHA256": value("SHA256", b"other")}, "BadDigest"),
        ({"ChecksumSHA256": "not one"}, "InvalidRequest"),
        ({"ChecksumSHA256": "bad"}, "BadDigest"),
        ({"ChecksumCRC32C": value("CRC32C", b"x")}, "InvalidRequest"),
        ({"ChecksumAlgorithm": "CRC32"}, "InvalidRequest"),
        ({"ContentMD5": base64.b64encode(hashlib.md5(b"other").digest()).decode()}, "BadDigest"),
        ({"ContentMD5": "bad"}, "InvalidDigest"),
    ):
        if "ContentMD5" in given:
            given = {**given, "ChecksumAlgorithm": "SHA256"}
        with pytest.raises(ClientError) as raised:
            put(s3, bucket, upload, 1, b"x", **given)
        assert code(raised) == (400, expected)
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key=KEY, UploadId=upload)


def test_the_whole_must_be_what_its_checksum_says(s3: Any, bucket: str) -> None:
    upload = begin(s3, bucket, ChecksumAlgorithm="SHA256")
    part = put(s3, bucket, upload, 1, b"A" * 1024, ChecksumAlgorithm="SHA256")
    whole = "Ok6Cs5b96ux6+MWQkJO7UBT5sKPBeXBLwvj/hK89smg=-1"
    with_sum = {**part, "ChecksumSHA256": "arcu6553sHVAiX4MjW0j7I7vD4w6R+Gz9Ok0Q9lTa+0="}
    for parts, options, expected in (
        ([with_sum], {"ChecksumSHA256": "bad"}, "BadDigest"),
        ([part], {"ChecksumSHA256": "bad"}, "BadDigest"),
        ([with_sum], {"ChecksumSHA256": whole.replace("-1", "-2")}, "BadDigest"),
        ([with_sum], {"ChecksumType": FULL}, "BadDigest"),
        ([with_sum], {"ChecksumCRC32": "AAAAAA=="}, "InvalidRequest"),
        ([{**part, "ChecksumSHA256": value("SHA256", b"other")}], {}, "InvalidPart"),
    ):
        with pytest.raises(ClientError) as raised:
            finish(s3, bucket, upload, parts, **options)
        assert code(raised) == (400, expected)
    assert finish(s3, bucket, upload, [part], ChecksumSHA256=whole.removesuffix("-1"))["ChecksumSHA256"] == whole


def test_an_upload_that_named_no_checksum(s3: Any, plain: Any, bucket: str) -> None:
    """Parts have the checksum that they came with, or one that is computed here; the object one where they agree."""
    bodies = [content(PART), b"end"]
    upload = begin(s3, bucket)
    done = finish(s3, bucket, upload, [put(s3, bucket, upload, n + 1, body) for n, body in enumerate(bodies)])
    assert (done["ChecksumCRC32"], done["ChecksumType"]) == (value("CRC32", b"".join(bodies)), FULL)
    upload = begin(plain, bucket)
    done = finish(plain, bucket, upload, [put(plain, bucket, upload, n + 1, body) for n, body in enumerate(bodies)])
    assert (done["ChecksumCRC64NVME"], done["ChecksumType"]) == (value("CRC64NVME", b"".join(bodies)), FULL)
    upload = begin(s3, bucket)
    parts = [put(s3, bucket, upload, 1, bodies[0]), put(plain, bucket, upload, 2, bodies[1])]
    done = finish(s3, bucket, upload, parts, ChecksumCRC32="AAAAAA==")
    assert "ChecksumType" not in done and not any(f"Checksum{name}" in done for name in ALGORITHMS)
    assert get(s3, bucket) == b"".join(bodies)


CONFIG = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB, max_concurrency=3)


@pytest.mark.parametrize("client", ["s3", "plain"])
def test_the_transfer_manager(request: pytest.FixtureRequest, bucket: str, client: str) -> None:
    made = request.getfixturevalue(client)
    body = content(21 * MIB)
    made.upload_fileobj(io.BytesIO(body), bucket, KEY, Config=CONFIG)
    found = io.BytesIO()
    made.download_fileobj(bucket, KEY, found, Config=CONFIG)
    assert found.getvalue() == body
    head = made.head_object(Bucket=bucket, Key=KEY)
    assert head["ETag"] == etag_of(*(body[at : at + 5 * MIB] for at in range(0, len(body), 5 * MIB)))
    made.copy({"Bucket": bucket, "Key": KEY}, bucket, "copy", Config=CONFIG)
    assert get(made, bucket, "copy") == body


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_transfer_manager_with_every_checksum(s3: Any, bucket: str, algorithm: str) -> None:
    body = content(11 * MIB)
    s3.upload_fileobj(io.BytesIO(body), bucket, KEY, ExtraArgs={"ChecksumAlgorithm": algorithm}, Config=CONFIG)
    head = s3.head_object(Bucket=bucket, Key=KEY, ChecksumMode="ENABLED")
    pieces = [body[at : at + 5 * MIB] for at in range(0, len(body), 5 * MIB)]
    expected = value(algorithm, body) if head["ChecksumType"] == FULL else composite(algorithm, *pieces)
    assert head[f"Checksum{algorithm}"] == expected
    assert get(s3, bucket) == body


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME"])
def test_the_transfer_manager_with_the_checksum_of_the_whole(s3: Any, bucket: str, algorithm: str) -> None:
    body = content(11 * MIB)
    extra = {f"Checksum{algorithm}": value(algorithm, body)}
    s3.upload_fileobj(io.BytesIO(body), bucket, KEY, ExtraArgs=extra, Config=CONFIG)
    head = s3.head_object(Bucket=bucket, Key=KEY, ChecksumMode="ENABLED")
    assert (head[f"Checksum{algorithm}"], head["ChecksumType"]) == (value(algorithm, body), FULL)
    with pytest.raises(Exception, match="BadDigest"):
        s3.upload_fileobj(
            io.BytesIO(body), bucket, "bad", ExtraArgs={f"Checksum{algorithm}": value(algorithm, b"")}, Config=CONFIG
        )
