"""aws-chunked framing: what is inside comes out, and whatever is not as its sender made it is refused."""

import base64
import io
from collections.abc import Sequence

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, CrtCrc64NvmeChecksum, Sha256Checksum
from hypothesis import given
from hypothesis import strategies as st
from s3_bodies import cut, pieces, signed, unsigned, verifier
from support import timeless

from s4raw.s3.aws_chunked import MAX_LINE, Decoder, without_aws_chunked
from s4raw.s3.errors import S3Error

SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=4)
TRAILER = ("x-amz-checksum-crc32", "y/Q5Jg==")
NONE: frozenset[str] = frozenset()
ONE = frozenset([TRAILER[0]])
CHUNKS = [b"123", b"45678", b"9" * 20]
CONTENT = b"".join(CHUNKS)


def decoded(decoder: Decoder) -> bytes:
    return b"".join(bytes(piece) for piece in decoder)


def plain(body: bytes, announced: frozenset[str] = NONE, size: int = len(CONTENT)) -> bytes:
    return decoded(Decoder(pieces(body), size, announced))


def verified(body: bytes, announced: frozenset[str] = NONE, trailer: bool = False, size: int = len(CONTENT)) -> bytes:
    return decoded(Decoder(pieces(body), size, announced, verifier(), trailer))


def refused(code: str, *arguments: object, read: object = plain) -> None:
    with pytest.raises(S3Error) as caught:
        read(*arguments)  # type: ignore[operator]
    assert caught.value.code == code, caught.value


@timeless
@given(content=st.binary(max_size=2000), chunks=SIZES, splits=SIZES, signs=st.booleans(), trailer=st.booleans())
def test_gives_what_is_inside(content: bytes, chunks: list[int], splits: list[int], signs: bool, trailer: bool) -> None:
    trailers = [TRAILER] if trailer else []
    if signs:
        body = signed(cut(content, chunks), trailers if trailer else None)
    else:
        body = unsigned(cut(content, chunks), trailers)
    decoder = Decoder(
        pieces(body, splits), len(content), ONE if trailer else NONE, verifier() if signs else None, signs and trailer
    )
    assert decoded(decoder) == content
    assert decoder.trailers == dict(trailers)


@pytest.mark.parametrize("at", range(len(signed(CHUNKS, [TRAILER]))))
def test_may_be_split_anywhere(at: int) -> None:
    body = signed(CHUNKS, [TRAILER])
    halves = iter([memoryview(body[:at]), memoryview(b""), memoryview(body[at:])])
    assert decoded(Decoder(halves, len(CONTENT), ONE, verifier(), True)) == CONTENT


@pytest.mark.parametrize("kind", [CrtCrc64NvmeChecksum, Sha256Checksum, None])
@pytest.mark.parametrize("size", [0, 1, 1 << 20, (2 << 20) + 5])
def test_reads_what_botocore_writes(kind: type | None, size: int) -> None:
    content = (b"0123456789" * (size // 10 + 1))[:size]
    name = "x-amz-checksum-x"
    body = AwsChunkedWrapper(io.BytesIO(content), kind, name).read()
    decoder = Decoder(pieces(body, (65_536,)), size, frozenset([name]) if kind else NONE)
    assert decoded(decoder) == content
    if kind:
        state = kind()
        state.update(content)
        assert decoder.trailers == {name: base64.b64encode(state.digest()).decode()}


SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
SIGNATURES = [
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
]
TRAILER_SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
TRAILER_SIGNATURES = [
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
]


def published(signatures: Sequence[str], trailer: bytes) -> bytes:
    """The body of Amazon's example: 65 KiB of the letter a in two chunks."""
    chunks = zip((65_536, 1024), signatures, strict=False)
    body = b"".join(f"{size:x};chunk-signature={mark}\r\n".encode() + b"a" * size + b"\r\n" for size, mark in chunks)
    return body + f"0;chunk-signature={signatures[2]}\r\n".encode() + trailer + b"\r\n"


def test_amazons_examples() -> None:
    body = published(SIGNATURES, b"")
    assert len(body) == 66_824
    assert decoded(Decoder(pieces(body), 66_560, NONE, verifier(SEED))) == b"a" * 66_560
    for end in (b"\n\r\n", b"\r\n"):  # the example's, and most clients'
        trailer = (
            b"x-amz-checksum-crc32c:sOO8/Q==" + end + f"x-amz-trailer-signature:{TRAILER_SIGNATURES[3]}\r\n".encode()
        )
        decoder = Decoder(
            pieces(published(TRAILER_SIGNATURES, trailer)),
            66_560,
            frozenset(["x-amz-checksum-crc32c"]),
            verifier(TRAILER_SEED),
            True,
        )
        assert decoded(decoder) == b"a" * 66_560
        assert decoder.trailers == {"x-amz-checksum-crc32c": "sOO8/Q=="}


@pytest.mark.parametrize("end", range(len(unsigned(CHUNKS, [TRAILER]))))
def test_a_truncated_body_is_refused(end: int) -> None:
    refused("IncompleteBody", unsigned(CHUNKS, [TRAILER])[:end], ONE)


@pytest.mark.parametrize("at", range(len(signed(CHUNKS, [TRAILER]))))
def test_any_flipped_bit_of_a_signed_body_is_refused(at: int) -> None:
    body = bytearray(signed(CHUNKS, [TRAILER]))
    for mask in (0x01, 0x80):
        body[at] ^= mask
        with pytest.raises(S3Error) as caught:
            verified(bytes(body), ONE, True)
        assert caught.value.code in ("IncompleteBody", "SignatureDoesNotMatch", "MalformedTrailerError")
        body[at] ^= mask


def test_a_swapped_or_dropped_signed_chunk_is_refused() -> None:
    body = signed([b"aaaa", b"bbbb"])
    size = len(b"4;chunk-signature=") + 64 + 2 + 4 + 2
    refused(
        "SignatureDoesNotMatch", body[size : 2 * size] + body[:size] + body[2 * size :], NONE, False, 8, read=verified
    )
    refused("SignatureDoesNotMatch", body[size:], NONE, False, 4, read=verified)
    refused("SignatureDoesNotMatch", body[:size] + body[2 * size :], NONE, False, 4, read=verified)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n",
        b"0\r\n",
        b"3\r\n123\r\n",  # no last chunk
        b"3\r\n1234\r\n0\r\n\r\n",
        b"3\n123\n0\n\n",
        b"-3\r\n123\r\n0\r\n\r\n",
        b"+3\r\n123\r\n0\r\n\r\n",
        b"0x3\r\n123\r\n0\r\n\r\n",
        b" 3\r\n123\r\n0\r\n\r\n",
        b"g\r\n123\r\n0\r\n\r\n",
        b"0_3\r\n123\r\n0\r\n\r\n",
        b"00000000000000003\r\n123\r\n0\r\n\r\n",
        b"fffffffffffffff\r\n123\r\n0\r\n\r\n",
        b"3;" + b"x" * MAX_LINE + b"\r\n123\r\n0\r\n\r\n",
        b"3\r\n123\r\n0\r\n\r\nmore",
        b"3\r\n123\r\n0\r\n\r\n\r\n",
        b"2\r\n12\r\n0\r\n\r\n",  # fewer than announced
        b"4\r\n1234\r\n0\r\n\r\n",  # more
        b"3\r\n123\r\n1\r\n4\r\n0\r\n\r\n",
        b"3\r\n123\r\n0;a=b\r\nx-amz-meta: " + b"v" * MAX_LINE + b"\r\n\r\n",
    ],
)
def test_broken_framing_is_refused(body: bytes) -> None:
    refused("IncompleteBody", body, NONE, 3)
    with pytest.raises(S3Error):
        decoded(Decoder(pieces(body, (1,)), 3))


def test_chunk_extensions_without_signatures_do_not_matter() -> None:
    assert plain(b"3;chunk-signature=abc\r\n123\r\n0;x\r\n\r\n", NONE, 3) == b"123"
    assert plain(b"003\r\n123\r\n000\r\n\r\n", NONE, 3) == b"123"


def test_a_signed_body_without_signatures_is_refused() -> None:
    refused("IncompleteBody", unsigned(CHUNKS), read=verified)
    refused("IncompleteBody", signed(CHUNKS).replace(b";chunk-signature", b";chunk-signaturf"), read=verified)
    refused("IncompleteBody", signed(CHUNKS), NONE, True, read=verified)  # that of the trailers


@pytest.mark.parametrize(
    "trailers",
    [
        [],
        [("x-amz-checksum-crc32c", "y/Q5Jg==")],
        [TRAILER, TRAILER],
        [TRAILER, ("x-amz-meta-a", "b")],
        [TRAILER, ("x-amz-trailer-signature", "0" * 64)],
        [("", "y/Q5Jg==")],
        [(f"x-{number}", "a") for number in range(20)],
    ],
)
def test_trailers_that_were_not_announced_or_do_not_come_are_refused(trailers: list[tuple[str, str]]) -> None:
    refused("MalformedTrailerError", unsigned(CHUNKS, trailers), ONE)


def test_malformed_trailers_are_refused() -> None:
    refused("MalformedTrailerError", unsigned(CHUNKS, [TRAILER]))
    refused("MalformedTrailerError", b"0\r\nx-amz-checksum-crc32 y/Q5Jg==\r\n\r\n", ONE, 0)
    refused("MalformedTrailerError", b"0\r\nx-amz-checksum-crc32\r\n\r\n", ONE, 0)
    refused("MalformedTrailerError", signed(CHUNKS, [TRAILER]), read=verified)  # in a mode without trailers


def test_the_other_encodings_stay_in_order() -> None:
    assert without_aws_chunked("aws-chunked") == ""
    assert without_aws_chunked("gzip, aws-chunked") == "gzip"
    assert without_aws_chunked("AWS-Chunked,zstd , gzip") == "zstd,gzip"


def test_never_gives_more_than_was_announced() -> None:
    found = b""
    with pytest.raises(S3Error):
        for piece in Decoder(pieces(unsigned(CHUNKS), (1,)), len(CONTENT) - 1):
            found += piece
    assert found == b"".join(CHUNKS[:-1])
