"""What the uploader does when it is asked, whoever asks: takes files into its queue, and says how the queue is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from s4raw import __version__
from s4raw.errors import Busy, PeerTimeout, S4Error
from s4raw.metrics import Counter, Gauge, Histogram, exposition
from s4raw.objects.base import Attributes, Info
from s4raw.push.aliases import Aliases
from s4raw.push.deliveries import Deliveries, Delivery
from s4raw.push.protocol import DEFAULT_ALIAS, Drop, Flush, List, Push, Request, Retry, Status
from s4raw.push.roots import Roots
from s4raw.push.spread import spread
from s4raw.queue.entries import Entry, Order
from s4raw.queue.files import settle
from s4raw.queue.queue import Queue
from s4raw.queue.room import Reservation

SLICE_SECONDS = 1.0  # of waiting, after which whoever waits may have left
PAGE = 1000  # entries
TOGETHER = 4 << 20  # bytes of files that are accepted together: the first of them waits for the last
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
                        room = self._room(*found[done], patience)
                    except S4Error as error:
                        if found[done][1].spooled:
                            self.queue.spool.discard(found[done][1].path)
                        done += 1
                        yield error
        finally:  # nobody wants to hear any more
            for _, order in found[done:]:
                if order.spooled:
                    self.queue.spool.discard(order.path)

    def _room(self, push: Push, order: Order, patience: Patience) -> Reservation:
        def goes_on() -> bool:
            if self.deliveries.stopped:
                raise Busy("the uploader is stopping")
            return patience()

        return self.queue.reserve(order.size, push.wait, goes_on)

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
        gauges = self.queue.gauges()
        found = {name: value for name, value in gauges._asdict().items() if name != "oldest_ns"}
        return {
            **found,
            "oldest_seconds": _age(gauges.oldest_ns),
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
        count = self.queue.retry(request.ids)
        for id in request.ids or ():  # each of these, not one after the other while their remote is away
            self.queue.hasten(id)
        return {"count": count}

    def _drop(self, request: Drop, _patience: Patience) -> dict[str, Any]:
        if request.ids is not None:
            return {"count": self._throw_away(request.ids)}
        count = after = 0
        while page := self.queue.entries(after=after, limit=PAGE):
            after = page[-1].id
            count += self._throw_away([entry.id for entry in page])
        return {"count": count}

    def _throw_away(self, ids: Iterable[int]) -> int:
        ids = list(ids)
        count = self.queue.drop(ids)
        self.deliveries.dropped(ids)
        return count

    def _flush(self, request: Flush, patience: Patience) -> dict[str, Any]:
        now, after = time.time_ns(), 0
        self.queue.retry([])  # a remote that is away
        while page := self.queue.entries(parked=False, after=after, limit=PAGE):
            after = page[-1].id
            if waiting := [entry.id for entry in page if entry.retry_at_ns > now]:
                self.queue.retry(waiting)
        deadline = None if request.wait is None else time.monotonic() + request.wait
        while True:
            left = SLICE_SECONDS if deadline is None else deadline - time.monotonic()
            if self.queue.flush(max(0.0, min(SLICE_SECONDS, left))):
                return {"empty": True}
            if left <= 0 or not patience():
                return {"empty": False}
            if self.deliveries.stopped:
                raise Busy("the uploader is stopping")

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
        gauges = self.queue.gauges()
        now = [
            Gauge(f"s4raw_push_{name}", text, number, kind)
            for name, text, number, kind in (
                ("queue_entries", "Files in the queue.", gauges.entries, "gauge"),
                ("queue_bytes", "Bytes of the files in the queue.", gauges.size, "gauge"),
                ("queue_oldest_seconds", "How long the oldest has waited.", _age(gauges.oldest_ns), "gauge"),
                ("queue_parked", "Files that nobody tries to deliver any more.", gauges.parked, "gauge"),
                ("in_flight", "Files on their way.", gauges.in_flight, "gauge"),
                ("delivered_total", "Files that were stored and left the queue.", gauges.delivered, "counter"),
                ("dropped_total", "Files that were thrown away.", gauges.dropped, "counter"),
                ("start_time_seconds", "When the uploader started, since 1970.", self._since, "gauge"),
            )
        ]
        info = Gauge("s4raw_push_info", "The version that runs.", 1, labels={"version": __version__})
        return exposition([self.requests, self.connections, self._uploads, self._bytes, self._seconds, *now, info])


def _describe(entry: Entry, in_flight: bool, behind: Entry | None) -> dict[str, Any]:
    """An entry as ``list`` shows it; ``behind`` is the parked one that it waits for."""
    order = entry.order
    waits = entry.retry_at_ns > time.time_ns()
    state = "in flight" if in_flight else "parked" if entry.parked else "waiting" if waits else "queued"
    return {
        "id": entry.id,
        "to": f"{order.alias or DEFAULT_ALIAS}/{order.key.bucket}/{order.key.name}",
        "file": order.path.decode(errors="surrogateescape"),
        "size": order.size,
        "age_seconds": _age(entry.created_ns),
        "attempts": entry.attempts,
        "state": state,
        "error": entry.error or (f"it waits for entry {behind.id} of the same key, which is parked" if behind else ""),
    }


def _age(since_ns: int) -> float:
    """Seconds since a time; 0 for 0, which is none."""
    return max(0.0, round((time.time_ns() - since_ns) / 1e9, 3)) if since_ns else 0.0


_CONTROLS: Mapping[type, Callable[[Uploader, Any, Patience], dict[str, Any]]] = {
    Status: Uploader._status,
    List: Uploader._list,
    Retry: Uploader._retry,
    Drop: Uploader._drop,
    Flush: Uploader._flush,
}
