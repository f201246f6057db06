"""The verb s3 status: whether a daemon is there, what it knows of something, and what its write queue holds of that."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from s4raw.arguments import Arguments
from s4raw.errors import S4Error
from s4raw.keys import Key
from s4raw.output import age, human, printable, write_json
from s4raw.verbs.s3_client import client, plain, seconds, show, target
from s4raw.verbs.s3_queue import QUEUE

if TYPE_CHECKING:
    from s4raw.s3.client import Client

_SHOWN = 20  # of what is pending


def status(arguments: Arguments) -> int:
    """Show whether the daemon is there, or what is known of something."""
    key, as_json = target(arguments["TARGET"] or ""), arguments["--json"]
    with client(arguments) as s3:
        if not key.bucket:
            return _service_status(s3, as_json)
        found: dict[str, Any] = {}
        failure = None
        try:
            found = _of_object(s3, key, as_json) if key.name else _of_bucket(s3, key, as_json)
        except S4Error as error:  # a write queue may know of it all the same
            failure = error
        queue = _queue_of(s3, key)
        if queue is None and failure is not None:
            raise failure
        pending = queue["entries"] if queue else []
        if as_json:
            write_json(**(found or {"key": f"{key.bucket}/{key.name}"}), **({"pending": pending} if queue else {}))
        else:
            show({**found, "pending": [_line(entry) for entry in pending]})
        if failure is not None:
            raise failure
    return 0


def _service_status(s3: Client, as_json: bool) -> int:
    healthy, failure = s3.healthy(), None
    found: dict[str, Any] = {"endpoint": s3.endpoint, "healthy": healthy}
    try:
        found["buckets"] = sum(1 for _ in s3.buckets())
    except S4Error as error:
        failure = error
    queue = _queue_of(s3, Key("", "")) if healthy else None
    if queue is None and failure is not None:
        raise failure
    if as_json:
        write_json(**found, **({"queue": queue[QUEUE], "pending": queue["entries"]} if queue else {}))
    else:
        lines: dict[str, Any] = {**found, "healthy": "yes" if healthy else "no"}
        if queue is not None:
            lines |= {"queue": _gauges(queue[QUEUE]), "pending": [_line(entry) for entry in queue["entries"]]}
        show(lines)
    if failure is not None:
        raise failure
    return 0 if healthy else 1


def _queue_of(s3: Client, key: Key) -> Any:
    """What the daemon's write queue holds of a key, a bucket or all; None where there is no such queue."""
    import json

    from s4raw.s3.client import MAX_BODY, query_of

    prefix = f"{key.bucket}/{key.name}" if key.bucket else ""
    query = f"{QUEUE}=&{query_of({'prefix': prefix, 'max-keys': str(_SHOWN)})}"
    with suppress(S4Error, ValueError):
        found = json.loads(s3.request("GET", Key("", ""), query).read(MAX_BODY))
        if isinstance(found, dict) and isinstance(found.get(QUEUE), dict) and isinstance(found.get("entries"), list):
            entries = [entry for entry in found["entries"] if not key.name or entry.get("key") == prefix]
            return {**found, "entries": entries}
    return None


def _gauges(queue: dict[str, Any]) -> str:
    return (
        f"{queue.get('entries')} writes, {human(queue.get('size', 0))}, the oldest {age(queue.get('oldest_seconds'))} "
        f"old; {queue.get('in_flight')} on the way, {queue.get('parked')} parked; "
        f"{queue.get('failures')} attempts failed, {queue.get('dropped')} dropped"
    )


def _line(entry: dict[str, Any]) -> str:
    size, old = human(entry.get("size", 0)), age(entry.get("age_seconds"))
    words = f"{entry.get('id')} {entry.get('kind')} {entry.get('key')} {size}, {old} old, {entry.get('state')}"
    if (attempts := entry.get("attempts")) or entry.get("error"):
        words += f" after {attempts} attempt{'' if attempts == 1 else 's'}: {entry.get('error')}"
    return printable(words)


def _of_bucket(s3: Client, key: Key, as_json: bool) -> dict[str, Any]:
    region = s3.read("GET", key, "location=", root="LocationConstraint").text or "us-east-1"
    created = seconds(next((bucket.time for bucket in s3.buckets() if bucket.name == key.bucket), ""))
    tags = s3.tags(key)
    if as_json:
        return {"bucket": key.bucket, "region": region, "time": created, "tags": tags}
    return {"bucket": key.bucket, "region": region, "time": created.replace("T", " "), "tag": tags}


def _of_object(s3: Client, key: Key, as_json: bool) -> dict[str, Any]:
    from s4raw.s3.described import known

    tags = s3.tags(key)  # first, since an answer to HEAD cannot say what is wrong
    answer = s3.request("HEAD", key, headers={"x-amz-checksum-mode": "ENABLED"})
    found = known(key, answer) | {"tags": tags}
    return found if as_json else plain(found)
