"""Objects on their way to a remote: in one request, or in parts side by side."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence

from s4raw.errors import NoSuchKey, NoSuchUpload, PreconditionFailed, ProtocolError, S4Error
from s4raw.keys import Key
from s4raw.objects.base import MAX_PARTS, MIN_PART, Attributes, Part, Source
from s4raw.objects.sources import FileSource
from s4raw.remote import values
from s4raw.remote.bodies import Allowance, FileSending, StreamSending, read_file, read_source, spool
from s4raw.remote.service import Body, Doubt, Remote, Reply
from s4raw.s3 import xml
from s4raw.s3.client import query_of, shown
from s4raw.s3.connection import JOINED

MAX_SINGLE = 5 << 30  # bytes that S3 takes in one request
IN_MEMORY = 8 << 20  # bytes of a source that are read before they are sent, so that they can be sent again


def put(remote: Remote, key: Key, body: Body, attributes: Attributes, conditions: Mapping[str, str]) -> Attributes:
    """Store a body in one request; the attributes of the object. ``conditions`` are headers.

    A put that was refused by its own condition after an answer was lost was done, if its bytes are there. Raises
    ProtocolError for an answer without an ETag: a proxy, or a page for a browser, may answer 200 to anything.
    """
    headers = {**values.kept(attributes), **values.checked(attributes), **conditions}
    try:
        reply = remote.call("PUT", key, "", headers, body, doubts=bool(conditions))
    except Doubt as doubt:
        etag = _md5(body) if isinstance(doubt.error, PreconditionFailed | NoSuchKey) else ""
        if not etag or (found := _etag_there(remote, key)) is None or found[0] != etag:
            raise doubt.error from None
        return values.stored(attributes, found[1])
    if not values.etag_of(reply.headers):
        raise ProtocolError("no ETag in the answer to a PUT: no S3 has said this").at(key=shown(key))
    return values.stored(_sealed(body, attributes), reply.headers)


def _sealed(body: Body, attributes: Attributes) -> Attributes:
    return body.sealed if isinstance(body, StreamSending) and body.sealed is not None else attributes


def _md5(body: Body) -> str:
    if isinstance(body, bytes | memoryview):
        return hashlib.md5(body, usedforsecurity=False).hexdigest()
    return body.digest("md5") if isinstance(body, FileSending) else ""


def _etag_there(remote: Remote, key: Key) -> tuple[str, Mapping[str, str]] | None:
    try:
        headers = remote.call("HEAD", key).headers
    except S4Error:
        return None
    return values.etag_of(headers), headers


def file_body(source: FileSource, offset: int = 0, size: int | None = None) -> Body:
    """A file as a body: a small one goes out with the head of its request."""
    size = source.identity.size - offset if size is None else size
    if size > JOINED:
        return FileSending(source, offset, size)
    content = read_file(source.fd, offset, size)
    source.check()
    return content


def send_source(
    source: Source, size: int, allowance: Allowance, send: Callable[[Body, Attributes], Attributes]
) -> Attributes:
    """What ``send`` gives for a source: from memory if it is short and there is room, else as it comes."""
    if size > IN_MEMORY or not allowance.take(size):
        return send(StreamSending(source, size), source.known)
    try:
        content, sealed = read_source(source, size)
        return send(content, sealed)
    finally:
        allowance.give_back(size)


def put_part(remote: Remote, key: Key, upload: str, number: int, source: Source, allowance: Allowance) -> Part:
    """Send one part of an upload: a file, a source as ``send_source`` does, or what has no length from a file."""
    query = query_of({"partNumber": str(number), "uploadId": upload})

    def send(body: Body, attributes: Attributes) -> Attributes:
        reply = remote.call("PUT", key, query, values.checked(attributes), body)
        return values.stored(_sealed(body, attributes), reply.headers)

    size = source.size
    if isinstance(source, FileSource):
        found = send(file_body(source), source.known)
    elif size is not None:
        found = send_source(source, size, allowance, send)
    else:
        file, fd = spool(source)
        try:
            size = file.identity.size
            found = send(file_body(file), file.known)
        finally:
            os.close(fd)
    return Part(number, size or 0, found.etag, found.checksums)


def create(remote: Remote, key: Key, attributes: Attributes, algorithm: str = "") -> str:
    """Begin an upload; its id."""
    headers = values.kept(attributes)
    if algorithm:
        headers["x-amz-checksum-algorithm"] = algorithm
        if attributes.checksum_type:
            headers["x-amz-checksum-type"] = attributes.checksum_type
    reply = remote.call("POST", key, "uploads=", headers, root="InitiateMultipartUploadResult")
    return reply.node.need("UploadId")


def abort(remote: Remote, key: Key, upload: str) -> None:
    """Give an upload up."""
    remote.call("DELETE", key, query_of({"uploadId": upload}))


def complete(
    remote: Remote, key: Key, upload: str, parts: Sequence[Part], conditions: Mapping[str, str]
) -> Mapping[str, str]:
    """Make parts an object; what is said of it, as headers.

    An upload that is gone after an answer was lost was completed, if the object is the one that its parts make.
    """
    body = xml.document("CompleteMultipartUpload", map(_named, parts))
    query = query_of({"uploadId": upload})
    try:
        reply = remote.call("POST", key, query, conditions, body, root="CompleteMultipartUploadResult", doubts=True)
    except Doubt as doubt:
        if not isinstance(doubt.error, NoSuchUpload | PreconditionFailed | NoSuchKey):
            raise doubt.error from None
        found = _etag_there(remote, key)
        if found is None or found[0] != joined_etag(parts):
            raise doubt.error from None
        return found[1]
    return _said(reply)


def _said(reply: Reply) -> dict[str, str]:
    found = {"etag": reply.node.get("ETag") or ""}
    for name in values.ALGORITHMS:
        if value := reply.node.get(f"Checksum{name}"):
            found[values.CHECKSUM + name.lower()] = value
    if kind := reply.node.get("ChecksumType"):
        found[values.CHECKSUM + "type"] = kind
    return found


def _named(part: Part) -> str:
    checksums = "".join(xml.element(f"Checksum{name}", value) for name, value in part.checksums.items())
    inner = xml.element("PartNumber", part.number) + xml.element("ETag", f'"{part.etag}"')
    return f"<Part>{inner}{checksums}</Part>"


def joined_etag(parts: Sequence[Part]) -> str:
    """The ETag of an object from those of its parts; empty if one of them is no MD5."""
    if not all(values.is_md5(part.etag) for part in parts):
        return ""
    digests = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def cut(size: int, part_size: int, known: Attributes = Attributes()) -> list[tuple[int, int]]:  # noqa: B008
    """The offsets and sizes of parts: those of a multipart upload that the object was made by, or equal ones.

    Equal ones are as large as 10,000 of them must be, and a multiple of 1 MiB.
    """
    sizes = [part.size for part in known.parts]
    if not (
        sizes
        and sum(sizes) == size
        and len(sizes) <= MAX_PARTS
        and all(MIN_PART <= n <= MAX_SINGLE for n in sizes[:-1])
    ):
        least = -(-size // MAX_PARTS)
        step = max(part_size, MIN_PART, -(-least // (1 << 20)) << 20)
        sizes = [min(step, size - at) for at in range(0, size, step)]
    found, at = [], 0
    for length in sizes:
        found.append((at, length))
        at += length
    return found
