"""Listing the keys of the whole ring: what each server lists, merged in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from s4raw import bodies, wire
from s4raw.connection import Pool
from s4raw.keys import Entry, Key


def merged(pool: Pool, prefix: Key, recursive: bool) -> Iterator[Entry]:
    """The keys that begin with a prefix, or common prefixes, in order of their UTF-8 bytes; see ``Ring.list``."""
    lists = [_at(pool, server, prefix, recursive) for server in pool.topology.servers]
    for entries in lists:
        next(entries)  # sends the request: every server works on its answer before the first one is read
    last = None
    for entry in _in_order([_entries(entries) for entries in lists]):
        if entry.name != last:  # several servers may have the same common prefix or bucket
            yield entry
        last = entry.name


def _in_order(lists: Sequence[Iterator[Entry]]) -> Iterable[Entry]:
    if len(lists) == 1:
        return lists[0]
    from heapq import merge
    from operator import attrgetter

    return merge(*lists, key=attrgetter("name"))


def _at(pool: Pool, server: str, prefix: Key, recursive: bool) -> Iterator[Entry | None]:
    """One server's part, after a first None that says the request is on its way."""
    with pool.lease(server, fresh=True) as connection:
        request = connection.send(wire.LIST, bucket=prefix.bucket, key=prefix.name, recursive=int(recursive))
        yield None
        for _, data in bodies.receive_stream(connection, request):
            yield from wire.decode_entries(data)


def _entries(entries: Iterator[Entry | None]) -> Iterator[Entry]:
    for entry in entries:
        assert entry is not None
        yield entry
