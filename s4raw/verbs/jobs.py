"""Map calls by their id: jobs, cancel."""

from __future__ import annotations

import os
import sys
import time

from s4raw.arguments import COMMON, Arguments, Verb
from s4raw.errors import NoSuchCall, S4Error
from s4raw.output import json_time, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Job = dict[str, Any]

COLUMNS = ("ID", "VERB", "STATE", "SERVER", "DONE", "FAILED", "RATE", "AGE", "COMMAND")
COMMAND_WIDTH = 40

USAGE = {
    "jobs": f"""\
List map calls, running and recent, a line for each server's part: how far it is, at what rate, since when.

Usage: s4raw jobs [--json] [-c FILE] [--] [ID]

A call is running, done, failed, cancelled, or lost: its server ended before it did. Each server remembers the last 100
that have ended. With ID, that call alone, and exit code 1 if no server knows it.

Options:
  --json             print a line of JSON for each
{COMMON}""",
    "cancel": f"""\
End a map call on every server, whoever started it, and wait for its end. Its own client says by whom it was, and fails.
What had finished stays.

Usage: s4raw cancel [--json] [-c FILE] [--] ID

ID is what the progress line begins with, and what "s4raw jobs" lists. A call that does not run is an error.

Options:
  --json             print the result as a line of JSON
{COMMON}""",
}


def jobs(arguments: Arguments) -> int:
    """List calls."""
    name, found, silent = arguments["ID"], [], []
    with arguments.ring() as ring:
        for _, answer in ring.jobs():
            if isinstance(answer, S4Error):
                silent.append(answer)
            else:
                found += [job for job in answer if name in (None, job["id"])]
    found.sort(key=lambda job: (job["id"], job["server"]))
    if arguments["--json"]:
        for job in found:
            write_json(**{**job, "started": _stamp(job["started"]), "updated": _stamp(job["updated"])})
    elif found:
        _print_table([COLUMNS, *map(_row, found)])
    for error in silent:
        sys.stderr.write(f"s4raw: {error}\n")
    if name and not found and not silent:
        raise NoSuchCall("no such call", call=name)
    return 1 if silent else 0


def _stamp(seconds: float) -> str:
    return json_time(int(seconds * 1e9))


def _row(job: Job) -> tuple[str, ...]:
    end = time.time() if job["state"] == "running" else job["updated"]
    seconds = max(end - job["started"], 0.001)
    run = job["done"] - job["skipped"]
    command = " ".join(job["command"].split())
    if len(command) > COMMAND_WIDTH:
        command = command[: COMMAND_WIDTH - 3] + "..."
    counts = f"{job['done']}/{job['total']}", str(job["failed"]), f"{run / seconds:.1f}/s"
    return job["id"], job["verb"], job["state"], job["server"], *counts, _age(time.time() - job["started"]), command


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def cancel(arguments: Arguments) -> int:
    """End a call."""
    who = os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid {os.getuid()}"
    with arguments.ring() as ring:
        ring.cancel(arguments["ID"], f"{who} at {os.uname().nodename}")
    if arguments["--json"]:
        write_json(verb="cancel", id=arguments["ID"])
    return 0


VERBS: dict[str, Verb] = {"jobs": jobs, "cancel": cancel}
