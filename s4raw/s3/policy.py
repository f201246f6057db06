"""The policies of browser forms (POST Object): who signed a form, and whether it keeps to what was signed.

The rules are those of the Amazon S3 API Reference, "Authenticating Requests in Browser-Based Uploads Using POST". Gets
the form's fields; reading them out of a multipart body is done elsewhere.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from s4raw.s3 import sigv2
from s4raw.s3.credentials import Credentials
from s4raw.s3.errors import S3Error
from s4raw.s3.signing import ALGORITHM, is_timestamp, same
from s4raw.s3.sigv4 import Identity, scope_of

_EXPIRATION = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?Z", re.ASCII).fullmatch
_NEED_NO_CONDITION = {"file", "policy", "signature", "awsaccesskeyid", "x-amz-signature"}
_FREE_PREFIXES = ("x-ignore-", "x-amz-checksum-")  # a checksum allows nothing; it can only refuse


class Condition(NamedTuple):
    """One condition on a field: ``eq`` or ``starts-with``, the field's name in lower case, and the value."""

    operator: str
    name: str
    value: str


class Policy(NamedTuple):
    """A policy: when it ends, in seconds since 1970, its conditions, and the bytes that the file may have."""

    expiration: float
    conditions: list[Condition]
    smallest: int = 0
    largest: int | None = None


def check_form(
    fields: Mapping[str, str],
    bucket: str,
    credentials: Credentials,
    now: float,
    *,
    region: str = "",
    anonymous: bool = False,
) -> tuple[Identity, Policy | None]:
    """Who signed a form, and its policy, which the other fields keep to. Raises S3Error.

    The names of ``fields`` are in lower case, ``${filename}`` has been replaced in the key, the file is not among them.
    ``bucket`` is the one that the form was sent to. The file's length is checked with ``check_length``, once it is
    known. ``now`` is in seconds since 1970. There is no policy where ``anonymous`` allows that.
    """
    signed = [name for name in ("signature", "x-amz-signature") if name in fields]
    if "policy" not in fields:
        if signed:
            raise _missing("policy")
        if not anonymous:
            raise S3Error("AccessDenied")
        return Identity(""), None
    access_key = _check_signature(fields, credentials, region)
    policy = parse(fields["policy"])
    if now >= policy.expiration:
        raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
    _check_conditions(policy, {**fields, "bucket": fields.get("bucket", bucket)}, bucket)
    return Identity(access_key), policy


def check_length(policy: Policy | None, length: int) -> None:
    """Check the number of bytes of a form's file. Raises S3Error EntityTooSmall, EntityTooLarge."""
    if policy is None:
        return
    if length < policy.smallest:
        raise S3Error("EntityTooSmall", ProposedSize=str(length), MinSizeAllowed=str(policy.smallest))
    if policy.largest is not None and length > policy.largest:
        raise S3Error("EntityTooLarge", ProposedSize=str(length), MaxSizeAllowed=str(policy.largest))


def _check_signature(fields: Mapping[str, str], credentials: Credentials, region: str) -> str:
    policy = fields["policy"]
    if "x-amz-signature" in fields or "x-amz-algorithm" in fields or "x-amz-credential" in fields:
        for name in ("x-amz-signature", "x-amz-algorithm", "x-amz-credential", "x-amz-date"):
            if not fields.get(name):
                raise _missing(name)
        if fields["x-amz-algorithm"] != ALGORITHM:
            raise S3Error("InvalidArgument", f'X-Amz-Algorithm only supports "{ALGORITHM}"')
        date = fields["x-amz-date"]
        if not is_timestamp(date):
            raise S3Error("InvalidArgument", "X-Amz-Date must be in the form YYYYMMDDThhmmssZ")
        scope = scope_of(
            fields["x-amz-credential"],
            date[:8],
            credentials,
            region,
            "InvalidArgument",
            "Error parsing the X-Amz-Credential field",
        )
        access_key, given = scope.access_key, fields["x-amz-signature"]
        good = same(scope.key.sign(policy), given)
    else:
        for name in ("signature", "awsaccesskeyid"):
            if not fields.get(name):
                raise _missing(name)
        access_key, given = fields["awsaccesskeyid"], fields["signature"]
        secret = credentials.secret(access_key)
        if secret is None:
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=access_key)
        good = same(sigv2.signature(secret, policy), given)
    if not good:
        raise S3Error("SignatureDoesNotMatch", AWSAccessKeyId=access_key, StringToSign=policy, SignatureProvided=given)
    return access_key


def _missing(name: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        f"Bucket POST must contain a field named '{name}'. If it is specified, please check the order of the fields.",
        ArgumentName=name,
    )


def parse(encoded: str) -> Policy:
    """Decode and parse a policy from its base64. Raises S3Error InvalidPolicyDocument."""
    try:
        document = json.loads(b64decode("".join(encoded.split()), validate=True))
    except (binascii.Error, ValueError, RecursionError):  # JSON's and Unicode's errors are ValueErrors
        raise _invalid("Invalid JSON.") from None
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON.")
    expiration = document.get("expiration")
    if expiration is None:
        raise _invalid("Policy missing expiration.")
    conditions = document.get("conditions")
    if conditions is None:
        raise _invalid("Policy missing conditions.")
    if not isinstance(conditions, list):
        raise _invalid("'conditions' must be a List.")
    policy = Policy(_seconds(expiration), [])
    for item in conditions:
        if isinstance(item, dict):
            policy.conditions.append(_simple(item))
        elif isinstance(item, list) and len(item) == 3 and isinstance(item[0], str):
            if item[0].lower() == "content-length-range":
                smallest, largest = _length(item[1]), _length(item[2])
                if policy.largest is not None:
                    smallest, largest = max(smallest, policy.smallest), min(largest, policy.largest)
                policy = policy._replace(smallest=smallest, largest=largest)
            else:
                policy.conditions.append(_operation(item))
        else:
            raise _invalid("Invalid condition: it is neither an object nor a list of three.")
    return policy


def _seconds(expiration: Any) -> float:
    if isinstance(expiration, str) and (match := _EXPIRATION(expiration)):
        try:
            return datetime(*map(int, match.groups()[:6]), tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]
        except ValueError:
            pass
    raise _invalid(f"Invalid 'expiration' value: {str(expiration)[:80]!r}")


def _simple(item: dict[str, Any]) -> Condition:
    if len(item) != 1:
        raise _invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
    ((name, value),) = item.items()
    if not isinstance(value, str):
        raise _invalid("Invalid Simple-Condition: value must be a string.")
    return Condition("eq", name.lower(), value)


def _operation(item: list[Any]) -> Condition:
    operator, name, value = item
    if operator.lower() not in ("eq", "starts-with"):
        raise _invalid(f"Invalid Condition: unknown operation {operator[:80]!r}.")
    if not isinstance(name, str) or not name.startswith("$") or not isinstance(value, str):
        raise _invalid("Invalid Condition: need a field's name that begins with $, and a string.")
    return Condition(operator.lower(), name[1:].lower(), value)


def _length(value: Any) -> int:
    """A bound of content-length-range: a number of bytes, which some write as a string."""
    text = str(value)
    if isinstance(value, int | str) and text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    raise _invalid("Invalid content-length-range: need two numbers of bytes.")


def _invalid(what: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {what}")


def _check_conditions(policy: Policy, fields: Mapping[str, str], bucket: str) -> None:
    named = set()
    for condition in policy.conditions:
        operator, name, value = condition
        named.add(name)
        given = fields.get(name)
        if given is None or not _holds(operator, name, value, given) or (name == "bucket" and given != bucket):
            shown = json.dumps([operator, f"${name}", value])
            raise S3Error("AccessDenied", f"Invalid according to Policy: Policy Condition failed: {shown}")
    free = _NEED_NO_CONDITION | named
    if extra := [name for name in fields if name not in free and not name.startswith(_FREE_PREFIXES)]:
        raise S3Error("AccessDenied", f"Invalid according to Policy: Extra input fields: {', '.join(extra)}")


def _holds(operator: str, name: str, wanted: str, given: str) -> bool:
    for value in {wanted, wanted.replace("\\$", "$")}:  # a dollar sign may be written \$
        if operator == "eq":
            good = given == value
        elif name == "content-type":  # may be a list, of which each must begin so
            good = all(one.strip().startswith(value) for one in given.split(","))
        else:
            good = given.startswith(value)
        if good:
            return True
    return False
