"""The wire protocol: frames to bytes and bytes to frames. No sockets, files or clocks. See ``docs/format.md``.

A frame is a fixed head of 28 bytes, a header of typed fields, and a body:

    magic "s4rw" | version u8 | opcode u8 | flags u16 | request u32 | header length u32 | body length u64 | checksum u32

The checksum covers the head before it and the header, so a flipped bit cannot turn one key into another; bodies have
their digests. All integers are little-endian.

Requests on one connection are answered in the order they were sent. A body whose length is known lies in its frame; one
whose length is not (flag STREAM) follows in DATA frames and ends with an END frame that carries the digest of all of
it. Every length is checked against its limit before anything is allocated for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from s4raw.digest import DIGEST_SIZE, checksum
from s4raw.errors import ProtocolError, S4Error, UsageError, VersionMismatch, from_code
from s4raw.keys import Entry
from s4raw.record import NamedTuple

MAGIC = b"s4rw"
VERSION = 2

# Opcodes: connection, requests, answers.
HELLO, PROOF = 1, 2
PING, PUT, GET, STAT, LIST, REMOVE, REMOVE_PREFIX, MOVE = 16, 17, 18, 19, 20, 21, 22, 23
PUT_PART, PARTS, COMMIT, ABORT, SCRUB = 24, 25, 26, 27, 28
OBJECT, OBJECT_PUT, OBJECT_GET = 48, 49, 50
EVAL, MAP, MAP_TO_N, MAP_FROM_N, START, JOBS, CANCEL = 32, 33, 34, 35, 36, 37, 38
OK, DATA, END, ERROR, PROGRESS = 64, 65, 66, 67, 68

# Flags.
STREAM = 1  # the body follows in DATA frames and ends with END
STDERR = 2  # these DATA bytes are the command's stderr, not its stdout

# Options of a map call.
KEEP_GOING, RESUME, DRY_RUN, EVENTS = 1, 2, 4, 8

MAX_HEADER = 256 << 10
MAX_HELLO_HEADER = 4 << 10
MAX_BODY = (1 << 63) - 1
MAX_DATA = 64 << 20
MAX_CALL = 8 << 20  # a call about objects, in JSON: the 10,000 parts of an upload
WHOLE_BODY = 256 << 10  # a put of at most this many bytes goes in one frame, its digest in the header

_NAMES = {
    PUT_PART: "PUT_PART", PARTS: "PARTS", COMMIT: "COMMIT", ABORT: "ABORT", SCRUB: "SCRUB",
    HELLO: "HELLO", PROOF: "PROOF", PING: "PING", PUT: "PUT", GET: "GET", STAT: "STAT", LIST: "LIST",
    REMOVE: "REMOVE", REMOVE_PREFIX: "REMOVE_PREFIX", MOVE: "MOVE", EVAL: "EVAL", MAP: "MAP", MAP_TO_N: "MAP_TO_N",
    MAP_FROM_N: "MAP_FROM_N", START: "START", JOBS: "JOBS", CANCEL: "CANCEL", OK: "OK", DATA: "DATA", END: "END",
    ERROR: "ERROR", PROGRESS: "PROGRESS", OBJECT: "OBJECT", OBJECT_PUT: "OBJECT_PUT", OBJECT_GET: "OBJECT_GET",
}  # fmt: skip
_LIMITS = {
    **dict.fromkeys(_NAMES, 0),
    PUT: WHOLE_BODY,
    OBJECT: MAX_CALL,
    END: MAX_CALL,
    OK: MAX_BODY,
    DATA: MAX_DATA,
}  # bytes of a body

# Fields: name -> (tag, kind). A tag is never given a second meaning; a peer refuses a tag it does not know.
_TEXT, _BLOB, _UINT = "text", "bytes", "unsigned integer"
_FIELDS = {
    "bucket": (1, _TEXT), "key": (2, _TEXT), "size": (3, _UINT), "mtime": (4, _UINT), "digest": (5, _BLOB),
    "command": (6, _TEXT), "out_bucket": (7, _TEXT), "out_key": (8, _TEXT), "glob": (9, _TEXT),
    "recursive": (10, _UINT), "timeout": (11, _UINT), "status": (12, _UINT), "done": (13, _UINT), "total": (14, _UINT),
    "count": (15, _UINT), "path": (16, _TEXT),
    "id": (17, _TEXT), "options": (18, _UINT), "retries": (19, _UINT), "jobs": (20, _UINT), "failed": (21, _UINT),
    "skipped": (22, _UINT), "planning": (23, _UINT), "elapsed": (24, _UINT), "by": (25, _TEXT), "state": (26, _TEXT),
    "code": (32, _UINT), "message": (33, _TEXT), "server": (34, _TEXT), "detail": (35, _BLOB),
    "offset": (36, _UINT), "length": (37, _UINT), "block": (38, _UINT), "blocks": (39, _BLOB), "upload": (40, _BLOB),
    "rate": (41, _UINT),
    "ring": (48, _BLOB), "servers": (49, _TEXT), "nonce": (50, _BLOB), "proof": (51, _BLOB), "features": (52, _UINT),
    "call": (53, _TEXT), "sealed": (54, _BLOB),
}  # fmt: skip
_BY_TAG = {tag: (name, kind) for name, (tag, kind) in _FIELDS.items()}

_TAGS = {name: tag for name, (tag, _) in _FIELDS.items()}

_HEAD = Struct("<4sBBHIIQ")
_CHECKED_HEAD = Struct("<4sBBHIIQI")
_CHECKSUM = Struct("<I")
_FIELD = Struct("<BI")
_UINT_FIELD = Struct("<BIQ")
_UINT64 = Struct("<Q")
_SMALL_HEADER = Struct(f"<BI{DIGEST_SIZE}sBIQ")
_DIGEST_TAG, _MTIME_TAG = _TAGS["digest"], _TAGS["mtime"]
_ENTRY = Struct("<HBQq")
HEAD_SIZE = _CHECKED_HEAD.size

Value = str | bytes | int


def name_of(opcode: int) -> str:
    """An opcode's name, for messages."""
    return _NAMES.get(opcode, f"opcode {opcode}")


class Frame(NamedTuple):
    """A frame's head and header. Its body, ``body_length`` bytes, follows on the wire."""

    opcode: int
    flags: int
    request: int
    fields: dict[str, Value]
    body_length: int

    def text(self, name: str, default: str | None = None) -> str:
        """A text field. Raises ProtocolError if it is missing and there is no default."""
        value = self.fields.get(name, default)
        if not isinstance(value, str):
            raise ProtocolError(f"a {name_of(self.opcode)} frame needs the field {name!r}")
        return value

    def blob(self, name: str, default: bytes | None = None) -> bytes:
        """A bytes field. Raises ProtocolError if it is missing and there is no default."""
        value = self.fields.get(name, default)
        if not isinstance(value, bytes):
            raise ProtocolError(f"a {name_of(self.opcode)} frame needs the field {name!r}")
        return value

    def uint(self, name: str, default: int | None = None) -> int:
        """An integer field. Raises ProtocolError if it is missing and there is no default."""
        value = self.fields.get(name, default)
        if not isinstance(value, int):
            raise ProtocolError(f"a {name_of(self.opcode)} frame needs the field {name!r}")
        return value


def encode(opcode: int, request: int = 0, flags: int = 0, body_length: int = 0, /, **fields: Value) -> bytes:
    """A frame's head and header as bytes; its body is sent after them. Raises UsageError for what cannot be sent."""
    parts: list[bytes] = []
    for name, value in fields.items():
        if isinstance(value, int):
            if not 0 <= value < 1 << 64:
                raise UsageError(f"the {name} is a number of at most 64 bits, not {value}")
            parts.append(_UINT_FIELD.pack(_TAGS[name], _UINT64.size, value))
        else:
            raw = _encode_text(name, value) if isinstance(value, str) else value
            parts.append(_FIELD.pack(_TAGS[name], len(raw)))
            parts.append(raw)
    header = b"".join(parts)
    if len(header) > MAX_HEADER:
        raise UsageError(f"the request is too long: its header has {len(header)} bytes, the limit is {MAX_HEADER}")
    head = _HEAD.pack(MAGIC, VERSION, opcode, flags, request, len(header), body_length)
    return head + _CHECKSUM.pack(checksum(head + header)) + header


def encode_small(request: int, body_length: int, digest: bytes, mtime: int) -> bytes:
    """``encode(OK, request, 0, body_length, digest=digest, mtime=mtime)``, in a third of the time."""
    header = _SMALL_HEADER.pack(_DIGEST_TAG, DIGEST_SIZE, digest, _MTIME_TAG, _UINT64.size, mtime)
    head = _HEAD.pack(MAGIC, VERSION, OK, 0, request, _SMALL_HEADER.size, body_length)
    return head + _CHECKSUM.pack(checksum(head + header)) + header


def _encode_text(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the {name} is not UTF-8: {text!r}") from None


def decode_fields(header: bytes) -> dict[str, Value]:
    """A header's fields. Raises ProtocolError for anything malformed, doubled or unknown."""
    fields: dict[str, Value] = {}
    offset, end = 0, len(header)
    while offset < end:
        begin = offset + _FIELD.size
        if begin > end:
            raise ProtocolError("the header ends inside a field")
        tag, length = _FIELD.unpack_from(header, offset)
        offset = begin + length
        if offset > end:
            raise ProtocolError(f"field {tag} claims {length} bytes, the header has {end - begin} left")
        if tag not in _BY_TAG:
            raise ProtocolError(f"unknown field {tag}")
        name, kind = _BY_TAG[tag]
        if name in fields:
            raise ProtocolError(f"the field {name!r} comes twice")
        raw = header[begin:offset]
        if kind is _BLOB:
            fields[name] = raw
        elif kind is _UINT:
            if length != _UINT64.size:
                raise ProtocolError(f"the field {name!r} is an integer of 8 bytes, got {length}")
            fields[name] = int.from_bytes(raw, "little")
        else:
            try:
                fields[name] = raw.decode()
            except UnicodeDecodeError:
                raise ProtocolError(f"the field {name!r} is not UTF-8") from None
    return fields


class Decoder:
    """Bytes in, frames out.

    Receive into ``space()``, say how much came with ``received()``, then ask ``next_frame()``: a Frame, or None for
    "more data, please". Before the next frame its body must be consumed: ``take()`` hands out the body bytes that are
    already here, ``passed()`` counts those that were received straight into their destination.
    """

    def __init__(self, capacity: int = 16 << 10, max_header: int = MAX_HEADER) -> None:
        self.max_header = max_header
        self.body_left = 0
        self._capacity = capacity
        self._view = memoryview(bytearray(capacity))
        self._start = self._end = 0
        self._needed = HEAD_SIZE

    @property
    def buffered(self) -> int:
        """Bytes received and not consumed yet."""
        return self._end - self._start

    def space(self) -> memoryview:
        """Free room to receive into; it stays valid until the next call."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._view) > self._capacity and self._needed <= self._capacity:
                self._view = memoryview(bytearray(self._capacity))
        if self._start and len(self._view) - self._start < max(self._needed, self._capacity // 4):
            self._move(self._view if self._needed <= len(self._view) else memoryview(bytearray(self._needed)))
        elif self._needed > len(self._view):
            self._move(memoryview(bytearray(self._needed)))
        return self._view[self._end :]

    def _move(self, target: memoryview) -> None:
        count = self.buffered
        target[:count] = bytes(self._view[self._start : self._end])
        self._view, self._start, self._end = target, 0, count

    def received(self, count: int) -> None:
        """``count`` bytes were written into ``space()``."""
        self._end += count

    def feed(self, data: bytes) -> None:
        """Copy ``data`` in: ``space()`` and ``received()`` for callers that hold bytes."""
        view = memoryview(data)
        while view:
            room = self.space()
            if not room:
                self._move(memoryview(bytearray(2 * len(self._view))))
                continue
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self.received(count)
            view = view[count:]

    def next_frame(self) -> Frame | None:
        """The next frame, or None when more bytes are needed.

        Raises ProtocolError for wrong magic, an unknown opcode or a length over its limit, VersionMismatch for another
        version of the protocol; after either the connection cannot be used any more.
        """
        if self.body_left:
            raise ValueError(f"{self.body_left} bytes of the last frame's body were not consumed")
        start, have = self._start, self._end - self._start
        if have < HEAD_SIZE:
            self._needed = HEAD_SIZE
            if have:
                self._check_magic(bytes(self._view[start : min(self._end, start + len(MAGIC))]))
            return None
        magic, version, opcode, flags, request, header_length, body_length, expected = _CHECKED_HEAD.unpack_from(
            self._view, start
        )
        limit = _LIMITS.get(opcode, -1)
        if magic != MAGIC or version != VERSION or flags > 3 or header_length > self.max_header or body_length > limit:
            self._check_magic(magic)
            self._check_head(version, opcode, flags, header_length, body_length)
        if have < HEAD_SIZE + header_length:
            self._needed = HEAD_SIZE + header_length
            return None
        begin = start + HEAD_SIZE
        header = bytes(self._view[begin : begin + header_length])
        if checksum(bytes(self._view[start : begin - _CHECKSUM.size]) + header) != expected:
            raise ProtocolError("a frame was damaged on its way: its checksum does not match")
        fields = decode_fields(header)
        self._start = begin + header_length
        self._needed = HEAD_SIZE
        self.body_left = body_length
        return Frame(opcode, flags, request, fields, body_length)

    def _check_magic(self, found: bytes) -> None:
        if not MAGIC.startswith(found):
            raise ProtocolError(f"not the s4raw protocol: a frame begins with {MAGIC!r}, got {found!r}")

    def _check_head(self, version: int, opcode: int, flags: int, header_length: int, body_length: int) -> None:
        if version != VERSION:
            raise VersionMismatch(f"this end speaks version {VERSION} of the protocol, the peer version {version}")
        if opcode not in _NAMES:
            raise ProtocolError(f"unknown opcode {opcode}")
        if flags & ~(STREAM | STDERR):
            raise ProtocolError(f"unknown flags {flags:#06x}")
        if header_length > self.max_header:
            raise ProtocolError(f"a header of {header_length} bytes is over the limit of {self.max_header}")
        if body_length > _LIMITS[opcode]:
            limit = _LIMITS[opcode]
            raise ProtocolError(f"a {_NAMES[opcode]} body of {body_length} bytes is over the limit of {limit}")

    def take(self, most: int) -> memoryview:
        """Up to ``most`` body bytes that are already here; valid until the next ``space()``."""
        count = min(most, self.body_left, self.buffered)
        chunk = self._view[self._start : self._start + count]
        self._start += count
        self.body_left -= count
        return chunk

    def passed(self, count: int) -> None:
        """``count`` body bytes were received without passing through this decoder."""
        self.body_left -= count


def encode_error(request: int, error: S4Error) -> bytes:
    """An ERROR frame that ``decode_error`` turns into the same error at the other end."""
    return encode(
        ERROR,
        request,
        code=error.code,
        message=_printable(error.message[:8192]),
        server=error.server,
        key=_printable(error.key),
        detail=error.detail[-(64 << 10) :],
        status=error.status,
    )


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def decode_error(frame: Frame) -> S4Error:
    """The error that an ERROR frame carries."""
    return from_code(
        frame.uint("code"),
        frame.text("message"),
        server=frame.text("server", ""),
        key=frame.text("key", ""),
        detail=frame.blob("detail", b""),
        status=frame.uint("status", 0),
    )


def encode_entry(entry: Entry) -> bytes:
    """A listing's entry as bytes."""
    name = entry.name.encode()
    return _ENTRY.pack(len(name), entry.is_prefix, entry.size, entry.mtime_ns) + name


def decode_entries(data: memoryview) -> Iterator[Entry]:
    """The entries in a DATA frame of a listing. Raises ProtocolError if it does not end with a whole one."""
    offset, end = 0, len(data)
    while offset < end:
        if end - offset < _ENTRY.size:
            raise ProtocolError("a listing ends inside an entry")
        length, is_prefix, size, mtime_ns = _ENTRY.unpack_from(data, offset)
        offset += _ENTRY.size
        if length > end - offset:
            raise ProtocolError("a listing ends inside a name")
        try:
            name = str(data[offset : offset + length], "utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("a listing holds a name that is not UTF-8") from None
        yield Entry(name, size, mtime_ns, bool(is_prefix))
        offset += length
