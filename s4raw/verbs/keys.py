"""Verbs about keys as such: ls, stat, rm."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from s4raw.arguments import COMMON, FILTERS, GLOBS, Arguments, Verb
from s4raw.client import Ring
from s4raw.errors import NoSuchKey, UsageError
from s4raw.keys import SCHEME, Entry, is_glob, parse_key, parse_prefix
from s4raw.output import json_time, plain_time, size_text, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from s4raw.progress import ProgressLine

USAGE = {
    "ls": f"""\
List keys: DATE TIMEZ SIZE NAME a line, "  PRE name/" for a directory. Nothing found: exit code 1.

Usage: s4raw ls [-rH] [--include GLOB]... [--exclude GLOB]... [--json] [-c FILE] [--] [PREFIX]

Without PREFIX: the buckets. s4://bucket/dir/ lists the directory, s4://bucket/dir/pre what begins so,
's4://bucket/dir/*_1' what matches below dir/, as -r does.
{GLOBS}
Options:
  -r, --recursive    all keys below, by their whole name
  -H, --humanize     sizes in KiB, MiB, GiB
{FILTERS}  --json             print a line of JSON for each entry
{COMMON}""",
    "stat": f"""\
Show what is known of keys: size, time, digest, server, and the path of the file there.

Usage: s4raw stat [--json] [-c FILE] [--] KEY...

The digest is the xxh3_128, of more than 1 MiB the root of a tree of them. KEY may be a glob. A key that is missing
fails it, after those before it have been shown.
{GLOBS}
Options:
  --json             print a line of JSON for each key
{COMMON}""",
    "rm": f"""\
Delete a key, what matches a glob, or with -r every key that begins with PREFIX, on every server.

Usage: s4raw rm [-r] [--include GLOB]... [--exclude GLOB]... [-q] [--json] [-c FILE] [--] PREFIX

The globs of --include and --exclude are matched with the path below the directory, as in cp -r: with them, PREFIX is a
bucket, a glob, or ends in /. A glob that matches nothing is an error.
{GLOBS}
Options:
  -r, --recursive    everything under the prefix; finding nothing is fine, if it is no glob
{FILTERS}  -q, --quiet        no progress line
  --json             print the result as a line of JSON
{COMMON}""",
}


def ls(arguments: Arguments) -> int:
    """List keys or buckets."""
    text = arguments["PREFIX"] or SCHEME
    found = False
    with arguments.ring() as ring:
        for entry, name, whole in _listed(ring, text, arguments):
            found = True
            if arguments["--json"]:
                _json_entry(entry, whole)
            else:
                sys.stdout.write(_line(entry, name, arguments["--humanize"]))
    sys.stdout.flush()
    return 0 if found else 1


def _listed(ring: Ring, text: str, arguments: Arguments) -> Iterable[tuple[Entry, str, str]]:
    """What ``ls`` shows: each entry, its name in the line, its whole name."""
    recursive, filtered = arguments["--recursive"], any(arguments.filters())
    if filtered or is_glob(text):
        from s4raw.selection import below, has_glob

        if recursive or has_glob(ring, text):
            selection = below(ring, text, *arguments.filters())
            bucket = selection.prefix.bucket
            return ((entry, entry.name, f"{SCHEME}{bucket}/{entry.name}") for entry in selection.entries(ring))
        if filtered:
            raise UsageError("--include and --exclude need -r, or a glob")
    prefix = parse_prefix(text)
    if recursive and not prefix.bucket:
        raise UsageError("ls -r needs a bucket, as in s4://bucket/")
    if not recursive and "/" not in text.removeprefix(SCHEME):
        buckets = ring.list(SCHEME)
        return ((entry, entry.name, "") for entry in buckets if entry.name.startswith(prefix.bucket))
    cut = 0 if recursive else prefix.name.rfind("/") + 1
    place = f"{SCHEME}{prefix.bucket}/"
    return ((entry, entry.name[cut:], place + entry.name) for entry in ring.list(prefix, recursive))


def _line(entry: Entry, name: str, humanize: bool) -> str:
    if entry.is_prefix:
        return f"  PRE {name}\n"
    return f"{plain_time(entry.mtime_ns)} {size_text(entry.size, humanize)} {name}\n"


def _json_entry(entry: Entry, whole: str) -> None:
    if not whole:
        write_json(bucket=entry.name, time=json_time(entry.mtime_ns))
    elif entry.is_prefix:
        write_json(prefix=whole)
    else:
        write_json(key=whole, bytes=entry.size, time=json_time(entry.mtime_ns))


def stat(arguments: Arguments) -> int:
    """Show what is known of keys."""
    from s4raw.pipeline import stat_all
    from s4raw.selection import named

    with arguments.ring() as ring:
        keys = [key for key, _ in named(ring, arguments["KEY"])]
        found = stat_all(ring.pool, keys)
        for number, key in enumerate(keys):
            if key not in found:
                raise NoSuchKey("no such key", key=str(key), server=ring.topology.place(key))
            status = found[key]
            shown = {"size": status.size, "time": plain_time(status.mtime_ns), "digest": status.digest.hex()}
            shown |= {"server": status.server, "path": status.path}
            if arguments["--json"]:
                shown |= {"bytes": shown.pop("size"), "time": json_time(status.mtime_ns)}
                write_json(key=str(key), **shown)
            else:
                lines = [f"{f'{name}:':8}{value}\n" for name, value in {"key": key, **shown}.items()]
                sys.stdout.write("\n" * (number > 0) + "".join(lines))
    return 0


def rm(arguments: Arguments) -> int:
    """Delete a key, what matches, or everything under a prefix."""
    from s4raw.progress import ProgressLine

    with arguments.ring() as ring:
        line = ProgressLine("rm", "keys", arguments.shows_progress)
        try:
            count = _remove(ring, arguments, line)
        finally:
            line.close()
    if arguments["--json"]:
        write_json(verb="rm", prefix=arguments["PREFIX"], count=count)
    return 0


def _remove(ring: Ring, arguments: Arguments, line: ProgressLine) -> int:
    text, recursive, filtered = arguments["PREFIX"], arguments["--recursive"], any(arguments.filters())
    if filtered or is_glob(text):
        from s4raw.pipeline import remove_all
        from s4raw.selection import below, has_glob

        glob = has_glob(ring, text)
        if filtered and not (recursive or glob):
            raise UsageError("--include and --exclude need -r, or a glob")
        if filtered or glob:
            keys = list(below(ring, text, *arguments.filters()).keys(ring))
            if not keys and glob:
                raise NoSuchKey(f"no key matches {text}")
            line.update(0, len(keys))
            remove_all(ring.pool, keys, lambda _key: line.add(1))
            return len(keys)
    if recursive:
        return ring.remove_all(parse_prefix(text), line.show)
    ring.remove(parse_key(text))
    return 1


VERBS: dict[str, Verb] = {"ls": ls, "stat": stat, "rm": rm}
