"""Orders that are accepted together: one look at each directory, and one commit. Each has an error of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext

from s4raw.errors import QueueFull, S4Error
from s4raw.queue.entries import PUT, Entry, Order
from s4raw.queue.files import Names
from s4raw.queue.room import Reservation
from s4raw.queue.rows import Row, encode
from s4raw.queue.spool import Spool


def add_together(
    orders: Sequence[Order],
    room: Reservation | None,
    names: Names,
    spool: Spool,
    insert: Callable[[Sequence[Row]], Sequence[Row]],
    reserve: Callable[[int], Reservation],
    refuse: bool,
) -> Sequence[Entry | S4Error]:
    """What ``Queue.add_many`` says. ``reserve`` gives room for so many bytes, or raises QueueFull at once."""
    found: list[Row | S4Error] = []
    unnamed = names.sync_all([each.path for each in orders if each.kind == PUT and not each.spooled])
    with ExitStack() as rooms:
        rooms.enter_context(room or nullcontext())
        for order in orders:
            try:
                if order.path in unnamed:
                    raise unnamed[order.path]
                if order.spooled:
                    spool.check(order.path)
                row = encode(order)
                if room is None or found:
                    rooms.enter_context(reserve(order.size))
                found.append(row._replace(created_ns=time.time_ns()))
            except S4Error as error:
                if isinstance(error, QueueFull) and not refuse:
                    break
                found.append(error)
        if rows := [each for each in found if isinstance(each, Row)]:
            try:
                inserted = iter(insert(rows))
                found = [next(inserted) if isinstance(each, Row) else each for each in found]
            except S4Error as error:
                found = [error if isinstance(each, Row) else each for each in found]
    for order, each in zip(orders, found, strict=False):
        if order.spooled and not isinstance(each, Row):
            spool.discard(order.path)
    return [
        Entry(each.id, order, each.created_ns) if isinstance(each, Row) else each
        for order, each in zip(orders, found, strict=False)
    ]
