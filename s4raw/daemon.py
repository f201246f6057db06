"""The server process: puts the parts together, serves until told to stop, drains, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from s4raw import running, wire
from s4raw.buffers import Buffers
from s4raw.channel import Channel
from s4raw.client import Ring
from s4raw.disk import DataDirectory
from s4raw.errors import Busy, ConfError
from s4raw.handshake import read_secret
from s4raw.log import Log
from s4raw.net import Socket, adopt, is_local, listen
from s4raw.node import Node
from s4raw.procs import Slots
from s4raw.ring import Topology, split_address
from s4raw.server import VERBS
from s4raw.serving import Acceptor
from s4raw.session import Service, Session, Writers
from s4raw.store import Store


@dataclass
class Options:
    """How to run a server. ``listen_fd`` is a parent's listening socket; at the end of ``lifeline_fd`` it stops."""

    conf: str | None = None
    port: int | None = None
    data: str = "s4_data"
    max_io_jobs: int = 4 * (os.cpu_count() or 1)
    max_cpu_jobs: int = 2 + (os.cpu_count() or 1)
    max_connections: int = 1024
    idle_seconds: float = 600.0
    grace_seconds: float = 30.0
    workers: int = 1
    access_log: bool = False
    listen_fd: int | None = None
    lifeline_fd: int | None = None


def own_line(topology: Topology, port: int | None) -> str:
    """The conf's line that is this server: a local address, and the port if one is asked for. Raises ConfError."""
    servers = [server for server in topology.servers if port is None or split_address(server)[1] == port]
    local = [server for server in servers if is_local(split_address(server)[0])]
    wanted = f" with port {port}" if port is not None else ""
    if not local:
        raise ConfError(f"{topology.source}: no line{wanted} has an address of this machine")
    if len(local) > 1:
        raise ConfError(f"{topology.source}: several lines{wanted} are this machine's ({', '.join(local)}); say --port")
    return local[0]


def serve(options: Options) -> None:
    """Run a server until SIGTERM or SIGINT. Raises ConfError when it cannot start."""
    running.allow_descriptors()
    topology = Topology.read(options.conf)
    secret = read_secret()
    me = own_line(topology, options.port)
    log = Log(me)
    data = DataDirectory(options.data)
    data.claim(f"{topology.servers.index(me) + 1}/{len(topology.servers)}")
    for fd in (options.listen_fd, options.lifeline_fd):
        if fd is not None:
            os.set_inheritable(fd, False)  # these are not for the commands
    listener = listen(*split_address(me)) if options.listen_fd is None else adopt(options.listen_fd)
    ring = Ring(topology, secret)
    slots = Slots(options.max_cpu_jobs)
    node = Node(Store(data), ring, me, slots, log)
    node.jobs.sweep()
    node.uploads.sweep()
    count = f", {options.workers} workers" if options.workers > 1 else ""
    log("start", f"data {data.path}, ring of {topology.describe()}, pid {os.getpid()}{count}")
    running.run(
        listener,
        partial(_serve, options, node, secret, listener),
        count=options.workers,
        lifeline=options.lifeline_fd,
        grace_seconds=options.grace_seconds,
        log=log,
    )
    ring.close()
    slots.close()
    data.close()


def _serve(
    options: Options,
    node: Node,
    secret: bytes,
    listener: Socket,
    lifeline: int | None,
    connected: Callable[[int], int],
    may_accept: Callable[[], bool],
) -> Acceptor[Channel]:
    """What serves connections in this process."""
    io = Writers(-(-options.max_io_jobs // options.workers))
    service = Service(node, secret, options.idle_seconds, options.access_log, io, Buffers(), VERBS)

    def refuse(channel: Channel) -> None:
        channel.send(
            wire.encode_error(0, Busy(f"the server has {options.max_connections} connections", server=node.me))
        )

    return Acceptor(
        listener,
        Channel,
        lambda connection: Session(service, connection).run(),
        refuse,
        node.log,
        max_connections=options.max_connections,
        lifeline=lifeline,
        connected=connected,
        may_accept=may_accept,
    )
