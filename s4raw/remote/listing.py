"""Pages of what a remote lists: buckets, objects, uploads, and parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote_plus

from s4raw.errors import PreconditionFailed, ProtocolError, Refused
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Bucket, Listed, Page, Part, Query, Upload, UploadPage
from s4raw.remote.service import Remote
from s4raw.remote.values import ALGORITHMS, checksums_of
from s4raw.s3.client import query_of
from s4raw.s3.conditions import seconds_of
from s4raw.s3.xml import Node

MOST = 1000  # entries that S3 gives at once
SERVICE = Key("", "")


def decoder(node: Node) -> Callable[[str], str]:
    """What names in a listing are to be read with: S3 writes those that XML cannot hold as it writes URLs."""
    return unquote_plus if (node.get("EncodingType") or "").lower() == "url" else lambda name: name


def ns_of(text: str | None) -> int:
    """A time in XML in nanoseconds since 1970."""
    return (seconds_of(text or "") or 0) * 1_000_000_000


def checksums_in(node: Node) -> dict[str, str]:
    """The checksums that are elements of this one."""
    return {name: value for name in ALGORITHMS if (value := node.get(f"Checksum{name}"))}


def buckets(remote: Remote, tags: Callable[[str], Mapping[str, str]], prefix: str = "") -> Iterator[Bucket]:
    """All buckets whose names begin so; ``tags`` gives those of a bucket when they are looked at."""
    token = ""
    while True:
        query = query_of({"prefix": prefix, "continuation-token": token})
        found = remote.call("GET", SERVICE, query, root="ListAllMyBucketsResult").node
        inner = found.find("Buckets")
        for node in inner.all("Bucket") if inner else ():
            name = node.need("Name")
            if name.startswith(prefix):
                yield Bucket(name, ns_of(node.get("CreationDate")), tags(name))
        token = found.get("ContinuationToken") or ""
        if not token:
            return


def objects(remote: Remote, bucket: str, query: Query) -> Page:
    """A page of objects. ListObjects in its first version: its marker means what ``Query.after`` does."""
    entries: list[Listed] = []
    after, truncated = query.after, True
    while truncated and len(entries) < query.limit:
        asked = query_of(
            {
                "delimiter": query.delimiter,
                "encoding-type": "url",
                "marker": after,
                "max-keys": str(min(MOST, query.limit - len(entries))),
                "prefix": query.prefix,
            }
        )
        found = remote.call("GET", Key(bucket, ""), asked, root="ListBucketResult").node
        # a server may roll up what follows the marker, and give the marker's own common prefix once more
        page = [entry for entry in _entries(found) if not (entry.is_prefix and after.startswith(entry.name))]
        entries += page
        truncated = found.get("IsTruncated") == "true"
        if truncated and not page:
            raise ProtocolError("the listing does not go on", server=remote.endpoint, key=bucket)
        after = page[-1].name if page else after
    return Page(entries, truncated)


def _entries(found: Node) -> list[Listed]:
    name_of = decoder(found)
    page: list[Listed] = []
    for node in found.children:
        if node.name == "Contents":
            page.append(
                Listed(
                    name_of(node.need("Key")),
                    int(node.need("Size")),
                    ns_of(node.get("LastModified")),
                    (node.get("ETag") or "").strip('"'),
                    sorted(child.text for child in node.all("ChecksumAlgorithm")),
                    node.get("ChecksumType") or "",
                )
            )
        elif node.name == "CommonPrefixes":
            page += [Listed(name_of(child.text), is_prefix=True) for child in node.all("Prefix")]
    page.sort(key=lambda entry: entry.name)
    return page


def uploads(remote: Remote, bucket: str, query: Query, after_upload: str) -> UploadPage:
    """A page of uploads under way."""
    found_uploads: list[Upload] = []
    prefixes: list[str] = []
    after, truncated = query.after, True
    while truncated and (left := query.limit - len(found_uploads) - len(prefixes)) > 0:
        asked = query_of(
            {
                "delimiter": query.delimiter,
                "encoding-type": "url",
                "key-marker": after,
                "max-uploads": str(min(MOST, left)),
                "prefix": query.prefix,
                "upload-id-marker": after_upload,
            }
        )
        found = remote.call("GET", Key(bucket, ""), f"uploads=&{asked}", root="ListMultipartUploadsResult").node
        name_of = decoder(found)
        page = [_upload(bucket, node, name_of) for node in found.all("Upload")]
        rolled = [name_of(child.text) for node in found.all("CommonPrefixes") for child in node.all("Prefix")]
        found_uploads += page
        prefixes += [prefix for prefix in rolled if not query.after.startswith(prefix)]
        truncated = found.get("IsTruncated") == "true"
        if truncated and not found.get("NextKeyMarker"):
            raise ProtocolError("the listing does not go on", server=remote.endpoint, key=bucket)
        after, after_upload = name_of(found.get("NextKeyMarker") or ""), found.get("NextUploadIdMarker") or ""
    return UploadPage(found_uploads, prefixes, truncated)


def _upload(bucket: str, node: Node, name_of: Callable[[str], str]) -> Upload:
    return Upload(
        Key(bucket, name_of(node.need("Key"))),
        node.need("UploadId"),
        ns_of(node.get("Initiated")),
        Attributes(checksum_type=node.get("ChecksumType") or ""),
        node.get("ChecksumAlgorithm") or "",
    )


def parts(remote: Remote, key: Key, upload: str, after: int, limit: int) -> list[Part]:
    """The parts of an upload, by number, at most ``limit`` of those above ``after``."""
    found: list[Part] = []
    more = True
    while more and len(found) < limit:
        node = part_page(remote, key, upload, after, min(MOST, limit - len(found)))
        page = [
            Part(
                int(part.need("PartNumber")),
                int(part.need("Size")),
                part.need("ETag").strip('"'),
                checksums_in(part),
                ns_of(part.get("LastModified")),
            )
            for part in node.all("Part")
        ]
        found += page
        more = node.get("IsTruncated") == "true" and bool(page)
        after = found[-1].number if found else after
    return found


def part_page(remote: Remote, key: Key, upload: str, after: int, limit: int) -> Node:
    """What ListParts says of an upload, and of ``limit`` of its parts."""
    marker = str(after) if after else ""
    query = query_of({"max-parts": str(limit), "part-number-marker": marker, "uploadId": upload})
    return remote.call("GET", key, query, root="ListPartsResult").node


def object_parts(remote: Remote, key: Key, count: int, etag: str) -> list[Part]:
    """The parts that an object of this ETag was made of. Raises PreconditionFailed, NoSuchKey when it is gone.

    S3 lists those of an object with checksums; of others it tells the size of one at a time.
    """
    found: list[Part] = []
    more = True
    while more:
        asked = {
            "x-amz-object-attributes": "ETag,ObjectParts",
            "x-amz-max-parts": str(MOST),
            "x-amz-part-number-marker": str(found[-1].number if found else 0),
        }
        try:
            node = remote.call("GET", key, "attributes=", asked, root="GetObjectAttributesResponse").node
        except Refused:
            break
        if (node.get("ETag") or "").strip('"') != etag:
            raise PreconditionFailed("the object was replaced since", key=str(key))
        inner = node.find("ObjectParts") or Node("")
        page = [
            Part(int(part.need("PartNumber")), int(part.need("Size")), checksums=checksums_in(part))
            for part in inner.all("Part")
        ]
        found += page
        more = inner.get("IsTruncated") == "true" and bool(page)
    if len(found) == count:
        return found
    return [_part(remote, key, number, etag) for number in range(1, count + 1)]


def _part(remote: Remote, key: Key, number: int, etag: str) -> Part:
    query, asked = query_of({"partNumber": str(number)}), {"if-match": f'"{etag}"', "x-amz-checksum-mode": "ENABLED"}
    headers = remote.call("HEAD", key, query, asked).headers
    return Part(number, int(headers.get("content-length", "0")), checksums=checksums_of(headers))
