"""What clients of the uploader say, and what they are answered: lines in, requests out. Pure: no socket, file or clock.

Two dialects, told apart by how a line begins. The old one is that of s3daemon: ``FILENAME ALIAS/BUCKET/KEY``, with one
space, answered by ``Success`` without an end of line, or by the error's text. A line that begins with ``{"`` is an
object of JSON, and so is its answer. docs/format.md has both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from s4raw.errors import UsageError
from s4raw.keys import Key, check_key

MAX_LINE = 64 << 10  # bytes, without the end of line
MAX_PLAIN_ANSWER = 4000  # bytes: the old client reads once, at most 4096
MAX_DEPTH = 8  # of arrays and objects in a line
MAX_LISTED = 10_000  # entries in one answer
SUCCESS = b"Success"
STORED, QUEUED = "stored", "queued"
DEFAULT_ALIAS = "default"  # how the place without a name is called
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"?')
_HTTP = re.compile(rb"^[A-Z]+ .* HTTP/[0-9.]+\s*$")
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


class Retry(NamedTuple):
    """Asks that entries are tried again at once; None: all."""

    ids: Sequence[int] | None = None


class Drop(NamedTuple):
    """Asks that entries are thrown away; None: all."""

    ids: Sequence[int] | None = None


class Flush(NamedTuple):
    """Asks that what waits is tried at once, and to be told when the queue is empty, or that it is not by then."""

    wait: float | None = None


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
    if _HTTP.search(line):  # a page in a browser here may send one, and lines of its choice behind it
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
    if "file" in asked:
        return _push(asked)
    make = _CONTROLS.get(what) if isinstance(what := asked.get("do"), str) else None
    if make is None:
        known = ", ".join(_CONTROLS)
        raise _malformed(f'need "file" and "to", or "do" with one of {known}; got {line[:200]!r}')
    return make(asked)


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
        path = _field(asked, "file", str, "").encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise _malformed('"file" holds half a character') from None
    if not path.startswith(b"/") or b"\0" in path:
        raise _malformed(f'"file" is a whole path, from / on, without NUL; not {path[:200]!r}')
    alias, key = parse_place(_field(asked, "to", str, ""))
    ack = _field(asked, "ack", str, STORED)
    if ack not in (STORED, QUEUED):
        raise _malformed(f'"ack" is "stored" or "queued", not {ack[:200]!r}')
    kind = _field(asked, "type", str | None, None)
    metadata = _field(asked, "metadata", dict | None, None) or {}
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise _malformed(f'"metadata": {name[:200]!r} needs a text')
    for text in (kind or "", *metadata, *metadata.values()):
        if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in text):
            raise _malformed(f"control characters cannot travel in a header: {text[:200]!r}")
    return Push(
        path,
        alias,
        key,
        ack,
        _field(asked, "snapshot", bool, False),
        _seconds(asked),
        {"content-type": kind} if kind else {},
        {name.lower(): value for name, value in metadata.items()},
    )


_FIELDS = frozenset(("file", "to", "ack", "snapshot", "wait", "type", "metadata"))


def _field(asked: Mapping[str, Any], name: str, kind: Any, default: Any) -> Any:
    value = asked.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise _malformed(f'"{name}" cannot be {value!r:.200}')
    return value


def _seconds(asked: Mapping[str, Any]) -> float | None:
    value = asked.get("wait")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9):
        raise _malformed(f'"wait" is a number of seconds, not {value!r:.200}')
    return value


def _ids(asked: Mapping[str, Any]) -> Sequence[int] | None:
    ids = _field(asked, "ids", list | None, None)
    if not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 1 << 63 for each in ids or ()):
        raise _malformed('"ids" is an array of whole numbers')
    return None if ids is None else list(ids)


def _drop(asked: Mapping[str, Any]) -> Drop:
    ids = _ids(asked)
    if (ids is None) is not _field(asked, "all", bool, False):
        raise _malformed('name what to drop: "ids", or "all": true')
    return Drop(ids)


def _list(asked: Mapping[str, Any]) -> List:
    after, limit = _field(asked, "after", int, 0), _field(asked, "limit", int, 1000)
    if not (0 <= after < 1 << 63 and 0 < limit <= MAX_LISTED):
        raise _malformed(f'"after" is an id, and "limit" at most {MAX_LISTED}')
    return List(after, limit, _field(asked, "parked", bool | None, None))


_CONTROLS: Mapping[str, Callable[[Mapping[str, Any]], Request]] = {
    "status": lambda _asked: Status(),
    "list": _list,
    "retry": lambda asked: Retry(_ids(asked)),
    "drop": _drop,
    "flush": lambda asked: Flush(_seconds(asked)),
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
