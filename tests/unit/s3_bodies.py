"""Bodies in aws-chunked framing as clients send them, written from Amazon's documentation, and who checks them."""

import hashlib
import hmac
from collections.abc import Iterator, Sequence

from s4raw.s3 import signing
from s4raw.s3.sigv4 import ChunkVerifier

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # of Amazon's examples
DATE, REGION = "20130524T000000Z", "us-east-1"
SCOPE = f"{DATE[:8]}/{REGION}/s3/aws4_request"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _key() -> bytes:
    """The key that signs for a day, a region and S3."""
    key = b"AWS4" + SECRET.encode()
    for word in (DATE[:8], REGION, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    return key


def verifier(seed: str = "0" * 64) -> ChunkVerifier:
    """The server's side of what ``signed`` makes."""
    return ChunkVerifier(signing.signing_key(SECRET, DATE[:8], REGION), DATE, SCOPE, seed)


class _Chain:
    """Signatures of chunks, each made with the one before."""

    def __init__(self, seed: str) -> None:
        self.last = seed

    def sign(self, kind: str, *hashes: str) -> str:
        text = "\n".join([f"AWS4-HMAC-SHA256-{kind}", DATE, SCOPE, self.last, *hashes])
        self.last = hmac.new(_key(), text.encode(), "sha256").hexdigest()
        return self.last


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut into pieces of these sizes, over and over."""
    found, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return found


def pieces(data: bytes, sizes: Sequence[int] = (1 << 20,)) -> Iterator[memoryview]:
    """A body as HTTP hands it on: each piece is overwritten when the next is asked for."""
    buffer = bytearray(max(sizes))
    for piece in cut(data, sizes):
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]
        buffer[:] = b"\xee" * len(buffer)


def unsigned(chunks: Sequence[bytes], trailers: Sequence[tuple[str, str]] = ()) -> bytes:
    """The framing without signatures."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return body + b"0\r\n" + b"".join(f"{name}:{value}\r\n".encode() for name, value in trailers) + b"\r\n"


def signed(
    chunks: Sequence[bytes], trailers: Sequence[tuple[str, str]] | None = None, seed: str = "0" * 64, ends: str = "\r\n"
) -> bytes:
    """The framing with signatures, of the trailers too if there are any; ``ends`` is behind each of these."""
    chain, found = _Chain(seed), b""
    for chunk in (*chunks, b""):
        found += f"{len(chunk):x};chunk-signature={chain.sign('PAYLOAD', sha256(b''), sha256(chunk))}\r\n".encode()
        found += chunk + b"\r\n" if chunk else b""
    if trailers is not None:
        canonical = "".join(f"{name}:{value}\n" for name, value in trailers).encode()
        found += "".join(f"{name}:{value}{ends}" for name, value in trailers).encode()
        found += f"x-amz-trailer-signature:{chain.sign('TRAILER', sha256(canonical))}\r\n".encode()
    return found + b"\r\n"
