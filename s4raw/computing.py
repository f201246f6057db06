"""The compute verbs: what a session answers to EVAL, MAP, MAP_TO_N and MAP_FROM_N."""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping
from contextlib import closing

from s4raw import calls, compute, wire
from s4raw.compute import MapRequest
from s4raw.digest import Digest
from s4raw.errors import BadKey, Cancelled, ConnectionLost, ProtocolError
from s4raw.keys import Key, check_prefix
from s4raw.net import GONE
from s4raw.procs import Cancellation
from s4raw.session import PROGRESS_SECONDS, Session, Verb
from s4raw.wire import Frame

_SHAPES = {wire.MAP: calls.MAP, wire.MAP_TO_N: calls.MAP_TO_N, wire.MAP_FROM_N: calls.MAP_FROM_N}


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
    call = calls.MapCall(session.node, _map_request(frame), _SHAPES[frame.opcode])
    with closing(call):
        session.progress(frame, 0, call.total)
        _await_start(session, frame)
        call.start()
        try:
            _watch(session, call, frame)
        except ConnectionLost as error:
            call.cancellation.set(Cancelled(error.message))
        failure = call.join()
    if failure is None:
        session.ok(frame, count=call.done)
    else:
        session.report(frame, failure)


def _await_start(session: Session, frame: Frame) -> None:
    """Every server of the ring has its plan: the client says so."""
    start = session.channel.next_frame(session.service.idle_seconds)
    if start is None:
        raise ConnectionLost("the client left before the call started")
    if start.opcode != wire.START or start.request != frame.request:
        raise ProtocolError(f"expected START, got {wire.name_of(start.opcode)}")


def _watch(session: Session, call: calls.MapCall, frame: Frame) -> None:
    """Report progress until the call has finished. Raises ConnectionLost as soon as the client is gone."""
    poller = select.poll()
    poller.register(call.finished, select.POLLIN)
    poller.register(session.channel.fileno(), GONE)
    while True:
        ready = {fd for fd, _ in poller.poll(1000 * PROGRESS_SECONDS)}
        if call.finished in ready:
            return
        if ready:
            raise ConnectionLost("the client left")
        session.progress(frame, call.done, call.total)


def _seconds(frame: Frame) -> float:
    return frame.uint("timeout") / 1000


def _map_request(frame: Frame) -> MapRequest:
    inputs = Key(frame.text("bucket"), frame.text("key"))
    outputs = Key(frame.text("out_bucket"), frame.text("out_key"))
    for directory in (inputs, outputs):
        check_prefix(directory)
        if not directory.bucket or (directory.name and not directory.name.endswith("/")):
            raise BadKey(f"need a directory, as in s4://bucket/dir/, got {directory}")
    return MapRequest(inputs, frame.text("glob", ""), outputs, frame.text("command"), _seconds(frame))


VERBS: Mapping[int, Verb] = {wire.EVAL: evaluate, **dict.fromkeys(_SHAPES, run_map)}
