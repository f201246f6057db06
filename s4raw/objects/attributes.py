"""How an object's attributes are written down: as JSON, which is a tenth of the time that reading the object takes.

On disk they are the extended attribute ``user.s4raw.s3`` of the object's file, beside its record: a version, the first
bytes of the content's digest, the JSON. The digest tells that they belong to this content: a command may have copied a
file with its extended attributes, and changed it. Nothing here touches the disk.

What listings show of them is in an extended attribute of its own, ``user.s4e``: 20 bytes, which are written first
and so lie in the inode on ext4, where reading them costs 1 us. The record of 28 bytes would fit beside 16 of them, not
beside 20: it lies with the others in a block of their own, and reading that costs 8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from struct import Struct
from typing import Any
from zlib import crc32

from s4raw.blocks import Record
from s4raw.errors import Corrupt
from s4raw.objects.base import Attributes, Part

ATTRIBUTE = "user.s4raw.s3"
VERSION = 1
INLINE_BYTES = 1500  # of JSON in an extended attribute: ext4 has about 4 KiB for all, the record takes up to 2,076
_DIGEST_BYTES = 8
_HEAD_BYTES = 1 + _DIGEST_BYTES
_SIDECAR = "s"
_REFERS = b'"s":"'

SUMMARY = "user.s4e"
_SUMMARY = Struct("<16sI")  # the MD5; from the lowest bit: 14 bits of a check, 14 of parts, 3 of algorithm, 1 composite
_LAST_BITS = Struct("<I").unpack_from
_CHECK_BITS = 14
_CHECK_MASK = (1 << _CHECK_BITS) - 1
_MD5_ETAG = re.compile(r"([0-9a-f]{32})(?:-([1-9][0-9]{0,3}|10000))?")
_ALGORITHMS = ("", "CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
_LISTED = tuple((name,) if name else () for name in _ALGORITHMS)
_TYPES = ("FULL_OBJECT", "COMPOSITE")

_to_json = json.JSONEncoder(separators=(",", ":")).encode
_from_json = json.JSONDecoder().decode


def encode(attributes: Attributes) -> bytes:
    """Attributes as JSON, in ASCII. ``decode`` gives them back as they were."""
    return _to_json(_fields(attributes)).encode("ascii")


def decode(raw: bytes) -> Attributes:
    """What ``encode`` was given. Raises Corrupt."""
    return _attributes(_parse(raw))


def seal(encoded: bytes, record: Record, inode: int) -> bytes:
    """The value of the extended attribute for the content of this record, of the file with this inode.

    It says which inode that is, so that no two files have the same. ext4 looks for another file with the same extended
    attributes, to keep one block for both, and gives the new one back, which may wait for the disk.
    """
    return b'%b%b,"i":%d}' % (_head(record), encoded[:-1], inode)


def _head(record: Record) -> bytes:
    return bytes((VERSION,)) + record.digest[:_DIGEST_BYTES]


def seal_reference(attributes: Attributes, record: Record, sidecar: str) -> bytes:
    """The same where the attributes are too long for it: what listings need of them, and where they are."""
    fields = _fields(attributes._replace(headers={}, metadata={}, tags={}, parts=()))
    return _head(record) + _to_json({**fields, _SIDECAR: sidecar}).encode("ascii")


def unseal(raw: bytes | None, record: Record) -> tuple[Attributes, str]:
    """The attributes in the extended attribute (None: there is none), and the name of the sidecar that has them whole.

    The name is empty when they are whole. Without the extended attribute, or with one of other content, they are those
    of a key that was not put by S3: see ``plain``. Raises Corrupt.
    """
    if not raw:
        return plain(record), ""
    if raw[0] != VERSION:
        raise Corrupt(f"the object's attributes have version {raw[0]}, this server knows version {VERSION}")
    if raw[1:_HEAD_BYTES] != record.digest[:_DIGEST_BYTES]:
        return plain(record), ""
    fields = _parse(raw[_HEAD_BYTES:])
    return _attributes(fields), fields.get(_SIDECAR, "")


def sidecar_of(raw: bytes | None) -> str:
    """The name of the sidecar that an extended attribute refers to, whatever the content; empty without one."""
    if not raw or _REFERS not in raw:  # as nearly always
        return ""
    try:
        name = _parse(raw[_HEAD_BYTES:]).get(_SIDECAR, "")
    except Corrupt:
        return ""
    return name if isinstance(name, str) else ""


def summarize(attributes: Attributes, inode: int, size: int) -> bytes | None:
    """What listings show, for the file with this inode and size; None if it is too unusual to be said in 20 bytes."""
    match = _MD5_ETAG.fullmatch(attributes.etag)
    algorithm, *more = attributes.checksums or [""]
    known = algorithm in _ALGORITHMS and attributes.checksum_type in (_TYPES if algorithm else ("",))
    if match is None or more or not known:
        return None
    bits = _check(inode, size) | int(match[2] or 0) << _CHECK_BITS | _ALGORITHMS.index(algorithm) << 28
    return _SUMMARY.pack(bytes.fromhex(match[1]), bits | (attributes.checksum_type == "COMPOSITE") << 31)


def read_summary(raw: bytes, inode: int, size: int) -> tuple[str, tuple[str, ...], str] | None:
    """ETag, checksum algorithms and their type; None if it is not this file's, as when a command has copied one."""
    if len(raw) != _SUMMARY.size:
        return None
    bits = _LAST_BITS(raw, 16)[0]
    if (bits ^ crc32(b"%d %d" % (inode, size))) & _CHECK_MASK:
        return None
    kind = _kind(bits >> _CHECK_BITS)
    return None if kind is None else (raw[:16].hex() + kind[0], kind[1], kind[2])


@lru_cache(256)
def _kind(bits: int) -> tuple[str, tuple[str, ...], str] | None:
    """What follows the MD5 in the ETag, the checksum algorithm and its type; None if there is no such algorithm."""
    parts, algorithm = bits & 0x3FFF, bits >> 14 & 7
    if algorithm >= len(_ALGORITHMS):
        return None
    return f"-{parts}" if parts else "", _LISTED[algorithm], _TYPES[bits >> 17] if algorithm else ""


def _check(inode: int, size: int) -> int:
    return crc32(b"%d %d" % (inode, size)) & _CHECK_MASK


def plain(record: Record) -> Attributes:
    """The attributes of a key that was not put by S3. The ``-1`` says that its ETag is not the content's MD5."""
    return Attributes(f"{record.digest.hex()}-1")


def _parse(raw: bytes) -> Mapping[str, Any]:
    try:
        fields = _from_json(raw.decode("ascii"))
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise Corrupt(f"the object's attributes are damaged: {raw[:40].hex()}")
    return fields


def _fields(attributes: Attributes) -> dict[str, Any]:
    etag, headers, metadata, tags, checksums, checksum_type, parts = attributes
    fields: dict[str, Any] = {"e": etag}
    if headers:
        fields["h"] = dict(headers)
    if metadata:
        fields["m"] = dict(metadata)
    if tags:
        fields["t"] = dict(tags)
    if checksums:
        fields["c"] = dict(checksums)
    if checksum_type:
        fields["k"] = checksum_type
    if parts:
        fields["p"] = [[part.number, part.size, dict(part.checksums)] for part in parts]
    return fields


def _attributes(fields: Mapping[str, Any]) -> Attributes:
    get = fields.get
    try:
        parts = [Part(number, size, checksums=sums) for number, size, sums in get("p", ())]
    except (TypeError, ValueError):
        raise Corrupt("the object's attributes are damaged: a part is none") from None
    return Attributes(get("e", ""), get("h", {}), get("m", {}), get("t", {}), get("c", {}), get("k", ""), parts or ())
