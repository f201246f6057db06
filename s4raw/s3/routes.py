"""Which operation a request asks for: by its method, its level, and its sub-resource.

A sub-resource is a parameter of the query that changes what the request is about (``?acl``, ``?uploads``). One that is
not known never falls through to the plain operation, which could replace or delete the object.
"""

from __future__ import annotations

from collections.abc import Mapping

from s4raw.s3 import buckets, completing, copying, deleting, forms, listing, multipart, objects, parts, undelivered
from s4raw.s3.call import Operation
from s4raw.s3.errors import S3Error

SERVICE, BUCKET, OBJECT = "service", "bucket", "object"

# What no operation is named by. They have a meaning for the plain operations, or for the signature.
PLAIN = frozenset(
    (
        *("prefix", "delimiter", "marker", "max-keys", "encoding-type", "list-type", "start-after", "fetch-owner"),
        *("continuation-token", "key-marker", "version-id-marker", "upload-id-marker", "max-uploads", "max-parts"),
        *("part-number-marker", "partNumber", "versionId", "max-buckets", "bucket-region", "x-id", "select-type"),
        *("response-content-type", "response-content-language", "response-expires", "response-cache-control"),
        *("response-content-disposition", "response-content-encoding"),
        *("AWSAccessKeyId", "Signature", "Expires", "content-type", "content-md5"),
    )
)

# (method, level, sub-resource) -> operation. "copy" is a PUT whose body is elsewhere (x-amz-copy-source).
ROUTES: dict[tuple[str, str, str], Operation] = {
    ("GET", SERVICE, ""): buckets.list_buckets,
    ("GET", SERVICE, undelivered.SUBRESOURCE): undelivered.show,
    ("POST", SERVICE, undelivered.SUBRESOURCE): undelivered.change,
    ("PUT", BUCKET, ""): buckets.create_bucket,
    ("HEAD", BUCKET, ""): buckets.head_bucket,
    ("DELETE", BUCKET, ""): buckets.delete_bucket,
    ("GET", BUCKET, ""): listing.list_objects,
    ("GET", BUCKET, "versions"): listing.list_object_versions,
    ("GET", BUCKET, "location"): buckets.get_bucket_location,
    ("GET", BUCKET, "tagging"): buckets.get_bucket_tagging,
    ("PUT", BUCKET, "tagging"): buckets.put_bucket_tagging,
    ("DELETE", BUCKET, "tagging"): buckets.delete_bucket_tagging,
    ("GET", BUCKET, "acl"): buckets.get_bucket_acl,
    ("PUT", BUCKET, "acl"): buckets.put_bucket_acl,
    **{("GET", BUCKET, sub): operation for sub, operation in buckets.READS.items()},
    **{("DELETE", BUCKET, sub): buckets.remove_absent for sub in buckets.DELETES},
    ("POST", BUCKET, "delete"): deleting.delete_objects,
    ("POST", BUCKET, ""): forms.post_object,
    ("GET", BUCKET, "uploads"): multipart.list_uploads,
    ("GET", OBJECT, ""): objects.get_object,
    ("HEAD", OBJECT, ""): objects.head_object,
    ("PUT", OBJECT, ""): objects.put_object,
    ("PUT", OBJECT, "copy"): copying.copy_object,
    ("DELETE", OBJECT, ""): objects.delete_object,
    ("GET", OBJECT, "tagging"): objects.get_object_tagging,
    ("PUT", OBJECT, "tagging"): objects.put_object_tagging,
    ("DELETE", OBJECT, "tagging"): objects.delete_object_tagging,
    ("POST", OBJECT, "uploads"): multipart.create,
    ("PUT", OBJECT, "uploadId"): parts.upload_part,
    ("PUT", OBJECT, "uploadIdcopy"): parts.upload_part_copy,
    ("GET", OBJECT, "uploadId"): multipart.list_parts,
    ("POST", OBJECT, "uploadId"): completing.complete,
    ("DELETE", OBJECT, "uploadId"): multipart.abort,
    ("GET", OBJECT, "attributes"): objects.get_object_attributes,
    ("GET", OBJECT, "acl"): objects.get_object_acl,
    ("PUT", OBJECT, "acl"): objects.put_object_acl,
    **{(method, OBJECT, sub): objects.object_lock for method in ("GET", "PUT") for sub in ("legal-hold", "retention")},
}

# Named by a value: what is an unknown one must be refused for any method.
_SUBRESOURCES = frozenset(
    (
        *(sub for _, _, sub in ROUTES if sub and not sub.endswith("copy")),
        *("uploads", "uploadId", "torrent", "restore", "select", "append", "renameObject", "annotation", "session"),
        *("analytics", "inventory", "metrics", "intelligent-tiering", "metadataTable", "metadataConfiguration", "abac"),
        *("metadataInventoryTable", "metadataJournalTable", "metadataAnnotationTable"),
    )
)
_OF_READS = frozenset(("partNumber", "versionId"))  # a plain write that is given these means something else
_METHODS = frozenset(("GET", "HEAD", "PUT", "POST", "DELETE"))


def subresource(method: str, params: Mapping[str, str]) -> str:
    """The sub-resource that a query names, empty if none. Raises NotImplemented for one that is not known.

    A parameter without a value is one. With a value it may be a stranger's, which reading ignores, as S3 does; what
    changes something is refused: it could be a sub-resource that is newer than this list.
    """
    found = ""
    for name, value in params.items():
        if name in PLAIN or name[:2] in ("x-", "X-"):
            continue
        if name in _SUBRESOURCES:
            if found:
                raise S3Error("InvalidArgument", f"Conflicting query string parameters: {found}, {name}")
            found = name
        elif not value or method not in ("GET", "HEAD"):
            raise not_implemented(name)
    return found


def route(method: str, level: str, params: Mapping[str, str], copies: bool) -> Operation:
    """The operation that a request asks for; ``copies`` says whether it has an x-amz-copy-source.

    Raises NotImplemented, MethodNotAllowed.
    """
    sub = subresource(method, params) if params else ""
    if copies and method == "PUT" and level == OBJECT and sub in ("", "uploadId"):
        sub = sub + "copy"
    if method == "PUT" and not sub and params.keys() & _OF_READS:
        raise S3Error("InvalidArgument", "This operation does not take a part or a version of an object.")
    operation = ROUTES.get((method, level, sub))
    if operation is not None:
        return operation
    if sub and method in _METHODS:
        raise not_implemented(sub)
    raise S3Error("MethodNotAllowed", Method=method, ResourceType=level.upper())


def not_implemented(name: str) -> S3Error:
    """The error for a sub-resource or a header whose function is not there."""
    return S3Error("NotImplemented", f"A parameter you provided implies functionality that is not implemented: {name}")
