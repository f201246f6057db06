"""What is done to a queue by who looks after it, and how it is shown. Answers are objects of JSON: docs/format.md."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from s4raw.keys import Key
from s4raw.queue.asking import Drop, Flush, Retry
from s4raw.queue.entries import Entry, Gauges

if TYPE_CHECKING:
    from s4raw.queue.queue import Queue

PAGE = 1000  # entries
SLICE_SECONDS = 1.0  # of waiting, after which whoever waits may have left

Where = Callable[[str], tuple[str, Key]]  # the alias and the key that the name of a place means; it may raise S4Error
Left = list[dict[str, Any]]  # what was named and not done: "id" or "place", and "error"


def _named(queue: Queue, asked: Retry | Drop, where: Where) -> tuple[list[int], Left]:
    """The ids that are meant, each once, and what is not there."""
    known = queue.standing(asked.ids or ())
    ids = dict.fromkeys(known)
    left: Left = [
        {"id": id, "error": "it is not in the queue"} for id in dict.fromkeys(asked.ids or ()) if id not in known
    ]
    for place in dict.fromkeys(asked.places):
        found = queue.pending(*where(place))
        ids |= dict.fromkeys(entry.id for entry in found)
        if not found:
            left.append({"place": place, "error": "nothing of it is in the queue"})
    return [*ids], left


def retry(queue: Queue, asked: Retry, where: Where) -> dict[str, Any]:
    """Let entries have their turn at once: how many there were that waited or were parked, and what was ``left``."""
    if asked.ids is None:
        return {"count": queue.retry(), "left": []}
    ids, left = _named(queue, asked, where)
    passed = [id for id, replaced in queue.standing(ids).items() if replaced]
    left += [{"id": id, "error": "it stays parked: a later write of its key is to replace it"} for id in passed]
    count = queue.retry(ids)
    for id in ids:  # each of them, not one after the other while their remote is away
        queue.hasten(id)
    return {"count": count, "left": left}


def drop(
    queue: Queue, asked: Drop, where: Where, dropped: Callable[[Sequence[int]], None] = lambda _ids: None
) -> dict[str, Any]:
    """Throw entries away: how many, and what was ``left``. ``dropped`` is told of all that may have been.

    What is in flight stays; it is named if it was asked for by its id or its place.
    """
    if asked.ids is None:
        count = after = 0
        while page := queue.entries(after=after, limit=PAGE):
            after = page[-1].id
            ids = [entry.id for entry in page if not asked.failed or entry.attempts or entry.parked]
            count += queue.drop(ids)
            dropped(ids)
        return {"count": count, "left": []}
    ids, left = _named(queue, asked, where)
    count = queue.drop(ids)
    dropped(ids)
    there = queue.standing(ids)
    left += [{"id": id, "error": "it is in flight"} for id in there]
    if gone := len(ids) - len(there) - count:
        left.append({"error": f"{gone} of them left the queue before they could be dropped"})
    return {"count": count, "left": left}


def flush(queue: Queue, asked: Flush, goes_on: Callable[[], bool]) -> dict[str, Any]:
    """Wait until all has been delivered but what is parked; whether that was so in time.

    ``goes_on`` is asked now and then whether to wait on; its errors end the wait, too.
    """
    if asked.hurry:
        _hurry(queue)
    deadline = None if asked.wait is None else time.monotonic() + asked.wait
    while True:
        left = SLICE_SECONDS if deadline is None else deadline - time.monotonic()
        if queue.flush(max(0.0, min(SLICE_SECONDS, left))):
            return {"empty": True}
        if left <= 0 or not goes_on():
            return {"empty": False}


def _hurry(queue: Queue) -> None:
    """Let all that waits have its turn at once."""
    now, after = time.time_ns(), 0
    queue.retry([])  # a remote that is away
    while page := queue.entries(parked=False, after=after, limit=PAGE):
        after = page[-1].id
        if waiting := [entry.id for entry in page if entry.retry_at_ns > now]:
            queue.retry(waiting)


def shown_gauges(gauges: Gauges) -> dict[str, Any]:
    """How the queue is, with the age of its oldest entry in place of its time."""
    counts = gauges._asdict()
    return {**counts, "oldest_seconds": age(counts.pop("oldest_ns"))}


def shown(entry: Entry, in_flight: bool) -> dict[str, Any]:
    """What is the same of an entry wherever it is shown."""
    waits = entry.retry_at_ns > time.time_ns()
    state = "in flight" if in_flight else "parked" if entry.parked else "waiting" if waits else "queued"
    return {
        "id": entry.id,
        "size": entry.order.size,
        "age_seconds": age(entry.created_ns),
        "attempts": entry.attempts,
        "state": state,
        "error": entry.error,
    }


def age(since_ns: int) -> float:
    """Seconds since a time; 0 for 0, which is none."""
    return max(0.0, round((time.time_ns() - since_ns) / 1e9, 3)) if since_ns else 0.0
