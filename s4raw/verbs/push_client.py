"""Verbs that ask the push daemon, and one that reads its logs: push status, list, retry, drop, flush, report."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from s4raw.arguments import Arguments, Verb
from s4raw.errors import PeerTimeout, ProtocolError, S4Error, Unreachable, UsageError
from s4raw.output import human, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from s4raw.send import Connection

ANSWER_SECONDS = 60.0
PAGE = 1000

_COMMON = """\
  --socket PATH      the daemon's Unix socket (default: $S3DAEMON_SOCKET, or none: it is at $S3DAEMON_HOST and
                     $S3DAEMON_PORT, localhost and 15555 if they are not set)
  -h, --help         show this text
"""

USAGE = {
    "status": f"""\
Show how much is queued, since when, and what was done. Exit code 1 if there is no daemon.

Usage: s4raw push status [options]

Options:
  --json             print a line of JSON
{_COMMON}""",
    "list": f"""\
List what is queued, oldest first, a line each: id, state, age, size, attempts, destination, file, last error.

Usage: s4raw push list [options]

A file is queued, in flight, waiting (after an attempt that failed), or parked: not tried again unless you say so. A
later file for its key passes what is parked, which is dropped once that is stored.

Options:
  --parked           only what is parked
  --json             print a line of JSON for each
{_COMMON}""",
    "retry": f"""\
Try files again at once, also parked ones; without ID, all that are parked or wait. What is parked stays so while a
later file for its key is queued.

Usage: s4raw push retry [options] [--] [ID]...

Options:
  --json             print the result as a line of JSON
{_COMMON}""",
    "drop": f"""\
Take files out of the queue: they are not stored. What is in flight stays. Exit code 1 if an ID was not dropped.

Usage: s4raw push drop [options] [--] [ID]...

Options:
  --all              all that are queued, in place of IDs
  --json             print the result as a line of JSON
{_COMMON}""",
    "flush": f"""\
Try all that waits at once, and wait until all has been stored but what is parked. Exit code 1 if that took too long.

Usage: s4raw push flush [options]

Options:
  --wait SECONDS     wait so long at most (default: as long as it takes)
  --json             print the result as a line of JSON
{_COMMON}""",
    "report": """\
Say how long uploads took, by host and overall, from logs of the daemon or of s3daemon, compressed by gzip or not.

Usage: s4raw push report [options] [--] LOG...

The host is in the log's name: all through the first part between dashes that has a letter and ends in a digit, so that
of lsstcam-dc01-20250213.log it is lsstcam-dc01. Without such a part it is the name without .log. The rate is files a
second from the first start to the last end; percentiles are times that did occur.

Options:
  --requirement S    count what took longer than S seconds (default: 7)
  --host-pattern REGEX  search this in the whole path: its first group, or all of it, is the host
  --png DIR          draw histograms, HOST.png and all.png, into DIR; needs matplotlib, the extra s4raw[report]
  --json             print a line of JSON for each
  -h, --help         show this text
""",
}


@contextmanager
def _daemon(arguments: Arguments) -> Iterator[Connection]:
    """A connection to the daemon. Raises Unreachable, and what goes wrong with the connection as S4Error."""
    from s4raw.send import Connection, SendError

    try:
        connection = Connection(arguments["--socket"])
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise Unreachable(f"{error}; is it running? s4raw push run starts it") from None
    try:
        with connection:
            yield connection
    except SendError as error:
        raise ProtocolError(str(error)) from None
    except TimeoutError as error:
        raise PeerTimeout(str(error)) from None
    except ConnectionError as error:
        raise Unreachable(str(error)) from None


def _ask(daemon: Connection, seconds: float | None = ANSWER_SECONDS, /, **what: object) -> dict[str, Any]:
    """The daemon's answer to ``{"do": ...}``. Raises S4Error with its words if it did not do it; OSError, SendError."""
    answer = daemon.request(what, seconds)
    if answer.pop("ok", None) is not True:
        raise S4Error(str(answer.get("error") or "it did not say why it failed"), server=daemon.where)
    return answer


def status(arguments: Arguments) -> int:
    """Show how the daemon is."""
    with _daemon(arguments) as daemon:
        found, where = _ask(daemon, do="status"), daemon.where
    if arguments["--json"]:
        write_json(address=where, **found)
        return 0
    lines = {"address": where, **{name.replace("_", " "): value for name, value in found.items()}}
    if "size" in lines:
        lines["size"] = human(lines["size"])
    if "oldest seconds" in lines:
        lines["oldest"] = _age(lines.pop("oldest seconds"))
    width = max(map(len, lines)) + 2
    for name, value in lines.items():
        sys.stdout.write(f"{name + ':':{width}}{value}\n")
    return 0


def _age(seconds: float | None) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds is not None and seconds >= length:
            return f"{seconds / length:.1f}{unit}"
    return "-" if seconds is None else f"{max(seconds, 0):.1f}s"


def list_entries(arguments: Arguments) -> int:
    """List what is queued."""
    parked = True if arguments["--parked"] else None
    after, more = 0, True
    with _daemon(arguments) as daemon:
        while more:
            answer = _ask(daemon, do="list", after=after, limit=PAGE, parked=parked)
            for entry in answer["entries"]:
                after = entry["id"]
                if arguments["--json"]:
                    write_json(**entry)
                else:
                    _print_entry(entry)
            more = answer["more"] and answer["entries"]
    return 0


def _print_entry(entry: dict[str, Any]) -> None:
    numbers = f"{_age(entry['age_seconds']):>7} {human(entry['size']):>10} {entry['attempts']:>4}"
    names = [each if each.isprintable() else repr(each) for each in (entry["to"], entry["file"])]
    error = " ".join((entry.get("error") or "").split())
    line = f"{entry['id']:>6} {entry['state']:9} {numbers}  {'  '.join(names)}  {error}"
    sys.stdout.write(line.rstrip() + "\n")


def retry(arguments: Arguments) -> int:
    """Try files again."""
    ids = _ids(arguments) or None
    with _daemon(arguments) as daemon:
        count = _ask(daemon, do="retry", ids=ids)["count"]
    _say(arguments, "retry", count)
    return 0


def drop(arguments: Arguments) -> int:
    """Take files out of the queue."""
    ids = _ids(arguments)
    if bool(ids) == bool(arguments["--all"]):
        raise UsageError("drop needs IDs, as s4raw push list has them, or --all; not both")
    with _daemon(arguments) as daemon:
        answer = _ask(daemon, do="drop", ids=ids) if ids else _ask(daemon, do="drop", all=True)
    _say(arguments, "drop", answer["count"])
    if answer["count"] < len(set(ids)):
        sys.stderr.write(f"s4raw: {len(set(ids)) - answer['count']} of them are not in the queue, or in flight\n")
        return 1
    return 0


def flush(arguments: Arguments) -> int:
    """Wait until the queue is empty."""
    wait = arguments.number("--wait", 0.0) or None
    with _daemon(arguments) as daemon:
        empty = _ask(daemon, wait and wait + ANSWER_SECONDS, do="flush", wait=wait)["empty"]
        where = daemon.where
    if arguments["--json"]:
        write_json(verb="flush", empty=empty)
    if not empty:
        raise PeerTimeout(f"the queue is not empty after {arguments['--wait']} s; it goes on", server=where)
    return 0


def _ids(arguments: Arguments) -> list[int]:
    for text in arguments["ID"]:
        if not (text.isascii() and text.isdigit()):
            raise UsageError(f"an ID is a whole number, as s4raw push list has them; got {text!r}")
    return [int(text) for text in arguments["ID"]]


def _say(arguments: Arguments, verb: str, count: int) -> None:
    if arguments["--json"]:
        write_json(verb=verb, count=count)
    else:
        sys.stdout.write(f"{count}\n")


def report(arguments: Arguments) -> int:
    """Say how long uploads took."""
    from dataclasses import asdict

    from s4raw.push import pictures
    from s4raw.push import report as reports

    try:
        pattern = re.compile(arguments["--host-pattern"]) if arguments["--host-pattern"] else None
    except re.error as error:
        raise UsageError(f"--host-pattern is no regular expression: {error}") from None
    requirement = arguments.number("--requirement", reports.REQUIREMENT_SECONDS)
    hosts = dict(sorted(reports.read(arguments["LOG"], pattern).items()))
    if pictures.OVERALL in hosts:
        hosts[f"host {pictures.OVERALL}"] = hosts.pop(pictures.OVERALL)
    hosts[pictures.OVERALL] = reports.overall(hosts)
    summaries = [reports.summary(host, times, requirement) for host, times in hosts.items()]
    if arguments["--json"]:
        for each in summaries:
            write_json(**asdict(each), requirement=requirement)
    else:
        sys.stdout.writelines(f"{line}\n" for line in reports.table(summaries, requirement))
    if arguments["--png"] is not None:
        for each in summaries:
            pictures.draw(arguments["--png"], each, hosts[each.host].seconds, requirement)
    sys.stdout.flush()
    if unreadable := summaries[-1].unreadable:
        sys.stderr.write(f"s4raw: {unreadable} lines say nothing of an upload\n")
    return 0


VERBS: dict[str, Verb] = {
    "status": status,
    "list": list_entries,
    "retry": retry,
    "drop": drop,
    "flush": flush,
    "report": report,
}
