"""The write queue, for ``s4raw s3 status``, ``retry``, ``drop`` and ``flush``: no operations of S3's, answered in JSON.

Other servers refuse them, or answer something else. ``GET /?s4raw-queue&prefix=BUCKET/KEY`` shows what is in the queue:

    {"s4raw-queue": {"entries": 2, "size": 10, "oldest_seconds": 1.5, "in_flight": 1, "parked": 0, "attempts": 3,
                     "failures": 1, "delivered": 1, "dropped": 0},
     "entries": [{"id": 7, "key": "BUCKET/KEY", "kind": "put", "size": 10, "age_seconds": 1.5, "attempts": 1,
                  "state": "waiting", "error": "..."}],
     "more": false}

Of the whole queue those that are parked are shown, and then the oldest, of a bucket those whose keys have the prefix,
by key; at most ``max-keys`` (100), with ``more`` if there may be more. A state is queued, in flight, waiting (for
another try) or parked.

``POST /?s4raw-queue`` does what its body asks for, as the uploader does (docs/format.md), and answers as that does:
``{"do": "retry" or "drop", "ids": [7], "places": ["BUCKET/KEY"]}``, ``{"do": "drop", "failed": true}``, and
``{"do": "flush", "wait": 5}``, which waits for 5 seconds at most, whatever it says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from s4raw.errors import UsageError
from s4raw.keys import Key, check_key
from s4raw.queue import upkeep
from s4raw.queue.asking import REQUESTS, Drop, Flush, Retry
from s4raw.queue.entries import Entry
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error

if TYPE_CHECKING:
    from s4raw.queue.queue import Queue

SUBRESOURCE = "s4raw-queue"
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_WAIT_SECONDS = 5.0  # of one request: a daemon that stops waits for it
ALIAS = ""  # all of the queue is for the one remote


def show(call: Call) -> Answer:
    """What is to be delivered to the remote. Raises NotImplemented where there is no write queue."""
    queue = _queue(call)
    limit = call.params.get("max-keys", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:6]) <= MAX_LIMIT):
        raise S3Error("InvalidArgument", f"max-keys is a number from 1 to {MAX_LIMIT}", ArgumentName="max-keys")
    bucket, _, prefix = call.params.get("prefix", "").partition("/")
    found = [*islice(_entries(queue, bucket, prefix, int(limit)), int(limit))]
    flying = queue.in_flight()
    return _answer(
        {
            SUBRESOURCE: upkeep.shown_gauges(queue.gauges()),
            "entries": [_shown(entry, entry.id in flying) for entry in found],
            "more": len(found) == int(limit),
        }
    )


def change(call: Call) -> Answer:
    """Retry, drop or flush what is in the queue. Raises NotImplemented where there is none, UsageError, BadKey."""
    queue = _queue(call)
    try:
        asked = json.loads(call.read_body())
    except ValueError as error:
        raise UsageError(f"the body is not JSON: {error}") from None
    what = asked.get("do") if isinstance(asked, dict) else None
    make = REQUESTS.get(what) if isinstance(what, str) else None
    if make is None:
        raise UsageError(f'need "do" with one of {", ".join(REQUESTS)}')
    match make(asked):
        case Retry() as wanted:
            return _answer(upkeep.retry(queue, wanted, _place))
        case Drop() as wanted:
            return _answer(upkeep.drop(queue, wanted, _place))
        case Flush(wait) as wanted:
            seconds = MAX_WAIT_SECONDS if wait is None else min(wait, MAX_WAIT_SECONDS)
            return _answer(upkeep.flush(queue, wanted._replace(wait=seconds), lambda: True))


def _queue(call: Call) -> Queue:
    if call.settings.queue is None:
        raise S3Error("NotImplemented", "This server has no write queue.")
    return call.settings.queue


def _answer(found: object) -> Answer:
    return Answer(200, [("Content-Type", "application/json")], json.dumps(found).encode())


def _entries(queue: Queue, bucket: str, prefix: str, limit: int) -> Iterable[Entry]:
    """Of a bucket's keys with a prefix by name, of all of them those that are parked and then the others, by age."""
    if not bucket:
        pages: Iterable[Sequence[Entry]] = (
            queue.entries(alias=ALIAS, parked=parked, limit=limit) for parked in (True, False)
        )
    else:
        newest = queue.names(ALIAS, bucket, prefix, "", limit)
        pages = (queue.pending(ALIAS, last.order.key) for last in newest)
    return chain.from_iterable(pages)


def _shown(entry: Entry, in_flight: bool) -> dict[str, object]:
    order = entry.order
    return {
        **upkeep.shown(entry, in_flight),
        "key": f"{order.key.bucket}/{order.key.name}",
        "kind": order.kind,
    }


def _place(text: str) -> tuple[str, Key]:
    """``BUCKET/KEY``. Raises BadKey."""
    bucket, _, name = text.partition("/")
    return ALIAS, check_key(Key(bucket, name))
