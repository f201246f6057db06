"""The S3 daemon's process: puts the parts together and serves until told to stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from s4raw import running
from s4raw.errors import ConfError, UsageError
from s4raw.handshake import read_secret
from s4raw.log import Log
from s4raw.net import Socket, Stream, adopt, listen
from s4raw.objects.base import Backend
from s4raw.ring import Topology
from s4raw.s3 import credentials
from s4raw.s3.app import App
from s4raw.s3.call import Settings
from s4raw.s3.credentials import Credentials
from s4raw.s3.head import Limits
from s4raw.s3.session import refuse, serve_connection
from s4raw.s3.upstream import DELETES_AT_ONCE, Front, Upstream, open_front
from s4raw.serving import Acceptor

ENDPOINT_VARIABLE, DEFAULT_ENDPOINT = "S3D_ENDPOINT", "http://localhost:33333"
DIRECTORY_VARIABLE, DEFAULT_DIRECTORY = "S3D_LOCAL_DIR", "s3d_data"


@dataclass
class Options:
    """How to run the S3 daemon.

    Objects live in the data directory ``local``, with ``ring`` on the ring of ``conf``, or at a remote, ``upstream``.

    ``address`` is ``host:port`` (None: that of ``$S3D_ENDPOINT``); ``keys`` are files of key pairs. ``listen_fd`` is a
    parent's listening socket; at the end of ``lifeline_fd`` it stops.
    """

    address: str | None = None
    local: str | None = None
    upstream: Upstream | None = None
    ring: bool = False
    conf: str | None = None
    keys: Sequence[str] = ()
    anonymous: bool = False
    region: str = "us-east-1"
    domain: str = ""
    certificate: str | None = None
    private_key: str | None = None
    workers: int = 1
    max_connections: int = 4096
    idle_seconds: float = 60.0
    grace_seconds: float = 30.0
    access_log: bool = False
    listen_fd: int | None = None
    lifeline_fd: int | None = None


def serve(options: Options) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises ConfError and UsageError when it cannot start."""
    if options.ring + (options.local is not None) + (options.upstream is not None) > 1:
        raise UsageError(
            "objects live in a directory (--local), on a ring (--ring) or at a remote (--remote): name one"
        )
    if options.workers > 1 and options.upstream is not None and options.upstream.queue is not None:
        raise UsageError("only one process may hold the write queue: --workers is for a daemon without it")
    if options.private_key and not options.certificate:
        raise UsageError("--tls-key goes with --tls-cert")
    running.allow_descriptors()
    log = Log("s3")
    settings = Settings(
        read_credentials(options, log),
        region=options.region,
        domain=options.domain,
        anonymous=options.anonymous,
        scheme="https" if options.certificate else "http",
    )
    for fd in (options.listen_fd, options.lifeline_fd):
        if fd is not None:
            os.set_inheritable(fd, False)
    with ExitStack() as held:
        front = None
        if options.upstream is not None:
            name = f"s4raw-{os.urandom(8).hex()}"
            front = open_front(options.upstream, name, held, log, options.grace_seconds)
            backend, where = front.backend, front.where
            settings = settings._replace(queue=front.queue, name=name, deletes_at_once=DELETES_AT_ONCE)
        else:
            backend, where = open_backend(options)
            held.callback(backend.close)
        listener = listen(*split_address(options.address)) if options.listen_fd is None else adopt(options.listen_fd)
        own = listener.getsockname()
        if front is not None:
            front.check_address(*own)
            front.start()
        wrap, scheme = _wrapping(options)
        log("start", f"{scheme}://{own[0]}:{own[1]}, {where}, pid {os.getpid()}, {options.workers} workers")
        app = App(backend, settings, log=log, access_log=partial(log, "access") if options.access_log else None)
        running.run(
            listener,
            partial(_serve, options, app, listener, wrap, log, front),
            count=options.workers,
            lifeline=options.lifeline_fd,
            grace_seconds=options.grace_seconds,
            log=log,
            settled=front is None and not options.ring,  # else threads start others, which work for them
        )


def _serve(
    options: Options,
    app: App,
    listener: Socket,
    wrap: Callable[[Socket, str], Stream],
    log: Log,
    front: Front | None,
    lifeline: int | None,
    connected: Callable[[int], int],
    may_accept: Callable[[], bool],
) -> Acceptor[Stream]:
    """What serves connections in this process."""
    limits = Limits(idle_seconds=options.idle_seconds)
    return Acceptor(
        listener,
        wrap,
        lambda connection: serve_connection(connection, app.handle, limits, log),
        refuse,
        log,
        max_connections=options.max_connections,
        lifeline=lifeline,
        connected=connected,
        may_accept=may_accept,
        stopping=front.hurry if front else lambda: None,
        cut_off=front.cut_off if front else lambda: None,
    )


def open_backend(options: Options) -> tuple[Backend, str]:
    """Where the objects live unless at a remote, and how to call it in the log. Raises ConfError."""
    if options.ring:
        from s4raw.objects.ring import RingBackend

        topology = Topology.read(options.conf)
        return RingBackend(topology, read_secret()), f"ring of {topology.describe()}"
    from s4raw.objects.local import open_local

    path = options.local or os.environ.get(DIRECTORY_VARIABLE) or DEFAULT_DIRECTORY
    return open_local(path), f"data {os.path.realpath(path)}"


def read_credentials(options: Options, log: Log) -> Credentials:
    """The key pairs that requests may be signed with: of the files, else of the environment. Raises ConfError."""
    found: dict[str, str] = {}
    for path in options.keys:
        if warning := credentials.mode_warning(path):
            log("warning", warning)
        found |= credentials.from_file(path).pairs()
    if not found and (pair := credentials.from_environment()):
        found = pair.pairs()
    if not found and not options.anonymous:
        raise ConfError(
            "no S3 keys: name a file of them with --keys (one ACCESS_KEY SECRET_KEY a line), set $AWS_ACCESS_KEY_ID "
            "and $AWS_SECRET_ACCESS_KEY, or let everybody in with --anonymous"
        )
    return Credentials(found)


def split_address(address: str | None) -> tuple[str, int]:
    """``host:port`` (None: that of ``$S3D_ENDPOINT``) as a host and a port. Raises UsageError."""
    if address is None:
        endpoint = os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT
        address = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").netloc
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"need an address as host:port, got {address!r}")
    return host, int(port)


def _wrapping(options: Options) -> tuple[Callable[[Socket, str], Stream], str]:
    """How a connection's socket is made into a stream, and the scheme of URLs. Raises ConfError."""
    if options.certificate is None:
        return partial(Stream, inherits=True), "http"
    from s4raw.s3.tls import TlsStream, server_context

    return partial(TlsStream, server_context(options.certificate, options.private_key)), "https"
