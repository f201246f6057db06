"""The values of the queue: what is to be delivered, what became of it, and what the queue may hold."""

from __future__ import annotations

from typing import NamedTuple

from s4raw.keys import Key
from s4raw.objects.base import Attributes
from s4raw.objects.sources import Identity

PUT, DELETE, TAG = "put", "delete", "tag"  # what can be asked of the place where a key lives


class Order(NamedTuple):
    """Something to do to a key, at the place that ``alias`` names (empty: the default one).

    A PUT has a file: ``path`` (bytes, as the kernel has them), the version of it that was accepted, and whether it is
    the queue's own (``spooled``), to be unlinked once it is delivered or dropped. ``attributes`` are those of a PUT; of
    a TAG the tags alone. ``max_attempts`` is how often to try before the entry is parked; 0: as the pusher is told.
    ``via`` is through which daemons it came (see ``s4raw.via``).
    """

    alias: str
    key: Key
    kind: str = PUT
    path: bytes = b""
    spooled: bool = False
    identity: Identity | None = None
    attributes: Attributes = Attributes()
    max_attempts: int = 0
    via: str = ""

    @property
    def size(self) -> int:
        """The bytes of its body."""
        return self.identity.size if self.identity else 0


class Entry(NamedTuple):
    """An order that was accepted. Entries of one alias and key are delivered one after the other, by ``id``.

    ``error`` is what the last attempt failed with. One that waits is tried again at ``retry_at_ns``; one that is
    ``parked`` only when somebody says so: a later PUT or DELETE of its key passes it, and ends it once delivered, while
    a later TAG waits behind it.
    """

    id: int
    order: Order
    created_ns: int
    attempts: int = 0
    retry_at_ns: int = 0
    parked: bool = False
    error: str = ""


class Passed(NamedTuple):
    """An entry that a later one of its key has passed: it is dropped when that is delivered."""

    id: int
    key: Key
    error: str = ""  # what its last attempt failed with; empty: it had none


class Limits(NamedTuple):
    """What the queue may hold: bytes of bodies, entries, and seconds that the oldest may have waited; 0: no limit."""

    size: int = 0
    files: int = 0
    age_seconds: float = 0.0


class Gauges(NamedTuple):
    """How the queue is. ``attempts``, ``failures``, ``delivered`` and ``dropped`` count since the process began."""

    entries: int = 0
    size: int = 0  # bytes
    oldest_ns: int = 0  # when the oldest was accepted; 0: there is none
    in_flight: int = 0
    parked: int = 0
    attempts: int = 0
    failures: int = 0
    delivered: int = 0
    dropped: int = 0
