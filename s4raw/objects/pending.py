"""What undelivered orders of the queue make of the keys of a remote store: the overlay, without the remote.

Whoever looks here and at the remote looks here first: an order that is delivered in between is at the remote by then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from s4raw.disk import disk_error
from s4raw.errors import Corrupt
from s4raw.keys import Key
from s4raw.objects.base import Info
from s4raw.queue.entries import DELETE, PUT, Entry
from s4raw.queue.queue import Queue

WINDOW = 1000  # names that are looked at, at once


class View(NamedTuple):
    """What is pending for a key: a PUT (``entry``), or that it is deleted, and tags in place of those of what is there.

    With tags alone all else is as the remote has it.
    """

    entry: Entry | None = None
    deleted: bool = False
    tags: Mapping[str, str] | None = None

    @property
    def info(self) -> Info | None:
        """The object that is pending; None if it is none."""
        if self.entry is None:
            return None
        order = self.entry.order
        info = Info(order.size, self.entry.created_ns, order.attributes)
        return info if self.tags is None else tagged(info, self.tags)


def tagged(info: Info, tags: Mapping[str, str]) -> Info:
    """The same object with other tags."""
    return info._replace(attributes=info.attributes._replace(tags=tags))


def view_of(entries: Sequence[Entry]) -> View | None:
    """What undelivered entries of one key, oldest first, make of it; None without any."""
    view = None
    for entry in entries:
        if entry.order.kind == PUT:
            view = View(entry)
        elif entry.order.kind == DELETE:
            view = View(deleted=True)
        else:
            view = (view or View())._replace(tags=entry.order.attributes.tags)
    return view


class Pending:
    """The undelivered orders for one place."""

    def __init__(self, queue: Queue, alias: str) -> None:
        self._queue = queue
        self._alias = alias

    def look(self, key: Key) -> View | None:
        """What is pending for a key; None if nothing is."""
        newest = self._queue.newest(self._alias, key)
        return None if newest is None else self._view(newest)

    def _view(self, newest: Entry) -> View | None:
        order = newest.order
        if order.kind in (PUT, DELETE):
            return view_of([newest])
        return view_of(self._queue.pending(self._alias, order.key))

    def window(self, bucket: str, prefix: str, after: str) -> tuple[Sequence[tuple[str, View]], str | None]:
        """What is pending for keys above ``after`` that begin with ``prefix``, in their order, and up to which name.

        None: there are no more. Nothing is pending for names that are left out.
        """
        newest = self._queue.names(self._alias, bucket, prefix, after, WINDOW)
        views = ((entry.order.key.name, self._view(entry)) for entry in newest)
        found = [(name, view) for name, view in views if view is not None]
        return found, newest[-1].order.key.name if len(newest) == WINDOW else None

    def open(self, entry: Entry) -> int | None:
        """The file of a PUT, open; None when it has gone because it was delivered or dropped: look again.

        Raises Corrupt when it has gone for no reason, StoreError.
        """
        try:
            return self._queue.spool.open(entry.order.path)
        except FileNotFoundError:
            key = entry.order.key
            if all(other.id != entry.id for other in self._queue.pending(self._alias, key)):
                return None
            raise Corrupt("the file of an object that is to be delivered has gone", key=str(key)) from None
        except OSError as error:
            raise disk_error(error) from error
