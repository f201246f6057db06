"""What the uploader does when it is asked, whoever asks: takes files into its queue, and says how the queue is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from s4raw import __version__
from s4raw.errors import Busy, PeerTimeout, S4Error
from s4raw.keys import Key
from s4raw.metrics import Counter, Gauge, Histogram, exposition
from s4raw.objects.base import Attributes, Info
from s4raw.push.aliases import Aliases
from s4raw.push.deliveries import Deliveries, Delivery
from s4raw.push.protocol import DEFAULT_ALIAS, List, Push, Request, Status, parse_place
from s4raw.push.roots import Roots
from s4raw.push.spread import spread
from s4raw.queue import upkeep
from s4raw.queue.asking import Drop, Flush, Retry
from s4raw.queue.entries import Entry, Order
from s4raw.queue.files import settle
from s4raw.queue.measured import measured
from s4raw.queue.queue import Queue

TOGETHER = 4 << 20  # bytes of files that are accepted together: the first of them waits for the last
STOPPING = "the uploader is stopping"
ACCEPTED, REFUSED, STORED, FAILED = "accepted", "refused", "stored", "failed"
_NO = Attributes()

Patience = Callable[[], bool]  # whether the client is still there


class Uploader:
    """A queue, what it may be filled with, and where that goes. Any thread may ask; ``deliveries`` wake who waits."""

    def __init__(self, queue: Queue, aliases: Aliases, roots: Roots) -> None:
        self.queue = queue
        self.stopping = False
        self.deliveries = Deliveries()
        self._aliases = aliases
        self._roots = roots
        self._directory = os.getcwdb()
        self._since = time.time()
        self.requests = Counter(
            "s4raw_push_requests_total", "Files that clients asked to store.", "result", (ACCEPTED, REFUSED)
        )
        self.connections = Counter("s4raw_push_connections_total", "Connections of clients.")
        self._uploads = Counter("s4raw_push_uploads_total", "Attempts to store a file.", "result", (STORED, FAILED))
        self._bytes = Counter("s4raw_push_stored_bytes_total", "Bytes of the files that were stored.")
        self._seconds = Histogram("s4raw_push_upload_seconds", "How long the attempts took that stored a file.")

    # What clients ask for

    def accept(self, pushes: Sequence[Push], patience: Patience) -> Iterator[Entry | Exception]:
        """Take files into the queue, in their order: what became of each. An entry that this gives is there durably.

        What has room goes in together, unless it is large. At the queue's limit a file waits for room, as long as
        ``patience``, or for its ``wait``. What goes wrong is QueueFull, LocalFileError, ConfError, Busy, or what the
        disk fails with.
        """
        done = 0
        while done < len(pushes):
            orders = spread(self._prepare, pushes[done:], lambda order: order.size, TOGETHER)
            found = [(push, each) for push, each in zip(pushes[done:], orders, strict=False) if isinstance(each, Order)]
            added = self._add(found, patience)
            for order in orders:
                outcome = next(added) if isinstance(order, Order) else order
                self.requests.add(1, ACCEPTED if isinstance(outcome, Entry) else REFUSED)
                yield outcome
            done += len(orders)

    def _prepare(self, push: Push) -> Order:
        """The order for a file, or for a snapshot of it, which is on disk."""
        alias = self._aliases.name(push.alias)
        path = os.path.join(self._directory, push.path)
        attributes = Attributes(headers=push.headers, metadata=push.metadata) if push.headers or push.metadata else _NO
        fd = self._roots.open(path)
        try:
            if not push.snapshot:
                return settle(Order(alias, push.key, path=path, attributes=attributes), fd)
            path, identity = self.queue.spool.snapshot(fd, path)
            return Order(alias, push.key, path=path, spooled=True, identity=identity, attributes=attributes)
        finally:
            os.close(fd)

    def _add(self, found: Sequence[tuple[Push, Order]], patience: Patience) -> Iterator[Entry | Exception]:
        """Those that find room, then the next when there is room for it, with those behind it, and so on."""
        done, room = 0, None
        try:
            while done < len(found):
                outcomes = self.queue.add_many([order for _, order in found[done:]], room)
                for outcome in outcomes:
                    done += 1
                    yield outcome
                room = None
                if done < len(found):
                    try:
                        push, order = found[done]
                        room = self.queue.reserve(order.size, push.wait, patience)
                    except S4Error as error:
                        if found[done][1].spooled:
                            self.queue.spool.discard(found[done][1].path)
                        done += 1
                        yield error
        finally:  # nobody wants to hear any more
            for _, order in found[done:]:
                if order.spooled:
                    self.queue.spool.discard(order.path)

    def stop(self) -> None:
        """Accept nothing more, and tell at once whoever waits for room. What was accepted goes on."""
        self.stopping = True
        self.queue.room.close(STOPPING)

    def look(self, delivery: Delivery, waited: bool = False) -> None:
        """See for oneself what became of a delivery: its end may have come before anybody watched.

        One that has to wait for an older entry of its key has failed if that was set aside, or has failed before and
        somebody ``waited`` long enough for it.
        """
        self.queue.hasten(delivery.id)
        found = self.queue.find(delivery.id)
        if found is None:
            try:
                delivery.error = self.queue.wait(delivery.id, 0.0)
            except (PeerTimeout, Busy):
                return
            delivery.done = True
            delivery.etag = self.deliveries.etag(delivery.id)
            return
        delivery.parked = found.parked
        if delivery.failed:
            return
        if found.attempts:
            delivery.error = S4Error(found.error)
            delivery.failed = True
        elif first := self._behind(found, waited):
            delivery.error = S4Error(f"it must wait for entry {first.id} of the same key, which failed: {first.error}")
            delivery.failed = True

    def _behind(self, entry: Entry, waited: bool) -> Entry | None:
        """The older entry of its key because of which it does not have its turn, if that has failed."""
        first = self.queue.before(entry.id)
        return first if first is not None and (first.parked or (waited and first.attempts)) else None

    def give_up(self, id: int, error: S4Error) -> bool:
        """Drop an entry whose client is told why; False while that cannot be done because it is in flight."""
        return bool(self.queue.drop([id], error))

    def control(self, request: Request, patience: Patience) -> dict[str, Any]:
        """Answer what is not a file; the fields of the answer. Raises S4Error."""
        return _CONTROLS[type(request)](self, request, patience)

    def _status(self, _request: Status, _patience: Patience) -> dict[str, Any]:
        return {
            **upkeep.shown_gauges(self.queue.gauges()),
            "pid": os.getpid(),
            "version": __version__,
            "since": self._since,
        }

    def _list(self, request: List, _patience: Patience) -> dict[str, Any]:
        found = self.queue.entries(parked=request.parked, after=request.after, limit=request.limit + 1)
        flying = self.queue.in_flight()
        parked = bool(self.queue.gauges().parked)
        entries = [
            _describe(each, each.id in flying, self._behind(each, False) if parked else None)
            for each in found[: request.limit]
        ]
        return {"entries": entries, "more": len(found) > request.limit}

    def _retry(self, request: Retry, _patience: Patience) -> dict[str, Any]:
        return upkeep.retry(self.queue, request, self._where)

    def _drop(self, request: Drop, _patience: Patience) -> dict[str, Any]:
        return upkeep.drop(self.queue, request, self._where, self.deliveries.dropped)

    def _where(self, place: str) -> tuple[str, Key]:
        alias, key = parse_place(place)
        return self._aliases.name(alias), key

    def _flush(self, request: Flush, patience: Patience) -> dict[str, Any]:
        def goes_on() -> bool:
            if self.deliveries.stopped:
                raise Busy(STOPPING)
            return patience()

        return upkeep.flush(self.queue, request, goes_on)

    # What the pusher does

    def open_file(self, entry: Entry) -> int:
        """How the pusher opens the file of an entry. Raises LocalFileError."""
        order = entry.order
        return self.queue.spool.open(order.path) if order.spooled else self._roots.open(order.path)

    def stored(self, entry: Entry, info: Info) -> None:
        """The pusher has stored the file of an entry, which has not left the queue yet."""
        self.deliveries.stored(entry.id, info.attributes.etag)

    def attempted(self, entry: Entry, seconds: float, error: S4Error | None) -> None:
        """The pusher has tried to deliver an entry."""
        self._uploads.add(1, FAILED if error else STORED)
        if error is None:
            self._bytes.add(entry.order.size)
            self._seconds.observe(seconds)
        found = self.queue.find(entry.id) if error else None
        self.deliveries.attempted(entry.id, error, parked=found is not None and found.parked)

    # What is measured

    def metrics(self) -> bytes:
        """All that is counted, for Prometheus."""
        now = measured(self.queue.gauges(), "s4raw_push", "Files")
        since = Gauge("s4raw_push_start_time_seconds", "When the uploader started, since 1970.", self._since)
        info = Gauge("s4raw_push_info", "The version that runs.", 1, labels={"version": __version__})
        return exposition(
            [self.requests, self.connections, self._uploads, self._bytes, self._seconds, *now, since, info]
        )


def _describe(entry: Entry, in_flight: bool, behind: Entry | None) -> dict[str, Any]:
    """An entry as ``list`` shows it; ``behind`` is the parked one that it waits for."""
    order = entry.order
    found = upkeep.shown(entry, in_flight)
    waits = f"it waits for entry {behind.id} of the same key, which is parked" if behind else ""
    return {
        **found,
        "to": f"{order.alias or DEFAULT_ALIAS}/{order.key.bucket}/{order.key.name}",
        "file": order.path.decode(errors="surrogateescape"),
        "error": found["error"] or waits,
    }


_CONTROLS: Mapping[type, Callable[[Uploader, Any, Patience], dict[str, Any]]] = {
    Status: Uploader._status,
    List: Uploader._list,
    Retry: Uploader._retry,
    Drop: Uploader._drop,
    Flush: Uploader._flush,
}
