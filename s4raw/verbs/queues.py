"""What verbs say of a queue, whichever daemon has it: the uploader, or an S3 daemon in front of a remote."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from s4raw.arguments import Arguments
from s4raw.errors import PeerTimeout, UsageError
from s4raw.output import printable, write_json

_NUMBER = re.compile("[0-9]{1,18}").fullmatch  # what has more digits is nobody's, and no place either

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Place = Callable[[str], str]  # checks the name of a place, and raises UsageError or BadKey for none


def to_retry(arguments: Arguments, place: Place) -> dict[str, Any]:
    """What to ask a daemon that is to try again what the words name: numbers are ids, others places; none: all."""
    words = arguments["WHAT"]
    ids = [int(word) for word in words if _NUMBER(word)]
    places = [place(word) for word in words if not _NUMBER(word)]
    return {"do": "retry", **({"ids": ids} if ids else {}), **({"places": places} if places else {})}


def to_drop(arguments: Arguments, place: Place) -> dict[str, Any]:
    """What to ask a daemon that is to throw away what the words name, or all, or all that failed. Raises UsageError."""
    every = [name for name in ("all", "failed") if arguments[f"--{name}"]]
    if bool(arguments["WHAT"]) + len(every) != 1:
        raise UsageError("drop needs what to drop (an ID, or a place), or --failed, or --all: one of them")
    return {**to_retry(arguments, place), "do": "drop", **dict.fromkeys(every, True)}


def tell(arguments: Arguments, verb: str, answer: dict[str, Any]) -> int:
    """Say how many entries there were, and what of it was not done: exit code 1 then."""
    if arguments["--json"]:
        write_json(verb=verb, count=answer["count"])
    else:
        sys.stdout.write(f"{answer['count']}\n")
    sys.stdout.flush()
    left = answer.get("left", ())
    for each in left:
        what = f"entry {each['id']}: " if "id" in each else f"{printable(each['place'])}: " if "place" in each else ""
        sys.stderr.write(f"s4raw: {verb}: {what}{each['error']}\n")
    return 1 if left else 0


def to_wait(arguments: Arguments) -> float | None:
    """For how many seconds to wait at most. Raises UsageError."""
    return arguments.number("--wait", 0.0) or None


def flushed(arguments: Arguments, empty: bool, where: str) -> int:
    """Say that the queue is empty. Raises PeerTimeout if it is not."""
    if arguments["--json"]:
        write_json(verb="flush", empty=empty)
    if not empty:
        raise PeerTimeout(f"the queue is not empty after {arguments['--wait']} s; it goes on", server=where)
    return 0
