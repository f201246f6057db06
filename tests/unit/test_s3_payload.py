"""Bodies of requests: what arrives whole is sealed, what does not match is never, and threads end in any case."""

import hashlib
import io
import os
import threading
import tracemalloc
from base64 import b64encode
from collections.abc import Iterator, Mapping

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, CrtCrc32Checksum
from hypothesis import given
from hypothesis import strategies as st
from s3_bodies import cut, pieces, signed, unsigned, verifier
from support import timeless

from s4raw.objects.base import Attributes
from s4raw.s3 import checksums, payload
from s4raw.s3.errors import S3Error
from s4raw.s3.payload import Payload, read_small
from s4raw.s3.sigv4 import Identity

LARGE = os.urandom(1 << 16) * 100 + b"odd"
SIGNED, SIGNED_TRAILER, UNSIGNED_TRAILER = (
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
)
FRAMED = {"content-encoding": "aws-chunked"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def md5(data: bytes) -> str:
    return b64encode(hashlib.md5(data).digest()).decode()


def checksum(algorithm: str, data: bytes) -> str:
    state = checksums.new(algorithm)
    state.update(memoryview(data))
    return checksums.encode(state.digest())


def stored(source: Payload) -> tuple[bytes, Attributes]:
    """What a backend stores."""
    with source:
        content = b"".join(bytes(piece) for piece in source)
        return content, source.seal()


def refused(source: Payload, code: str) -> S3Error:
    """Reading the body fails, and it cannot be sealed."""
    with source, pytest.raises(S3Error) as caught:
        for _ in source:
            pass
    assert caught.value.code == code, caught.value
    with pytest.raises(S3Error):
        source.seal()
    return caught.value


def plain(content: bytes, headers: Mapping[str, str] = {}, mode: str = "UNSIGNED-PAYLOAD") -> Payload:
    return Payload(pieces(content), headers, len(content), Identity("", mode))


def framed(body: bytes, size: int, headers: Mapping[str, str] = {}, mode: str = UNSIGNED_TRAILER) -> Payload:
    chunks = verifier() if mode.startswith(SIGNED) else None
    sent = {**FRAMED, "x-amz-decoded-content-length": str(size), **headers}
    return Payload(pieces(body), sent, len(body), Identity("", mode, chunks))


@pytest.mark.parametrize("content", [b"", b"123456789", LARGE[: 1 << 20], LARGE], ids=len)
@pytest.mark.parametrize("known", [True, False])
def test_seals_with_etag_and_default_checksum(content: bytes, known: bool) -> None:
    attributes = Attributes(headers={"content-type": "text/plain"}, metadata={"a": "b"}, tags={"c": "d"})
    length = len(content) if known else None
    source = Payload(pieces(content), {}, length, None, attributes, chunked=not known)
    assert source.size == length
    assert stored(source) == (
        content,
        attributes._replace(
            etag=hashlib.md5(content).hexdigest(),
            checksums={"CRC64NVME": checksum("CRC64NVME", content)},
            checksum_type="FULL_OBJECT",
        ),
    )


@timeless
@given(
    content=st.binary(max_size=3000), splits=st.lists(st.integers(1, 900), min_size=1, max_size=4), large=st.booleans()
)
def test_pieces_may_be_of_any_size(content: bytes, splits: list[int], large: bool) -> None:
    before = payload.INLINE
    payload.INLINE = -1 if large else before  # with threads, whatever the size
    try:
        found, attributes = stored(Payload(pieces(content, splits), {}, len(content), Identity("", sha256(content))))
    finally:
        payload.INLINE = before
    assert (found, attributes.etag) == (content, hashlib.md5(content).hexdigest())


@pytest.mark.parametrize("content", [b"", b"123456789", LARGE], ids=len)
@pytest.mark.parametrize("algorithm", list(checksums.SIZES))
def test_keeps_the_checksum_that_was_sent(content: bytes, algorithm: str) -> None:
    value, name = checksum(algorithm, content), f"x-amz-checksum-{algorithm.lower()}"
    expected = (content, {algorithm: value}, "FULL_OBJECT")
    trailing, body = {"x-amz-trailer": name}, unsigned(cut(content, [70_000]), [(name, value)])
    with_signatures = signed(cut(content, [70_000]), [(name, value)])
    for source in (
        plain(content, {name: value}),
        plain(content, {name: value, "content-md5": md5(content)}, sha256(content)),
        framed(body, len(content), trailing),
        framed(signed(cut(content, [70_000])), len(content), {name: value}, SIGNED),
        framed(with_signatures, len(content), trailing, SIGNED_TRAILER),
    ):
        found, attributes = stored(source)
        assert (found, attributes.checksums, attributes.checksum_type) == expected


@pytest.mark.parametrize("content", [b"", b"123456789", LARGE], ids=len)
def test_a_body_that_is_not_what_was_said_of_it_is_never_sealed(content: bytes) -> None:
    other = content + b"!"
    refused(plain(content, mode=sha256(other)), "XAmzContentSHA256Mismatch")
    assert "Content-MD5" in refused(plain(content, {"content-md5": md5(other)}), "BadDigest").message
    for algorithm in checksums.SIZES:
        name, value = f"x-amz-checksum-{algorithm.lower()}", checksum(algorithm, other)
        message = f"The {algorithm} you specified did not match the calculated checksum."
        assert refused(plain(content, {name: value}), "BadDigest").message == message
        body = unsigned(cut(content, [70_000]), [(name, value)])
        assert refused(framed(body, len(content), {"x-amz-trailer": name}), "BadDigest").message == message
        body = unsigned(cut(content, [70_000]), [(name, value[:-1])])
        found = refused(framed(body, len(content), {"x-amz-trailer": name}), "InvalidRequest")
        assert found.message == f"Value for {name} trailing header is invalid."


@pytest.mark.parametrize("content", [b"123456789", LARGE], ids=len)
def test_a_body_of_another_length_is_never_sealed(content: bytes) -> None:
    for length in (len(content) - 1, len(content) + 1):
        refused(Payload(pieces(content), {}, length, Identity("", "UNSIGNED-PAYLOAD")), "IncompleteBody")
        refused(framed(unsigned([content]), length), "IncompleteBody")
        refused(framed(signed([content]), length, mode=SIGNED), "IncompleteBody")
    refused(framed(unsigned([content])[:-5], len(content)), "IncompleteBody")


def test_a_forged_chunk_is_never_sealed() -> None:
    body = bytearray(signed(cut(LARGE, [100_000])))
    body[-200] ^= 1
    refused(framed(bytes(body), len(LARGE), mode=SIGNED), "SignatureDoesNotMatch")


def test_what_botocore_sends_with_a_trailer() -> None:
    name = "x-amz-checksum-crc32"
    for content in (b"", b"123456789", LARGE):
        body = AwsChunkedWrapper(io.BytesIO(content), CrtCrc32Checksum, name).read()
        headers = {"x-amz-trailer": name, "x-amz-sdk-checksum-algorithm": "CRC32"}
        found, attributes = stored(framed(body, len(content), headers))
        assert (found, attributes.checksums) == (content, {"CRC32": checksum("CRC32", content)})


def test_framing_is_told_by_the_payload_or_by_the_encoding() -> None:
    body = unsigned([b"123"])
    length = {"x-amz-decoded-content-length": "3"}
    streaming = {**length, "x-amz-content-sha256": UNSIGNED_TRAILER}
    presigned = Identity("", "UNSIGNED-PAYLOAD")
    for headers, identity in [
        (length, Identity("", UNSIGNED_TRAILER)),  # without content-encoding
        ({**length, "content-encoding": "gzip,AWS-Chunked"}, presigned),
        (streaming, presigned),
        (streaming, None),
        ({**length, "x-amz-content-sha256": SIGNED}, None),  # anonymous: there is nothing to verify
    ]:
        sent = body if identity else signed([b"123"])
        assert stored(Payload(pieces(sent), headers, len(sent), identity))[0] == b"123"
    # an encoding that is only a word
    assert stored(plain(body, FRAMED))[0] == body
    assert stored(plain(body, {**FRAMED, **length}, sha256(body)))[0] == body


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("aws-chunked", None), ("aws-chunked,gzip", "gzip"), ("gzip, br, aws-chunked", "gzip,br"), ("gzip", "gzip")],
)
def test_aws_chunked_is_not_stored(sent: str, kept: str | None) -> None:
    attributes = Attributes(headers={"content-encoding": sent, "content-type": "a/b"})
    _, found = stored(Payload(pieces(b"1"), {}, 1, None, attributes))
    assert found.headers.get("content-encoding") == kept
    assert found.headers["content-type"] == "a/b"


@pytest.mark.parametrize(
    ("code", "status", "headers", "length", "mode"),
    [
        ("MissingContentLength", 411, {}, None, "UNSIGNED-PAYLOAD"),
        ("MissingContentLength", 411, FRAMED, 10, UNSIGNED_TRAILER),
        ("InvalidArgument", 400, {"x-amz-decoded-content-length": "-1"}, 10, UNSIGNED_TRAILER),
        ("InvalidArgument", 400, {"x-amz-decoded-content-length": "1_0"}, 10, UNSIGNED_TRAILER),
        ("InvalidArgument", 400, {"x-amz-decoded-content-length": "9" * 5000}, 10, UNSIGNED_TRAILER),
        ("InvalidArgument", 400, {}, 10, "abc"),
        ("InvalidArgument", 400, {}, 10, "g" * 64),
        ("InvalidArgument", 400, {}, 10, "ab " * 21 + "a"),
        ("NotImplemented", 501, {}, 10, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"),
        ("SignatureDoesNotMatch", 403, {"x-amz-decoded-content-length": "1"}, 10, SIGNED),  # with nobody to verify
        ("InvalidDigest", 400, {"content-md5": "x"}, 10, "UNSIGNED-PAYLOAD"),
        ("InvalidRequest", 400, {"x-amz-checksum-crc32": "-"}, 10, "UNSIGNED-PAYLOAD"),
        ("BadDigest", 400, {"x-amz-checksum-crc32": "x"}, 10, "UNSIGNED-PAYLOAD"),
        ("MalformedTrailerError", 400, {"x-amz-trailer": "x-amz-checksum-crc32"}, 10, "UNSIGNED-PAYLOAD"),
    ],
)
def test_headers_are_checked_before_a_byte_is_read(
    code: str, status: int, headers: dict[str, str], length: int | None, mode: str
) -> None:
    def never() -> Iterator[memoryview]:
        pytest.fail("a byte was read")
        yield

    with pytest.raises(S3Error) as caught:
        Payload(never(), headers, length, Identity("", mode))
    assert (caught.value.code, caught.value.status) == (code, status)


def breaking_off(content: bytes) -> Iterator[memoryview]:
    yield from pieces(content)
    raise ConnectionResetError("the client has left")


@pytest.fixture(autouse=True)
def before(monkeypatch: pytest.MonkeyPatch) -> int:
    """How many threads there are before a test; large bodies have some even on a machine with one processor."""
    monkeypatch.setattr(payload, "THREADS", True)
    return threading.active_count()


def test_threads_end_when_the_body_breaks_off(before: int) -> None:
    with Payload(breaking_off(LARGE), {}, len(LARGE) + 1) as source, pytest.raises(ConnectionResetError):
        for _ in source:
            assert threading.active_count() > before
    assert threading.active_count() == before
    with pytest.raises(S3Error):
        source.seal()


@pytest.mark.parametrize("mode", ["UNSIGNED-PAYLOAD", sha256(LARGE)], ids=["unsigned", "hashed"])
def test_threads_end_when_the_reader_fails(mode: str, before: int) -> None:
    with pytest.raises(ZeroDivisionError), plain(LARGE, mode=mode) as source:
        for number, _ in enumerate(source):
            1 / (2 - number)
    assert threading.active_count() == before
    source.close()
    with pytest.raises(S3Error):
        source.seal()


def test_a_body_that_nobody_reads_has_no_thread(before: int) -> None:
    with plain(LARGE) as source:
        assert threading.active_count() == before
    with pytest.raises(S3Error):
        source.seal()


def test_a_small_body_has_no_thread(before: int) -> None:
    for size in (0, 4096, 256 << 10):
        for _ in plain(LARGE[:size], mode=sha256(LARGE[:size])):
            assert threading.active_count() == before


def test_memory_stays_bounded_while_a_large_body_passes() -> None:
    block = bytes(1 << 20)
    count = 64
    body = (memoryview(piece) for number in range(count) for piece in (b"100000\r\n", block, b"\r\n"))
    ended = (memoryview(piece) for piece in (b"0\r\n\r\n",))

    def all_pieces() -> Iterator[memoryview]:
        yield from body
        yield from ended

    headers = {**FRAMED, "x-amz-decoded-content-length": str(count << 20)}
    source = Payload(all_pieces(), headers, None, Identity("", UNSIGNED_TRAILER), chunked=True)
    tracemalloc.start()
    try:
        with source:
            assert sum(len(piece) for piece in source) == count << 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert source.seal().etag == hashlib.md5(block * count).hexdigest()


def test_reads_a_small_body_whole() -> None:
    assert read_small(plain(b"<a/>", {"content-md5": md5(b"<a/>")}), 4) == b"<a/>"
    assert read_small(framed(unsigned([b"<a", b"/>"]), 4), 100) == b"<a/>"
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_small(plain(b"<a/>"), 3)
    with pytest.raises(ValueError, match="more than 3 bytes"):
        read_small(Payload(pieces(LARGE), {}, None, chunked=True), 3)
    with pytest.raises(S3Error):
        read_small(plain(b"<a/>", {"content-md5": md5(b"<b/>")}), 4)
