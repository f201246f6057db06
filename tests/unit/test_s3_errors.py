"""What S3 clients are told of our errors."""

import pytest

from s4raw import errors
from s4raw.errors import BY_CODE, S4Error
from s4raw.keys import Key, check_key
from s4raw.s3.errors import CODES, S3Error, of


@pytest.mark.parametrize("kind", BY_CODE.values(), ids=lambda kind: kind.__name__)
def test_each_of_our_errors_has_an_s3_code(kind: type[S4Error]) -> None:
    found = of(kind("why", server="1.2.3.4:5", key="s4://b/k"))
    assert found.code in CODES and found.status == CODES[found.code][0] and found.message
    assert found.status >= 500 or found.code != "InternalError"
    assert kind.http_status == 404 or found.status != 404


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.NoSuchKey(""), "NoSuchKey", 404),
        (errors.NoSuchBucket(""), "NoSuchBucket", 404),
        (errors.NoSuchUpload(""), "NoSuchUpload", 404),
        (errors.BucketNotEmpty(""), "BucketNotEmpty", 409),
        (errors.PreconditionFailed(""), "PreconditionFailed", 412),
        (errors.NotModified(""), "NotModified", 304),
        (errors.BadRange(""), "InvalidRange", 416),
        (errors.InvalidPart(""), "InvalidPart", 400),
        (errors.DiskFull(""), "InsufficientStorage", 507),
        (errors.Busy(""), "SlowDown", 503),
        (errors.Corrupt(""), "InternalError", 500),
        (errors.StoreError(""), "InternalError", 500),
        (errors.Unreachable(""), "ServiceUnavailable", 503),
        (errors.VersionMismatch(""), "ServiceUnavailable", 503),
        (errors.Interrupted(""), "ServiceUnavailable", 503),
    ],
)
def test_the_codes_are_those_of_s3(error: S4Error, code: str, status: int) -> None:
    assert (of(error).code, of(error).status) == (code, status)


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (Key("b", "k" * 1025), "KeyTooLongError"),
        (Key("b", "\u20ac" * 342), "KeyTooLongError"),
        (Key("b" * 256, "k"), "InvalidBucketName"),
        (Key("_b", "k"), "InvalidBucketName"),
        (Key("..", "k"), "InvalidBucketName"),
        (Key("", "k"), "InvalidBucketName"),
        (Key("b", "\0"), "InvalidArgument"),
        (Key("b", ""), "InvalidArgument"),
        (Key("b", "\ud800"), "InvalidURI"),
    ],
)
def test_a_bad_key_has_the_code_of_what_is_wrong_with_it(key: Key, code: str) -> None:
    with pytest.raises(errors.BadKey) as caught:
        check_key(key)
    assert of(caught.value).code == code


def test_what_is_missing_is_named() -> None:
    assert of(errors.NoSuchKey("", key="s4://b/k/l")).extra == {"Key": "k/l"}
    assert of(errors.NoSuchBucket("", key="s4://b/k")).extra == {"BucketName": "b"}
    assert of(errors.NoSuchBucket("")).extra == {}


def test_what_is_not_modified_has_its_etag() -> None:
    assert of(errors.NotModified("", detail=b"abc")).headers == [("ETag", '"abc"')]


def test_a_failure_says_where() -> None:
    assert of(errors.Unreachable("no answer", server="1.2.3.4:5")).message == "no answer (server 1.2.3.4:5)"


def test_an_error_takes_what_is_usual_where_nothing_is_said() -> None:
    usual = S3Error("NoSuchKey")
    assert (usual.message, usual.status) == ("The specified key does not exist.", 404)
    other = S3Error("Odd", "why", status=418, Key="k")
    assert (str(other), other.status, other.extra) == ("Odd: why", 418, {"Key": "k"})
    assert S3Error("Odd").status == 400


@pytest.mark.parametrize(
    ("code", "http", "message", "expected"),
    [
        ("AccessDenied", 403, "AccessDenied: Not you", ("AccessDenied", 403, "Not you")),
        ("NoCodeOfOurs", 418, "NoCodeOfOurs: Tea", ("NoCodeOfOurs", 418, "Tea")),
        ("InternalError", 200, "InternalError: Later", ("InternalError", 500, "Later")),
        ("", 403, "HTTP 403 Forbidden: access denied", ("AccessDenied", 403, "HTTP 403 Forbidden: access denied")),
        ("", 502, "HTTP 502", ("InternalError", 502, "HTTP 502")),
        ("", 0, "no word", ("InternalError", 500, "no word")),
    ],
)
def test_what_a_remote_answered_is_what_the_client_is_told(code, http, message, expected) -> None:
    error = errors.Refused(message)
    error.s3_code, error.http = code, http
    found = of(error)
    assert (found.code, found.status, found.message) == expected
