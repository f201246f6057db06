"""One bash pipeline: its process group, its time, its end. Nothing here knows about keys, sockets or the ring."""

from __future__ import annotations

import errno
import os
import resource
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

from s4raw import spawning
from s4raw.errors import S4Error, StoreError, UsageError

# With its path: one execve, not one for each entry of PATH, nor a bash that lies where a command runs.
BASH = (shutil.which("bash") or "/bin/bash", "-eou", "pipefail", "-c", "--")
STDERR_TAIL = 64 << 10
CHUNK = 64 << 10
MAX_PIPE = 1 << 20
TICK_SECONDS = 2.0

Sink = Callable[[bytes], None]


class Cancellation:
    """The end of a call, announced to all its threads: set once, with the error that says why."""

    def __init__(self) -> None:
        self.error: S4Error | None = None
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._hooks: set[Callable[[], None]] = set()

    def set(self, error: S4Error) -> None:
        """Announce the end; the first error wins."""
        with self._lock:
            if self.error is not None:
                return
            self.error = error
            os.eventfd_write(self.fd, 1)
            hooks = set(self._hooks)
        for hook in hooks:
            hook()

    @contextmanager
    def calling(self, hook: Callable[[], None]) -> Iterator[None]:
        """While the block runs, call ``hook`` when the call ends: it wakes whoever does not watch ``fd``."""
        with self._lock:
            self._hooks.add(hook)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._hooks.discard(hook)

    def check(self) -> None:
        """Raise the error if the call has ended."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Release the descriptor, once no thread waits on it any more."""
        os.close(self.fd)


class Slots:
    """At most ``count`` holders at once, in this process and those that are forked from it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = os.eventfd(count, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    @contextmanager
    def take(self, tick: Callable[[], None]) -> Iterator[None]:
        """Wait for a slot and hold it; ``tick`` is called a few times a second while waiting, and may raise."""
        poller = select.poll()
        poller.register(self._free, select.POLLIN)
        while True:
            try:
                os.eventfd_read(self._free)
                break
            except BlockingIOError:
                if not poller.poll(200):
                    tick()
        try:
            yield
        finally:
            os.eventfd_write(self._free, 1)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._free)


class Outcome(NamedTuple):
    """How a command ended: its exit code (128 + n for signal n) and the end of its stderr.

    ``cpu_seconds`` and ``peak_bytes``, the largest resident set, are of bash and of the children it waited for. Linux
    counts what this process used when it started bash as bash's own (the set of a program that is replaced by exec is
    kept as a peak), so a smaller peak is not known: None.
    """

    status: int
    stderr: bytes
    timed_out: bool
    cpu_seconds: float = 0.0
    peak_bytes: int | None = None


class Command(NamedTuple):
    """What to run and where. ``seconds`` is how long it may take; ``stdout`` is a descriptor, or None for a Sink."""

    text: str
    cwd: str
    environment: Mapping[bytes, bytes]
    seconds: float
    stdin: int
    stdout: int | None


def run(
    command: Command,
    cancellation: Cancellation,
    *,
    on_stdout: Sink | None = None,
    on_stderr: Sink | None = None,
    tick: Callable[[], None] = lambda: None,
    caller: int | None = None,
) -> Outcome:
    """Run a command with ``bash -eou pipefail -c`` in a process group of its own and wait for its end.

    It has ended when bash has exited and nobody holds its stderr any more (or the pipe behind ``on_stdout``): the parts
    of a process substitution may outlive bash. Whatever is left of the group then is killed; at the end of its time, on
    cancellation and when a callback raises, all of it is. ``tick`` is called when nothing was heard for TICK_SECONDS,
    and at once when the peer of the socket ``caller`` closes its end. Raises the cancellation's error, and StoreError
    when bash cannot be started.
    """
    with _Pipes() as pipes:
        stderr = pipes.open(on_stderr)
        stdout = command.stdout if command.stdout is not None else pipes.open(on_stdout)
        pid = _start(command, stdout, stderr)
        pidfd = -1
        try:
            pidfd = os.pidfd_open(pid)
            pipes.close_writers()
            timed_out = _supervise(pidfd, pipes, cancellation, time.monotonic() + command.seconds, tick, caller)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # bash is not reaped yet, so the group's number is still its own
            if pidfd >= 0:
                os.close(pidfd)
            _, found, usage = os.wait4(pid, 0)
            status = os.waitstatus_to_exitcode(found)
        pipes.read_rest()
        cpu_seconds = usage.ru_utime + usage.ru_stime
        ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak_bytes = usage.ru_maxrss << 10 if usage.ru_maxrss > ours else None
        return Outcome(
            128 - status if status < 0 else status, bytes(pipes.tail), timed_out, round(cpu_seconds, 6), peak_bytes
        )


def _start(command: Command, stdout: int, stderr: int) -> int:
    """Start bash; its process id. Raises StoreError, and UsageError for a command that cannot be one."""
    arguments, descriptors = [*BASH, command.text], (command.stdin, stdout, stderr)
    try:
        if spawning.AVAILABLE and min(descriptors) > 2:
            program, cwd = [os.fsencode(word) for word in arguments], os.fsencode(command.cwd)
            return spawning.spawn(program, command.environment, cwd, descriptors)
        process = subprocess.Popen(
            arguments,
            stdin=command.stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=command.cwd,
            env=command.environment,
            process_group=0,
            close_fds=False,  # every descriptor of ours is close-on-exec
        )
    except OSError as error:
        fault = UsageError if error.errno == errno.E2BIG else StoreError
        raise fault(f"cannot start bash: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"cannot start the command: {error}") from None
    process.returncode = 0  # whoever asked for it waits for it
    return process.pid


class _Pipes:
    """The pipes a command writes to and we read from; the end of what went through the first one, stderr, is kept."""

    def __init__(self) -> None:
        self.tail = bytearray()
        self.readers: dict[int, Sink] = {}
        self._writers: list[int] = []

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_writers()
        for fd in self.readers:
            os.close(fd)

    def open(self, sink: Sink | None) -> int:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self.readers[reader] = sink or self._keep_tail
        self._writers.append(writer)
        return writer

    def _keep_tail(self, data: bytes) -> None:
        self.tail += data
        del self.tail[:-STDERR_TAIL]

    def close_writers(self) -> None:
        while self._writers:
            os.close(self._writers.pop())

    def read(self, fd: int) -> bool:
        """Pass on what is there; False at the pipe's end, which closes it."""
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            return True
        if data:
            self.readers[fd](data)
            return True
        del self.readers[fd]
        os.close(fd)
        return False

    def read_rest(self) -> None:
        """Pass on what an ended command left in the pipes: no more than they hold."""
        for fd, sink in self.readers.items():
            with suppress(BlockingIOError):
                sink(os.read(fd, MAX_PIPE))


def _supervise(
    pidfd: int,
    pipes: _Pipes,
    cancellation: Cancellation,
    deadline: float,
    tick: Callable[[], None],
    caller: int | None,
) -> bool:
    """Wait for bash and for the ends of the pipes; True when the time was up first."""
    poller = select.poll()
    for fd in (pidfd, cancellation.fd, *pipes.readers):
        poller.register(fd, select.POLLIN)
    if caller is not None:
        poller.register(caller, select.POLLRDHUP)
    running = True
    while running or pipes.readers:
        left = deadline - time.monotonic()
        if left <= 0:
            return True
        ready = [fd for fd, _ in poller.poll(1000 * min(left, TICK_SECONDS))]
        cancellation.check()
        if not ready or caller in ready:
            tick()
        for fd in ready:
            if fd == pidfd:
                running = False
                poller.unregister(fd)
            elif fd in pipes.readers and not pipes.read(fd):
                poller.unregister(fd)
    return False
