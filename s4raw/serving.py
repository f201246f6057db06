"""Serving: an accept loop, a thread for each connection, a cap, and a drain. It knows nothing of what is served."""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

from s4raw.log import Log
from s4raw.net import Socket, Stream, accept, prepare

STACK_BYTES = 256 << 10
LINGER_SECONDS = 1.0  # how long a refused peer may take to read why
ACCEPT_RETRY_SECONDS = 0.1
YIELD_SECONDS = 0.002
MAX_ACCEPTED = 64  # connections, before it is looked whether to stop
MAX_SPARE = 64  # threads that wait for another connection,
SPARE_SECONDS = 0.05  # for so long: who opens one connection after the other does so at once
SWITCH_SECONDS = 0.005  # what Python has by itself
SWITCH_SECONDS_EACH = 20e-6  # and for each connection: 0.02 s for 1,000

S = TypeVar("S", bound=Stream)


class Connection(Generic[S]):
    """One connection's place in the service: its channel, and whether a request is being worked on."""

    def __init__(self, acceptor: Acceptor[S], channel: S) -> None:
        self.channel = channel
        self._acceptor = acceptor
        self._busy = False

    def begin(self) -> bool:
        """A request has arrived: from here on a drain waits for it. False when the acceptor is draining already."""
        with self._acceptor.lock:
            self._busy = not self._acceptor.draining
            return self._busy

    def end(self) -> bool:
        """The request is answered. False when the acceptor is draining, and the connection should close."""
        with self._acceptor.lock:
            self._busy = False
            return not self._acceptor.draining

    def wait(self, other: int, seconds: float, reading: bool = True) -> tuple[bool, bool]:
        """Wait for bytes, or the end, or for the descriptor ``other`` to be readable; what has come: here, and there.

        Not ``reading``, what comes here is only that the connection is closed both ways, or broken.
        """
        poller, here = select.poll(), self.channel.fileno()
        poller.register(here, select.POLLIN if reading else 0)
        poller.register(other, select.POLLIN)
        ready = {fd for fd, _ in poller.poll(max(0.0, seconds) * 1000)}
        return here in ready, other in ready

    def drain(self) -> None:
        """Let an idle connection read its end; a busy one ends by itself. The acceptor holds its lock."""
        if not self._busy:
            self.channel.stop_reading()


class _Spare(Generic[S]):
    """A thread that waits for its ``turn`` to serve another connection, or with None to end.

    A lock for each: a queue would do, but in Python 3.11 ``SimpleQueue.get`` may outlast its timeout, for good.
    """

    def __init__(self) -> None:
        self.connection: Connection[S] | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class Acceptor(Generic[S]):
    """Runs ``handle(connection)`` in a thread for each connection; ``refuse(channel)`` answers those over the cap.

    ``wrap`` makes a socket and the name of its other end into the channel that both of them take.

    ``run`` returns once ``stop`` was called, or ``lifeline`` (a descriptor) reached its end; ``drain`` then ends what
    still runs. ``stop`` may be called from a signal handler.
    """

    def __init__(
        self,
        listener: Socket,
        wrap: Callable[[Socket, str], S],
        handle: Callable[[Connection[S]], None],
        refuse: Callable[[S], None],
        log: Log,
        *,
        max_connections: int,
        lifeline: int | None = None,
        connected: Callable[[int], int] = lambda count: count,
        may_accept: Callable[[], bool] = lambda: True,
        stopping: Callable[[], object] = lambda: None,
        cut_off: Callable[[], object] = lambda: None,
    ) -> None:
        """``connected`` is told how many connections there are here, and says how many there are in all processes.

        While not ``may_accept`` other processes are let go first. A drain begins with ``stopping``; when clients are
        hung up on in the end, ``cut_off`` ends what is waited for elsewhere.
        """
        self.lock = threading.Lock()
        self.draining = False
        self._listener = listener
        self._wrap = wrap
        self._handle = handle
        self._refuse = refuse
        self._log = log
        self._max_connections = max_connections
        self._lifeline = lifeline
        self._connected = connected
        self._may_accept = may_accept
        self._stopping = stopping
        self._cut_off = cut_off
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._connections: set[Connection[S]] = set()
        self._threads: set[threading.Thread] = set()
        self._spare: list[_Spare[S]] = []
        self._lingering: deque[tuple[float, S]] = deque()

    def stop(self) -> None:
        """Make ``run`` return."""
        os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Accept connections until told to stop. Threads get small stacks from here on, in the whole process.

        With many connections they also hold the interpreter for longer (``sys.setswitchinterval``).
        """
        threading.stack_size(STACK_BYTES)
        prepare(self._listener)  # and so all connections
        self._listener.setblocking(False)
        poller = select.poll()
        for fd in (self._listener.fileno(), self._wake, self._lifeline):
            if fd is not None:
                poller.register(fd, select.POLLIN)
        while True:
            # A signal that comes just before this poll does not interrupt it: its handler runs after the timeout.
            ready = {fd for fd, _ in poller.poll(1000 * LINGER_SECONDS)}
            if ready - {self._listener.fileno()}:
                return
            self._end_lingering(time.monotonic() - LINGER_SECONDS)
            if ready:
                if not self._may_accept():
                    time.sleep(YIELD_SECONDS)  # another process has fewer connections, and is about to take this one
                left = MAX_ACCEPTED
                while self._accept() and left and self._may_accept():
                    left -= 1

    def _accept(self) -> bool:
        """Accept the next connection; whether there may be more."""
        try:
            sock, peer = accept(self._listener)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._log("error", f"cannot accept: {error.strerror}")
                time.sleep(ACCEPT_RETRY_SECONDS)  # or the loop would spin until a descriptor is free
            return False
        try:
            channel = self._wrap(sock, peer)
        except OSError:
            sock.close()
            return True
        if self._connected(len(self._connections)) >= self._max_connections:
            self._turn_away(channel)
        else:
            self._start(channel)
        return True

    def _start(self, channel: S) -> None:
        """Let a spare thread serve a connection, or a new one: that takes longer than a small request."""
        connection = Connection(self, channel)
        with self.lock:
            self._connections.add(connection)  # before it is served, so that a drain cannot miss it
            self._count()
            if self._spare:
                spare = self._spare.pop()
                spare.connection = connection
                return spare.turn.release()
            thread = threading.Thread(target=self._run_thread, args=(connection,), daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            with self.lock:
                self._threads.discard(thread)
                self._connections.discard(connection)
                self._count()
            self._turn_away(channel)

    def _run_thread(self, connection: Connection[S] | None) -> None:
        """The life of a thread: one connection after the other."""
        try:
            while connection is not None:
                self._serve(connection)
                connection = self._next()
        finally:
            with self.lock:
                self._threads.discard(threading.current_thread())

    def _serve(self, connection: Connection[S]) -> None:
        try:
            self._handle(connection)
        finally:
            connection.channel.close()
            with self.lock:
                self._connections.discard(connection)
                self._count()

    def _next(self) -> Connection[S] | None:
        """Wait for another connection; None when this thread is to end."""
        spare: _Spare[S] = _Spare()
        with self.lock:
            if self.draining or len(self._spare) >= MAX_SPARE:
                return None
            self._spare.append(spare)
        if not spare.turn.acquire(timeout=SPARE_SECONDS):
            with self.lock:
                if spare in self._spare:  # or it has its turn since a moment ago
                    self._spare.remove(spare)
        return spare.connection

    def _count(self) -> None:
        """The number of connections has changed. The caller holds the lock.

        Each thread that waits for the interpreter's lock wakes up once in a switch interval to ask for it. Ten thousand
        of them, when all connections end at once, would do nothing else on two processors, for minutes.
        """
        count = len(self._connections)
        sys.setswitchinterval(max(SWITCH_SECONDS, count * SWITCH_SECONDS_EACH))
        self._connected(count)

    def _turn_away(self, channel: S) -> None:
        """Say why, then keep the socket for a moment: closing it with unread bytes would destroy the answer."""
        with suppress(Exception):
            self._refuse(channel)
            channel.stop_writing()
        self._lingering.append((time.monotonic(), channel))
        while len(self._lingering) > self._max_connections:
            self._lingering.popleft()[1].close()

    def _end_lingering(self, before: float) -> None:
        while self._lingering and self._lingering[0][0] <= before:
            self._lingering.popleft()[1].close()

    def drain(self, grace_seconds: float) -> bool:
        """Stop accepting, let running requests finish, hang up on what is left; whether all finished by themselves.

        Returns when every connection's thread has ended. Calling it twice is fine.
        """
        self._listener.close()
        self._end_lingering(time.monotonic())
        with self.lock:
            self.draining = True
            threads = list(self._threads)
            for connection in self._connections:
                connection.drain()
            for spare in self._spare:
                spare.turn.release()
            self._spare.clear()
        self._stopping()
        deadline = time.monotonic() + grace_seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self.lock:
            late = list(self._connections)
            for connection in late:
                connection.channel.hang_up()
        if late:
            self._cut_off()
        for thread in threads:
            thread.join()
        return not late

    def close(self) -> None:
        """Release what the service still holds; after ``drain``."""
        os.close(self._wake)
