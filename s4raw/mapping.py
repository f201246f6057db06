"""The client's part of map calls: the same request to every server, one start, one end; and calls by their id."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from s4raw import events, wire
from s4raw.connection import DEFAULT_TIMEOUT, Connection, Pool, Progress, Status, milliseconds, no_progress
from s4raw.digest import digest, verify
from s4raw.errors import CallFailed, ConnectionLost, NoSuchCall, PeerTimeout, ProtocolError, S4Error, UsageError
from s4raw.events import Event
from s4raw.fanout import ask_all, everywhere
from s4raw.keys import Key, parse_directory, parse_glob
from s4raw.record import NamedTuple
from s4raw.wire import Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_RETRIES = 1000
CANCEL_SECONDS, CANCEL_POLL_SECONDS = 30.0, 0.1
VERBS = {"map": wire.MAP, "map-to-n": wire.MAP_TO_N, "map-from-n": wire.MAP_FROM_N}
RUNNING = "running"  # the state of a call that has not ended
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"  # in the order of their bytes; none looks like another
_EPOCH = 1_600_000_000
_LOST = (ConnectionLost, PeerTimeout)


def no_event(_event: Event) -> None:
    """Nobody wants to know."""


class Options(NamedTuple):
    """How to make a map call.

    ``timeout`` is how many seconds one command may take. A command that fails is tried again ``retries`` times.
    ``keep_going`` finishes the other keys after a failure; ``resume`` skips what an earlier call has done; ``dry_run``
    only tells what would be run. At most ``jobs`` commands run at once on each server (0: as many as it allows). The
    call is known as ``id``, which is made up if empty. ``progress`` is told a few times a second how far it is;
    ``event`` of each Attempt (or, in a dry run, each Planned) in turn, from several threads but never at once; without
    ``all_events`` only of the failures that ``keep_going`` passes over.
    """

    timeout: float = DEFAULT_TIMEOUT
    retries: int = 0
    keep_going: bool = False
    resume: bool = False
    dry_run: bool = False
    jobs: int = 0
    id: str = ""
    progress: Progress = no_progress
    event: Callable[[Event], None] = no_event
    all_events: bool = True


class Summary(NamedTuple):
    """How a call has ended: the commands that were run and succeeded, and the keys that needed none (``resume``)."""

    id: str
    commands: int
    skipped: int


def new_id() -> str:
    """The id of a new call: nine digits and letters, six for the second and three at random; later ones sort later."""
    number = (int(time.time()) - _EPOCH) << 15 | int.from_bytes(os.urandom(2), "big") & 0x7FFF
    return "".join(_DIGITS[number >> shift & 31] for shift in range(40, -1, -5))


def run(pool: Pool, verb: str, inputs: str, outputs: str, command: str, options: Options) -> Summary:
    """Make a map call (``map``, ``map-to-n`` or ``map-from-n``) at all servers. Raises what ``Ring.map`` does."""
    source, glob = parse_glob(inputs)
    target = parse_directory(outputs)
    _check(options, source, target)
    everything = options.all_events and options.event is not no_event
    chosen = (options.keep_going, wire.KEEP_GOING), (options.resume, wire.RESUME), (options.dry_run, wire.DRY_RUN)
    flags = sum(flag for wanted, flag in (*chosen, (everything, wire.EVENTS)) if wanted)
    call = _Call(pool, options._replace(id=options.id or new_id()))
    fields = {"bucket": source.bucket, "key": source.name, "glob": glob, "command": command}
    fields |= {"out_bucket": target.bucket, "out_key": target.name, "id": call.options.id}
    numbers = {"timeout": milliseconds(options.timeout), "retries": options.retries, "jobs": options.jobs}
    try:
        return call.make(lambda c: c.send(VERBS[verb], **fields, **numbers, options=flags))
    except S4Error as error:
        error.at(call=call.options.id)
        raise


def _check(options: Options, source: Key, target: Key) -> None:
    if not 0 <= options.retries <= MAX_RETRIES:
        raise UsageError(f"retries are a number from 0 to {MAX_RETRIES}, got {options.retries}")
    if options.jobs < 0:
        raise UsageError(f"jobs are a number of commands, got {options.jobs}")
    if options.resume and source.bucket == target.bucket and target.name.startswith(source.name):
        raise UsageError(f"a call cannot be resumed whose outputs ({target}) lie below its inputs ({source})")


class _Call:
    """A call at all servers of the ring."""

    def __init__(self, pool: Pool, options: Options) -> None:
        self.options = options
        self._pool = pool
        self._lock = threading.Lock()
        self._planned = threading.Barrier(len(pool.topology.servers))
        self._lost: list[str] = []

    def make(self, send: Callable[[Connection], int]) -> Summary:
        """Make the call; ``send`` sends its request. Raises CallFailed when not all of it was done."""

        def part(connection: Connection, report: Progress) -> tuple[int, int, int]:
            return self._part(connection, send(connection), report)

        parts = everywhere(self._pool, self.options.progress, part, self._planned.abort)
        done, skipped, failed = map(sum, zip(*parts, strict=True))
        problems = [f"{failed} of {done + failed} commands failed"] if failed else []
        if problems or self._lost:
            raise CallFailed("; ".join([*problems, *self._lost]))
        return Summary(self.options.id, done, skipped)

    def _part(self, connection: Connection, request: int, report: Progress) -> tuple[int, int, int]:
        """What one server does of it: commands done, keys skipped, commands that failed."""
        status = Status(0, 0, planning=True)
        while status.planning:
            status = connection.status(connection.expect(connection.receive_any(request), wire.PROGRESS))
            report(status)
        if not self.options.dry_run:
            self._planned.wait()  # no server starts before every one has listed its inputs: none sees another's outputs
            connection.channel.send(wire.encode(wire.START, request))
        latest = status

        def keep(status: Status) -> None:
            nonlocal latest
            latest = status
            report(status)

        try:
            frame = self._follow(connection, request, keep)
        except _LOST as error:
            if error.server not in ("", connection.server):  # our server has told of another one
                raise
            left = latest.total - latest.done - latest.failed
            error.message = f"lost contact: {error.message}; {left} of its {latest.total} keys were not confirmed"
            if not self.options.keep_going:
                raise
            self._lost.append(f"{connection.server}: {error.message}")
            connection.channel.hang_up()
            return latest.done, 0, latest.failed
        return frame.uint("count"), frame.uint("skipped", 0), frame.uint("failed", 0)

    def _follow(self, connection: Connection, request: int, report: Progress) -> Frame:
        """Pass on what a server tells until its OK."""
        while True:
            frame = connection.receive_any(request)
            if frame.opcode == wire.PROGRESS:
                report(connection.status(frame))
            elif frame.opcode == wire.DATA:
                told = list(events.decode(_body(connection, frame)))
                with self._lock:
                    for event in told:
                        self.options.event(event)
            else:
                return connection.expect(frame, wire.OK)


def _body(connection: Connection, frame: Frame) -> bytes:
    """A small body, verified. Raises Corrupt."""
    body = bytearray(frame.body_length)
    connection.channel.read_into(memoryview(body))
    verify("what came", digest(body), frame.blob("digest"), server=connection.server)
    return bytes(body)


def jobs(pool: Pool) -> Iterator[tuple[str, Sequence[dict[str, Any]] | S4Error]]:
    """What each server knows of map calls, running and recent, as in its ``_jobs`` directory; or why it did not say."""
    import json

    def ask(connection: Connection) -> list[dict[str, Any]]:
        body = _body(connection, connection.call(wire.JOBS))
        try:
            return [dict(json.loads(line)) for line in body.splitlines()]
        except (ValueError, TypeError, RecursionError):
            raise ProtocolError("a list of jobs cannot be read", server=connection.server) from None

    return ask_all(pool, ask)


def cancel(pool: Pool, name: str, by: str) -> None:
    """End a map call on every server that runs a part of it, and wait until it has ended.

    Raises NoSuchCall, PeerTimeout when it takes longer than CANCEL_SECONDS, and the error of a server that is silent.
    """
    states = _ask_to_end(pool, name, by)
    if RUNNING not in states:
        ended = sorted(states - {""})
        raise NoSuchCall(f"the call has ended already ({', '.join(ended)})" if ended else "no such call", call=name)
    deadline = time.monotonic() + CANCEL_SECONDS
    while RUNNING in _ask_to_end(pool, name, by):
        if time.monotonic() > deadline:
            raise PeerTimeout(f"the call was told to end, and has not after {CANCEL_SECONDS:g} s", call=name)
        time.sleep(CANCEL_POLL_SECONDS)


def _ask_to_end(pool: Pool, name: str, by: str) -> set[str]:
    """What the call was at each server when it was told to end."""
    states: set[str] = set()
    silent: S4Error | None = None
    for _, answer in ask_all(pool, lambda connection: connection.call(wire.CANCEL, id=name, by=by).text("state")):
        if isinstance(answer, S4Error):
            silent = silent or answer
        else:
            states.add(answer)
    if silent is not None:
        raise silent
    return states
