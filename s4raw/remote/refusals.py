"""What a remote S3 says no with, as our errors; and after which of them to try again."""

from __future__ import annotations

from s4raw.errors import (
    BadRange,
    BucketNotEmpty,
    ConnectionLost,
    DiskFull,
    InvalidPart,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    NotModified,
    PeerTimeout,
    PreconditionFailed,
    Refused,
    S4Error,
    Unreachable,
)
from s4raw.s3.client import refusal
from s4raw.s3.connection import Answer

_KINDS: dict[str, type[S4Error]] = {
    "NoSuchKey": NoSuchKey,
    "NoSuchBucket": NoSuchBucket,
    "NoSuchUpload": NoSuchUpload,
    "BucketNotEmpty": BucketNotEmpty,
    "PreconditionFailed": PreconditionFailed,
    "InvalidRange": BadRange,
    "InvalidPartNumber": BadRange,
    "InvalidPart": InvalidPart,
    "InsufficientStorage": DiskFull,
}
_STATUSES: dict[int, type[S4Error]] = {412: PreconditionFailed, 416: BadRange, 507: DiskFull}
# Amazon S3 API Reference, "Error responses": those whose advice is to try again.
_PASSING = frozenset(
    (
        *("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "RequestTimeoutException"),
        *(
            "OperationAborted",
            "ConditionalRequestConflict",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
        ),
        *("TooManyRequests", "BandwidthLimitExceeded", "ServerBusy"),
    )
)


def of(answer: Answer, content: bytes) -> S4Error:
    """The error that an answer means: our class where there is one, else Refused.

    An answer to HEAD has no body: a 404 of it stays Refused, since nobody knows of what it speaks.
    """
    if answer.status == 304:
        etag = answer.headers.get("etag", "").strip('"')
        return NotModified("the object is not modified", detail=etag.encode()).at(**answer.where)
    error = refusal(answer, content)
    if not isinstance(error, Refused):
        return error
    kind = _KINDS.get(error.s3_code) or (None if error.s3_code else _STATUSES.get(error.http))
    return kind(error.message, server=error.server, key=error.key) if kind else error


def passes(error: S4Error) -> bool:
    """Whether the same request may succeed if it is made again: the network's failures, 5xx, and "slow down".

    Not what the remote does not know how to do (501), and not a request that went round (508).
    """
    if isinstance(error, ConnectionLost | PeerTimeout | Unreachable):
        return True
    if not isinstance(error, Refused):
        return False
    return error.s3_code in _PASSING or error.http == 429 or (error.http >= 500 and error.http not in (501, 508))


def doubtful(error: S4Error) -> bool:
    """Whether a request that failed so may have been done all the same."""
    if isinstance(error, ConnectionLost | PeerTimeout):
        return True
    return isinstance(error, Refused) and (error.http >= 500 or error.http == 200)
