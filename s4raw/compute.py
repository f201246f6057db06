"""Data-local compute: eval, map, map-to-n and map-from-n over the keys of this server.

Here is what one command gets and what becomes of its output; ``calls`` runs many of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

from s4raw import bulk
from s4raw.client import Ring
from s4raw.disk import JOB_VARIABLE, disk_errors
from s4raw.errors import BadKey, CommandFailed, CommandTimeout, KeyExists, StoreError, WrongServer
from s4raw.fanout import Fanout
from s4raw.handshake import SECRET_VARIABLE
from s4raw.keys import Key, check_key, check_speakable
from s4raw.log import Log
from s4raw.procs import Cancellation, Command, Outcome, Sink, Slots, run
from s4raw.ring import CONF_VARIABLE
from s4raw.store import Store
from s4raw.uploads import Uploads

MAX_PATH_LINES = 64 << 20  # bytes of paths that one map-to-n command may print


@dataclass
class Node:
    """This server: its store, its place in the ring, its CPU slots, and a client for the rest of the ring."""

    store: Store
    ring: Ring
    me: str
    cpu: Slots
    log: Log
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.uploads = Uploads(self.store)
        self.environment = {
            **os.environ,
            "LC_ALL": "C",
            CONF_VARIABLE: os.path.abspath(self.ring.topology.source),
            JOB_VARIABLE: self.store.data.path,
        }
        if SECRET_VARIABLE in os.environ:
            self.environment[SECRET_VARIABLE] = os.path.abspath(os.environ[SECRET_VARIABLE])

    def command_environment(self, key: Key, cwd: str) -> dict[str, str]:
        """A command's environment: ours, the ring's conf, ``$filename``, and ``cwd`` for temporary files."""
        return {**self.environment, "filename": key.basename, "TMPDIR": cwd}

    def owns(self, key: Key) -> bool:
        """Whether the key is placed on this server."""
        return self.ring.topology.place(key) == self.me

    def check_place(self, key: Key) -> Key:
        """Raise WrongServer for a key that is placed elsewhere."""
        place = self.ring.topology.place(key)
        if place != self.me:
            raise WrongServer(f"the key belongs on {place}", key=str(key), server=self.me)
        return key


@dataclass(frozen=True)
class MapRequest:
    """What a map call asks for: inputs below ``inputs`` that match ``glob``, outputs below ``outputs``."""

    inputs: Key
    glob: str
    outputs: Key
    command: str
    seconds: float

    def keys(self, store: Store) -> Iterator[Key]:
        """The inputs that this server holds, in key order."""
        for entry in store.list(self.inputs, recursive=True):
            if not self.glob or fnmatchcase(entry.name[len(self.inputs.name) :], self.glob):
                yield Key(self.inputs.bucket, entry.name)


class Task(Protocol):
    """One command of a map call."""

    key: Key

    def stdin(self) -> int:
        """A descriptor for the command to read."""

    def finish(self, stdout: int, cwd: str, cancellation: Cancellation) -> None:
        """Publish what the command wrote."""


@dataclass
class MapTask:
    """1:1. The key is stdin; stdout becomes the output."""

    node: Node
    key: Key
    output: Key

    def stdin(self) -> int:
        """The key's file itself."""
        _refuse_existing(self.node, self.output)
        return _open_stdin(self.node, self.key)

    def finish(self, stdout: int, cwd: str, cancellation: Cancellation) -> None:
        """Publish stdout."""
        self.node.store.publish_file(stdout, self.node.check_place(self.output))


@dataclass
class MapToNTask:
    """1:n. The key is stdin; the files whose paths are printed go to their servers."""

    node: Node
    key: Key
    output: Key

    def stdin(self) -> int:
        """The key's file itself."""
        return _open_stdin(self.node, self.key)

    def finish(self, stdout: int, cwd: str, cancellation: Cancellation) -> None:
        """Ship the printed files that belong elsewhere, publish the others; none before all are known to be there."""
        outputs: dict[Key, str] = {}
        for path in _printed_paths(stdout, self.key):
            key, real = self._output_key(path), _output_path(path, cwd, self.key)
            if key in outputs:
                message = f"the command printed two paths for one key, {key.basename!r}"
                raise CommandFailed(message, key=str(self.key), status=1)
            outputs[key] = real
        remote = [bulk.Item(key, path) for key, path in outputs.items() if not self.node.owns(key)]
        fanout = Fanout(self.node.ring.pool)
        with cancellation.calling(fanout.cut):
            bulk.put_all(self.node.ring, fanout, remote, cancellation.check)
        for key, path in outputs.items():
            if self.node.owns(key):
                _publish_output(self.node.store, path, key)

    def _output_key(self, path: str) -> Key:
        try:
            return check_key(self.output.join(check_speakable(os.path.basename(path))))
        except BadKey as error:
            message = f"the command printed a path whose name cannot be a key: {error.message}"
            raise CommandFailed(message, key=str(self.key), status=1) from None


@dataclass
class MapFromNTask:
    """n:1. The paths of the keys are stdin; stdout becomes the output."""

    node: Node
    key: Key  # the output, which names the task
    inputs: list[Key]

    def stdin(self) -> int:
        """An unnamed file that lists the inputs' paths, a line each."""
        _refuse_existing(self.node, self.key)
        with disk_errors(self.key), tempfile.TemporaryFile(dir=self.node.store.data.tmp_path) as file:
            for key in self.inputs:
                os.close(_open_stdin(self.node, key))
                file.write(os.fsencode(self.node.store.path(key)) + b"\n")
            file.flush()
            file.seek(0)
            return os.dup(file.fileno())

    def finish(self, stdout: int, cwd: str, cancellation: Cancellation) -> None:
        """Publish stdout."""
        self.node.store.publish_file(stdout, self.node.check_place(self.key))


def _open_stdin(node: Node, key: Key) -> int:
    """A key's file to read, verified: a command must not turn a damaged key into one with a good digest."""
    fd = node.store.open_verified(node.check_place(key)).fd
    os.set_blocking(fd, True)
    return fd


def _refuse_existing(node: Node, key: Key) -> None:
    if node.store.exists(key):
        raise KeyExists("key already exists", key=str(key))


def _printed_paths(stdout: int, key: Key) -> list[str]:
    with disk_errors(key):
        size = os.fstat(stdout).st_size
        if size > MAX_PATH_LINES:
            raise StoreError(
                f"the command printed {size} bytes of paths, at most {MAX_PATH_LINES} are taken", key=str(key)
            )
        text = os.pread(stdout, size, 0)
    return [os.fsdecode(line) for line in text.split(b"\n") if line]


def _output_path(path: str, cwd: str, key: Key) -> str:
    """The path of a file that a command printed. Raises CommandFailed unless it is a regular file inside ``cwd``."""
    real = os.path.realpath(os.path.join(cwd, path))
    if not real.startswith(cwd + os.sep):
        raise CommandFailed(f"the command printed a path outside its directory: {path!r}", key=str(key), status=1)
    if not os.path.isfile(real):
        raise CommandFailed(f"the command printed a path that is no file: {path!r}", key=str(key), status=1)
    return real


def _publish_output(store: Store, path: str, key: Key) -> None:
    """Publish a command's file: by linking it, which copies nothing, unless it has another name to write to it by."""
    with ExitStack() as stack:
        with disk_errors(key):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            if os.fstat(fd).st_nlink > 1:
                draft, offset = stack.enter_context(store.draft()), 0
                while count := os.sendfile(draft, fd, offset, 1 << 30):
                    offset += count
                fd = draft
            os.fchmod(fd, 0o644)
        store.publish_file(fd, key)


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


def run_task(node: Node, task: Task, request: MapRequest, cancellation: Cancellation, cwd: str) -> None:
    """Run one command of a map call in the empty directory ``cwd``, and publish what it made.

    Raises CommandFailed, KeyExists, DiskFull and others.
    """
    with node.store.draft() as stdout:
        stdin = task.stdin()
        try:
            environment = node.command_environment(task.key, cwd)
            outcome = run(Command(request.command, cwd, environment, request.seconds, stdin, stdout), cancellation)
        finally:
            os.close(stdin)
        if outcome.timed_out:
            raise _timeout(outcome, task.key, request.seconds)
        if outcome.status:
            message = f"the command exited with {outcome.status}"
            raise CommandFailed(message, key=str(task.key), detail=outcome.stderr, status=outcome.status)
        task.finish(stdout, cwd, cancellation)


def _timeout(outcome: Outcome, key: Key, seconds: float) -> CommandTimeout:
    message = f"the command was killed: it took longer than {seconds:g} s (see --timeout and $S4_TIMEOUT)"
    return CommandTimeout(message, key=str(key), detail=outcome.stderr, status=124)
