"""Bodies of requests: aws-chunked framing taken off, verified against all that their senders say of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Protocol

from s4raw.objects.base import Attributes
from s4raw.s3 import checksums
from s4raw.s3.aws_chunked import ENCODING, ChunkVerifier, Decoder, without_aws_chunked
from s4raw.s3.checksums import Hash
from s4raw.s3.errors import S3Error
from s4raw.s3.hashing import hash_aside

INLINE = 1 << 20  # bytes of a body whose digests are not worth a thread
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = "STREAMING-"
SIGNED_CHUNKS = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_CHUNKS_AND_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
_SLOW = ("SHA1", "SHA256")
_NO_ATTRIBUTES = Attributes()
THREADS = len(os.sched_getaffinity(0)) > 1  # a thread helps only where a processor is free


class Identity(Protocol):
    """Who sent a request, and how it was signed: what ``sigv4`` finds out."""

    @property
    def payload(self) -> str:
        """What was signed as ``x-amz-content-sha256``."""

    @property
    def chunks(self) -> ChunkVerifier | None:
        """Verifies signed chunks, where the body has such."""


class Payload:
    """A request's body as a backend wants it: a ``Source``, read once, and a context manager.

    The headers are checked before a byte is read, the body by the end of the iteration, which raises S3Error unless
    everything matches: IncompleteBody, XAmzContentSHA256Mismatch, SignatureDoesNotMatch, BadDigest, InvalidRequest,
    MalformedTrailerError. ``close`` it in any case: large bodies have threads.
    """

    __slots__ = (
        *("_algorithm", "_attributes", "_checksum", "_content_md5", "_decoder", "_digest", "_md5", "_payload_sha256"),
        *("_sealed", "_sha256", "_source", "_stream", "size"),
    )

    def __init__(
        self,
        pieces: Iterator[memoryview],
        headers: Mapping[str, str],
        length: int | None,
        identity: Identity | None = None,
        attributes: Attributes = _NO_ATTRIBUTES,
        *,
        chunked: bool = False,
        algorithm: str = checksums.DEFAULT,
    ) -> None:
        """``pieces`` are free of HTTP's own framing, ``length`` is the Content-Length in bytes, None without it.

        ``algorithm`` is the checksum's when the request names none. Raises S3Error: MissingContentLength,
        InvalidDigest, InvalidArgument, InvalidRequest.
        """
        if length is None and not chunked:
            raise S3Error("MissingContentLength")
        expected = checksums.expected(headers)
        self._algorithm = expected.algorithm if expected is not None else algorithm
        self._digest = expected.digest if expected is not None else None
        self._content_md5 = checksums.expected_md5(headers)
        self._attributes = attributes
        self._sealed: Attributes | None = None
        self._stream: Generator[memoryview, None, None] | None = None
        self._decoder: Decoder | None = None
        self._sha256: Hash | None = None
        self._payload_sha256 = b""
        self._source, self.size = pieces, length
        mode = _mode(headers, identity)
        if mode.startswith(STREAMING) or _is_framed(mode, headers):
            self._decode(pieces, headers, identity, mode)
        else:
            if expected is not None and expected.digest is None:
                raise S3Error("MalformedTrailerError")  # there is no place for the trailer
            if mode != UNSIGNED:
                self._payload_sha256 = _sha256_of(mode)
                self._sha256 = hashlib.sha256()
        self._md5: Hash = hashlib.md5(usedforsecurity=False)
        shared = self._sha256 if self._algorithm == "SHA256" else None
        self._checksum = shared or checksums.new(self._algorithm)

    def _decode(
        self, pieces: Iterator[memoryview], headers: Mapping[str, str], identity: Identity | None, mode: str
    ) -> None:
        """Take the framing off ``pieces``."""
        verifier = identity.chunks if identity is not None else None
        if mode not in (SIGNED_CHUNKS, SIGNED_CHUNKS_AND_TRAILER, UNSIGNED_TRAILER, UNSIGNED):
            raise S3Error("NotImplemented", f"x-amz-content-sha256 {mode} is not implemented.")
        if identity is not None and identity.payload.startswith(SIGNED_CHUNKS) and verifier is None:
            raise S3Error("SignatureDoesNotMatch")
        length = headers.get("x-amz-decoded-content-length")
        if length is None:
            raise S3Error("MissingContentLength")
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise S3Error("InvalidArgument", "x-amz-decoded-content-length is not a number of bytes.")
        self.size = int(length)
        announced = headers.get("x-amz-trailer")
        self._decoder = Decoder(
            pieces,
            self.size,
            frozenset((announced.strip().lower(),) if announced else ()),
            verifier,
            mode == SIGNED_CHUNKS_AND_TRAILER,
        )
        self._source = iter(self._decoder)

    @property
    def known(self) -> Attributes:
        """The attributes as far as the headers say them: the digests that the sender announced are among them."""
        found = {self._algorithm: checksums.encode(self._digest)} if self._digest is not None else {}
        etag = self._content_md5.hex() if self._content_md5 is not None else ""
        kind = checksums.FULL_OBJECT if found else ""
        return self._stored()._replace(etag=etag, checksums=found, checksum_type=kind)

    def __iter__(self) -> Iterator[memoryview]:
        if self._stream is None:
            self._stream = self._verified()
        return self._stream

    def _verified(self) -> Generator[memoryview, None, None]:
        hashes = [self._md5, self._checksum]
        if self._sha256 is not None and self._sha256 is not self._checksum:
            hashes.append(self._sha256)
        if THREADS and (self.size is None or self.size > INLINE):
            count = yield from self._aside(hashes)
        else:
            count = 0
            for piece in self._source:
                for state in hashes:
                    state.update(piece)
                count += len(piece)
                yield piece
        if self.size is not None and count != self.size:
            raise S3Error("IncompleteBody")
        self._verify()

    def _aside(self, hashes: Sequence[Hash]) -> Generator[memoryview, None, int]:
        slow, quick = list(hashes), []
        if self._algorithm not in _SLOW:
            slow.remove(self._checksum)
            quick.append(self._checksum)
        stream, count = hash_aside(self._source, slow, quick), 0
        try:
            for piece in stream:
                count += len(piece)
                yield piece
        finally:
            stream.close()
        return count

    def _verify(self) -> None:
        """Compare what came with what was said of it, and make the attributes to store."""
        if self._sha256 is not None and self._sha256.digest() != self._payload_sha256:
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                ClientComputedContentSHA256=self._payload_sha256.hex(),
                S3ComputedContentSHA256=self._sha256.digest().hex(),
            )
        md5 = self._md5.digest()
        if self._content_md5 is not None and self._content_md5 != md5:
            raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")
        digest = self._checksum.digest()
        wanted = self._digest
        if self._decoder is not None and self._decoder.trailers:
            ((name, value),) = self._decoder.trailers.items()
            try:
                wanted = checksums.decode(self._algorithm, value)
            except ValueError:
                raise S3Error("InvalidRequest", f"Value for {name} trailing header is invalid.") from None
        if wanted is not None and wanted != digest:
            raise S3Error("BadDigest", f"The {self._algorithm} you specified did not match the calculated checksum.")
        _, headers, metadata, tags, _, _, parts = self._stored()
        found = {self._algorithm: checksums.encode(digest)}
        self._sealed = Attributes(md5.hex(), headers, metadata, tags, found, checksums.FULL_OBJECT, parts)

    def _stored(self) -> Attributes:
        """The attributes that were given, without the framing that was taken off."""
        if ENCODING in self._attributes.headers.get("content-encoding", "").lower():
            return self._attributes._replace(headers=_without_framing(self._attributes.headers))
        return self._attributes

    def seal(self) -> Attributes:
        """The attributes to store, once the iteration has ended: with ETag, checksum, and no ``aws-chunked``."""
        if self._sealed is None:
            raise S3Error("IncompleteBody")
        return self._sealed

    def close(self) -> None:
        """End the threads, if there are any left; twice is fine."""
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Payload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _mode(headers: Mapping[str, str], identity: Identity | None) -> str:
    """What the request says of its payload: a SHA-256 in hex, UNSIGNED-PAYLOAD, or a kind of framing.

    Where no payload was signed (presigned, anonymous) the header may still say how the body is framed.
    """
    if identity is not None and identity.payload != UNSIGNED:
        return identity.payload
    sent = headers.get("x-amz-content-sha256")
    return sent if sent and (identity is None or sent.startswith(STREAMING)) else UNSIGNED


def _is_framed(mode: str, headers: Mapping[str, str]) -> bool:
    return (
        mode == UNSIGNED
        and "x-amz-decoded-content-length" in headers
        and ENCODING in headers.get("content-encoding", "").lower()
    )


def _sha256_of(mode: str) -> bytes:
    try:
        digest = bytes.fromhex(mode)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(mode) != 64:
        raise S3Error(
            "InvalidArgument",
            f"x-amz-content-sha256 must be {UNSIGNED}, {UNSIGNED_TRAILER}, {SIGNED_CHUNKS}, "
            f"{SIGNED_CHUNKS_AND_TRAILER} or a valid sha256 value.",
        )
    return digest


def _without_framing(headers: Mapping[str, str]) -> Mapping[str, str]:
    kept = {**headers, "content-encoding": without_aws_chunked(headers["content-encoding"])}
    if not kept["content-encoding"]:
        del kept["content-encoding"]
    return kept


def read_small(payload: Payload, limit: int) -> bytes:
    """The whole of a body that is held in memory, verified. Raises ValueError when it has more than ``limit`` bytes."""
    with payload:
        if payload.size is not None and payload.size > limit:
            raise ValueError(f"the body has more than {limit} bytes")
        pieces, count = [], 0
        for piece in payload:
            pieces.append(bytes(piece))
            count += len(piece)
            if count > limit:
                raise ValueError(f"the body has more than {limit} bytes")
    return b"".join(pieces)
