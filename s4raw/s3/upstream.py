"""What the daemon stands in front of: a remote store, and with a write queue what is on its way there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from s4raw.errors import ConfError, S4Error
from s4raw.log import Log
from s4raw.net import listen
from s4raw.objects.base import Backend

if TYPE_CHECKING:
    from s4raw.objects.remote import RemoteBackend, RemoteOptions
    from s4raw.queue.entries import Entry
    from s4raw.queue.queue import Queue

ATTEMPTS = 2  # of a request for which a client waits: it has its own
CONNECT_SECONDS = 3.0  # so that who asks for what only the remote has soon hears that it is away
BACKGROUND_ATTEMPTS = 3  # of one for which nobody waits; then the queue waits, and tries again
DELETES_AT_ONCE = 16  # of one request that deletes many objects: each takes the remote a round trip
MAX_GRACE_SECONDS = 10.0  # for what is on its way when the daemon stops: it is sent again from its start
LOGGED_EVERY = 10  # of the failures of an order
_PORTS = {"http": 80, "https": 443}


@dataclass
class Upstream:
    """Which remote it is (None: what the environment says), how it is talked to, and whether writes are queued.

    ``queue`` is the directory of the write queue, None without one. It holds ``max_size`` bytes, ``max_files`` orders,
    and the oldest waits ``max_age`` seconds (0: no limit): then writes wait for room, or with ``refuse`` are refused.
    What the remote did not take in ``max_attempts`` is parked (0: it is tried for ever). ``http`` is where to say over
    HTTP how the queue is.
    """

    endpoint: str | None = None
    profile: str | None = None
    region: str | None = None
    connections: int = 25
    authorities: str | None = None
    addressing: str = "path"
    queue: str | None = None
    max_size: int = 0
    max_files: int = 0
    max_age: float = 0.0
    refuse: bool = False
    max_attempts: int = 0
    http: tuple[str, int] | None = None


class Front:
    """A backend that stands in front of a remote; ``where`` is how to call it in the log.

    ``cut_off`` ends what clients still wait for from the remote.
    """

    def __init__(self, backend: RemoteBackend, where: str) -> None:
        self.backend: Backend = backend
        self.where = where
        self.endpoint = backend.endpoint
        self.cut_off = backend.cut_off
        self.queue: Queue | None = None
        self.start: Callable[[], None] = lambda: None

    def check_address(self, address: str, port: int) -> None:
        """Raises ConfError when the remote is the daemon itself, which listens there: requests would go round."""
        there = urlsplit(self.endpoint)
        if (there.port or _PORTS.get(there.scheme)) != port:
            return
        try:
            probe = listen(there.hostname or "", 0)
        except ConfError:
            return  # it is another machine
        local = probe.getsockname()[0]
        probe.close()
        if address in ("0.0.0.0", local):
            raise ConfError(
                f"the remote {self.endpoint} is this daemon itself; name another one, as in --remote URL or with "
                "$S3_ENDPOINT_URL"
            )


def open_front(upstream: Upstream, name: str, held: ExitStack, log: Log, grace_seconds: float) -> Front:
    """Open the remote, which is told ``name``, and the queue. What is to be closed goes to ``held``. Raises ConfError.

    Leaving it takes up to ``grace_seconds``, and at most 10, for what is on its way to the remote.
    """
    from s4raw.objects.remote import RemoteOptions, open_remote

    options = RemoteOptions(
        endpoint=upstream.endpoint,
        profile=upstream.profile,
        region=upstream.region,
        connections=upstream.connections,
        keep=upstream.connections,
        authorities=upstream.authorities,
        addressing=upstream.addressing,
        via=name,
        connect_timeout=CONNECT_SECONDS,
        max_attempts=ATTEMPTS,
    )
    remote = open_remote(options)
    held.callback(remote.close)
    front = Front(remote, f"remote {remote.endpoint}")
    if upstream.queue is not None:
        _add_queue(front, upstream, upstream.queue, options, held, log, grace_seconds)
    return front


def _add_queue(
    front: Front,
    upstream: Upstream,
    directory: str,
    options: RemoteOptions,
    held: ExitStack,
    log: Log,
    grace_seconds: float,
) -> None:
    from s4raw.objects.queued import QueuedBackend
    from s4raw.objects.remote import open_remote
    from s4raw.queue.entries import Limits
    from s4raw.queue.pusher import Pusher
    from s4raw.queue.queue import Queue

    limits = Limits(upstream.max_size, upstream.max_files, upstream.max_age)
    queue = Queue(directory, limits, refuse=upstream.refuse)
    held.callback(queue.close)
    backend = QueuedBackend(front.backend, queue, os.path.join(directory, "s3"))
    held.callback(backend.close)
    background = open_remote(replace(options, connect_timeout=5.0, max_attempts=BACKGROUND_ATTEMPTS))
    held.callback(background.close)

    def note(entry: Entry, start: float, seconds: float, error: S4Error | None) -> None:
        if error is None:
            return
        left = queue.find(entry.id)
        parked = left is not None and left.parked
        if parked or entry.attempts % LOGGED_EVERY == 0:
            order, what = entry.order, f"entry {entry.id} is parked after attempt" if parked else "attempt"
            log("push", f"{order.kind} {order.key.bucket}/{order.key.name!r}, {what} {entry.attempts + 1}: {error}")

    pusher = Pusher(
        queue,
        lambda alias: background,
        workers=upstream.connections,
        max_attempts=upstream.max_attempts,
        log=note,
    )
    held.callback(pusher.stop, min(grace_seconds, MAX_GRACE_SECONDS))
    front.backend = backend
    front.start = pusher.start
    front.queue = queue
    front.where += f", write queue {os.path.realpath(directory)} with {queue.gauges().entries} entries"
    if upstream.http:
        _add_pages(front, queue, upstream.http, held, log)


def _add_pages(front: Front, queue: Queue, address: tuple[str, int], held: ExitStack, log: Log) -> None:
    """Say over HTTP how the queue is, from ``start`` on. Raises ConfError."""
    from s4raw.metrics import CONTENT_TYPE, exposition
    from s4raw.queue.measured import measured
    from s4raw.queue.upkeep import shown_gauges
    from s4raw.s3.pages import Page, Pages

    def metrics() -> Page:
        return 200, CONTENT_TYPE, exposition(measured(queue.gauges(), "s4raw_s3", "Writes"))

    def status() -> Page:
        return 200, "application/json", json.dumps(shown_gauges(queue.gauges())).encode() + b"\n"

    pages = Pages(*address, {"/metrics": metrics, "/status": status}, log)
    held.callback(pages.stop)
    front.where += f", status on http://{pages.address}"
    deliver = front.start

    def start() -> None:
        deliver()
        pages.start()

    front.start = start
