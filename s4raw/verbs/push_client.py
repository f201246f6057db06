"""Verbs that ask the push daemon, and one that reads its logs: push status, list, retry, drop, flush, report."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from s4raw.arguments import Arguments, Verb
from s4raw.errors import PeerTimeout, ProtocolError, S4Error, Unreachable, UsageError
from s4raw.output import age, human, plain_time, write_json
from s4raw.verbs import queues

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
Try files again at once, also parked ones; without WHAT, all that are parked or wait. What is parked stays so while a
later file for its key is queued. Prints how many. Exit code 1 if one that is named is not queued, or stays parked.

Usage: s4raw push retry [options] [--] [WHAT]...

WHAT is an ID, as s4raw push list has them, or ALIAS/BUCKET/KEY: all files for that key.

Options:
  --json             print the result as a line of JSON
{_COMMON}""",
    "drop": f"""\
Take files out of the queue: they are not stored. What is in flight stays. Prints how many. Exit code 1 if one that is
named was not dropped.

Usage: s4raw push drop [options] [--] [WHAT]...

WHAT is an ID, as s4raw push list has them, or ALIAS/BUCKET/KEY: all files for that key.

Options:
  --failed           all of which an attempt has failed, parked or not, in place of WHAT
  --all              all that are queued
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
        lines["oldest"] = age(lines.pop("oldest seconds"))
    if "since" in lines:
        began = lines["since"]
        lines["since"] = f"{plain_time(int(began * 1e9))}, {age(time.time() - began)} ago"
    width = max(map(len, lines)) + 2
    for name, value in lines.items():
        sys.stdout.write(f"{name + ':':{width}}{value}\n")
    return 0


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
    numbers = f"{age(entry['age_seconds']):>7} {human(entry['size']):>10} {entry['attempts']:>4}"
    names = [each if each.isprintable() else repr(each) for each in (entry["to"], entry["file"])]
    error = " ".join((entry.get("error") or "").split())
    line = f"{entry['id']:>6} {entry['state']:9} {numbers}  {'  '.join(names)}  {error}"
    sys.stdout.write(line.rstrip() + "\n")


def retry(arguments: Arguments) -> int:
    """Try files again."""
    wanted = queues.to_retry(arguments, _place)
    with _daemon(arguments) as daemon:
        return queues.tell(arguments, "retry", _ask(daemon, **wanted))


def drop(arguments: Arguments) -> int:
    """Take files out of the queue."""
    wanted = queues.to_drop(arguments, _place)
    with _daemon(arguments) as daemon:
        return queues.tell(arguments, "drop", _ask(daemon, **wanted))


def flush(arguments: Arguments) -> int:
    """Wait until the queue is empty."""
    wait = queues.to_wait(arguments)
    with _daemon(arguments) as daemon:
        answer = _ask(daemon, wait and wait + ANSWER_SECONDS, do="flush", wait=wait)
        return queues.flushed(arguments, bool(answer["empty"]), daemon.where)


def _place(text: str) -> str:
    """A destination, as files were sent to it. Raises UsageError, BadKey."""
    from s4raw.push.protocol import parse_place

    parse_place(text)
    return text


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
