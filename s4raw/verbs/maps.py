"""Map calls: map, map-to-n, map-from-n."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from s4raw.arguments import COMMON, Arguments, Verb
from s4raw.errors import Interrupted, LocalFileError
from s4raw.events import Attempt, Event, Planned
from s4raw.mapping import Options, Summary, new_id
from s4raw.output import write_json
from s4raw.progress import ProgressLine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

TERMINATED = 143
CUT = 20  # lines of a failed command's stderr that are listed

_OPTIONS = """\
[--jobs N] [--retries N] [--keep-going] [--resume] [--dry-run]
                 [--timeout SECONDS] [--joblog FILE] [-q] [--json] [-c FILE] [--] INDIR OUTDIR CMD"""

COMPUTE = f"""\
CMD runs as bash -c with set -eou pipefail and LC_ALL=C, in a temporary directory of its own that goes with it, on the
server that holds the data. The first failure ends the call everywhere, unless it is to keep going. "s4raw jobs" shows
the call by its id, "s4raw cancel ID" ends it, and so does Ctrl-C.

Options:
  --jobs N           at most so many commands at once on each server (default: as many as the server allows)
  --retries N        a command that fails is run again, up to N times, in a clean directory
  --keep-going       finish the rest after a failure; list every failure at the end, exit with 1
  --resume           RESUMED
  --dry-run          run nothing; print where each command would run, its input keys and its output
  --timeout SECONDS  how long one command may take (default: $S4_TIMEOUT, or 300)
  --joblog FILE      write a line of JSON for each command that has ended, each attempt its own: key, server, attempt,
                     start, seconds, cpu_seconds, peak_bytes, exit_code, bytes_in, bytes_out, error
  --json             print the result as a line of JSON
  -q, --quiet        no progress line
{COMMON}"""

_BY_EXISTENCE = """\
skip the keys whose output exists, whatever made it; --joblog appends then. OUTDIR may not lie
                     below INDIR"""
_BY_CONTENT = """\
go on with a call that was cut off. CMD is run again for every key, as it alone knows its
                     outputs; those that exist must have the content that it makes, so it must be deterministic.
                     The --joblog is appended to. OUTDIR may not lie below INDIR"""

USAGE = {
    "map": f"""\
1:1. Run CMD over every key below INDIR: the key is its stdin, its stdout becomes the key of the same path below OUTDIR.

Usage: s4raw map {_OPTIONS}

INDIR is searched recursively and may end in a glob (s4://b/in/*_1). $filename is the key's basename. Input and output
lie on the same server: nothing crosses the network.

{COMPUTE.replace("RESUMED", _BY_EXISTENCE)}""",
    "map-to-n": f"""\
1:n, the shuffle. Run CMD over every key below INDIR: the key is its stdin; it writes files and prints their paths. They
become OUTDIR/<input basename>/<file basename>, each on its own server.

Usage: s4raw map-to-n {_OPTIONS}

INDIR is searched recursively and may end in a glob. $filename is the key's basename. Zero files are fine.

{COMPUTE.replace("RESUMED", _BY_CONTENT)}""",
    "map-from-n": f"""\
n:1, the merge. Keys below INDIR are grouped by numeric prefix, or name. CMD gets the paths of a group on stdin, a line
each; its stdout becomes OUTDIR/<prefix>, plus the _suffix that all inputs share. Each server merges what it holds.

Usage: s4raw map-from-n {_OPTIONS}

INDIR is searched recursively and may end in a glob.

{COMPUTE.replace("RESUMED", _BY_EXISTENCE)}""",
}


def _mapper(verb: str) -> Verb:
    def run(arguments: Arguments) -> int:
        name, started = new_id(), time.monotonic()
        places = arguments["INDIR"], arguments["OUTDIR"], arguments["CMD"]
        with ExitStack() as stack:
            line = ProgressLine(f"{name} {verb}", "keys", arguments.shows_progress)
            stack.callback(line.close)
            events = _Events(name, arguments, line, stack)
            options = _options(name, arguments, line, events)
            ring = stack.enter_context(arguments.ring())
            summary = _interruptible(lambda: ring.call(verb, *places, options=options), name, line)
        if arguments["--json"] and not options.dry_run:
            seconds = round(time.monotonic() - started, 6)
            commands = {"commands": summary.commands, "skipped": summary.skipped, "seconds": seconds}
            write_json(verb=verb, id=name, indir=places[0], outdir=places[1], **commands)
        return 0

    return run


def _options(name: str, arguments: Arguments, line: ProgressLine, events: _Events) -> Options:
    chosen = Options(
        timeout=arguments.timeout(),
        retries=0 if arguments["--retries"] == "0" else arguments.count("--retries", 0),
        keep_going=arguments["--keep-going"],
        resume=arguments["--resume"],
        dry_run=arguments["--dry-run"],
        jobs=arguments.count("--jobs", 0),
        id=name,
        progress=line.show,
    )
    wanted = chosen.dry_run or chosen.keep_going or arguments["--joblog"]
    return chosen._replace(event=events.take, all_events=bool(arguments["--joblog"])) if wanted else chosen


def _interruptible(call: Callable[[], Summary], name: str, line: ProgressLine) -> Summary:
    """Make a call; Ctrl-C and SIGTERM end it everywhere. Raises Interrupted then, which says how far it was."""
    import signal
    import threading

    exit_code = Interrupted.exit_code

    def terminate(*_: object) -> None:
        nonlocal exit_code
        exit_code = TERMINATED
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return call()  # one of several lines of run, which signals do not reach
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        return call()
    except KeyboardInterrupt:
        error = Interrupted(f"interrupted: {line.done} of {line.total} keys were done", call=name)
        error.exit_code = exit_code
        raise error from None
    finally:
        signal.signal(signal.SIGTERM, before)


class _Events:
    """What is done with the events of a call: a log of all, a list of failures for its end, the lines of a dry run."""

    def __init__(self, name: str, arguments: Arguments, line: ProgressLine, stack: ExitStack) -> None:
        self._name = name
        self._line = line
        self._listing = arguments["--keep-going"]
        self._json = arguments["--json"]
        self._log: IO[str] | None = None
        self._failures: IO[str] | None = None
        self._stack = stack
        path = arguments["--joblog"]
        if path and not arguments["--dry-run"]:
            try:
                self._log = stack.enter_context(
                    open(path, "a" if arguments["--resume"] else "w", encoding="utf-8", buffering=1)
                )
            except OSError as error:
                raise LocalFileError(f"local file {path}: {error.strerror}") from None

    def take(self, event: Event) -> None:
        """A command has ended, or would be run."""
        if isinstance(event, Planned):
            return self._plan(event)
        if self._log is not None:
            import json

            fields = event._asdict()
            del fields["stderr"], fields["final"]
            try:
                self._log.write(json.dumps({"call": self._name, **fields}, ensure_ascii=False) + "\n")
            except OSError as error:
                raise LocalFileError(f"local file {self._log.name}: {error.strerror}") from None
        if self._listing and event.error and event.final:
            self._fail(event)

    def _plan(self, event: Planned) -> None:
        if self._json:
            write_json(**event._asdict())
        else:
            sys.stdout.write(f"{event.server} {' '.join(event.inputs)} -> {event.output}\n")

    def _fail(self, event: Attempt) -> None:
        """Keep a failure in a file until the end: there may be any number of them."""
        if self._failures is None:
            import tempfile

            self._failures = self._stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8"))
            self._stack.callback(self._list)
        for text in event.stderr.splitlines()[-CUT:]:
            self._failures.write(f"  {text}\n")
        self._failures.write(f"s4raw: {event.error}\n")

    def _list(self) -> None:
        import shutil

        assert self._failures is not None
        self._line.close()
        self._failures.seek(0)
        shutil.copyfileobj(self._failures, sys.stderr)


VERBS: dict[str, Verb] = {verb: _mapper(verb) for verb in USAGE}
