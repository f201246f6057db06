"""Content between descriptors and an S3 server, checked on its way: by checksums, and by lengths."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import stat
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Protocol
from urllib.parse import quote

from s4raw.errors import Corrupt, LocalFileError, S4Error, UsageError
from s4raw.keys import Key
from s4raw.s3 import xml
from s4raw.s3.client import MAX_BODY, Client, query_of
from s4raw.s3.connection import Answer
from s4raw.s3.outgoing import FileBody

PART = 64 << 20  # bytes of a part, and of what is held in memory
MAX_SINGLE = 5 << 30  # bytes that S3 takes in one request
MAX_PARTS = 10_000
PIECE = 1 << 20
ALGORITHM, CHECKSUM = "CRC32", "x-amz-checksum-crc32"  # zlib has it: no package is needed

Write = Callable[[memoryview], object]
_Known = memoryview | FileBody
_MD5 = re.compile("[0-9a-f]{32}").fullmatch


class Digest(Protocol):
    """A digest that grows with the bytes it is given."""

    def update(self, data: memoryview, /) -> None:
        """Take more bytes in."""

    def digest(self) -> bytes:
        """The digest of all bytes so far."""


class Crc32:
    """CRC32, as hashlib would have it."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes | memoryview, /) -> None:
        """Take more bytes in."""
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        """The digest of all bytes so far."""
        return self._value.to_bytes(4, "big")

    def text(self) -> str:
        """The digest as headers have it."""
        return b64encode(self.digest()).decode()


def get(client: Client, answer: Answer, write: Write, whole: bool) -> None:
    """Write the body of an answer, which is all of an object or a range, and check it.

    All of an object is checked by its checksum, if there is one of its whole, else by the MD5 in its ETag, if that is
    one; everything else by its length. Raises Corrupt, ConnectionLost, PeerTimeout.
    """
    name, digest, expected = _expected(answer.headers) if whole else ("", None, "")
    for piece in client.pieces(answer):
        if digest is not None:
            digest.update(piece)
        write(piece)
    if digest is None:
        return
    found = digest.digest().hex() if name == "MD5" else b64encode(digest.digest()).decode()
    if found != expected:
        raise Corrupt(f"what came is not what was stored: its {name} is {found}, not {expected}").at(**answer.where)


def _expected(headers: Mapping[str, str]) -> tuple[str, Digest | None, str]:
    """What tells whether an object came whole: a digest by name, and its value."""
    for header, value in headers.items():
        if header.startswith("x-amz-checksum-") and "-" not in value and not header.endswith("-type"):
            name = header.removeprefix("x-amz-checksum-").upper()
            digest = _new(name)
            if digest is not None and headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
                return name, digest, value
    etag = headers.get("etag", "").strip('"')
    if _MD5(etag) and "x-amz-server-side-encryption-customer-algorithm" not in headers:
        return "MD5", hashlib.md5(usedforsecurity=False), etag
    return "", None, ""


def _new(name: str) -> Digest | None:
    if name == ALGORITHM:
        return Crc32()
    if name in ("SHA1", "SHA256"):
        return hashlib.new(name.lower(), usedforsecurity=False)
    try:
        from s4raw.s3 import checksums
    except ImportError:  # the extra s3 is not installed
        return None
    return checksums.new(name) if name in checksums.SIZES else None


def put(client: Client, key: Key, fd: int, headers: Mapping[str, str]) -> tuple[int, str]:
    """Store all that a descriptor still has under a key; returns its size in bytes and its ETag.

    A regular file goes in one request, its checksum first; what has no length, or is too large for that, goes in parts
    of 64 MiB if it is longer than one. Raises LocalFileError and what ``Client.request`` does.
    """
    try:
        status = os.fstat(fd)
        offset = os.lseek(fd, 0, os.SEEK_CUR) if stat.S_ISREG(status.st_mode) else 0
    except OSError as error:
        raise _unreadable(error) from None
    size = max(0, status.st_size - offset)
    if stat.S_ISREG(status.st_mode) and size <= MAX_SINGLE:
        body = FileBody(fd, offset, size)
        return size, _put(client, key, body, {**headers, CHECKSUM: _checksum(body)})
    buffer = memoryview(mmap.mmap(-1, PART))  # costs no more than what is written to it
    first = buffer[: _fill(fd, buffer)]
    if len(first) < PART:
        return len(first), _put(client, key, first, {**headers, CHECKSUM: _checksum(first)})
    return _put_parts(client, key, fd, buffer, headers)


def _put(client: Client, key: Key, body: _Known, headers: Mapping[str, str], query: str = "") -> str:
    answer = client.request("PUT", key, query, headers, body)
    answer.read(MAX_BODY)
    return answer.headers.get("etag", "").strip('"')


def _put_parts(client: Client, key: Key, fd: int, buffer: memoryview, headers: Mapping[str, str]) -> tuple[int, str]:
    """Store what begins with a buffer in parts; an upload that is not completed is given up."""
    asked = {**headers, "x-amz-checksum-algorithm": ALGORITHM, "x-amz-checksum-type": "FULL_OBJECT"}
    upload = client.read("POST", key, "uploads=", root="InitiateMultipartUploadResult", headers=asked).need("UploadId")
    try:
        total, number, parts, count = 0, 0, [], len(buffer)
        while count:
            number += 1
            if number > MAX_PARTS:
                raise LocalFileError(f"stdin is too long for one object: it has more than {MAX_PARTS * PART} bytes")
            part = buffer[:count]
            value, query = _checksum(part), query_of({"partNumber": str(number), "uploadId": upload})
            etag = _put(client, key, part, {CHECKSUM: value}, query)
            inner = xml.element("PartNumber", number) + xml.element("ETag", f'"{etag}"')
            parts.append(f"<Part>{inner}{xml.element('ChecksumCRC32', value)}</Part>")
            total += count
            count = _fill(fd, buffer) if count == len(buffer) else 0
        body = xml.document("CompleteMultipartUpload", parts)
        asked = {"x-amz-checksum-type": "FULL_OBJECT"}
        query = query_of({"uploadId": upload})
        found = client.read("POST", key, query, body, root="CompleteMultipartUploadResult", headers=asked)
        return total, (found.get("ETag") or "").strip('"')
    except BaseException:
        try:
            client.read("DELETE", key, query_of({"uploadId": upload}))
        except S4Error:
            pass  # the server sweeps it some day; the first error says more
        raise


def _fill(fd: int, buffer: memoryview) -> int:
    """Read until a buffer is full or the end has come; returns how many bytes. Raises LocalFileError."""
    done = 0
    try:
        while done < len(buffer) and (count := os.readv(fd, [buffer[done:]])):
            done += count
    except OSError as error:
        raise _unreadable(error) from None
    return done


def _checksum(body: _Known) -> str:
    crc = Crc32()
    if not isinstance(body, FileBody):
        crc.update(body)
        return crc.text()
    buffer, at, end = memoryview(bytearray(min(PIECE, body.size + 1))), body.offset, body.offset + body.size
    try:
        while at < end and (count := os.preadv(body.fd, [buffer[: end - at]], at)):
            crc.update(buffer[:count])
            at += count
    except OSError as error:
        raise _unreadable(error) from None
    return crc.text()


def _unreadable(error: OSError) -> LocalFileError:
    return LocalFileError(f"cannot read stdin: {error.strerror}")


def put_headers(content_type: str | None, metadata: Mapping[str, str], tags: Mapping[str, str]) -> dict[str, str]:
    """The headers that keep these with an object. Raises UsageError for what no header can be."""
    found = {f"x-amz-meta-{name.lower()}": value.encode("utf-8", "surrogateescape") for name, value in metadata.items()}
    if content_type is not None:
        found["content-type"] = content_type.encode("utf-8", "surrogateescape")
    for name, value in found.items():
        if not re.fullmatch("[!#$%&'*+.^_`|~0-9a-z-]+", name) or any(byte < 32 or byte == 127 for byte in value):
            raise UsageError(f"this cannot be a header: {name}: {value!r}")
    if tags:
        pairs = (f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags.items())
        found["x-amz-tagging"] = "&".join(pairs).encode()
    return {name: value.decode("latin-1") for name, value in found.items()}
