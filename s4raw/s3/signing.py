"""Signature V4 as both ends compute it: canonical requests, signing keys, and requests signed for our own client.

The rules are those of the Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)". Knows nothing
of who may do what, or of clocks: times are given.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Protocol
from urllib.parse import quote, unquote_to_bytes

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = sha256(b"").hexdigest()
MAX_EXPIRES = 7 * 24 * 3600  # seconds that a presigned URL may be good for

_UNRESERVED = "-_.~"
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z").fullmatch
# What is encoded as S3 would do it, as far as it is quickly told.
_ENCODED_PATH = re.compile(r"(?:[A-Za-z0-9\-_.~/]|%(?:2[0-9ABC]|3[A-F]|40|[89A-F][0-9A-F]))*").fullmatch
_ENCODED = re.compile(r"(?:[A-Za-z0-9\-_.~]|%(?:2[0-9ABCF]|3[A-F]|40|[89A-F][0-9A-F]))*").fullmatch
_ENCODED_QUERY = re.compile(
    r"[A-Za-z0-9\-_.~=&]*(?:%(?:2[0-9ABCF]|3[A-F]|40|[89A-F][0-9A-F])[A-Za-z0-9\-_.~=&]*)*"
).fullmatch
_OF_SIGNATURES = frozenset(
    f"x-amz-{name}"
    for name in ("algorithm", "credential", "date", "expires", "signedheaders", "signature", "content-sha256")
)
_SPACES = re.compile(r"[ \t]+")
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


class Signable(Protocol):
    """A request as it came.

    Path and query are percent-encoded as they were sent, header names in lower case, values decoded as Latin-1.
    """

    @property
    def method(self) -> str:
        """GET, PUT, ..."""

    @property
    def path(self) -> str:
        """Begins with a slash."""

    @property
    def query(self) -> str:
        """Without the question mark; may be empty."""

    @property
    def headers(self) -> dict[str, str]:
        """Several of a name are joined by commas."""


def canonical_path(path: str) -> str:
    """A path as S3 signs it: encoded once, its slashes and dots as they are."""
    if _ENCODED_PATH(path):
        return path
    return quote(unquote_to_bytes(path.encode("utf-8", "surrogatepass")), safe=_UNRESERVED + "/")


def canonical_query(query: str, without: str = "") -> str:
    """A query as S3 signs it: each name and value encoded once, sorted by name and value; ``without`` one name."""
    if not query:
        return ""
    if _ENCODED_QUERY(query):  # as clients send it that have signed it
        found = [item.split("=") for item in query.split("&")]
        if {*map(len, found)} == {2}:
            return "&".join([f"{name}={value}" for name, value in sorted(found) if name != without])
    pairs = []
    for item in query.split("&"):
        name, _, value = item.partition("=")
        if item and (name := encoded(name)) != without:
            pairs.append((name, encoded(value)))
    pairs.sort()
    return "&".join([f"{name}={value}" for name, value in pairs])


def encoded(text: str) -> str:
    """A name or a value of a query, encoded once."""
    if _ENCODED(text):
        return text
    text = text.replace("+", " ")
    return quote(unquote_to_bytes(text.encode("utf-8", "surrogatepass")), safe=_UNRESERVED)


def headers_of_query(params: Mapping[str, str]) -> dict[str, str]:
    """The headers that stand in a presigned URL with these decoded parameters, where SDKs put what they would send.

    S3 does not look there for checksums of the body; the SDK for JavaScript writes that of an empty one into each URL.
    """
    return {
        lower: value.encode().decode("latin-1")
        for name, value in params.items()
        if (lower := name.lower()) in ("content-type", "content-md5")
        or (lower.startswith("x-amz-") and lower not in _OF_SIGNATURES and "checksum" not in lower)
    }


def octets(text: str) -> bytes:
    """The bytes that were decoded as Latin-1; a text that cannot have been has some bytes, too."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def canonical_headers(headers: Mapping[str, str], names: Iterable[str]) -> str:
    """A line for each of the named headers, in this order; one that is not there has an empty value."""
    lines = []
    for name in names:
        value = headers.get(name, "")
        if " " in value or "\t" in value:
            value = _SPACES.sub(" ", value).strip(" ")
        lines.append(f"{name}:{value}\n")
    return "".join(lines)


def canonical_request(method: str, path: str, query: str, headers: str, signed: str, payload: str) -> str:
    """The text whose digest is signed, of parts that are canonical already; ``signed`` is ``host;x-amz-date;...``."""
    return f"{method}\n{path}\n{query}\n{headers}\n{signed}\n{payload}"


def string_to_sign(timestamp: str, scope: str, canonical: str) -> str:
    """What is signed of a canonical request; ``scope`` is ``date/region/service/aws4_request``."""
    return f"{ALGORITHM}\n{timestamp}\n{scope}\n{sha256(octets(canonical)).hexdigest()}"


class SigningKey:
    """A key of HMAC-SHA256 that has been prepared (RFC 2104, 4): a signature takes a quarter of the time."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(64, b"\0")
        self._inner = sha256(padded.translate(_INNER))
        self._outer = sha256(padded.translate(_OUTER))

    def sign(self, text: str) -> str:
        """The signature of a text in hex."""
        inner = self._inner.copy()
        inner.update(octets(text))
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


@lru_cache(maxsize=1024)
def signing_key(secret: str, date: str, region: str, service: str = "s3") -> SigningKey:
    """The key that signs one day's requests (``date`` is YYYYMMDD) to one region; kept, since it takes four HMACs."""
    key = octets("AWS4" + secret)
    for text in (date, region, service, "aws4_request"):
        key = hmac.digest(key, octets(text), "sha256")
    return SigningKey(key)


def same(expected: str, given: str) -> bool:
    """Whether two signatures are the same; takes the same time for all that differ."""
    return hmac.compare_digest(octets(expected), octets(given))


def timestamp_of(now: float) -> str:
    """Seconds since 1970 as ``YYYYMMDDThhmmssZ``."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


def is_timestamp(text: str) -> bool:
    """Whether a text looks like ``YYYYMMDDThhmmssZ``."""
    return _TIMESTAMP(text) is not None


@lru_cache(maxsize=256)
def seconds_of(text: str) -> int | None:
    """The seconds since 1970 of a ``YYYYMMDDThhmmssZ`` or an HTTP date; None if it is neither, or before 1970."""
    try:
        if _TIMESTAMP(text):
            numbers = (text[:4], text[4:6], text[6:8], text[9:11], text[11:13], text[13:15])
            seconds = datetime(*map(int, numbers), tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]
        else:
            from email.utils import parsedate_to_datetime

            found = parsedate_to_datetime(text)
            seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return int(seconds) if seconds >= 0 else None


def sign_headers(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    access_key: str,
    secret_key: str,
    *,
    now: float,
    region: str = "us-east-1",
    payload: str = UNSIGNED,
) -> dict[str, str]:
    """The headers to send instead of ``headers``, with a signature of all of them.

    ``path`` and ``query`` are as they will be sent. Header names are in lower case, ``host`` is among them; values are
    sent as Latin-1. ``payload`` is the body's SHA-256 in hex, or one of the words that S3 has for bodies that are not
    hashed beforehand.
    """
    timestamp = timestamp_of(now)
    scope = f"{timestamp[:8]}/{region}/s3/aws4_request"
    sent = {**headers, "x-amz-date": timestamp, "x-amz-content-sha256": payload}
    names = sorted(sent)
    signed = ";".join(names)
    canonical = canonical_request(
        method, canonical_path(path), canonical_query(query), canonical_headers(sent, names), signed, payload
    )
    signature = signing_key(secret_key, timestamp[:8], region).sign(string_to_sign(timestamp, scope, canonical))
    sent["authorization"] = (
        f"{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
    )
    return sent


def presign(
    method: str,
    path: str,
    query: str,
    host: str,
    access_key: str,
    secret_key: str,
    *,
    now: float,
    expires: int = 3600,
    region: str = "us-east-1",
    headers: Mapping[str, str] | None = None,
) -> str:
    """The query of a URL that lets its holder do one request, until ``expires`` seconds after ``now``.

    ``path`` and ``query`` are as they will be sent. Whoever uses the URL must send ``headers`` (lower-case names), too.
    Raises ValueError if ``expires`` is not between 1 second and 7 days.
    """
    if not 1 <= expires <= MAX_EXPIRES:
        raise ValueError(f"a presigned URL is good for 1 to {MAX_EXPIRES} seconds, not for {expires}")
    timestamp = timestamp_of(now)
    scope = f"{timestamp[:8]}/{region}/s3/aws4_request"
    sent = {**(headers or {}), "host": host}
    names = sorted(sent)
    signed = ";".join(names)
    added = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{access_key}/{scope}",
        "X-Amz-Date": timestamp,
        "X-Amz-Expires": str(expires),
        "X-Amz-SignedHeaders": signed,
    }
    extra = "&".join([f"{name}={quote(value, safe=_UNRESERVED)}" for name, value in added.items()])
    whole = canonical_query(f"{query}&{extra}")
    canonical = canonical_request(method, canonical_path(path), whole, canonical_headers(sent, names), signed, UNSIGNED)
    signature = signing_key(secret_key, timestamp[:8], region).sign(string_to_sign(timestamp, scope, canonical))
    return f"{whole}&X-Amz-Signature={signature}"
