"""The verb that calls many others: run."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence

from s4raw import verbs
from s4raw.arguments import COMMON, Arguments, Verb
from s4raw.client import Ring
from s4raw.errors import Interrupted, LocalFileError, S4Error, UsageError
from s4raw.output import write_error

USAGE = {
    "run": f"""\
Call many verbs, one a line, in one process and over kept connections: a line takes less than a millisecond.

Usage: s4raw run [-j N] [--fail-fast] [-c FILE] [--] FILE

FILE is - for stdin. Lines are verbs with their arguments, without "s4raw", quoted as in a shell; nothing is expanded
but the globs of the verbs. Empty lines, and those that begin with #, are passed over. A line that fails is named with
its number, the others go on, and the exit code is 1. server, local, run and completion are no lines.

Options:
  -j, --jobs N       so many lines at a time, in any order, their output mixed [default: 1]
  --fail-fast        begin no line after one has failed; exit with its exit code
{COMMON}""",
}

NOT_HERE = ("server", "local", "run", "completion", "s3 run")


class _Runner:
    """The lines of a file, taken by any number of threads."""

    def __init__(self, ring: Ring, name: str, lines: Iterator[str], jobs: int, fail_fast: bool) -> None:
        self.exit_code = 0
        self._ring = ring
        self._name = name
        self._lines = enumerate(lines, 1)
        self._jobs = jobs
        self._fail_fast = fail_fast
        self._lock = threading.Lock()
        self._broken: BaseException | None = None

    def run(self) -> None:
        """Call all lines; one at a time in this thread, more in threads of their own."""
        if self._jobs == 1:
            return self._work()
        threads = [threading.Thread(target=self._work_aside, daemon=True) for _ in range(self._jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._broken is not None:
            raise self._broken

    def _work_aside(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._broken = self._broken or error

    def _work(self) -> None:
        while (found := self._next()) is not None:
            number, line = found
            line = line.strip()
            if line and not line.startswith("#"):
                self._call(number, line)

    def _next(self) -> tuple[int, str] | None:
        with self._lock:
            if self._broken is not None or (self.exit_code and self._fail_fast):
                return None
            try:
                return next(self._lines, None)
            except OSError as error:
                raise LocalFileError(f"local file {self._name}: {error.strerror}") from None

    def _call(self, number: int, line: str) -> None:
        where = f"{self._name}:{number}: "
        try:
            words = split(line)
            if words[0] not in verbs.MODULES:
                raise UsageError(f"no such verb: {words[0]!r}")
            verb = " ".join(words[: 1 + (words[0] in verbs.FAMILIES)])
            if verb in NOT_HERE:
                raise UsageError(f"not in run: {verb!r}")
            code = verbs.call(words, self._prepare)
            if code:
                sys.stdout.flush()
                sys.stderr.write(f"s4raw: {where}{words[0]}: exit code {code}\n")
        except Interrupted:
            raise  # whoever interrupts a line means all of them
        except S4Error as error:
            code = error.exit_code
            write_error(error, where)
        sys.stdout.flush()  # in order with what verbs write to the descriptor
        if code:
            with self._lock:
                self.exit_code = self.exit_code or (code if self._fail_fast else 1)

    def _prepare(self, arguments: Arguments) -> None:
        arguments.shared = self._ring
        arguments.stdin_is_free = self._name != "-"
        arguments.alone = self._jobs == 1


def split(line: str) -> Sequence[str]:
    """A line's words, quoted as in a shell. Raises UsageError."""
    if not any(character in line for character in "'\"\\"):
        return line.split()  # 20 times as fast
    import shlex

    try:
        return shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{str(error).lower()}: {line}") from None


def run(arguments: Arguments) -> int:
    """Call many verbs."""
    name = arguments["FILE"]
    try:
        file = open(0 if name == "-" else name, encoding="utf-8", errors="surrogateescape", closefd=name != "-")
    except OSError as error:
        raise LocalFileError(f"local file {name}: {error.strerror}") from None
    jobs, fail_fast = arguments.count("--jobs", 1), arguments["--fail-fast"]
    with file, arguments.ring() as ring:
        runner = _Runner(ring, name, iter(file.readline, ""), jobs, fail_fast)
        runner.run()
    return runner.exit_code


VERBS: dict[str, Verb] = {"run": run}
