"""What an S3 client is told when its request fails: codes, HTTP statuses and messages, and how our errors map to them.

Codes, statuses and messages are those of the Amazon S3 API Reference, "Error responses", unless a comment says more.
"""

from __future__ import annotations

from collections.abc import Iterator

from s4raw import errors
from s4raw.errors import S4Error

# code -> its HTTP status, and what is said when nothing more precise is
CODES: dict[str, tuple[int, str]] = {
    # who asks
    "AccessDenied": (403, "Access Denied"),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
    ),
    "RequestTimeTooSkewed": (
        403,
        "The difference between the request time and the current time is too large.",
    ),
    "AuthorizationHeaderMalformed": (400, "The authorization header that you provided is not valid."),
    "AuthorizationQueryParametersError": (400, "The authorization query parameters that you provided are not valid."),
    # the request itself
    "BadRequest": (400, "Bad Request"),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented."),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "RequestIsNotMultiPartContent": (412, "Bucket POST must be of the enclosure-type multipart/form-data."),
    "IncorrectNumberOfFilesInPostRequest": (400, "POST requires exactly one file upload per request."),
    "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions specified in the policy."),
    "MaxPostPreDataLengthExceededError": (
        400,
        "Your POST request fields preceding the upload file were too large.",
    ),
    "MaxMessageLengthExceeded": (400, "Your request was too large."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "NotModified": (304, "Not Modified"),
    "OperationAborted": (
        409,
        "A conflicting conditional operation is currently in progress against this resource. Please try again.",
    ),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    # bodies
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "IncompleteBody": (
        400,
        "You did not provide the number of bytes specified by the Content-Length HTTP header",
    ),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size"),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
    "BadDigest": (
        400,
        "The Content-MD5 or checksum value that you specified did not match what the server received.",
    ),
    "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
    "XAmzContentSHA256Mismatch": (
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
    "MalformedTrailerError": (
        400,
        "The request contained trailing data that was not well-formed or did not conform to our published schema.",
    ),
    "InvalidStorageClass": (400, "The storage class you specified is not valid"),
    # buckets
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidLocationConstraint": (400, "The specified location-constraint is not valid"),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found"),
    "NoSuchTagSet": (404, "The TagSet does not exist"),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration"),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket"),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found"),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found"),
    "ServerSideEncryptionConfigurationNotFoundError": (404, "The server side encryption configuration was not found"),
    # objects
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "KeyTooLongError": (400, "Your key is too long"),
    "InvalidTag": (
        400,
        "The tag provided was not a valid tag. This error can occur if the tag did not pass validation.",
    ),
    # uploads
    "NoSuchUpload": (
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed.",
    ),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified "
        "entity tag may not match the part's entity tag.",
    ),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    # this side's fault
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SlowDown": (503, "Please reduce your request rate."),
    # no code of Amazon's, whose disks are never full; 507 since clients repeat a 500 or 503 at once, which cannot help
    "InsufficientStorage": (507, "No space is left for the object."),
    # nor of this, which no repetition can help either: RFC 5842, 7.2
    "LoopDetected": (
        508,
        "The request has come through this daemon before: its remote, or the remote of that, leads back to it.",
    ),
}


class S3Error(Exception):
    """What a client is answered: an S3 code, a message, an HTTP status, and further elements of the error's XML.

    Without a message or a status they are those of ``CODES`` (400 for a code that is not there). ``headers`` go out
    with the answer. It is no ``S4Error``: it never crosses our own wire, and its code is a word.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        status: int = 0,
        headers: list[tuple[str, str]] | None = None,
        **extra: str,
    ) -> None:
        usual_status, usual_message = CODES.get(code, (400, code))
        self.code = code
        self.message = message or usual_message
        self.status = status or usual_status
        self.headers = headers or []
        self.extra = extra
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


# What is told in S3's own words, and in ours, which say what is wrong and where.
_IN_ITS_WORDS: dict[type[S4Error], str] = {
    errors.NoSuchKey: "NoSuchKey",
    errors.NoSuchBucket: "NoSuchBucket",
    errors.NoSuchUpload: "NoSuchUpload",
    errors.BucketNotEmpty: "BucketNotEmpty",
    errors.PreconditionFailed: "PreconditionFailed",
    errors.NotModified: "NotModified",
    errors.BadRange: "InvalidRange",
    errors.InvalidPart: "InvalidPart",
}
_IN_OURS: dict[type[S4Error], str] = {
    errors.UsageError: "InvalidRequest",
    errors.KeyExists: "OperationAborted",
    errors.KeyChanged: "OperationAborted",
    errors.Busy: "SlowDown",
    errors.QueueFull: "SlowDown",
    errors.DiskFull: "InsufficientStorage",
    # the ring, not the client, is what cannot be reached or does not agree
    errors.Unreachable: "ServiceUnavailable",
    errors.ConnectionLost: "ServiceUnavailable",
    errors.PeerTimeout: "ServiceUnavailable",
    errors.ProtocolError: "ServiceUnavailable",
    errors.Cancelled: "ServiceUnavailable",
    errors.WrongServer: "ServiceUnavailable",
    errors.RingMismatch: "ServiceUnavailable",
    errors.AuthFailed: "ServiceUnavailable",
}


def of(error: S4Error) -> S3Error:
    """What a client is told of one of our errors; what has no counterpart is an InternalError."""
    if isinstance(error, errors.BadKey):
        return _of_key(error)
    if isinstance(error, errors.Refused) and error.http:
        return _of_refused(error)
    for kind in type(error).__mro__:
        if code := _IN_ITS_WORDS.get(kind):
            answer = S3Error(code)
            answer.extra.update(_place(code, error.key))
            if code == "NotModified" and error.detail:
                answer.headers.append(("ETag", f'"{error.detail.decode()}"'))
            return answer
        if code := _IN_OURS.get(kind):
            return S3Error(code, str(error))
    return S3Error("InternalError", str(error))


def _place(code: str, key: str) -> Iterator[tuple[str, str]]:
    bucket, _, name = key.removeprefix("s4://").partition("/")
    if bucket and code in ("NoSuchBucket", "BucketNotEmpty"):
        yield "BucketName", bucket
    elif name and code == "NoSuchKey":
        yield "Key", name


def _of_refused(error: errors.Refused) -> S3Error:
    """What a remote said, in its words; it had none for a HEAD."""
    status = error.http if error.http >= 400 else 502
    code = error.s3_code or _OF_STATUS.get(status) or ("InternalError" if status >= 500 else "InvalidRequest")
    if error.http < 400 and code in CODES:  # an error in an answer that had begun as a good one
        status = CODES[code][0]
    return S3Error(code, error.message.removeprefix(f"{error.s3_code}: "), status=status)


_OF_STATUS = {
    400: "BadRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    503: "ServiceUnavailable",
    508: "LoopDetected",
}


def _of_key(error: errors.BadKey) -> S3Error:
    """S3 has a code for each thing that can be wrong with a key; ``keys`` has one class, and words."""
    if "at most" in error.message and not error.message.startswith("a bucket"):
        return S3Error("KeyTooLongError")
    if error.message.startswith(("not a bucket", "a bucket", "a key needs a bucket")):
        return S3Error("InvalidBucketName", str(error))
    if error.message.startswith("keys are UTF-8"):
        return S3Error("InvalidURI")
    return S3Error("InvalidArgument", str(error))
