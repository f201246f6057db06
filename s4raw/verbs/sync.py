"""The verb that makes two places alike: sync."""

from __future__ import annotations

import os
import sys

from s4raw import syncing
from s4raw.arguments import COMMON, FILTERS, Arguments, Verb
from s4raw.copying import STDIO, is_remote
from s4raw.errors import LocalFileError, UsageError
from s4raw.keys import parse_directory
from s4raw.output import write_json
from s4raw.selection import keeper
from s4raw.syncing import DELETE_FILE, DOWNLOAD, UPLOAD, Step

USAGE = {
    "sync": f"""\
Make the keys below a prefix like the files below a directory, or the other way round: SRC stays as it is.

Usage: s4raw sync [--delete] [--dry-run] [--include GLOB]... [--exclude GLOB]... [-q] [--json] [-c FILE] [--] SRC DST

One of SRC and DST is s4://bucket/dir/, the other a local directory. What has the same size and the same digest is left
alone. Keys are immutable: one that differs from its file is deleted and put again, and is missing in between; before
that, the whole file is read once. Deletions come last: a local directory in the way of a file, or a file in that of a
directory, is an error, and stays. What the filters leave out is neither copied nor deleted, nor is "NAME .part", the
beginning of a copy. Below directories that are symlinks nothing is deleted.

Options:
  --delete           delete what is in DST but not in SRC
  --dry-run          only say what would be done
{FILTERS}  -q, --quiet        do not say what is done
  --json             print a line of JSON for each step
{COMMON}""",
}


def sync(arguments: Arguments) -> int:
    """Make two places alike."""
    source, target = arguments["SRC"], arguments["DST"]
    if is_remote(source) == is_remote(target) or STDIO in (source, target):
        raise UsageError(f"need a directory and a prefix, s4://bucket/dir/, got {source!r} and {target!r}")
    keep, delete = keeper(*arguments.filters()), arguments["--delete"]

    def tell(step: Step) -> None:
        _tell(step, arguments)

    with arguments.ring() as ring:
        if is_remote(source):
            steps = syncing.plan_down(ring, parse_directory(source), target, keep, delete)
        else:
            if not os.path.isdir(source):
                raise LocalFileError(f"{source} is no directory")
            steps = syncing.plan_up(ring, source, parse_directory(target), keep, delete)
        if arguments["--dry-run"]:
            for step in steps:
                tell(step)
        else:
            syncing.carry_out(ring, steps, tell)
    return 0


def _tell(step: Step, arguments: Arguments) -> None:
    dry, key = arguments["--dry-run"], str(step.key)
    places = {UPLOAD: [step.path, key], DOWNLOAD: [key, step.path], DELETE_FILE: [step.path]}.get(step.action, [key])
    action = step.action.partition(" ")[0]
    if arguments["--json"]:
        named = dict(zip(("source", "target"), places, strict=False)) if len(places) > 1 else {"target": places[0]}
        write_json(verb="sync", action=action, **named, bytes=step.size, dryrun=dry)
    elif not arguments["--quiet"]:
        sys.stdout.write(f"{'(dryrun) ' * dry}{action}: {' to '.join(places)}\n")


VERBS: dict[str, Verb] = {"sync": sync}
