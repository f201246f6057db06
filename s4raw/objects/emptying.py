"""Deleting a bucket of a remote store that has undelivered orders: they end first, or there is something in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from s4raw.errors import BucketNotEmpty, Busy, NoSuchKey, PeerTimeout
from s4raw.keys import Key
from s4raw.objects.base import Backend, Page, Query
from s4raw.queue.entries import Entry
from s4raw.queue.queue import Queue

TURNS, TURN_SECONDS = 20, 1.0  # that what is on its way to the remote is waited for
_PAGE = 1000


def delete_bucket(
    remote: Backend,
    queue: Queue,
    alias: str,
    name: str,
    list_page: Callable[[str, Query], Page],
    forget: Callable[[str], None],
) -> None:
    """Delete a bucket if it is empty, with what is pending, as ``list_page`` shows it. Nothing may be queued meanwhile.

    Every key that has something pending is being deleted then: what came before its delete is dropped, the delete is
    done here and now, and so nothing is left that could fail for lack of the bucket. ``forget`` is told of the bucket
    before it goes, and again afterwards: somebody may have seen it meanwhile. Raises NoSuchBucket, BucketNotEmpty, Busy
    or PeerTimeout when what is on its way does not end.
    """
    if list_page(name, Query(limit=1)).entries:
        raise BucketNotEmpty(f"there are objects in the bucket {name}")
    for newest in [*_names(queue, alias, name)]:
        _end(remote, queue, alias, newest.order.key)
    queue.wait_gone(alias, name, None, TURNS * TURN_SECONDS)
    forget(name)
    try:
        remote.delete_bucket(name)
    finally:
        forget(name)


def _names(queue: Queue, alias: str, bucket: str) -> Iterator[Entry]:
    after = ""
    while page := queue.names(alias, bucket, "", after, _PAGE):
        yield from page
        after = page[-1].order.key.name


def _end(remote: Backend, queue: Queue, alias: str, key: Key) -> None:
    """Delete an object whose newest order is to delete it, and take all its orders off the queue. Raises Busy."""
    for _ in range(TURNS):
        before = queue.pending(alias, key)[:-1]
        queue.drop([entry.id for entry in before])
        before = queue.pending(alias, key)[:-1]
        if not before:
            break
        with suppress(PeerTimeout, NoSuchKey):
            queue.wait(before[0].id, TURN_SECONDS)  # it is on its way: it ends, or fails and can be dropped
    else:
        raise Busy("what is on its way to the bucket does not end", key=str(key))
    if left := queue.pending(alias, key):
        remote.delete(key)
        queue.drop([entry.id for entry in left])
        for entry in queue.pending(alias, key):
            queue.wait(entry.id, TURNS * TURN_SECONDS)
