"""What the write queue holds, for ``s4raw s3 status``: ``GET /?s4raw-queue&prefix=BUCKET/KEY``, answered in JSON.

No operation of S3's: other servers refuse it, or answer something else.

    {"s4raw-queue": {"entries": 2, "size": 10, "oldest_seconds": 1.5, "in_flight": 1, "parked": 0, "attempts": 3,
                     "failures": 1, "delivered": 1, "dropped": 0},
     "entries": [{"id": 7, "key": "BUCKET/KEY", "kind": "put", "size": 10, "age_seconds": 1.5, "attempts": 1,
                  "state": "waiting", "error": "..."}],
     "more": false}

Of the whole queue the oldest entries are shown, of a bucket those whose keys have the prefix, by key; at most
``max-keys`` (100), with ``more`` if there may be more. A state is queued, waiting (for another try) or parked.
"""

from __future__ import annotations

import json
import time

from s4raw.queue.entries import Entry
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error

SUBRESOURCE = "s4raw-queue"
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000


def show(call: Call) -> Answer:
    """What is to be delivered to the remote. Raises NotImplemented where there is no write queue."""
    if call.settings.undelivered is None:
        raise S3Error("NotImplemented", "This server has no write queue.")
    limit = call.params.get("max-keys", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:6]) <= MAX_LIMIT):
        raise S3Error("InvalidArgument", f"max-keys is a number from 1 to {MAX_LIMIT}", ArgumentName="max-keys")
    bucket, _, prefix = call.params.get("prefix", "").partition("/")
    gauges, entries = call.settings.undelivered(bucket, prefix, int(limit))
    now_ns = time.time_ns()
    counts = gauges._asdict()
    oldest_ns = counts.pop("oldest_ns")
    found = {
        SUBRESOURCE: {**counts, "oldest_seconds": _seconds(now_ns, oldest_ns) if oldest_ns else 0.0},
        "entries": [_shown(entry, now_ns) for entry in entries],
        "more": len(entries) == int(limit),
    }
    return Answer(200, [("Content-Type", "application/json")], json.dumps(found).encode())


def _shown(entry: Entry, now_ns: int) -> dict[str, object]:
    key, waits = entry.order.key, entry.retry_at_ns > now_ns
    return {
        "id": entry.id,
        "key": f"{key.bucket}/{key.name}",
        "kind": entry.order.kind,
        "size": entry.order.size,
        "age_seconds": _seconds(now_ns, entry.created_ns),
        "attempts": entry.attempts,
        "state": "parked" if entry.parked else "waiting" if waits else "queued",
        "error": entry.error,
    }


def _seconds(now_ns: int, then_ns: int) -> float:
    return round(max(0, now_ns - then_ns) / 1e9, 3)
