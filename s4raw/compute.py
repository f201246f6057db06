"""Running commands over the keys of this server: one for eval, and one of a map call; ``calls`` runs many of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from s4raw import bulk
from s4raw.errors import CommandFailed, CommandTimeout
from s4raw.keys import Key
from s4raw.nearby import Nearby
from s4raw.node import Node
from s4raw.procs import Cancellation, Command, Outcome, Sink, run
from s4raw.store import Store
from s4raw.tasks import Task

TICK_KEYS = 256

Tick = Callable[[int], None]


@dataclass(frozen=True)
class MapRequest:
    """What a map call asks for: inputs below ``inputs`` that match ``glob``, outputs below ``outputs``.

    ``seconds`` bounds one command, ``retries`` how often it is tried again; ``jobs`` how many run at once (0: no bound
    of its own); ``options`` are the flags of the wire.
    """

    id: str
    verb: str
    inputs: Key
    glob: str
    outputs: Key
    command: str
    seconds: float
    retries: int = 0
    jobs: int = 0
    options: int = 0

    def keys(self, store: Store, tick: Tick) -> Iterator[Key]:
        """The inputs that this server holds, in key order. ``tick`` is told now and then how many there were."""
        count = 0
        for seen, name in enumerate(store.names(self.inputs), 1):
            if not self.glob or fnmatchcase(name[len(self.inputs.name) :], self.glob):
                count += 1
                yield Key(self.inputs.bucket, name)
            if not seen % TICK_KEYS:
                tick(count)


def evaluate(
    node: Node,
    key: Key,
    command: str,
    seconds: float,
    cancellation: Cancellation,
    sinks: tuple[Sink, Sink],
    tick: Callable[[], None],
    caller: int,
) -> int:
    """Run a command with the key as stdin, its stdout and stderr go to ``sinks``. Returns its exit code.

    ``tick`` is called every few seconds, and when the peer of the socket ``caller`` leaves, and may raise. Raises
    NoSuchKey, Corrupt, CommandTimeout.
    """
    stdin = node.store.open(node.check_place(key)).fd  # not verified: a glance at a large key must not read all of it
    os.set_blocking(stdin, True)
    try:
        with node.cpu.take(tick), node.store.data.scratch() as scratch:
            cwd = scratch.path
            to_run = Command(command, cwd, node.command_environment(key, cwd), seconds, stdin, None)
            outcome = run(to_run, cancellation, on_stdout=sinks[0], on_stderr=sinks[1], tick=tick, caller=caller)
    finally:
        os.close(stdin)
    if outcome.timed_out:
        raise _timeout(outcome, key, seconds)
    return outcome.status


def run_task(
    node: Node,
    task: Task,
    request: MapRequest,
    cancellation: Cancellation,
    cwd: str,
    again: bool,
    nearby: Nearby,
    ended: Callable[[Outcome], None],
) -> Sequence[bulk.Item]:
    """Run one command of a map call in the empty directory ``cwd``, and publish what it made here.

    Returns the files that are still to be sent to other servers; ``again`` and ``nearby`` are for ``Task.finish``.
    ``ended`` is told how the command has ended. Raises CommandFailed, KeyExists, DiskFull and others.
    """
    with task.stdout() as stdout:
        stdin = task.stdin()
        try:
            environment = node.command_environment(task.key, cwd)
            outcome = run(Command(request.command, cwd, environment, request.seconds, stdin, stdout), cancellation)
        finally:
            os.close(stdin)
        ended(outcome)
        if outcome.timed_out:
            raise _timeout(outcome, task.key, request.seconds)
        if outcome.status:
            message = f"the command exited with {outcome.status}"
            raise CommandFailed(message, key=str(task.key), detail=outcome.stderr, status=outcome.status)
        cancellation.check()
        return task.finish(stdout, cwd, again, nearby)


def _timeout(outcome: Outcome, key: Key, seconds: float) -> CommandTimeout:
    message = f"the command was killed: it took longer than {seconds:g} s (see --timeout and $S4_TIMEOUT)"
    return CommandTimeout(message, key=str(key), detail=outcome.stderr, status=124)
