"""What S3 does, in plain Python: dictionaries of objects, and what must be said of them."""

import base64
import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from awscrt import checksums as crt

SUMS: dict[str, Callable[[bytes], bytes]] = {
    "CRC32": lambda content: zlib.crc32(content).to_bytes(4, "big"),
    "CRC64NVME": lambda content: crt.crc64nvme(content).to_bytes(8, "big"),
    "SHA256": lambda content: hashlib.sha256(content).digest(),
}
UNASKED = "CRC64NVME"  # the checksum of an object whose sender named none
SMALLEST = 5 << 20  # bytes of a part that is not the last


def checksum(algorithm: str, content: bytes) -> str:
    return base64.b64encode(SUMS[algorithm](content)).decode()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@dataclass
class Object:
    """An object, and what is kept with it."""

    content: bytes
    etag: str
    checksums: dict[str, str]
    checksum_type: str = "FULL_OBJECT"
    metadata: dict[str, str] = field(default_factory=dict)
    content_type: str = "binary/octet-stream"
    tags: dict[str, str] = field(default_factory=dict)
    parts: int = 0


@dataclass
class Upload:
    """A multipart upload under way; ``parts`` are contents by number."""

    key: str
    algorithm: str
    kind: str
    metadata: dict[str, str]
    parts: dict[int, bytes] = field(default_factory=dict)


def put(content: bytes, algorithm: str, metadata: dict[str, str], content_type: str, tags: dict[str, str]) -> Object:
    """What a put makes."""
    named = algorithm or UNASKED
    sums = {named: checksum(named, content)}
    return Object(content, md5(content), sums, metadata=metadata, content_type=content_type, tags=tags)


def copied(source: Object, algorithm: str) -> Object:
    """What a copy makes, before anything is replaced: never with the ETag of a multipart upload."""
    kept = next(iter(source.checksums), UNASKED)
    if algorithm and algorithm not in source.checksums:
        kept = algorithm
    return put(source.content, kept, source.metadata, source.content_type, source.tags)


def completed(upload: Upload, numbers: Sequence[int]) -> Object:
    """What completing an upload with these parts makes."""
    parts = [upload.parts[number] for number in numbers]
    content = b"".join(parts)
    etag = md5(b"".join(hashlib.md5(part).digest() for part in parts)) + f"-{len(parts)}"
    algorithm, kind = upload.algorithm or UNASKED, upload.kind or "FULL_OBJECT"
    value = checksum(algorithm, content)
    if kind == "COMPOSITE":
        value = f"{checksum(algorithm, b''.join(SUMS[algorithm](part) for part in parts))}-{len(parts)}"
    return Object(content, etag, {algorithm: value}, kind, upload.metadata, parts=len(parts))


def listing(names: Sequence[str], prefix: str, delimiter: str, after: str) -> list[tuple[str, bool]]:
    """What a listing has to have: names and (True) common prefixes, in order."""
    found: dict[str, bool] = {}
    for name in names:
        if not name.startswith(prefix):
            continue
        head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        if cut:
            rolled = prefix + head + cut
            if rolled.encode() > after.encode() and not after.startswith(rolled):
                found[rolled] = True
        elif name.encode() > after.encode():
            found.setdefault(name, False)
    return sorted(found.items(), key=lambda entry: entry[0].encode())
