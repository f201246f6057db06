"""What those who do not sign may do, where the daemon's option lets canned ACLs count.

A bucket and an object keep the canned ACL that they were given. Without the option it is shown and means nothing, as
with S3's setting IgnorePublicAcls. Who signs may do everything in any case. Rules are those of the Amazon S3 User
Guide, "Access control list (ACL) overview".
"""

from __future__ import annotations

from s4raw.errors import NoSuchKey
from s4raw.s3 import buckets, completing, deleting, listing, multipart, objects, parts
from s4raw.s3.call import Call, Operation
from s4raw.s3.errors import S3Error
from s4raw.s3.headers import PUBLIC_READ, acl_of

_READ_OBJECT = (objects.get_object, objects.head_object)
_READ_BUCKET = (listing.list_objects, listing.list_object_versions, multipart.list_uploads, buckets.head_bucket)
_WRITE_OBJECT = (objects.put_object, objects.delete_object, deleting.delete_objects)
_WRITE_PARTS = (multipart.create, parts.upload_part, completing.complete, multipart.abort)
_WRITE_BUCKET = (*_WRITE_OBJECT, *_WRITE_PARTS)


def check(call: Call, operation: Operation) -> None:
    """Check that a request may be done though nobody signed it. Raises AccessDenied, NoSuchBucket.

    That an object is not there is told to those who may list the bucket. Forms are not asked about here: their policies
    are signed, not they.
    """
    if not call.settings.public_acls or not call.key.bucket or operation is buckets.create_bucket:
        raise S3Error("AccessDenied")
    if call.headers.get("x-amz-expected-bucket-owner", call.owner) != call.owner:
        raise S3Error("AccessDenied")
    acl = acl_of(call.backend.bucket(call.key.bucket).tags)
    if operation in _READ_OBJECT:
        try:
            acl = acl_of(call.backend.head(call.key).attributes.tags)
        except NoSuchKey:
            pass
        allowed = acl in PUBLIC_READ
    elif operation in _READ_BUCKET:
        allowed = acl in PUBLIC_READ
    else:
        allowed = acl == "public-read-write" and operation in _WRITE_BUCKET
    if not allowed:
        raise S3Error("AccessDenied")
