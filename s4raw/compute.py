"""Data-local compute: eval, map, map-to-n and map-from-n over the keys of this server.

Here is what one command gets and what becomes of its output; ``calls`` runs many of them.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

from s4raw import bulk
from s4raw.client import Ring
from s4raw.digest import digest_file
from s4raw.disk import JOB_VARIABLE, disk_errors
from s4raw.errors import BadKey, CommandFailed, CommandTimeout, KeyExists, StoreError, WrongServer
from s4raw.handshake import SECRET_VARIABLE
from s4raw.jobs import Jobs
from s4raw.keys import Key, check_key, check_speakable
from s4raw.log import Log
from s4raw.procs import Cancellation, Command, Outcome, Sink, Slots, run
from s4raw.ring import CONF_VARIABLE
from s4raw.store import Record, Store

MAX_PATH_LINES = 64 << 20  # bytes of paths that one map-to-n command may print
TICK_KEYS = 256

Tick = Callable[[int], None]


@dataclass
class Node:
    """This server: its store, its place in the ring, its CPU slots and calls, and a client for the others."""

    store: Store
    ring: Ring
    me: str
    cpu: Slots
    log: Log
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.store.data.path)
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
        if not self.owns(key):
            place = self.ring.topology.place(key)
            raise WrongServer(f"the key belongs on {place}", key=str(key), server=self.me)
        return key


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
        for name in store.names(self.inputs):
            if not self.glob or fnmatchcase(name[len(self.inputs.name) :], self.glob):
                count += 1
                yield Key(self.inputs.bucket, name)
            if not count % TICK_KEYS:
                tick(count)


class Task(Protocol):
    """One command of a map call. ``bytes_in`` and ``bytes_out`` are what it was given and what was published of it."""

    key: Key
    bytes_in: int
    bytes_out: int

    def inputs(self) -> Sequence[Key]:
        """The keys that it reads."""

    def output(self) -> str:
        """The key that it makes, or what its keys begin with."""

    def is_done(self) -> bool:
        """Whether an earlier call has made its output."""

    def stdin(self) -> int:
        """A descriptor for the command to read."""

    def finish(self, stdout: int, cwd: str, again: bool) -> Sequence[bulk.Item]:
        """Publish what the command wrote; returns the files that are to be sent to other servers.

        ``again`` says that an earlier attempt may have published some of it.
        """


@dataclass
class MapTask:
    """1:1. The key is stdin; stdout becomes the output."""

    node: Node
    key: Key
    target: Key
    bytes_in: int = 0
    bytes_out: int = 0

    def inputs(self) -> Sequence[Key]:
        """The key."""
        return [self.key]

    def output(self) -> str:
        """The key that it becomes."""
        return str(self.target)

    def is_done(self) -> bool:
        """Whether the output is there."""
        return self.node.store.exists(self.target)

    def stdin(self) -> int:
        """The key's file itself."""
        _refuse_existing(self.node, self.target)
        fd, self.bytes_in = _open_stdin(self.node, self.key)
        return fd

    def finish(self, stdout: int, cwd: str, again: bool) -> Sequence[bulk.Item]:
        """Publish stdout."""
        self.bytes_out = self.node.store.publish_file(stdout, self.node.check_place(self.target)).size
        return ()


@dataclass
class MapToNTask:
    """1:n. The key is stdin; the files whose paths are printed go to their servers."""

    node: Node
    key: Key
    target: Key
    bytes_in: int = 0
    bytes_out: int = 0

    def inputs(self) -> Sequence[Key]:
        """The key."""
        return [self.key]

    def output(self) -> str:
        """The directory of its outputs."""
        return f"{self.target}/"

    def is_done(self) -> bool:
        """Never: only the command knows its outputs."""
        return False

    def stdin(self) -> int:
        """The key's file itself."""
        fd, self.bytes_in = _open_stdin(self.node, self.key)
        return fd

    def finish(self, stdout: int, cwd: str, again: bool) -> Sequence[bulk.Item]:
        """Publish the printed files that belong here; none before all are known to be there."""
        outputs: dict[Key, str] = {}
        for path in _printed_paths(stdout, self.key):
            key = self._output_key(path)
            if key in outputs:
                message = f"the command printed two paths for one key, {key.basename!r}"
                raise CommandFailed(message, key=str(self.key), status=1)
            outputs[key], size = _output_path(path, cwd, self.key)
            self.bytes_out += size
        remote = []
        for key, path in outputs.items():
            if self.node.owns(key):
                _publish_output(self.node.store, path, key, again)
            else:
                remote.append(bulk.Item(key, path))
        return remote

    def _output_key(self, path: str) -> Key:
        try:
            return check_key(self.target.join(check_speakable(os.path.basename(path))))
        except BadKey as error:
            message = f"the command printed a path whose name cannot be a key: {error.message}"
            raise CommandFailed(message, key=str(self.key), status=1) from None


@dataclass
class MapFromNTask:
    """n:1. The paths of the keys are stdin; stdout becomes the output."""

    node: Node
    key: Key  # the output, which names the task
    sources: list[Key]
    bytes_in: int = 0
    bytes_out: int = 0

    def inputs(self) -> Sequence[Key]:
        """The keys of the group."""
        return self.sources

    def output(self) -> str:
        """The key that they become."""
        return str(self.key)

    def is_done(self) -> bool:
        """Whether the output is there."""
        return self.node.store.exists(self.key)

    def stdin(self) -> int:
        """An unnamed file that lists the inputs' paths, a line each."""
        _refuse_existing(self.node, self.key)
        with disk_errors(self.key), tempfile.TemporaryFile(dir=self.node.store.data.tmp_path) as file:
            for key in self.sources:
                fd, size = _open_stdin(self.node, key)
                os.close(fd)
                self.bytes_in += size
                file.write(os.fsencode(self.node.store.path(key)) + b"\n")
            file.flush()
            file.seek(0)
            return os.dup(file.fileno())

    def finish(self, stdout: int, cwd: str, again: bool) -> Sequence[bulk.Item]:
        """Publish stdout."""
        self.bytes_out = self.node.store.publish_file(stdout, self.node.check_place(self.key)).size
        return ()


def _open_stdin(node: Node, key: Key) -> tuple[int, int]:
    """A key's file to read, and its size. It is verified: a damaged key must not become one with a good digest."""
    stored = node.store.open_verified(node.check_place(key))
    os.set_blocking(stored.fd, True)
    return stored.fd, stored.record.size


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


def _output_path(path: str, cwd: str, key: Key) -> tuple[str, int]:
    """The path of a file that a command printed, and its size.

    Raises CommandFailed unless it is a regular file inside ``cwd``.
    """
    real = os.path.join(cwd, path)
    status = _lstat(real)
    if os.sep in path or status is None or not stat.S_ISREG(status.st_mode):  # a plain name needs no second look
        real = os.path.realpath(real)
        status = _lstat(real)
    if not real.startswith(cwd + os.sep):
        raise CommandFailed(f"the command printed a path outside its directory: {path!r}", key=str(key), status=1)
    if status is None or not stat.S_ISREG(status.st_mode):
        raise CommandFailed(f"the command printed a path that is no file: {path!r}", key=str(key), status=1)
    return real, status.st_size


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (OSError, ValueError):
        return None


def _publish_output(store: Store, path: str, key: Key, again: bool) -> None:
    """Publish a command's file: by linking it, which copies nothing, unless it has another name to write to it by.

    ``again``: a key that is there with the same content is as good as published.
    """
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
        try:
            store.publish_file(fd, key)
        except KeyExists:
            if not again:
                raise
            if not _holds(store, key, fd):
                raise KeyExists("key already exists, with another content", key=str(key)) from None


def _holds(store: Store, key: Key, fd: int) -> bool:
    """Whether a key has the content of a file."""
    stored = store.open(key)
    os.close(stored.fd)
    with disk_errors(key):
        return stored.record == Record(*digest_file(fd))


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
    ended: Callable[[Outcome], None],
) -> Sequence[bulk.Item]:
    """Run one command of a map call in the empty directory ``cwd``, and publish what it made here.

    Returns the files that are still to be sent to other servers; ``again`` is for ``Task.finish``. ``ended`` is told
    how the command has ended. Raises CommandFailed, KeyExists, DiskFull and others.
    """
    with node.store.draft() as stdout:
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
        return task.finish(stdout, cwd, again)


def _timeout(outcome: Outcome, key: Key, seconds: float) -> CommandTimeout:
    message = f"the command was killed: it took longer than {seconds:g} s (see --timeout and $S4_TIMEOUT)"
    return CommandTimeout(message, key=str(key), detail=outcome.stderr, status=124)
