"""The compute verbs: what a session answers to EVAL, MAP, MAP_TO_N, MAP_FROM_N, JOBS and CANCEL."""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from itertools import islice

from s4raw import calls, compute, events, jobs, wire
from s4raw.compute import MapRequest
from s4raw.digest import Digest, digest
from s4raw.errors import BadKey, Cancelled, ConnectionLost, PeerTimeout, ProtocolError, S4Error
from s4raw.events import Event
from s4raw.keys import Key, check_prefix
from s4raw.net import GONE
from s4raw.plans import SHAPES
from s4raw.procs import Cancellation
from s4raw.session import PROGRESS_SECONDS, Session, Verb
from s4raw.wire import Frame

MAX_TOLD = 256  # events in one frame
_MAPS = {wire.MAP: "map", wire.MAP_TO_N: "map-to-n", wire.MAP_FROM_N: "map-from-n"}


def evaluate(session: Session, frame: Frame) -> None:
    """EVAL: run a command with a key as stdin; its output is streamed, its exit code comes with END."""
    state, size = Digest(), 0

    def sink(flags: int) -> Callable[[bytes], None]:
        def send(data: bytes) -> None:
            nonlocal size
            state.update(data)
            size += len(data)
            session.channel.send(wire.encode(wire.DATA, frame.request, flags, len(data)), data)

        return send

    def tick() -> None:
        if session.channel.gone():
            raise ConnectionLost("the client left")
        session.progress(frame, 0, 0)

    with closing(Cancellation()) as cancellation:
        key, command, seconds = session.key(frame), frame.text("command"), _seconds(frame)
        sinks = (sink(0), sink(wire.STDERR))
        caller = session.channel.fileno()
        status = compute.evaluate(session.node, key, command, seconds, cancellation, sinks, tick, caller)
    session.channel.send(wire.encode(wire.END, frame.request, size=size, digest=state.digest(), status=status))


def run_map(session: Session, frame: Frame) -> None:
    """MAP, MAP_TO_N, MAP_FROM_N: run a command over the keys of this server that lie below a directory."""
    request = _map_request(frame)
    with closing(calls.MapCall(session.node, request, SHAPES[request.verb])) as call:
        if request.options & wire.DRY_RUN:
            _rehearse(session, frame, call)
        else:
            _Course(session, frame, call, request).run()


def _rehearse(session: Session, frame: Frame, call: calls.MapCall) -> None:
    """Tell what would be run."""
    session.progress(frame, 0, call.plan(_signs_of_life(session, frame)))
    planned, count = call.rehearse(), 0
    while share := list(islice(planned, MAX_TOLD)):
        _tell(session, frame, share)
        count += len(share)
    session.ok(frame, count=count)


def _tell(session: Session, frame: Frame, told: Sequence[Event]) -> None:
    body = events.encode(told)
    session.channel.send(wire.encode(wire.DATA, frame.request, 0, len(body), digest=digest(body)), body)


def _signs_of_life(session: Session, frame: Frame) -> Callable[[int], None]:
    """Tells the client how many inputs have been found. Raises ConnectionLost, Cancelled when nobody wants them."""
    latest, name = time.monotonic(), frame.text("id")

    def tick(count: int) -> None:
        nonlocal latest
        now = time.monotonic()
        if now - latest >= PROGRESS_SECONDS:
            latest = now
            if session.channel.gone():
                raise ConnectionLost("the client left")
            if by := session.node.jobs.cancelled(name):
                raise Cancelled(f"cancelled by {by}")
            session.progress(frame, 0, count, planning=1)

    return tick


class _Course:
    """A map call from its request to its answer, and in the job file that tells of it."""

    def __init__(self, session: Session, frame: Frame, call: calls.MapCall, request: MapRequest) -> None:
        self._session = session
        self._frame = frame
        self._call = call
        self._jobs = session.node.jobs
        self._job = jobs.Job(
            request.id, request.verb, session.node.me, session.channel.peer, f"{request.inputs}{request.glob}",
            str(request.outputs), request.command, jobs.now(), os.getpid(),
        )  # fmt: skip

    def run(self) -> None:
        """Plan, start, watch, answer."""
        self._jobs.begin(self._job)
        failure: S4Error | None = Cancelled("the server failed")
        try:
            failure = self._run()
        except ConnectionLost as error:
            failure = Cancelled(error.message)
            raise
        except S4Error as error:
            failure = error
            raise
        finally:
            self._call.cancellation.set(failure or Cancelled("the call has ended"))
            self._call.close()  # whoever is told that it has ended finds nothing of it
            self._end(failure)
        if failure is None:
            counts = self._call.counts()
            done = counts.done - counts.skipped
            self._session.ok(self._frame, count=done, skipped=counts.skipped, failed=counts.failed)
        else:
            self._session.report(self._frame, failure)

    def _run(self) -> S4Error | None:
        total = self._call.plan(_signs_of_life(self._session, self._frame))
        self._update(self._call.counts())
        self._session.progress(self._frame, 0, total)
        if by := self._await_start():
            return Cancelled(f"cancelled by {by}")
        self._call.start()
        self._watch()
        failure = self._call.join()
        self._tell()
        return failure

    def _await_start(self) -> str | None:
        """Wait until every server of the ring has its plan: the client says so. Who has cancelled the call, if any."""
        deadline = time.monotonic() + self._session.service.idle_seconds
        while not self._session.channel.readable(PROGRESS_SECONDS):
            if by := self._jobs.cancelled(self._job.id):
                return by
            if time.monotonic() > deadline:
                raise PeerTimeout("the client did not start the call")
        start = self._session.channel.next_frame(self._session.service.idle_seconds)
        if start is None:
            raise ConnectionLost("the client left before the call started")
        if start.opcode != wire.START or start.request != self._frame.request:
            raise ProtocolError(f"expected START, got {wire.name_of(start.opcode)}")
        return None

    def _watch(self) -> None:
        """Report progress until the call has ended. Raises ConnectionLost as soon as the client is gone."""
        client, call = self._session.channel.fileno(), self._call
        poller = select.poll()
        poller.register(call.news, select.POLLIN)
        poller.register(client, GONE)
        told = time.monotonic()
        while not call.ended:
            ready = {fd for fd, _ in poller.poll(1000 * max(0.0, told + PROGRESS_SECONDS - time.monotonic()))}
            if client in ready:
                raise ConnectionLost("the client left")
            if call.news in ready:
                os.eventfd_read(call.news)
                self._tell()
            if time.monotonic() >= told + PROGRESS_SECONDS:
                told = time.monotonic()
                self._report()

    def _report(self) -> None:
        """Say how far the call is, to the client and in the job file; and end it if somebody wants that."""
        if by := self._jobs.cancelled(self._job.id):
            self._call.cancellation.set(Cancelled(f"cancelled by {by}"))
        self._tell()
        counts, slowest = self._call.counts(), self._call.slowest()
        more: dict[str, wire.Value] = {"key": slowest[0], "elapsed": int(slowest[1] * 1e6)} if slowest else {}
        self._session.progress(self._frame, counts.done, counts.total, failed=counts.failed, **more)
        self._update(counts)

    def _tell(self) -> None:
        told = self._call.take_events()
        for at in range(0, len(told), MAX_TOLD):
            _tell(self._session, self._frame, told[at : at + MAX_TOLD])

    def _update(self, counts: calls.Counts) -> None:
        self._job = self._job._replace(**counts._asdict())
        self._jobs.update(self._job)

    def _end(self, failure: S4Error | None) -> None:
        counts = self._call.counts()
        state = jobs.FAILED if failure or counts.failed else jobs.DONE
        if isinstance(failure, Cancelled):
            state = jobs.CANCELLED
        message = str(failure) if failure else ""
        self._jobs.end(self._job._replace(**counts._asdict(), state=state, message=message))


def list_jobs(session: Session, frame: Frame) -> None:
    """JOBS: what is known of map calls, running and recent, as lines of JSON."""
    body = "".join(json.dumps(job._asdict()) + "\n" for job in session.node.jobs.list()).encode()
    session.channel.send(wire.encode(wire.OK, frame.request, 0, len(body), digest=digest(body)), body)


def cancel(session: Session, frame: Frame) -> None:
    """CANCEL: end a map call, in whichever process it runs; the answer is its state, empty for one not known here."""
    by = frame.text("by", "") or session.channel.peer
    session.ok(frame, state=session.node.jobs.cancel(frame.text("id"), by))


def _seconds(frame: Frame) -> float:
    return frame.uint("timeout") / 1000


def _map_request(frame: Frame) -> MapRequest:
    inputs = Key(frame.text("bucket"), frame.text("key"))
    outputs = Key(frame.text("out_bucket"), frame.text("out_key"))
    for directory in (inputs, outputs):
        check_prefix(directory)
        if not directory.bucket or (directory.name and not directory.name.endswith("/")):
            raise BadKey(f"need a directory, as in s4://bucket/dir/, got {directory}")
    numbers = (frame.uint(name, 0) for name in ("retries", "jobs", "options"))
    command, verb = frame.text("command"), _MAPS[frame.opcode]
    return MapRequest(
        jobs.check_id(frame.text("id")),
        verb,
        inputs,
        frame.text("glob", ""),
        outputs,
        command,
        _seconds(frame),
        *numbers,
    )


VERBS: Mapping[int, Verb] = {
    wire.EVAL: evaluate,
    **dict.fromkeys(_MAPS, run_map),
    wire.JOBS: list_jobs,
    wire.CANCEL: cancel,
}
