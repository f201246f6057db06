"""Verbs that copy content: cp, get, cat."""

from __future__ import annotations

import os
import sys

from s4raw import bulk
from s4raw.arguments import COMMON, FILTERS, GLOBS, Arguments, Verb
from s4raw.bodies import write_all
from s4raw.client import Ring
from s4raw.copying import STDIO, download_path, is_many, is_remote, plan_download, plan_upload, upload_key
from s4raw.errors import UsageError
from s4raw.files import writing
from s4raw.keys import Key, parse_key
from s4raw.output import write_json
from s4raw.progress import ProgressLine
from s4raw.selection import named

USAGE = {
    "cp": f"""\
Copy a file to a key or a key to a file; with -r a tree, over all servers at once; or all that matches a glob.

Usage: s4raw cp [-r] [--include GLOB]... [--exclude GLOB]... [--resume] [--connections N] [-q] [--json] [-c FILE]
                [--] SRC DST

One of SRC and DST is s4://bucket/key, the other a local path or - for stdin or stdout. A destination "dir/" takes the
source's name, and so does ".". "cp -r s4://b/dir/ ." makes ./dir/..., "cp -r s4://b/dir/ out/" makes out/...,
"cp -r foo s4://b/x" makes x/<paths below foo>. Keys are immutable: a key that exists is not replaced.

A copy that broke goes on with --resume where it stopped: what is there is compared by its digests, so two contents are
never mixed. A download's beginning stays in "NAME .part" then (trees go up without such files), an upload's for a day
at the server.

If SRC is a glob, DST is a directory: "cp 's4://b/x/*_1' out/" makes out/<paths below x/>.
{GLOBS}
Options:
  -r, --recursive    copy all files below a directory
{FILTERS}  --resume           go on with a copy of one file that broke, made with --resume too; for trees see sync
  --connections N    share one large file among so many connections (default: by its size, up to 4, and one
                     for each processor); not for trees
  -q, --quiet        no progress line
  --json             print a line of JSON for each file
{COMMON}""",
    "get": f"""\
Write a key, or a part of it, to a file or to stdout. (cat writes several keys, cp trees.)

Usage: s4raw get [--range RANGE] [-q] [-c FILE] [--] KEY [TARGET]

RANGE counts bytes from 0, as HTTP does: 0-99 are the first hundred, 100- is all but those, -100 are the last hundred.
The blocks that hold it are fetched and verified. Without TARGET, or with -, it goes to stdout: when the exit code is
not 0, what was written is to be thrown away.

Options:
  --range RANGE      FIRST-LAST, FIRST- or -COUNT (default: all)
  -q, --quiet        no progress line
{COMMON}""",
    "cat": f"""\
Write keys to stdout, one after the other, in the order of the arguments; what a glob matches in the order of the names.

Usage: s4raw cat [-c FILE] [--] KEY...

Every key is verified as it comes: when the exit code is not 0, what was written is to be thrown away.
{GLOBS}
Options:
{COMMON}""",
}

IN_MEMORY = 1 << 20  # bytes of a key that is verified before any of it is written


def cp(arguments: Arguments) -> int:
    """Copy to or from the ring."""
    source, target = arguments["SRC"], arguments["DST"]
    if is_remote(source) and is_remote(target):
        raise UsageError("both paths are remote: mv moves from key to key, cp copies to or from the ring")
    if not is_remote(source) and not is_remote(target):
        raise UsageError(f"one of the paths must begin with s4://, got {source!r} and {target!r}")
    with arguments.ring() as ring:
        if is_many(ring, source, arguments["--recursive"]):
            return _copy_tree(ring, source, target, arguments)
        if any(arguments.filters()):
            raise UsageError("--include and --exclude need a directory with -r, or a glob")
        if STDIO in (source, target):
            _refuse(arguments, "a copy to stdout or from stdin goes over one connection and cannot be resumed")
        return (_upload if is_remote(target) else _download)(ring, source, target, arguments)


def cat(arguments: Arguments) -> int:
    """Write keys to stdout."""
    write = write_all(1)
    sys.stdout.flush()
    with arguments.ring() as ring:
        for key, entry in list(named(ring, arguments["KEY"])):  # a listing that is not read on would be cut off
            if entry is not None and entry.size <= IN_MEMORY:
                write(memoryview(ring.get(key)))
            else:
                ring.get_stream(key, write)
    return 0


def _upload(ring: Ring, source: str, target: str, arguments: Arguments) -> int:
    if source == STDIO and not arguments.stdin_is_free:
        raise UsageError("stdin holds the lines of run, it cannot be copied; give run a file")
    key = upload_key(source, target)
    line = ProgressLine(f"cp to {key}", "bytes", arguments.shows_progress)
    if os.path.isfile(source):
        line.update(0, os.path.getsize(source))
    try:
        if source == STDIO:
            size = ring.put_stream(key, 0, line.add)
        else:
            size = ring.put_file(key, source, line.add, _connections(arguments), arguments["--resume"])
    finally:
        line.close()
    if arguments["--json"]:
        write_json(verb="cp", path=source, key=str(key), bytes=size)
    return 0


def _download(ring: Ring, source: str, target: str, arguments: Arguments) -> int:
    key = parse_key(source)
    path = target if target == STDIO else download_path(key, target)
    line = ProgressLine(f"cp from {key}", "bytes", arguments.shows_progress)
    if line.shown:
        line.update(0, ring.stat(key).size)
    try:
        if target == STDIO:
            size = ring.get_stream(key, write_all(1), line.add)
        else:
            size = ring.get_file(key, path, line.add, _connections(arguments), arguments["--resume"])
    finally:
        line.close()
    if arguments["--json"] and target != STDIO:
        write_json(verb="cp", key=str(key), path=path, bytes=size)
    return 0


def get(arguments: Arguments) -> int:
    """Write a key, or a part of it."""
    key, target = parse_key(arguments["KEY"]), arguments["TARGET"] or STDIO
    line = ProgressLine(f"get {key}", "bytes", arguments.shows_progress)
    with arguments.ring() as ring:
        offset, length = _range(ring, key, arguments["--range"])
        try:
            if target == STDIO:
                ring.get_stream(key, write_all(1), line.add, offset, length)
            else:
                with writing(download_path(key, target)) as fd:
                    ring.get_stream(key, write_all(fd), line.add, offset, length)
        finally:
            line.close()
    return 0


def _range(ring: Ring, key: Key, text: str | None) -> tuple[int, int | None]:
    """From which byte, and how many (None: all). Raises UsageError."""
    if text is None:
        return 0, None
    first, dash, last = text.partition("-")
    if not dash or not (first or last) or not all(part.isascii() and part.isdigit() for part in (first, last) if part):
        raise UsageError(f"--range needs FIRST-LAST, FIRST- or -COUNT in bytes, got {text!r}")
    if not first:
        size = ring.stat(key).size
        return max(0, size - int(last)), int(last)
    if last and int(last) < int(first):
        raise UsageError(f"--range ends before it begins: {text!r}")
    return int(first), int(last) - int(first) + 1 if last else None


def _copy_tree(ring: Ring, source: str, target: str, arguments: Arguments) -> int:
    upload = is_remote(target)
    _refuse(arguments, "trees and globs go over a connection to each server; sync copies what is missing of a tree")
    if STDIO in (source, target):
        raise UsageError("cp -r copies directories: - cannot be one of them")
    filters = arguments.filters()
    if upload:
        plan = list(plan_upload(source, target, *filters))
    else:
        plan = list(plan_download(ring, source, target, *filters))
    line = ProgressLine(f"cp {len(plan)} files", "bytes", arguments.shows_progress)
    line.update(0, sum(size for _, size in plan))

    def done(item: bulk.Item, size: int) -> None:
        line.add(size)
        if arguments["--json"]:
            write_json(verb="cp", path=str(item.file), key=str(item.key), bytes=size)

    try:
        bulk.transfer(ring, [item for item, _ in plan], done, upload)
    finally:
        line.close()
    return 0


def _refuse(arguments: Arguments, why: str) -> None:
    """Refuse what only a copy of one file can have. Raises UsageError."""
    if arguments["--resume"] or arguments["--connections"] is not None:
        raise UsageError(f"--resume and --connections are for one file: {why}")


def _connections(arguments: Arguments) -> int | None:
    return arguments.count("--connections", 0) or None


VERBS: dict[str, Verb] = {"cp": cp, "get": get, "cat": cat}
