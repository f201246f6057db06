"""Operations on buckets, and the honest fixed answers to questions about what buckets have elsewhere.

What a bucket cannot have here (a policy, a lifecycle, ...) reads as it does in S3 for a bucket that has none, and
deleting it is done; writing it is not implemented, which ``routes`` says of all that is not in its table.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from s4raw.s3 import xml
from s4raw.s3.call import Answer, Call, Operation
from s4raw.s3.errors import S3Error
from s4raw.s3.headers import MAX_BUCKET_TAGS, check_tags, refuse

XML_HEADERS = [("Content-Type", "application/xml")]
NO_CONTENT = Answer(204)
MAX_BUCKETS = 10_000
DEFAULT_REGION = "us-east-1"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9]|[.-](?=[a-z0-9])|-(?=-)){1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


def answer(root: str, inner: str = "") -> Answer:
    """An answer of XML."""
    return Answer(200, XML_HEADERS, xml.document(root, inner))


def list_buckets(call: Call) -> Answer:
    """ListBuckets: all of them, or pages of them with ``max-buckets``."""
    params = call.params
    prefix, token = params.get("prefix", ""), params.get("continuation-token", "")
    limit = _limit(params.get("max-buckets"), MAX_BUCKETS)
    after = token_name(token) if token else ""
    region = params.get("bucket-region", call.region)
    found = [b for b in call.backend.buckets() if b.name.startswith(prefix) and b.name > after]
    page = found[:limit] if region == call.region else []
    inner = [xml.owner(call.owner), "<Buckets>"]
    for bucket in page:
        inner.append(
            f"<Bucket>{xml.element('Name', bucket.name)}"
            f"<CreationDate>{xml.timestamp(bucket.created_ns)}</CreationDate>"
            f"{xml.element('BucketRegion', call.region)}</Bucket>"
        )
    inner.append("</Buckets>")
    if page and len(page) < len(found):
        inner.append(xml.element("ContinuationToken", name_token(page[-1].name)))
    if prefix:
        inner.append(f"<Prefix>{xml.plain(prefix)}</Prefix>")
    return answer("ListAllMyBucketsResult", "".join(inner))


def _limit(text: str | None, most: int) -> int:
    if not text:
        return most
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and 1 <= int(text) <= most):
        raise S3Error(
            "InvalidArgument", f"max-buckets must be 1 to {most}", ArgumentName="max-buckets", ArgumentValue=text
        )
    return int(text)


def name_token(name: str) -> str:
    """A continuation token: opaque to clients, and good for their query strings."""
    return base64.urlsafe_b64encode(b"1" + name.encode()).decode()


def token_name(token: str) -> str:
    """The name that a continuation token stands for. Raises InvalidArgument."""
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
        if not raw.startswith(b"1"):
            raise ValueError
        return raw[1:].decode()
    except (ValueError, binascii.Error):
        raise S3Error(
            "InvalidArgument",
            "The continuation token provided is incorrect",
            ArgumentName="continuation-token",
            ArgumentValue=token,
        ) from None


def check_name(name: str) -> None:
    """Raises InvalidBucketName unless a new bucket may have the name (S3 User Guide, "Bucket naming rules")."""
    if not (3 <= len(name) <= 63 and _NAME.fullmatch(name)) or _ADDRESS.fullmatch(name) or name.startswith("xn--"):
        raise S3Error("InvalidBucketName", BucketName=name)


def create_bucket(call: Call) -> Answer:
    """CreateBucket: 200 also for one's own bucket that is there, as in us-east-1."""
    bucket = call.key.bucket
    check_name(bucket)
    if call.headers.get("x-amz-bucket-object-lock-enabled", "false").lower() == "true":
        raise S3Error("NotImplemented", "Object Lock is not implemented.")
    refuse(call.headers)
    tags: dict[str, str] = {}
    if body := call.read_body():
        config = xml.read(body, "CreateBucketConfiguration")
        place = config.get("LocationConstraint") or ""
        signed = f"/{place}/s3/aws4_request" in call.headers.get("authorization", "")  # the region that it signs for
        if not signed and place.strip() not in ("", DEFAULT_REGION, call.region):
            raise S3Error(
                "InvalidLocationConstraint",
                f"The specified location-constraint is not valid: this server is in {call.region}",
                LocationConstraint=place,
            )
        if (node := config.find("Tags")) is not None:
            tags = _tags(node)
    if call.backend.create_bucket(bucket) and tags:
        call.backend.tag_bucket(bucket, tags)
    return Answer(200, [("Location", f"/{bucket}")])


def head_bucket(call: Call) -> Answer:
    """HeadBucket."""
    call.backend.bucket(call.key.bucket)
    return Answer(200, [*XML_HEADERS, ("x-amz-bucket-region", call.region), ("x-amz-access-point-alias", "false")])


def delete_bucket(call: Call) -> Answer:
    """DeleteBucket: of an empty one."""
    call.backend.delete_bucket(call.key.bucket)
    return NO_CONTENT


def get_bucket_location(call: Call) -> Answer:
    """GetBucketLocation: empty in us-east-1."""
    call.backend.bucket(call.key.bucket)
    return answer("LocationConstraint", "" if call.region == DEFAULT_REGION else xml.text(call.region))


def get_bucket_tagging(call: Call) -> Answer:
    """GetBucketTagging."""
    tags = call.backend.bucket(call.key.bucket).tags
    if not tags:
        raise S3Error("NoSuchTagSet", BucketName=call.key.bucket)
    return answer("Tagging", tag_set(tags))


def put_bucket_tagging(call: Call) -> Answer:
    """PutBucketTagging: at most 50 tags."""
    tags = read_tags(call, MAX_BUCKET_TAGS)
    call.backend.tag_bucket(call.key.bucket, tags)
    return NO_CONTENT


def delete_bucket_tagging(call: Call) -> Answer:
    """DeleteBucketTagging."""
    call.backend.tag_bucket(call.key.bucket, {})
    return NO_CONTENT


def tag_set(tags: Mapping[str, str]) -> str:
    """Tags as XML, by name."""
    pairs = sorted(tags.items())
    inner = "".join(f"<Tag>{xml.element('Key', name)}{xml.element('Value', value)}</Tag>" for name, value in pairs)
    return f"<TagSet>{inner}</TagSet>"


def read_tags(call: Call, limit: int) -> dict[str, str]:
    """The tags in a request's body. Raises MalformedXML, InvalidTag."""
    node = xml.read(call.read_body(), "Tagging").find("TagSet")
    if node is None:
        raise xml.malformed()
    return _tags(node, limit)


def _tags(node: xml.Node, limit: int = MAX_BUCKET_TAGS) -> dict[str, str]:
    return check_tags([(tag.need("Key"), tag.need("Value")) for tag in node.all("Tag")], limit)


def get_bucket_acl(call: Call) -> Answer:
    """GetBucketAcl: all is the owner's."""
    call.backend.bucket(call.key.bucket)
    return acl(call)


def put_bucket_acl(call: Call) -> Answer:
    """PutBucketAcl: ``private`` is so already, anything else is not implemented."""
    call.backend.bucket(call.key.bucket)
    return put_acl(call)


def acl(call: Call) -> Answer:
    """The access control list of whatever there is: the owner may do everything."""
    name = xml.text(call.owner)
    return answer(
        "AccessControlPolicy",
        f"{xml.owner(call.owner)}<AccessControlList><Grant>"
        f'<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="CanonicalUser">'
        f"<ID>{name}</ID><DisplayName>{name}</DisplayName></Grantee>"
        "<Permission>FULL_CONTROL</Permission></Grant></AccessControlList>",
    )


def put_acl(call: Call) -> Answer:
    """Accepts the list that everything has. Raises NotImplemented for any other."""
    refuse(call.headers)
    wanted = call.headers.get("x-amz-acl")
    if wanted not in ("private", "bucket-owner-full-control"):
        raise S3Error("NotImplemented", "Access control lists other than private are not implemented.")
    return Answer()


def _named(name: str, operation: Operation) -> Operation:
    operation.__name__ = name
    return operation


def fixed(name: str, root: str, inner: str = "") -> Operation:
    """An operation that answers the same for every bucket that there is."""

    def operation(call: Call) -> Answer:
        call.backend.bucket(call.key.bucket)
        return answer(root, inner)

    return _named(name, operation)


def absent(name: str, code: str) -> Operation:
    """An operation that answers for every bucket that it has no such configuration."""

    def operation(call: Call) -> Answer:
        call.backend.bucket(call.key.bucket)
        raise S3Error(code, BucketName=call.key.bucket)

    return _named(name, operation)


def remove_absent(call: Call) -> Answer:
    """Deletes a configuration that no bucket has."""
    call.backend.bucket(call.key.bucket)
    return NO_CONTENT


READS: dict[str, Operation] = {
    "versioning": fixed("get_bucket_versioning", "VersioningConfiguration"),
    "policyStatus": fixed("get_bucket_policy_status", "PolicyStatus", "<IsPublic>false</IsPublic>"),
    "logging": fixed("get_bucket_logging", "BucketLoggingStatus"),
    "notification": fixed("get_bucket_notification", "NotificationConfiguration"),
    "requestPayment": fixed("get_bucket_request_payment", "RequestPaymentConfiguration", "<Payer>BucketOwner</Payer>"),
    "accelerate": fixed("get_bucket_accelerate", "AccelerateConfiguration"),
    "policy": absent("get_bucket_policy", "NoSuchBucketPolicy"),
    "cors": absent("get_bucket_cors", "NoSuchCORSConfiguration"),
    "lifecycle": absent("get_bucket_lifecycle", "NoSuchLifecycleConfiguration"),
    "encryption": absent("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError"),
    "replication": absent("get_bucket_replication", "ReplicationConfigurationNotFoundError"),
    "website": absent("get_bucket_website", "NoSuchWebsiteConfiguration"),
    "ownershipControls": absent("get_bucket_ownership_controls", "OwnershipControlsNotFoundError"),
    "publicAccessBlock": absent("get_public_access_block", "NoSuchPublicAccessBlockConfiguration"),
    "object-lock": absent("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError"),
}
DELETES = (
    "policy",
    "cors",
    "lifecycle",
    "encryption",
    "replication",
    "website",
    "ownershipControls",
    "publicAccessBlock",
)
