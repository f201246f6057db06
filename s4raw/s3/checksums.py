"""Checksums of objects: the algorithms, how part checksums combine, and what requests say in their headers.

CRC32 comes from zlib, CRC32C and CRC64NVME from awscrt, SHA1 and SHA256 from hashlib. Values are base64 of the
big-endian bytes. Rules and messages are those of Amazon S3 ("Checking object integrity in Amazon S3").
"""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from awscrt.checksums import crc32c, crc64nvme  # type: ignore[import-not-found, import-untyped, unused-ignore]

from s4raw.s3.errors import S3Error

SIZES = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}  # bytes of a digest
DEFAULT = "CRC64NVME"  # what an object gets when its sender names none
FULL_OBJECT, COMPOSITE = "FULL_OBJECT", "COMPOSITE"
HEADERS = {f"x-amz-checksum-{name.lower()}": name for name in SIZES}
TYPES = {  # of multipart uploads; the first is the one that an algorithm has by itself
    "CRC32": (COMPOSITE, FULL_OBJECT),
    "CRC32C": (COMPOSITE, FULL_OBJECT),
    "CRC64NVME": (FULL_OBJECT,),
    "SHA1": (COMPOSITE,),
    "SHA256": (COMPOSITE,),
}
_CRCS: dict[str, Callable[[bytes | memoryview, int], int]] = {
    "CRC32": zlib.crc32,
    "CRC32C": crc32c,
    "CRC64NVME": crc64nvme,
}
_POLYNOMIALS = {"CRC32": 0xEDB88320, "CRC32C": 0x82F63B78, "CRC64NVME": 0x9A6C9329AC4BC9B5}  # bit-reversed
_PREFIX = "x-amz-checksum-"
_CUT_OFF = re.compile("[A-Za-z0-9+/]+").fullmatch  # with less than whole groups of four
_OTHERS = ("x-amz-checksum-type", "x-amz-checksum-algorithm", "x-amz-checksum-mode")


class Hash(Protocol):
    """A digest that grows with the bytes it is given."""

    def update(self, data: memoryview, /) -> None:
        """Take more bytes in."""

    def digest(self) -> bytes:
        """The digest of all bytes so far."""


class _Crc:
    __slots__ = ("_function", "_size", "_value")

    def __init__(self, algorithm: str) -> None:
        self._function = _CRCS[algorithm]
        self._size = SIZES[algorithm]
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


def new(algorithm: str) -> Hash:
    """A new digest of one of the algorithms in ``SIZES``."""
    if algorithm in _CRCS:
        return _Crc(algorithm)
    return hashlib.sha256() if algorithm == "SHA256" else hashlib.sha1(usedforsecurity=False)


def encode(digest: bytes) -> str:
    """A digest as it stands in headers and XML."""
    return b64encode(digest).decode()


def decode(algorithm: str, value: str) -> bytes:
    """The digest that a header or an XML element gives. Raises ValueError unless it is base64 of the right length."""
    digest = b64decode(value, validate=True)
    if len(digest) != SIZES[algorithm] or encode(digest) != value:  # not equal: bits are set that base64 leaves over
        raise ValueError(f"not a {algorithm} in base64: {value!r}")
    return digest


def composite(algorithm: str, values: Sequence[str]) -> str:
    """The COMPOSITE checksum of an object from those of its parts: the checksum of their bytes, and ``-N``."""
    state = new(algorithm)
    for value in values:
        state.update(memoryview(decode(algorithm, value)))
    return f"{encode(state.digest())}-{len(values)}"


def full_object(algorithm: str, parts: Iterable[tuple[str, int]]) -> str:
    """The FULL_OBJECT checksum of an object from the checksums and sizes in bytes of its parts; only CRCs have one."""
    total = 0
    for value, size in parts:
        crc = int.from_bytes(decode(algorithm, value), "big")
        total = _multiply(_POLYNOMIALS[algorithm], total, _shift(_POLYNOMIALS[algorithm], size)) ^ crc
    return encode(total.to_bytes(SIZES[algorithm], "big"))


def _multiply(polynomial: int, a: int, b: int) -> int:
    """The product of two polynomials over GF(2), modulo a third; bits are reversed: the highest bit is x^0."""
    bit = 1 << (63 if polynomial >> 32 else 31)
    product = 0
    while a:
        if a & bit:
            product ^= b
            a ^= bit
        bit >>= 1
        b = b >> 1 ^ (polynomial if b & 1 else 0)
    return product


@lru_cache(maxsize=64)  # most parts of an upload have one size
def _shift(polynomial: int, size: int) -> int:
    """x^(8 size): what the CRC of bytes is multiplied by when ``size`` more follow."""
    power = 1 << (63 if polynomial >> 32 else 31)
    square = power >> 8
    while size:
        if size & 1:
            power = _multiply(polynomial, power, square)
        square = _multiply(polynomial, square, square)
        size >>= 1
    return power


class Expected(NamedTuple):
    """What a request says of its body: an algorithm, and its digest; None if that comes in a trailer."""

    algorithm: str
    digest: bytes | None = None


def header_of(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """The algorithm and the value, unchecked, of a request's one ``x-amz-checksum-*`` header. Raises InvalidRequest."""
    found: tuple[str, str] | None = None
    for name in headers:
        if name.startswith(_PREFIX) and name not in _OTHERS:
            if found is not None:
                raise S3Error(
                    "InvalidRequest",
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
                )
            if name not in HEADERS:
                raise S3Error(
                    "InvalidRequest", "The algorithm type you specified in x-amz-checksum- header is invalid."
                )
            found = HEADERS[name], headers[name]
    return found


def expected(headers: Mapping[str, str]) -> Expected | None:
    """What a request's headers say of the checksum of its body. Raises InvalidRequest.

    The headers are ``x-amz-checksum-*``, ``x-amz-trailer`` and ``x-amz-sdk-checksum-algorithm``.
    """
    found = None
    if given := header_of(headers):
        algorithm, value = given
        try:
            found = Expected(algorithm, decode(algorithm, value))
        except ValueError:
            if _CUT_OFF(value) and len(value) % 4:  # S3 says InvalidRequest to this, too, Ceph's conformance suite not
                told = f"The {algorithm} you specified did not match the calculated checksum."
                raise S3Error("BadDigest", told) from None
            raise S3Error("InvalidRequest", f"Value for {_PREFIX}{algorithm.lower()} header is invalid.") from None
    if trailer := headers.get("x-amz-trailer"):
        if found is not None:
            raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header")
        name = trailer.strip().lower()
        if name not in HEADERS:
            raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
        found = Expected(HEADERS[name])
    if named := headers.get("x-amz-sdk-checksum-algorithm"):
        if found is None:
            raise S3Error(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer "
                "headers were found.",
            )
        if named.strip().upper() != found.algorithm:
            raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
    return found


def expected_md5(headers: Mapping[str, str]) -> bytes | None:
    """The digest in ``Content-MD5``, None without that header. Raises InvalidDigest."""
    value = headers.get("content-md5")
    if value is None:
        return None
    try:
        digest = b64decode(value, validate=True)
    except ValueError:
        digest = b""
    if len(digest) != 16:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return digest


def wanted(headers: Mapping[str, str]) -> tuple[str, str]:
    """The algorithm and the type that a new upload or a copy shall have, empty if not asked for. Raises InvalidRequest.

    The headers are ``x-amz-checksum-algorithm`` and ``x-amz-checksum-type``.
    """
    algorithm = headers.get("x-amz-checksum-algorithm", "").strip().upper()
    kind = headers.get("x-amz-checksum-type", "").strip().upper()
    if algorithm and algorithm not in SIZES:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
            f"[{', '.join(SIZES)}]",
        )
    if kind not in ("", FULL_OBJECT, COMPOSITE):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    if not algorithm:
        if kind:
            raise S3Error(
                "InvalidRequest",
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )
        return "", ""
    if kind and kind not in TYPES[algorithm]:
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm.",
        )
    return algorithm, kind or TYPES[algorithm][0]
