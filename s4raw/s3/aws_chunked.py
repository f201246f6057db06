"""Bodies in aws-chunked framing: chunks that may be signed, one by one, and trailers behind them.

It stands inside HTTP's own framing. The format is that of Amazon S3, "Signature Calculations for the Authorization
Header: Transferring Payload in Multiple Chunks"; what is said of a broken body was seen of S3 by others.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import NoReturn, Protocol

from s4raw.s3.errors import S3Error

ENCODING = "aws-chunked"
MAX_LINE = 1024  # bytes of a chunk's head or a trailer
MAX_TRAILERS = 16
SIGNATURE = "x-amz-trailer-signature"
_BLANKS = b" \t"
_NOTHING = memoryview(b"")
_EMPTY_SHA256 = sha256(b"").hexdigest()


class ChunkVerifier(Protocol):
    """Knows the signature that the next chunk must have. Raises SignatureDoesNotMatch."""

    def chunk(self, signature: str, sha256_hex: str, /) -> None:
        """Check the signature of the next chunk, or of the empty one that ends them."""

    def trailer(self, signature: str, canonical: bytes, /) -> None:
        """Check the signature of the trailers, given as ``name:value`` lines."""


def without_aws_chunked(encoding: str) -> str:
    """The ``content-encoding`` that an object keeps: that of its request without ``aws-chunked``."""
    names = (name.strip() for name in encoding.split(","))
    return ",".join(name for name in names if name and name.lower() != ENCODING)


class Decoder:
    """Iterating gives the bytes inside the framing, in slices of ``pieces``; at the end ``trailers`` are known.

    Raises IncompleteBody where the framing is broken or holds another number of bytes than ``size``, and
    MalformedTrailerError where the trailers are not those announced. Signatures are checked when a ``verifier`` is
    given, a chunk's after its bytes have been passed on: nothing may be kept before the iteration has ended.
    """

    __slots__ = ("_announced", "_at", "_piece", "_pieces", "_signs_trailers", "_size", "_verifier", "trailers")

    def __init__(
        self,
        pieces: Iterator[memoryview],
        size: int,
        announced: frozenset[str] = frozenset(),
        verifier: ChunkVerifier | None = None,
        signs_trailers: bool = False,
    ) -> None:
        """``announced`` are the names of the trailers, ``signs_trailers`` says that a signature follows them."""
        self.trailers: dict[str, str] = {}
        self._pieces = pieces
        self._size = size
        self._announced = announced
        self._verifier = verifier
        self._signs_trailers = signs_trailers
        self._piece = _NOTHING
        self._at = 0

    def __iter__(self) -> Iterator[memoryview]:
        left, verifier = self._size, self._verifier
        while True:
            size, signature = _parse_head(self._line())
            if verifier is not None and not signature:
                _broken()
            if not size:
                break
            left -= size
            if left < 0:
                raise S3Error("IncompleteBody")
            digest = sha256() if verifier is not None else None
            while size:
                if self._at == len(self._piece):
                    self._next_piece()
                view = self._piece[self._at : self._at + size]
                self._at += len(view)
                size -= len(view)
                if digest is not None:
                    digest.update(view)
                yield view
            if self._line():
                _broken()
            if verifier is not None and digest is not None:
                verifier.chunk(signature, digest.hexdigest())
        if verifier is not None:
            verifier.chunk(signature, _EMPTY_SHA256)
        if left:
            raise S3Error("IncompleteBody")
        self._read_trailers()
        self._read_end()

    def _next_piece(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            _broken()
        self._piece, self._at = piece, 0

    def _line(self) -> bytes:
        """The next line, without its CR LF."""
        line = bytes(self._piece[self._at : self._at + MAX_LINE])
        end = line.find(b"\r\n")
        while end < 0:  # it goes on in the next piece
            if len(line) == MAX_LINE:
                _broken()
            self._next_piece()
            begun = len(line)
            line += self._piece[: MAX_LINE - begun]
            self._at = -begun
            end = line.find(b"\r\n")
        self._at += end + 2
        return line[:end]

    def _read_trailers(self) -> None:
        found: dict[str, str] = {}
        while line := self._line():
            for entry in line.split(b"\n"):  # some clients end each with an LF of its own before the CR LF
                if not entry:
                    continue
                raw, colon, value = entry.partition(b":")
                name = raw.strip(_BLANKS).lower().decode("latin-1")
                if not (name and colon) or name in found or len(found) == MAX_TRAILERS:
                    raise S3Error("MalformedTrailerError")
                found[name] = value.strip(_BLANKS).decode("latin-1")
        if self._signs_trailers:
            signature = found.pop(SIGNATURE, "")
            if self._verifier is not None:
                if not signature:
                    _broken()
                canonical = "".join(f"{name}:{found[name]}\n" for name in sorted(found))
                self._verifier.trailer(signature, canonical.encode("latin-1"))
        if found.keys() != self._announced:
            raise S3Error("MalformedTrailerError")
        self.trailers = found

    def _read_end(self) -> None:
        """Nothing may follow; HTTP's own framing is read to its end."""
        if self._at < len(self._piece) or any(map(len, self._pieces)):
            _broken()


def _parse_head(line: bytes) -> tuple[int, str]:
    """The size in bytes of a chunk, and its signature, empty if it has none."""
    digits, _, extension = line.partition(b";")
    if not digits.isalnum() or len(digits) > 16 or digits[1:2] in (b"x", b"X"):  # int() takes more than digits
        _broken()
    try:
        size = int(digits, 16)
    except ValueError:
        _broken()
    name, _, signature = extension.partition(b"=")
    return size, signature.strip(_BLANKS).decode("latin-1") if name.strip(_BLANKS) == b"chunk-signature" else ""


def _broken() -> NoReturn:
    raise S3Error("IncompleteBody", "The request body terminated unexpectedly")
