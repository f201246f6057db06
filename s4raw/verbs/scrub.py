"""The verb that looks for damage: scrub."""

from __future__ import annotations

import sys

from s4raw.arguments import COMMON, Arguments, Verb, bytes_of
from s4raw.errors import UsageError
from s4raw.keys import SCHEME, parse_prefix
from s4raw.output import write_json
from s4raw.progress import ProgressLine
from s4raw.scrub import scrub as scrub_all

USAGE = {
    "scrub": f"""\
Read every key that begins with PREFIX again, on every server at once, and name those that are damaged: exit code 1.

Usage: s4raw scrub [--rate BYTES] [-q] [--json] [-c FILE] [--] [PREFIX]

A key is damaged if its bytes do not match its digests (the block in question is told), if its record or its file
cannot be read, and if it lies on a server where nobody looks for it. Without PREFIX: all keys. Nothing is changed.

Options:
  --rate BYTES       how much each server reads in a second; K, M, G for KiB and so on, 0 for no limit [default: 100M]
  -q, --quiet        no progress line
  --json             print the findings, and at the end the result, as lines of JSON
{COMMON}""",
}


def scrub(arguments: Arguments) -> int:
    """Verify every key."""
    prefix = parse_prefix(arguments["PREFIX"] or SCHEME)
    rate = bytes_of(arguments["--rate"])
    if rate is None:
        raise UsageError(f"--rate needs a number of bytes, as in 100M, got {arguments['--rate']!r}")
    line = ProgressLine("scrub", "keys", arguments.shows_progress)
    damaged = []

    def found(server: str, key: str, message: str) -> None:
        damaged.append(key)
        line.close()
        if arguments["--json"]:
            write_json(verb="scrub", key=key, server=server, error=message)
        else:
            sys.stdout.write(f"damaged: {key} on {server}: {message}\n")
        sys.stdout.flush()

    with arguments.ring() as ring:
        try:
            count, size = scrub_all(ring.pool, prefix, rate, found, line.show)
        finally:
            line.close()
    if arguments["--json"]:
        write_json(verb="scrub", keys=count, bytes=size, damaged=len(damaged))
    if damaged:
        sys.stderr.write(f"s4raw: {len(damaged)} of {count} keys are damaged\n")
    return 1 if damaged else 0


VERBS: dict[str, Verb] = {"scrub": scrub}
