"""What the head of an answer says of its object, as our client shows it."""

from __future__ import annotations

import re
import time

from s4raw.keys import Key
from s4raw.s3.client import shown
from s4raw.s3.connection import Answer
from s4raw.s3.signing import seconds_of

_META, _CHECKSUM = "x-amz-meta-", "x-amz-checksum-"
_SYSTEM = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")


def known(key: Key, answer: Answer) -> dict[str, object]:
    """What the head of an answer says of its object: size (of all of it), time, ETag, type, checksums, metadata."""
    headers = {name: _text(value) for name, value in answer.headers.items()}
    ranged = re.fullmatch(r"bytes [0-9]+-[0-9]+/([0-9]+)", headers.get("content-range", ""))
    seconds = seconds_of(headers.get("last-modified", "")) or 0
    found: dict[str, object] = {
        "key": shown(key),
        "bytes": int(ranged[1]) if ranged else answer.size,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)),
        "etag": headers.get("etag", "").strip('"'),
        "type": headers.get("content-type", ""),
    }
    found |= {name: headers[name] for name in _SYSTEM if name in headers}
    checksums = {
        name.removeprefix(_CHECKSUM).upper(): value
        for name, value in headers.items()
        if name.startswith(_CHECKSUM) and not name.endswith("-type")
    }
    metadata = {name.removeprefix(_META): value for name, value in headers.items() if name.startswith(_META)}
    return found | {"checksums": checksums, "metadata": metadata}


def _text(value: str) -> str:
    """A header's value, which is UTF-8 if it can be."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value
