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
_PLAIN_PATH = re.compile(r"[A-Za-z0-9\-_.~/]*").fullmatch
_TIMESTAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z").fullmatch
_PLAIN = re.compile(r"[A-Za-z0-9\-_.~]*").fullmatch


class Signable(Protocol):
    """A request as it came: path and query percent-encoded as they were sent, header names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]


def canonical_path(path: str) -> str:
    """A path as S3 signs it: encoded once, its slashes and dots as they are."""
    if _PLAIN_PATH(path):
        return path
    return quote(unquote_to_bytes(_octets(path)), safe=_UNRESERVED + "/")


def canonical_query(query: str, without: str = "") -> str:
    """A query as S3 signs it: each name and value encoded once, sorted by name and value; ``without`` one name."""
    if not query:
        return ""
    pairs = []
    for item in query.split("&"):
        name, _, value = item.partition("=")
        if item and (name := _encoded(name)) != without:
            pairs.append((name, _encoded(value)))
    pairs.sort()
    return "&".join([f"{name}={value}" for name, value in pairs])


def _encoded(text: str) -> str:
    if _PLAIN(text):
        return text
    return quote(unquote_to_bytes(_octets(text.replace("+", " "))), safe=_UNRESERVED)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def canonical_headers(headers: Mapping[str, str], names: Iterable[str]) -> str:
    """A line for each of the named headers, in this order; one that is not there has an empty value."""
    lines = []
    for name in names:
        value = headers.get(name, "").strip()
        if "  " in value or "\t" in value:
            value = " ".join(value.split())
        lines.append(f"{name}:{value}\n")
    return "".join(lines)


def canonical_request(method: str, path: str, query: str, headers: str, signed: str, payload: str) -> str:
    """The text whose digest is signed, of parts that are canonical already; ``signed`` is ``host;x-amz-date;...``."""
    return f"{method}\n{path}\n{query}\n{headers}\n{signed}\n{payload}"


def string_to_sign(timestamp: str, scope: str, canonical: str) -> str:
    """What is signed of a canonical request; ``scope`` is ``date/region/service/aws4_request``."""
    return f"{ALGORITHM}\n{timestamp}\n{scope}\n{sha256(_octets(canonical)).hexdigest()}"


@lru_cache(maxsize=1024)
def signing_key(secret: str, date: str, region: str, service: str = "s3") -> bytes:
    """The key that signs one day's requests (``date`` is YYYYMMDD) to one region; kept, since it takes four HMACs."""
    key = _octets("AWS4" + secret)
    for text in (date, region, service, "aws4_request"):
        key = hmac.digest(key, _octets(text), "sha256")
    return key


def sign(key: bytes, text: str) -> str:
    """The signature of a text in hex."""
    return hmac.digest(key, _octets(text), "sha256").hex()


def same(expected: str, given: str) -> bool:
    """Whether two signatures are the same; takes the same time for all that differ."""
    return hmac.compare_digest(_octets(expected), _octets(given))


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

    ``path`` and ``query`` are as they will be sent. Header names are in lower case, ``host`` is among them. ``payload``
    is the body's SHA-256 in hex, or one of the words that S3 has for bodies that are not hashed beforehand.
    """
    timestamp = timestamp_of(now)
    scope = f"{timestamp[:8]}/{region}/s3/aws4_request"
    sent = {**headers, "x-amz-date": timestamp, "x-amz-content-sha256": payload}
    names = sorted(sent)
    signed = ";".join(names)
    canonical = canonical_request(
        method, canonical_path(path), canonical_query(query), canonical_headers(sent, names), signed, payload
    )
    signature = sign(signing_key(secret_key, timestamp[:8], region), string_to_sign(timestamp, scope, canonical))
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
    signature = sign(signing_key(secret_key, timestamp[:8], region), string_to_sign(timestamp, scope, canonical))
    return f"{whole}&X-Amz-Signature={signature}"
