"""What clients of the uploader say, and what they are answered: lines in, requests out. Pure: no socket, file or clock.

Two dialects, told apart by how a line begins. The old one is that of s3daemon: ``FILENAME ALIAS/BUCKET/KEY``, with one
space, answered by ``Success`` without an end of line, or by the error's text. A line that begins with ``{"`` is an
object of JSON, and so is its answer. docs/format.md has both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from s4raw.errors import UsageError
from s4raw.keys import Key, check_key
from s4raw.queue import asking
from s4raw.queue.asking import Drop, Flush, Retry, field, seconds

MAX_LINE = 64 << 10  # bytes, without the end of line
MAX_PLAIN_ANSWER = 4000  # bytes: the old client reads once, at most 4096
MAX_DEPTH = 8  # of arrays and objects in a line
MAX_LISTED = 10_000  # entries in one answer
SUCCESS = b"Success"
STORED, QUEUED = "stored", "queued"
DEFAULT_ALIAS = "default"  # how the place without a name is called
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?')
_BROWSER = re.compile(rb"[A-Z]+ .* HTTP/[0-9.]+\s*$|\x16\x03")  # how HTTP begins, and TLS
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: what a header's name consists of
_NOT_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")


class Push(NamedTuple):
    """A file that is to be stored. ``wait`` is how many seconds its sender waits for that; None: as long as it takes.

    In the old dialect, ``plain``, the path may be relative, to the daemon's directory. ``headers`` and ``metadata`` go
    to the object.
    """

    path: bytes
    alias: str
    key: Key
    ack: str = STORED
    snapshot: bool = False
    wait: float | None = None
    headers: Mapping[str, str] = {}
    metadata: Mapping[str, str] = {}
    plain: bool = False


class Status(NamedTuple):
    """Asks how the queue is."""


class List(NamedTuple):
    """Asks for entries of the queue beyond the id ``after``; ``parked``: only those that are, or are not."""

    after: int = 0
    limit: int = 1000
    parked: bool | None = None


Request = Push | Status | List | Retry | Drop | Flush


class Malformed(UsageError):
    """A line that asks for nothing; ``plain`` is the dialect that it seems to be of.

    ``fatal``: what comes next on its connection is not to be believed either.
    """

    plain = False
    fatal = False


def _malformed(message: str, plain: bool = False, fatal: bool = False) -> Malformed:
    error = Malformed(message)
    error.plain, error.fatal = plain, fatal
    return error


class Lines:
    """Takes bytes as they come apart into lines, of which none may be longer than MAX_LINE."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    @property
    def size(self) -> int:
        """Bytes that ``next`` has not given yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """More bytes are here."""
        self._buffer += data

    def next(self) -> bytes | None:
        """The next line without its end, or None: more bytes, please. Raises Malformed: then there is no next."""
        buffer = self._buffer
        end = buffer.find(b"\n", self._searched)
        if max(end, len(buffer) if end < 0 else 0) > MAX_LINE:
            raise _malformed(f"a line has at most {MAX_LINE} bytes", plain=is_plain(buffer), fatal=True)
        if end < 0:
            self._searched = len(buffer)
            return None
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        self._searched = 0
        return line


def parse(line: bytes) -> Request:
    """What a line asks for. Raises Malformed, and BadKey for a destination that no object can have (with ``plain``)."""
    return _parse_object(line) if line.startswith(b'{"') else _parse_plain(line)


def is_plain(line: bytes | bytearray) -> bool:
    """Whether a line is of the old dialect."""
    return not line.startswith(b'{"')


def _parse_plain(line: bytes) -> Push:
    """s3daemon's rule: white space at the end does not count, and one space stands between the name and the place."""
    if _BROWSER.match(line):  # what a page in a browser here may send, with lines of its choice in it
        raise _malformed("this is not HTTP", plain=True, fatal=True)
    words = line.rstrip(b" \t\r\n\v\f").split(b" ")
    if len(words) != 2 or not words[0]:
        raise _malformed(
            "need FILENAME ALIAS/BUCKET/KEY with one space between them (names with spaces go as JSON), "
            f"got {line[:200]!r}",
            plain=True,
        )
    path, place = words
    if b"\0" in path:
        raise _malformed(f"a path has no NUL in it: {path[:200]!r}", plain=True)
    alias, key = parse_place(place.decode(errors="surrogateescape"))
    return Push(path, alias, key, plain=True)


def parse_place(text: str) -> tuple[str, Key]:
    """``ALIAS/BUCKET/KEY`` as an alias and a key. Raises Malformed, BadKey."""
    parts = text.split("/", 2)
    if len(parts) < 3 or not parts[1] or not parts[2]:
        raise _malformed(f"need a destination as ALIAS/BUCKET/KEY, got {text[:200]!r}")
    return parts[0], check_key(Key(parts[1], parts[2]))


def _parse_object(line: bytes) -> Request:
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH < _depth(line):  # a small stack would not do for it
        raise _malformed("JSON that is nested too deeply")
    try:
        asked = json.loads(line.decode(errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise _malformed(f"not a line of JSON: {error}") from None
    make = _CONTROLS.get(what) if isinstance(what := asked.get("do"), str) else None
    if "file" in asked:
        make = _push
    if make is None:
        known = ", ".join(_CONTROLS)
        raise _malformed(f'need "file" and "to", or "do" with one of {known}; got {line[:200]!r}')
    try:
        return make(asked)
    except Malformed:
        raise
    except UsageError as error:
        raise _malformed(error.message) from None


def _depth(line: bytes) -> int:
    """How deeply arrays and objects are nested, at most."""
    deepest = depth = 0
    for bracket in _STRING.sub(b"", line).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _push(asked: Mapping[str, Any]) -> Push:
    if unknown := asked.keys() - _FIELDS:
        raise _malformed(f"unknown fields: {', '.join(sorted(map(repr, unknown)))}")
    try:
        path = field(asked, "file", str, "").encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise _malformed('"file" holds half a character') from None
    if not path.startswith(b"/") or b"\0" in path:
        raise _malformed(f'"file" is a whole path, from / on, without NUL; not {path[:200]!r}')
    alias, key = parse_place(field(asked, "to", str, ""))
    ack = field(asked, "ack", str, STORED)
    if ack not in (STORED, QUEUED):
        raise _malformed(f'"ack" is "stored" or "queued", not {ack[:200]!r}')
    kind = field(asked, "type", str | None, None)
    metadata = field(asked, "metadata", dict | None, None) or {}
    for name, value in metadata.items():
        if not _TOKEN.fullmatch(name):
            raise _malformed(f'"metadata": a header cannot have the name {name[:200]!r}')
        if not isinstance(value, str):
            raise _malformed(f'"metadata": {name[:200]!r} needs a text')
    for text in (kind or "", *metadata.values()):
        if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in text):
            raise _malformed(f"control characters cannot travel in a header: {text[:200]!r}")
    return Push(
        path,
        alias,
        key,
        ack,
        field(asked, "snapshot", bool, False),
        seconds(asked),
        {"content-type": kind} if kind else {},
        {name.lower(): value for name, value in metadata.items()},
    )


_FIELDS = frozenset(("file", "to", "ack", "snapshot", "wait", "type", "metadata"))


def _list(asked: Mapping[str, Any]) -> List:
    after, limit = field(asked, "after", int, 0), field(asked, "limit", int, 1000)
    if not (0 <= after < 1 << 63 and 0 < limit <= MAX_LISTED):
        raise _malformed(f'"after" is an id, and "limit" at most {MAX_LISTED}')
    return List(after, limit, field(asked, "parked", bool | None, None))


_CONTROLS: Mapping[str, Callable[[Mapping[str, Any]], Request]] = {
    "status": lambda _asked: Status(),
    "list": _list,
    **asking.REQUESTS,
}


def answer(**fields: object) -> bytes:
    """An answer in JSON, a line. What is no character travels as a lone surrogate, as in Python's surrogateescape."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def refusal(error: str, plain: bool, **fields: object) -> bytes:
    """The answer to what failed; the old dialect has a text for it, which is never empty and never ``Success``."""
    if not plain:
        return answer(ok=False, error=error, **fields)
    text = error.encode(errors="backslashreplace")[:MAX_PLAIN_ANSWER]
    return b"Error: " + text if not text or text.startswith(SUCCESS) else text
