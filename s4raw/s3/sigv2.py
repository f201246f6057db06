"""Checks Signature V2, which some clients still presign with: HMAC-SHA1 in a query or an Authorization header.

The rules are those of the Amazon S3 developer guide, "Signing and Authenticating REST Requests". Bodies are not signed.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from urllib.parse import unquote, unquote_plus

from s4raw.s3.credentials import Credentials
from s4raw.s3.errors import S3Error
from s4raw.s3.signing import Signable, octets, same, seconds_of, timestamp_of

# The parameters that a signature covers; of all others it says nothing.
_COVERED = {
    *("accelerate", "acl", "analytics", "cors", "defaultObjectAcl", "delete", "encryption", "intelligent-tiering"),
    *("inventory", "legal-hold", "lifecycle", "location", "logging", "metrics", "notification", "object-lock"),
    *("ownershipControls", "partNumber", "policy", "policyStatus", "publicAccessBlock", "replication"),
    *("requestPayment", "restore", "retention", "select", "select-type", "storageClass", "tagging", "torrent"),
    *("uploadId", "uploads", "versionId", "versioning", "versions", "website"),
    *("response-cache-control", "response-content-disposition", "response-content-encoding"),
    *("response-content-language", "response-content-type", "response-expires"),
}


def signature(secret: str, text: str) -> str:
    """The signature of a text in base64; also of a browser form's policy."""
    return b64encode(hmac.digest(octets(secret), octets(text), "sha1")).decode()


def check_header(
    request: Signable, authorization: str, credentials: Credentials, now: float, max_skew: float, bucket: str = ""
) -> str:
    """The access key of a request with an ``AWS KEY:SIGNATURE`` header. Raises S3Error.

    ``now`` and ``max_skew`` are in seconds; ``bucket`` is the one that the Host header named, if any.
    """
    access_key, colon, given = authorization.removeprefix("AWS ").strip().rpartition(":")
    if not colon or not access_key or not given:
        raise S3Error(
            "InvalidArgument",
            "AWS authorization header is invalid. Expected AwsAccessKeyId:signature",
            ArgumentName="Authorization",
        )
    secret = _secret(credentials, access_key)
    headers = request.headers
    seconds = seconds_of(headers["x-amz-date"] if "x-amz-date" in headers else headers.get("date", ""))
    if seconds is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    if abs(now - seconds) > max_skew:
        raise S3Error(
            "RequestTimeTooSkewed",
            RequestTime=timestamp_of(seconds),
            ServerTime=timestamp_of(now),
            MaxAllowedSkewMilliseconds=str(int(max_skew * 1000)),
        )
    date = "" if "x-amz-date" in headers else headers.get("date", "")
    _verify(request, date, headers, bucket, access_key, secret, given)
    return access_key


def check_query(
    request: Signable, params: Mapping[str, str], credentials: Credentials, now: float, bucket: str = ""
) -> str:
    """The access key of a presigned URL with these decoded parameters. Raises S3Error."""
    access_key, given, expires = (params.get(name, "") for name in ("AWSAccessKeyId", "Signature", "Expires"))
    if not (access_key and given and expires):
        raise S3Error(
            "AccessDenied",
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
        )
    secret = _secret(credentials, access_key)
    if not (expires.isascii() and expires.isdigit() and len(expires) < 12):
        raise S3Error("AccessDenied", f"Invalid date (should be seconds since epoch): {expires}")
    if now >= int(expires):
        raise S3Error("AccessDenied", "Request has expired", Expires=expires, ServerTime=timestamp_of(now))
    headers = {**_headers_of(params), **request.headers}
    given = given.replace(" ", "+")  # a + that was not encoded
    _verify(request, expires, headers, bucket, access_key, secret, given)
    return access_key


def _headers_of(params: Mapping[str, str]) -> dict[str, str]:
    """What a client would send as headers may stand in the URL instead, where all of it is signed, in any case."""
    found: dict[str, str] = {}
    for name, value in params.items():
        lower = name.lower()
        if lower.startswith("x-amz-") or lower in ("content-md5", "content-type"):
            if lower in found:
                raise S3Error("AccessDenied", f"{lower} is given twice")
            found[lower] = value.encode().decode("latin-1")
    return found


def string_to_sign(request: Signable, date: str, headers: Mapping[str, str], bucket: str = "", path: str = "") -> str:
    """What is signed of a request; ``path`` stands for the one that was sent."""
    lines = [request.method, *(headers.get(name, "").strip(" \t") for name in ("content-md5", "content-type")), date]
    names = [name for name in sorted(headers) if name.startswith("x-amz-")]
    lines += [name + ":" + headers[name].strip(" \t") for name in names]
    resource = f"/{bucket}{path or request.path}" if bucket else request.path
    if request.query and (covered := _covered(request.query)):
        resource = f"{resource}?{covered}"
    return "\n".join([*lines, resource])


def _covered(query: str) -> str:
    found = []
    for item in query.split("&"):
        name, equals, value = item.partition("=")
        if "%" in name or "+" in name:
            name = unquote_plus(name)
        if name in _COVERED:
            found.append((name, f"{name}={unquote(value, 'latin-1')}" if equals else name))
    found.sort(key=lambda pair: pair[0])
    return "&".join([text for _, text in found])


def _secret(credentials: Credentials, access_key: str) -> str:
    secret = credentials.secret(access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
    return secret


def _verify(
    request: Signable, date: str, headers: Mapping[str, str], bucket: str, access_key: str, secret: str, given: str
) -> None:
    text = string_to_sign(request, date, headers, bucket)
    if same(signature(secret, text), given):
        return
    path = request.path
    if not bucket and path != "/" and path.find("/", 1) < 0:
        # A bucket is signed with a slash at its end, by botocore also where the path that it sends has none.
        text = string_to_sign(request, date, headers, path[1:], "/")
        if same(signature(secret, text), given):
            return
    raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=access_key, StringToSign=text, SignatureProvided=given)
