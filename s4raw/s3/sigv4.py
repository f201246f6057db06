"""Who sent a request: checks Signature V4 in headers and in presigned URLs, and hands older signatures to ``sigv2``.

The rules are those of the Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version 4)", and so are the
codes and messages of what is refused. Reads heads only; what the signature says of the body is in ``Identity``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import unquote_plus

from s4raw.s3 import sigv2
from s4raw.s3.credentials import Credentials
from s4raw.s3.errors import S3Error
from s4raw.s3.signing import (
    ALGORITHM,
    EMPTY_SHA256,
    MAX_EXPIRES,
    UNSIGNED,
    Signable,
    SigningKey,
    canonical_headers,
    canonical_path,
    canonical_query,
    canonical_request,
    is_timestamp,
    same,
    seconds_of,
    signing_key,
    string_to_sign,
    timestamp_of,
)

MAX_SKEW = 15 * 60  # seconds that a client's clock may differ from ours
STREAMING = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

_WORDS = {UNSIGNED, STREAMING_UNSIGNED, STREAMING, STREAMING_TRAILER}
_SIGNED_CHUNKS = {STREAMING, STREAMING_TRAILER}
_SHA256 = re.compile(r"[0-9a-fA-F]{64}").fullmatch
_BOUND_OTHERWISE = {"x-amz-content-sha256", "x-amz-security-token"}  # the one is signed as the payload, one ignored
_ONCE = ("x-amz-", "content-", "signature", "awsaccesskeyid", "expires")  # of presigned URLs, in lower case
_REQUIRED = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Amz-Date",
    "X-Amz-SignedHeaders",
    "X-Amz-Expires",
)


class Identity(NamedTuple):
    """Who sent a request, and how its body is signed.

    ``access_key`` is empty if nobody signed it. ``payload`` is the body's SHA-256 in hex or one of S3's words for
    bodies that are signed otherwise or not at all; ``chunks`` checks the chunks of one that is signed in chunks.
    """

    access_key: str
    payload: str = UNSIGNED
    chunks: ChunkVerifier | None = None


class ChunkVerifier:
    """Checks the signatures of an ``aws-chunked`` body: each covers the one before, and the first the request's."""

    __slots__ = ("_key", "_place", "_previous")

    def __init__(self, key: SigningKey, timestamp: str, scope: str, seed: str) -> None:
        self._key = key
        self._place = f"{timestamp}\n{scope}"
        self._previous = seed

    def chunk(self, signature: str, sha256_hex: str) -> None:
        """Check the next chunk, whose bytes have this digest. Raises S3Error SignatureDoesNotMatch."""
        text = f"{ALGORITHM}-PAYLOAD\n{self._place}\n{self._previous}\n{EMPTY_SHA256}\n{sha256_hex}"
        self._check(text, signature)

    def trailer(self, signature: str, canonical: bytes) -> None:
        """Check the trailers, given as a ``name:value\\n`` line each. Raises S3Error SignatureDoesNotMatch."""
        text = f"{ALGORITHM}-TRAILER\n{self._place}\n{self._previous}\n{sha256(canonical).hexdigest()}"
        self._check(text, signature)

    def _check(self, text: str, signature: str) -> None:
        expected = self._key.sign(text)
        if not same(expected, signature):
            raise S3Error("SignatureDoesNotMatch", StringToSign=text)
        self._previous = expected


class Scope(NamedTuple):
    """What a signature is good for: the parts of a credential."""

    access_key: str
    date: str
    region: str
    key: SigningKey

    def __str__(self) -> str:
        return f"{self.date}/{self.region}/s3/aws4_request"


def authenticate(
    request: Signable,
    credentials: Credentials,
    now: float,
    *,
    region: str = "",
    anonymous: bool = False,
    virtual_bucket: str = "",
) -> Identity:
    """Who sent a request. Raises S3Error.

    ``now`` is in seconds since 1970. With a ``region``, only signatures for it or for us-east-1 count. A request
    without a signature is AccessDenied unless ``anonymous``; with a wrong one it always is refused. ``virtual_bucket``
    is the bucket that the Host header named, if any: older signatures cover it.
    """
    authorization = request.headers.get("authorization", "")
    if query := request.query:
        if "X-Amz-SignedHeaders=host&" in query and not authorization and _is_bare(request):
            url = (request.method, request.path, query, request.headers.get("host", ""))
            identity, seconds, expires = _bare_url(credentials, region, *url)
            if not identity.chunks:  # a body's chunks count once
                return _in_time(now, identity, seconds, expires)
        if "X-Amz-" in query and (params := _parameters(query)).keys() & {*_REQUIRED[:3]}:
            _only_one(authorization)
            return _in_time(now, *_presigned(request, params, credentials, region))
        if "Signature=" in query or "AWSAccessKeyId=" in query:
            params = _parameters(query)
            if "Signature" in params or "AWSAccessKeyId" in params:
                _only_one(authorization)
                access_key = sigv2.check_query(request, params, credentials, now, virtual_bucket)
                return Identity(access_key, _unsigned_payload(request))
    if authorization.startswith(ALGORITHM):
        return _signed(request, authorization, credentials, now, region)
    if authorization.startswith("AWS "):
        access_key = sigv2.check_header(request, authorization, credentials, now, MAX_SKEW, virtual_bucket)
        return Identity(access_key, _unsigned_payload(request))
    if not authorization.strip():
        if anonymous:
            return Identity("", _unsigned_payload(request))
        raise S3Error("AccessDenied")
    if authorization.startswith("AWS4-"):
        raise S3Error(
            "InvalidRequest",
            f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.",
        )
    raise S3Error("InvalidArgument", "Unsupported Authorization Type", ArgumentName="Authorization")


def scope_of(credential: str, date: str, credentials: Credentials, region: str, code: str, prefix: str) -> Scope:
    """Parse and check a credential, ``KEY/YYYYMMDD/REGION/s3/aws4_request``, of a request of this date. Raises S3Error.

    ``code`` and ``prefix`` are those of the answer to a malformed one.
    """
    parts = credential.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        raise S3Error(
            code,
            f'{prefix}; the Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
        )
    access_key, day, place, service, terminal = parts
    if terminal != "aws4_request":
        raise S3Error(code, f'{prefix}; incorrect terminal {terminal!r}. This endpoint uses "aws4_request".')
    if service != "s3":
        raise S3Error(code, f'{prefix}; incorrect service {service!r}. This endpoint belongs to "s3".')
    secret = credentials.secret(access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
    if day != date:
        raise S3Error(code, f"{prefix}; Invalid credential date {day!r}. This date is not the same as X-Amz-Date.")
    if region and place not in (region, "us-east-1", ""):
        raise S3Error(code, f"{prefix}; the region {place!r} is wrong; expecting {region!r}", Region=region)
    return Scope(access_key, day, place, signing_key(secret, day, place))


def _signed(request: Signable, authorization: str, credentials: Credentials, now: float, region: str) -> Identity:
    headers = request.headers
    credential, signed, signature = _components(authorization)
    timestamp = headers["x-amz-date"] if "x-amz-date" in headers else headers.get("date", "")
    seconds = seconds_of(timestamp)
    if seconds is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    if not is_timestamp(timestamp):  # an HTTP date
        timestamp = timestamp_of(seconds)
    if abs(now - seconds) > MAX_SKEW:
        raise S3Error(
            "RequestTimeTooSkewed",
            RequestTime=timestamp,
            ServerTime=timestamp_of(now),
            MaxAllowedSkewMilliseconds=str(MAX_SKEW * 1000),
        )
    scope = scope_of(
        credential,
        timestamp[:8],
        credentials,
        region,
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed",
    )
    payload = headers.get("x-amz-content-sha256")
    if payload is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    return _verify(request, scope, timestamp, signed, payload, canonical_query(request.query), signature)


def _components(authorization: str) -> tuple[str, str, str]:
    """The credential, the names of the signed headers and the signature of an Authorization header."""
    found = {}
    for item in authorization[len(ALGORITHM) :].split(","):
        name, _, value = item.strip().partition("=")
        found[name] = value if name not in found else ""
    if len(found) == 3:
        credential, signed = found.get("Credential", ""), found.get("SignedHeaders", "")
        signature = found.get("Signature", "")
        if credential and signed and signature:
            return credential, signed, signature
    raise S3Error(
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; "
        "the authorization header requires three components: Credential, SignedHeaders, and Signature.",
    )


def _is_bare(request: Signable) -> bool:
    """Whether all of a request that a presigned URL can cover is the URL and the host."""
    return not any(name[:6] == "x-amz-" for name in request.headers)


@lru_cache(maxsize=1024)
def _bare_url(
    credentials: Credentials, region: str, method: str, path: str, query: str, host: str
) -> tuple[Identity, int, int]:
    """Check a presigned URL; kept, since its holder may read many ranges with it."""
    request = _Bare(method, path, query, {"host": host})
    return _presigned(request, _parameters(query), credentials, region)


class _Bare(NamedTuple):
    method: str
    path: str
    query: str
    headers: dict[str, str]


def _presigned(
    request: Signable, params: dict[str, str], credentials: Credentials, region: str
) -> tuple[Identity, int, int]:
    """Who presigned a URL, from when in seconds since 1970, and for how many seconds."""
    code = "AuthorizationQueryParametersError"
    if not all(params.get(name) for name in _REQUIRED):
        raise S3Error(
            code,
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, "
            "X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
        )
    if params["X-Amz-Algorithm"] != ALGORITHM:
        raise S3Error(code, f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    timestamp = params["X-Amz-Date"]
    seconds = seconds_of(timestamp) if is_timestamp(timestamp) else None
    if seconds is None:
        raise S3Error(code, "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    expires = _expires(params["X-Amz-Expires"])
    scope = scope_of(
        params["X-Amz-Credential"],
        timestamp[:8],
        credentials,
        region,
        code,
        "Error parsing the X-Amz-Credential parameter",
    )
    payload = params.get("X-Amz-Content-Sha256") or request.headers.get("x-amz-content-sha256") or UNSIGNED
    query = canonical_query(request.query, without="X-Amz-Signature")
    signed, signature = params["X-Amz-SignedHeaders"], params["X-Amz-Signature"]
    return _verify(request, scope, timestamp, signed, payload, query, signature), seconds, expires


def _in_time(now: float, identity: Identity, seconds: int, expires: int) -> Identity:
    if now >= seconds + expires:
        until = timestamp_of(seconds + expires)
        raise S3Error("AccessDenied", "Request has expired", Expires=until, ServerTime=timestamp_of(now))
    if seconds - now > MAX_SKEW:
        raise S3Error("AccessDenied", "Request is not yet valid")
    return identity


def _expires(text: str) -> int:
    code = "AuthorizationQueryParametersError"
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise S3Error(code, "X-Amz-Expires should be a number")
    # S3 answers 400 to these; the conformance suite of Ceph's gateway wants 403, and no client looks at the status
    if text != digits:
        raise S3Error(code, "X-Amz-Expires must be non-negative", status=403)
    if int(digits) > MAX_EXPIRES:
        raise S3Error(
            code,
            "X-Amz-Expires must be less than a week (in seconds); "
            f"that is, the given X-Amz-Expires must be less than {MAX_EXPIRES} seconds",
            status=403,
        )
    return int(digits)


def _verify(
    request: Signable, scope: Scope, timestamp: str, signed: str, payload: str, query: str, signature: str
) -> Identity:
    headers = request.headers
    names = signed.split(";")
    unsigned = [name for name in headers if name.startswith("x-amz-") and name not in names]
    if "host" not in names:
        unsigned.append("host")
    if unsigned and (unsigned := [name for name in unsigned if name not in _BOUND_OTHERWISE]):
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(unsigned),
        )
    if payload not in _WORDS and not _SHA256(payload):
        raise _bad_payload(payload)
    lines = canonical_headers(headers, names)
    path = canonical_path(request.path)
    canonical = canonical_request(request.method, path, query, lines, signed, payload)
    place = str(scope)
    text = string_to_sign(timestamp, place, canonical)
    expected = scope.key.sign(text)
    if not same(expected, signature):
        others = []
        if path != request.path:  # some clients sign the path as they send it, not as S3 would encode it: as binding
            others.append(canonical_request(request.method, request.path, query, lines, signed, payload))
        if not canonical.isascii():  # botocore signs a header beyond ASCII as UTF-8, and sends it as Latin-1
            others.append(canonical.encode().decode("latin-1"))
        for other in others:
            expected = scope.key.sign(string_to_sign(timestamp, place, other))
            if same(expected, signature):
                break
        else:
            raise S3Error(
                "SignatureDoesNotMatch",
                AWSAccessKeyId=scope.access_key,
                StringToSign=text,
                SignatureProvided=signature,
                CanonicalRequest=canonical,
            )
    if payload in _SIGNED_CHUNKS:
        return Identity(scope.access_key, payload, ChunkVerifier(scope.key, timestamp, place, expected))
    return Identity(scope.access_key, payload if payload in _WORDS else payload.lower())


def _unsigned_payload(request: Signable) -> str:
    """What a request that Signature V4 does not cover says of its body; it cannot have signed chunks."""
    payload = request.headers.get("x-amz-content-sha256", UNSIGNED)
    if payload in (UNSIGNED, STREAMING_UNSIGNED):
        return payload
    if _SHA256(payload):
        return payload.lower()
    raise _bad_payload(payload)


def _bad_payload(payload: str) -> S3Error:
    if payload.startswith("STREAMING-AWS4-ECDSA"):
        return S3Error("NotImplemented", f"x-amz-content-sha256: {payload} is not supported.")
    return S3Error(
        "InvalidArgument",
        f"x-amz-content-sha256 must be {UNSIGNED}, {STREAMING_UNSIGNED}, {STREAMING}, {STREAMING_TRAILER} "
        "or a valid sha256 value.",
        ArgumentName="x-amz-content-sha256",
        ArgumentValue=payload,
    )


def _parameters(query: str) -> dict[str, str]:
    """The decoded query, in which nothing that is signed, or is a header, may come twice."""
    found: dict[str, str] = {}
    for item in query.split("&"):
        name, _, value = item.partition("=")
        name = unquote_plus(name) if "%" in name or "+" in name else name
        if name in found and name.lower().startswith(_ONCE):
            raise S3Error("AuthorizationQueryParametersError", f"{name} is given twice")
        plain = value.replace("%2F", "/")  # all that is encoded, as a rule: the slashes of a credential
        found[name] = unquote_plus(value) if "%" in plain or "+" in plain else plain
    return found


def _only_one(authorization: str) -> None:
    if authorization:
        raise S3Error(
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
            "Signature query string parameter or the Authorization header should be specified",
            ArgumentName="Authorization",
        )
