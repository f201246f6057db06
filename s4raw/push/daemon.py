"""The uploader's process: puts the parts together and serves until told to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from s4raw import running, unix
from s4raw.errors import S4Error
from s4raw.log import Log
from s4raw.net import Socket, Stream, adopt, listen
from s4raw.objects.remote import RemoteOptions
from s4raw.push import session, status
from s4raw.push.aliases import WARM, Aliases, read_places
from s4raw.push.roots import Roots
from s4raw.push.systemd import Notifier
from s4raw.push.transfers import Transfers
from s4raw.push.uploader import Uploader
from s4raw.queue.entries import Entry, Limits
from s4raw.queue.pusher import Pusher
from s4raw.queue.queue import Queue
from s4raw.s3.pages import Pages
from s4raw.serving import Acceptor, Connection

ANSWER_SECONDS = 5.0  # for clients to take their answers, once all is decided
CONNECTIONS = 192  # to a remote at most, unless somebody says how many: a round trip is worth more than a thread


@dataclass
class Options:
    """How to run the uploader; sizes in bytes, times in seconds. ``listen_fd`` is a parent's listening socket.

    It listens on ``host`` and ``port``, or on the Unix socket ``socket`` alone unless ``both``. ``connections`` go to
    each remote at once, and ``clients`` is how many files are on their way to each place at once (None: as many).
    ``attempts`` is how often a request to the remote is sent before the file's attempt has failed, which a client is
    told that waits for as long as it takes; ``max_attempts`` of those, and the file of a client that does not is parked
    (0: never). At the end of ``lifeline_fd`` it stops.
    """

    host: str = "localhost"
    port: int = 15555
    socket: str | None = None
    both: bool = False
    socket_mode: int = 0o600
    uids: Sequence[int] = ()
    http: tuple[str, int] | None = None
    queue: str = ""
    aliases: Sequence[str] = ()
    config: str | None = None
    profile: str | None = None
    roots: Sequence[str] = ()
    connections: int = CONNECTIONS
    clients: int | None = None
    connect_timeout: float = 5.0
    attempts: int = 2
    max_attempts: int = 0
    max_rate: float = 0.0
    limits: Limits = Limits()  # noqa: RUF009
    refuse: bool = False
    log: str | None = None
    max_connections: int = 8192
    idle_seconds: float = 60.0
    grace_seconds: float = 30.0
    listen_fd: int | None = None
    lifeline_fd: int | None = None


def default_queue() -> str:
    """Where the queue lives unless somebody says so: below ``$XDG_STATE_HOME``, which systemd may set, too."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "s4raw", "push")


def serve(options: Options) -> None:
    """Run the uploader until SIGTERM or SIGINT. Raises ConfError and UsageError when it cannot start."""
    running.allow_descriptors()
    log = Log("push")
    for fd in (options.listen_fd, options.lifeline_fd):
        if fd is not None:
            os.set_inheritable(fd, False)
    roots = Roots(options.roots)
    aliases = Aliases(read_places(options.config, options.aliases), partial(_remote_options, options))
    try:
        queue = Queue(options.queue or default_queue(), options.limits, refuse=options.refuse)
        try:
            transfers = Transfers(options.log)
            try:
                _serve(options, Uploader(queue, aliases, roots), aliases, transfers, log)
            finally:
                transfers.close()
        finally:
            queue.close()
    finally:
        aliases.close()


def _remote_options(options: Options, place: Mapping[str, str]) -> RemoteOptions:
    found = RemoteOptions(
        profile=options.profile,
        connections=options.connections,
        keep=min(WARM, options.connections),
        connect_timeout=options.connect_timeout,
        max_attempts=options.attempts,
    )
    for name, value in place.items():
        setattr(found, name, value)
    return found


def _serve(options: Options, uploader: Uploader, aliases: Aliases, transfers: Transfers, log: Log) -> None:
    listeners = _listen(options)
    ours = unix.identity(options.socket) if options.socket else None
    http: Pages | None = None
    try:
        if options.http:
            http = Pages(*options.http, status.pages(uploader), log, idle_seconds=options.idle_seconds)
        service = _Service(options, uploader, aliases, listeners, http, transfers, log)
        signal.signal(signal.SIGHUP, lambda *_: transfers.reopen())
        where = [options.socket if listener.family == unix.FAMILY else _address(listener) for listener in listeners]
        also = f", status on http://{http.address}" if http else ""
        default = aliases.places[""].describe()
        named = "".join(f", {name} is {place.describe()}" for name, place in aliases.places.items() if name)
        log("start", f"{' and '.join(map(str, where))}{also}, queue {uploader.queue.directory}, pid {os.getpid()}")
        log("start", f"default is {default}{named}, {options.connections} connections")
        transfers.started()
        running.run(
            listeners[0],
            lambda lifeline, _connected, _may_accept: service.start(lifeline),
            count=1,
            lifeline=options.lifeline_fd,
            grace_seconds=options.grace_seconds,
            log=log,
        )
    finally:
        for listener in listeners:
            listener.close()
        if http:
            http.stop()
        if options.socket:
            unix.remove(options.socket, ours)


def _listen(options: Options) -> list[Socket]:
    """The listening sockets for clients. Raises ConfError."""
    found = []
    if options.listen_fd is not None:
        found.append(adopt(options.listen_fd))
    elif not options.socket or options.both:
        found.append(listen(options.host, options.port))
    if options.socket:
        try:
            found.append(unix.listen(options.socket, options.socket_mode))
        except BaseException:
            for each in found:
                each.close()
            raise
    return found


def _address(listener: Socket) -> str:
    return "{}:{}".format(*listener.getsockname())


class _Service:
    """All that serves: clients on one or two sockets, the status over HTTP, and the threads that deliver."""

    def __init__(
        self,
        options: Options,
        uploader: Uploader,
        aliases: Aliases,
        listeners: Sequence[Socket],
        http: Pages | None,
        transfers: Transfers,
        log: Log,
    ) -> None:
        self._options = options
        self._uploader = uploader
        self._aliases = aliases
        self._transfers = transfers
        self._log = log
        self._notifier = Notifier(lambda: bool(uploader.queue.gauges()))  # or it would not come back
        self._pusher = Pusher(
            uploader.queue,
            aliases.backend,
            workers=min(options.connections, options.clients or options.connections),
            places=len(aliases.places),
            max_attempts=options.max_attempts,
            open_file=uploader.open_file,
            rate=options.max_rate,
            log=self._attempted,
            stored=uploader.stored,
        )
        self._listeners = listeners
        self._http = http
        self._acceptors: list[Acceptor[Stream]] = []
        self._threads: list[threading.Thread] = []

    def start(self, lifeline: int | None) -> _Service:
        """Begin to deliver; ``run`` serves."""
        for listener in self._listeners:
            is_first = listener is self._listeners[0]
            wrap = unix.UnixStream if listener.family == unix.FAMILY else Stream
            self._acceptors.append(
                Acceptor(
                    listener,
                    wrap,
                    self._client,
                    session.refuse,
                    self._log,
                    max_connections=self._options.max_connections,
                    lifeline=lifeline if is_first else None,
                )
            )
        return self

    def _client(self, connection: Connection[Stream]) -> None:
        stream = connection.channel
        if isinstance(stream, unix.UnixStream) and stream.uid not in (0, os.geteuid(), *self._options.uids):
            self._log("refused", f"client {stream.peer}: not a user who may (--allow-uid)")
            session.deny(stream)
            return
        self._uploader.connections.add()
        session.Session(connection, self._uploader, self._options.idle_seconds, self._log).run()

    def _attempted(self, entry: Entry, start: float, seconds: float, error: S4Error | None) -> None:
        key, accepted = entry.order.key.name, entry.created_ns / 1e9
        taken = max(0.0, time.time() - accepted)
        if error is None:
            self._transfers.stored(key, accepted, taken)
        else:
            self._transfers.failed(key, accepted, taken, str(error))
        self._uploader.attempted(entry, seconds, error)

    def run(self) -> None:
        """Serve until told to stop."""
        threading.stack_size(256 << 10)
        self._pusher.start()
        threading.Thread(target=self._aliases.warm, daemon=True).start()
        if self._http:
            self._http.start()
        self._threads = [threading.Thread(target=each.run, daemon=True) for each in self._acceptors[1:]]
        for thread in self._threads:
            thread.start()
        self._notifier.ready()
        self._acceptors[0].run()

    def stop(self) -> None:
        """Make ``run`` return."""
        self._acceptors[0].stop()

    def drain(self, grace_seconds: float) -> bool:
        """Let what is on its way arrive, keep the rest queued, and tell every client which of them it is."""
        self._uploader.stop()
        self._notifier.stopping()
        for acceptor in self._acceptors[1:]:
            acceptor.stop()
        seconds = grace_seconds + ANSWER_SECONDS
        drains = [threading.Thread(target=each.drain, args=(seconds,)) for each in self._acceptors]
        for thread in drains:
            thread.start()
        in_time = self._pusher.stop(grace_seconds)
        self._uploader.deliveries.stop()
        for thread in drains:
            thread.join()
        if self._http:
            self._http.stop()
        for thread in self._threads:
            thread.join()
        self._notifier.close()
        return in_time

    def close(self) -> None:
        """Release what is held."""
        for acceptor in self._acceptors:
            acceptor.close()
