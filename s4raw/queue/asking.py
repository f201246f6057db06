"""What a queue is asked by who looks after it: to try again, to throw away, to be empty. Pure: JSON in, values out.

Both daemons that have a queue take these objects, ``{"do": "retry", ...}``; docs/format.md has them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from s4raw.errors import UsageError


class Retry(NamedTuple):
    """Asks that entries are tried again at once: those with the ids and of the places; None: all."""

    ids: Sequence[int] | None = None
    places: Sequence[str] = ()


class Drop(NamedTuple):
    """Asks that entries are thrown away: those with the ids and of the places; None: all, or all that ``failed``."""

    ids: Sequence[int] | None = None
    places: Sequence[str] = ()
    failed: bool = False


class Flush(NamedTuple):
    """Asks to be told when the queue is empty, or that it is not by then; with ``hurry`` what waits has its turn."""

    wait: float | None = None
    hurry: bool = True


def field(asked: Mapping[str, Any], name: str, kind: Any, default: Any) -> Any:
    """A field of an object of JSON. Raises UsageError when it is of another kind."""
    value = asked.get(name, default)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise UsageError(f'"{name}" cannot be {value!r:.200}')
    return value


def seconds(asked: Mapping[str, Any]) -> float | None:
    """The field ``wait``. Raises UsageError."""
    value = asked.get("wait")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9):
        raise UsageError(f'"wait" is a number of seconds, not {value!r:.200}')
    return value


def _named(asked: Mapping[str, Any]) -> tuple[Sequence[int] | None, Sequence[str]]:
    """The ids and the places that are named; no ids but an empty list where there are places alone."""
    ids, places = field(asked, "ids", list | None, None), field(asked, "places", list | None, None)
    if not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 1 << 63 for each in ids or ()):
        raise UsageError('"ids" is an array of whole numbers')
    if not all(isinstance(each, str) for each in places or ()):
        raise UsageError('"places" is an array of texts')
    return (None if ids is None and places is None else list(ids or ())), tuple(places or ())


def _retry(asked: Mapping[str, Any]) -> Retry:
    return Retry(*_named(asked))


def _drop(asked: Mapping[str, Any]) -> Drop:
    ids, places = _named(asked)
    failed = field(asked, "failed", bool, False)
    if (ids is not None) + failed + field(asked, "all", bool, False) != 1:
        raise UsageError('name what to drop: "ids" or "places", or "failed": true, or "all": true')
    return Drop(ids, places, failed)


REQUESTS: Mapping[str, Callable[[Mapping[str, Any]], Retry | Drop | Flush]] = {
    "retry": _retry,
    "drop": _drop,
    "flush": lambda asked: Flush(seconds(asked), field(asked, "hurry", bool, True)),
}
