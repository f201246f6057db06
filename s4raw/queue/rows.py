"""An order as a row of the queue's database, and back. A row is kept as it is in memory, too: it is smaller."""

from __future__ import annotations

from sys import intern
from typing import NamedTuple

from s4raw.errors import BadKey, S4Error
from s4raw.keys import Key, check_key
from s4raw.objects import codec
from s4raw.objects.base import Attributes
from s4raw.objects.sources import Identity
from s4raw.queue.entries import Entry, Order

_NOTHING = Attributes()


class Row(NamedTuple):
    """An entry as it was accepted; the names and the order of the fields are those of the columns.

    ``path`` of a spooled file is its name in the spool. ``identity`` are the five numbers of an ``Identity``, with
    blanks between them, ``attributes`` JSON; either is empty where there is none.
    """

    id: int
    created_ns: int
    alias: str
    bucket: str
    name: str
    kind: str
    path: bytes
    spooled: int
    size: int
    identity: str
    attributes: str
    max_attempts: int
    via: str


class State(NamedTuple):
    """What became of it so far."""

    attempts: int = 0
    retry_at_ns: int = 0
    parked: int = 0
    error: str = ""

    def failed(self, error: S4Error, retry_at_ns: int = 0) -> State:
        """After one more attempt, which failed."""
        return State(self.attempts + 1, retry_at_ns, 0, str(error).encode(errors="backslashreplace").decode())


NEW = State()


def encode(order: Order) -> Row:
    """A row without its id and its time. Raises BadKey for what cannot be a key, an alias or an attribute."""
    check_key(order.key)
    alias = order.alias
    if "\0" in alias or alias != alias.encode(errors="replace").decode():
        raise BadKey(f"not the name of an alias: {alias!r}")
    return Row(
        *(0, 0, intern(alias), intern(order.key.bucket), order.key.name, intern(order.kind)),
        *(order.path.rpartition(b"/")[2] if order.spooled else order.path, int(order.spooled), order.size),
        " ".join(map(str, order.identity)) if order.identity else "",
        "" if order.attributes == _NOTHING else codec.dumps(order.attributes).decode(),
        order.max_attempts,
        intern(order.via),
    )


def decode(row: Row, state: State, spool: bytes) -> Entry:
    """An entry; ``spool`` is the directory of spooled files. Raises ProtocolError, ValueError for a damaged row."""
    order = Order(
        *(row.alias, Key(row.bucket, row.name), row.kind),
        *(spool + b"/" + row.path if row.spooled else row.path, bool(row.spooled)),
        Identity(*map(int, row.identity.split())) if row.identity else None,
        codec.loads(row.attributes, codec.attributes) if row.attributes else _NOTHING,
        row.max_attempts,
        row.via,
    )
    return Entry(row.id, order, row.created_ns, state.attempts, state.retry_at_ns, bool(state.parked), state.error)
