"""Verbs that change the write queue of an S3 daemon in front of a remote: s3 retry, drop, flush."""

from __future__ import annotations

import time

from s4raw.arguments import Arguments, Verb
from s4raw.errors import ProtocolError
from s4raw.keys import Key
from s4raw.verbs import queues
from s4raw.verbs.s3_client import COMMON, client, object_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from s4raw.s3.client import Client

QUEUE = "s4raw-queue"
FLUSH_SECONDS = 5.0  # that one request waits: a longer one would be taken for a dead one
_WHAT = """\
WHAT is an ID, as s4raw s3 status has them, or BUCKET/KEY: all writes of that key. s3:// may stand before.
"""

USAGE = {
    "retry": f"""\
Try queued writes again at once, also parked ones; without WHAT, all that are parked or wait. What is parked stays so
while a later write of its key is queued. Prints how many. Exit code 1 if one that is named is not queued, or stays
parked.

Usage: s4raw s3 retry [options] [--] [WHAT]...

{_WHAT}
Options:
  --json             print the result as a line of JSON
{COMMON}""",
    "drop": f"""\
Take writes out of the queue: they do not reach the remote, and what that has is seen again. What is in flight stays.
Prints how many. Exit code 1 if one that is named was not dropped.

Usage: s4raw s3 drop [options] [--] [WHAT]...

{_WHAT}
Options:
  --failed           all of which an attempt has failed, parked or not, in place of WHAT
  --all              all that are queued
  --json             print the result as a line of JSON
{COMMON}""",
    "flush": f"""\
Try all that waits at once, and wait until all has reached the remote but what is parked. Exit code 1 if that took too
long.

Usage: s4raw s3 flush [options]

Options:
  --wait SECONDS     wait so long at most (default: as long as it takes)
  --json             print the result as a line of JSON
{COMMON}""",
}


def ask(s3: Client, **what: Any) -> dict[str, Any]:
    """What the daemon answers to an object of JSON. Raises Refused where there is no write queue, ProtocolError."""
    import json

    from s4raw.s3.client import MAX_BODY

    body = json.dumps(what).encode()
    answer = s3.request("POST", Key("", ""), f"{QUEUE}=", {"content-type": "application/json"}, body)
    try:
        found = json.loads(answer.read(MAX_BODY))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.keys() & {"count", "empty"}:
        raise ProtocolError("the answer is not that of a write queue: is this s4raw s3 run?", server=s3.endpoint)
    return found


def retry(arguments: Arguments) -> int:
    """Try writes again."""
    wanted = queues.to_retry(arguments, _place)
    with client(arguments) as s3:
        return queues.tell(arguments, "retry", ask(s3, **wanted))


def drop(arguments: Arguments) -> int:
    """Take writes out of the queue."""
    wanted = queues.to_drop(arguments, _place)
    with client(arguments) as s3:
        return queues.tell(arguments, "drop", ask(s3, **wanted))


def flush(arguments: Arguments) -> int:
    """Wait until the queue is empty."""
    wait = queues.to_wait(arguments)
    with client(arguments) as s3:
        return queues.flushed(arguments, _is_empty_within(s3, wait), s3.endpoint)


def _is_empty_within(s3: Client, seconds: float | None) -> bool:
    deadline = None if seconds is None else time.monotonic() + seconds
    hurry = True  # once: what fails again waits for its turn, as always
    while True:
        left = FLUSH_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
        if ask(s3, do="flush", wait=min(left, FLUSH_SECONDS), hurry=hurry)["empty"]:
            return True
        if left <= 0:
            return False
        hurry = False


def _place(text: str) -> str:
    """An object's BUCKET/KEY. Raises BadKey."""
    key = object_of(text)
    return f"{key.bucket}/{key.name}"


VERBS: dict[str, Verb] = {"retry": retry, "drop": drop, "flush": flush}
