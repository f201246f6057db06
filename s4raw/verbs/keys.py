"""Verbs about keys as such: ls, rm."""

from __future__ import annotations

import sys

from s4raw.arguments import COMMON, Arguments, Verb
from s4raw.errors import UsageError
from s4raw.keys import SCHEME, Entry, parse_key, parse_prefix
from s4raw.output import json_time, plain_time, write_json
from s4raw.progress import ProgressLine

USAGE = {
    "ls": f"""\
List keys: DATE TIMEZ SIZE NAME a line, "  PRE name/" for a directory. Nothing found: exit code 1.

Usage: s4raw ls [-r] [--json] [-c FILE] [--] [PREFIX]

Without PREFIX: the buckets. s4://bucket/dir/ lists the directory, s4://bucket/dir/pre what begins so.

Options:
  -r, --recursive    all keys below, by their whole name
  --json             print a line of JSON for each entry
{COMMON}""",
    "rm": f"""\
Delete a key, or with -r every key that begins with PREFIX, on every server.

Usage: s4raw rm [-r] [-q] [--json] [-c FILE] [--] PREFIX

Options:
  -r, --recursive    everything under the prefix; finding nothing is fine
  -q, --quiet        no progress line
  --json             print the result as a line of JSON
{COMMON}""",
}


def ls(arguments: Arguments) -> int:
    """List keys or buckets."""
    text = arguments["PREFIX"] or SCHEME
    prefix, recursive = parse_prefix(text), arguments["--recursive"]
    if recursive and not prefix.bucket:
        raise UsageError("ls -r needs a bucket, as in s4://bucket/")
    buckets = not recursive and "/" not in text.removeprefix(SCHEME)
    found = False
    with arguments.ring() as ring:
        listing = ring.list(SCHEME if buckets else prefix, recursive)
        cut = 0 if buckets or recursive else prefix.name.rfind("/") + 1
        for entry in listing:
            if buckets and not entry.name.startswith(prefix.bucket):
                continue
            found = True
            if arguments["--json"]:
                _json_entry(entry, prefix.bucket, buckets)
            else:
                sys.stdout.write(_line(entry, cut))
    sys.stdout.flush()
    return 0 if found else 1


def _line(entry: Entry, cut: int) -> str:
    if entry.is_prefix:
        return f"  PRE {entry.name[cut:]}\n"
    return f"{plain_time(entry.mtime_ns)} {entry.size} {entry.name[cut:]}\n"


def _json_entry(entry: Entry, bucket: str, buckets: bool) -> None:
    if buckets:
        write_json(bucket=entry.name, time=json_time(entry.mtime_ns))
    elif entry.is_prefix:
        write_json(prefix=f"s4://{bucket}/{entry.name}")
    else:
        write_json(key=f"s4://{bucket}/{entry.name}", bytes=entry.size, time=json_time(entry.mtime_ns))


def rm(arguments: Arguments) -> int:
    """Delete a key, or everything under a prefix."""
    with arguments.ring() as ring:
        if not arguments["--recursive"]:
            ring.remove(parse_key(arguments["PREFIX"]))
            count = 1
        else:
            line = ProgressLine("rm", "keys", not arguments["--quiet"])
            try:
                count = ring.remove_all(parse_prefix(arguments["PREFIX"]), line.show)
            finally:
                line.close()
    if arguments["--json"]:
        write_json(verb="rm", prefix=arguments["PREFIX"], count=count)
    return 0


VERBS: dict[str, Verb] = {"ls": ls, "rm": rm}
