"""What a map call tells of as it goes: commands that have ended, and what a dry run would do.

On the wire they are lines of JSON. Knows nothing of sockets; both ends of a map call use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from s4raw.errors import ProtocolError
from s4raw.record import NamedTuple

MAX_STDERR = 4 << 10  # bytes of a failed command's stderr that travel with its event


class Attempt(NamedTuple):
    """A command of a map call that has ended, well or not.

    ``key`` is its input, of map-from-n its output. ``attempt`` counts from 1. ``start`` is in seconds since 1970.
    ``cpu_seconds`` and ``peak_bytes`` (the largest resident set) are of bash and the children it waited for;
    ``peak_bytes`` is None if it was less than what the server itself uses, which hides it.
    ``exit_code`` is 128 + n for signal n, 124 when the time was up, None when no command was run. ``error`` says what
    went wrong, empty when nothing did; ``final`` is whether the key is settled by this, or will be tried again.
    """

    key: str
    server: str
    attempt: int
    final: bool
    start: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None
    exit_code: int | None
    bytes_in: int
    bytes_out: int
    error: str = ""
    stderr: str = ""


class Planned(NamedTuple):
    """A command that a map call would run: where, on which keys, and its output (of map-to-n: what they begin with)."""

    server: str
    inputs: Sequence[str]
    output: str


Event = Attempt | Planned


def encode(events: Iterable[Event]) -> bytes:
    """Events as lines of JSON."""
    import json

    return "".join(json.dumps(event._asdict(), ensure_ascii=False) + "\n" for event in events).encode()


def decode(data: bytes) -> Iterator[Event]:
    """The events in lines of JSON. Raises ProtocolError."""
    import json

    try:
        for line in data.splitlines():
            fields = json.loads(line)
            yield (Planned if "output" in fields else Attempt)(**fields)
    except (ValueError, TypeError, RecursionError):
        raise ProtocolError("an event of a map call cannot be read") from None
