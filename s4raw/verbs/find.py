"""Verbs that go through many keys without touching them: find, du."""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable

from s4raw.arguments import COMMON, FILTERS, GLOBS, Arguments, Verb, bytes_of
from s4raw.client import Ring
from s4raw.errors import NoSuchKey, UsageError
from s4raw.keys import SCHEME, Entry, Key
from s4raw.output import json_time, size_text, write_json
from s4raw.selection import below

USAGE = {
    "find": f"""\
Print the whole names of keys, one a line: what matches GLOB, or begins with it if it is none.

Usage: s4raw find [options] [--size SIZE]... [--include GLOB]... [--exclude GLOB]... [--] GLOB

s4raw find 's4://b/logs/*_1' --size +1M --newer 2h
{GLOBS}
Options:
  --size SIZE        +1M: more than that, -1K: less, 12: exactly so many bytes; K, M, G, T are powers of 1024
  --newer WHEN       put since then: 90s, 10m, 2h, 3d, 1w ago, or at 2026-01-31, at 2026-01-31T12:00:00Z (UTC)
  --older WHEN       put before then
{FILTERS}  --json             print a line of JSON for each key
{COMMON}""",
    "du": f"""\
Count the bytes and the keys that begin with PREFIX, or match it: "BYTES bytes in COUNT keys: PREFIX".

Usage: s4raw du [-rH] [--include GLOB]... [--exclude GLOB]... [--json] [-c FILE] [--] [PREFIX]

Without PREFIX: a line for each bucket. s4://bucket/dir counts s4://bucket/dir2/ too, s4://bucket/dir/ does not.
{GLOBS}
Options:
  -r, --recursive    a line for each directory below, too, and then the sum
  -H, --humanize     sizes in KiB, MiB, GiB
{FILTERS}  --json             print a line of JSON for each sum
{COMMON}""",
}

_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def find(arguments: Arguments) -> int:
    """Print the names of keys."""
    tests = criteria(arguments["--size"], arguments["--newer"], arguments["--older"])
    with arguments.ring() as ring:
        selection = below(ring, arguments["GLOB"], *arguments.filters())
        for entry in selection.entries(ring):
            if all(test(entry) for test in tests):
                key = Key(selection.prefix.bucket, entry.name)
                if arguments["--json"]:
                    write_json(key=str(key), bytes=entry.size, time=json_time(entry.mtime_ns))
                else:
                    sys.stdout.write(f"{key}\n")
    return 0


def criteria(sizes: Iterable[str], newer: str | None, older: str | None) -> list[Callable[[Entry], bool]]:
    """What find's options ask of an entry. Raises UsageError."""
    tests = [_size_test(text) for text in sizes]
    if newer is not None:
        since = moment("--newer", newer)
        tests.append(lambda entry: entry.mtime_ns >= since)
    if older is not None:
        until = moment("--older", older)
        tests.append(lambda entry: entry.mtime_ns < until)
    return tests


def _size_test(text: str) -> Callable[[Entry], bool]:
    limit = bytes_of(text.lstrip("+-"))
    if limit is None or len(text.lstrip("+-")) < len(text) - 1:
        raise UsageError(f"--size needs a size, as in +1M, -1K or 12, got {text!r}")
    if text.startswith("+"):
        return lambda entry: entry.size > limit
    if text.startswith("-"):
        return lambda entry: entry.size < limit
    return lambda entry: entry.size == limit


def moment(option: str, text: str) -> int:
    """A time as an option says it, an age or a date, in nanoseconds since 1970. Raises UsageError."""
    if match := _AGE.fullmatch(text):
        return int((time.time() - float(match[1]) * _SECONDS[match[2]]) * 1e9)
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} needs a time, as in 2h, 3d or 2026-01-31T12:00:00Z, got {text!r}") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1e9)


def du(arguments: Arguments) -> int:
    """Count bytes and keys."""
    text = arguments["PREFIX"]
    with arguments.ring() as ring:
        texts = [text] if text and text != SCHEME else [f"{SCHEME}{bucket.name}/" for bucket in ring.list(SCHEME)]
        for place in texts:
            for name, size, count in _sums(ring, place, arguments):
                if arguments["--json"]:
                    write_json(prefix=name, bytes=size, count=count)
                else:
                    shown = size_text(size, arguments["--humanize"])
                    sys.stdout.write(f"{shown} bytes in {count} keys: {name}\n")
    return 0


def _sums(ring: Ring, text: str, arguments: Arguments) -> Iterable[tuple[str, int, int]]:
    """The directories below, each after those that lie in it, and what ``text`` names as a whole. Raises NoSuchKey."""
    selection = below(ring, text, *arguments.filters())
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    total, count = 0, 0
    for entry in selection.entries(ring):
        total, count = total + entry.size, count + 1
        if arguments["--recursive"]:
            end = entry.name.find("/", len(selection.prefix.name))
            while end >= 0:
                found = sums[entry.name[: end + 1]]
                found[0], found[1] = found[0] + entry.size, found[1] + 1
                end = entry.name.find("/", end + 1)
    if not count:
        raise NoSuchKey(f"no keys below {text}")
    place = f"{SCHEME}{selection.prefix.bucket}/"
    order = sorted(sums, key=lambda name: [*name.split("/")[:-1], "\U0010ffff"])
    return [*((place + name, sums[name][0], sums[name][1]) for name in order), (text, total, count)]


VERBS: dict[str, Verb] = {"find": find, "du": du}
