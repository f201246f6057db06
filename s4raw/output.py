"""What verbs print: a line of JSON for each result, times, sizes, errors."""

from __future__ import annotations

import sys
import time

from s4raw.errors import S4Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


def write_json(file: TextIO | None = None, /, **fields: object) -> None:
    """Print a line of JSON, to stdout if no file is given."""
    import json

    (file or sys.stdout).write(json.dumps(fields, ensure_ascii=False) + "\n")


def plain_time(mtime_ns: int) -> str:
    """Nanoseconds since 1970 as ``2026-01-31 12:00:00Z``."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(mtime_ns // 10**9))


def json_time(mtime_ns: int) -> str:
    """Nanoseconds since 1970 as ``2026-01-31T12:00:00Z``."""
    return plain_time(mtime_ns).replace(" ", "T")


def human(number: float) -> str:
    """A number of bytes as ``12 B``, ``1.5 KiB``, ``2.0 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def age(seconds: float | None) -> str:
    """How long something took or has waited, as ``1.5s``, ``3.0m``, ``2.5h``, ``1.2d``; ``-`` for None."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds is not None and seconds >= length:
            return f"{seconds / length:.1f}{unit}"
    return "-" if seconds is None else f"{max(seconds, 0):.1f}s"


def printable(text: str) -> str:
    """A name that may have line ends, or talk to a terminal, as one that does not."""
    return text if text.isprintable() else repr(text)[1:-1]


def size_text(number: int, humanize: bool) -> str:
    """A number of bytes as one word: all its digits, or ``1.5KiB``."""
    return human(number).replace(" ", "") if humanize else str(number)


def write_error(error: S4Error, where: str = "") -> None:
    """Print an error to stderr, after what a failed command wrote there."""
    sys.stdout.flush()
    if error.detail:
        sys.stderr.flush()
        sys.stderr.buffer.write(error.detail if error.detail.endswith(b"\n") else error.detail + b"\n")
        sys.stderr.buffer.flush()
    sys.stderr.write(f"s4raw: {where}{error}\n")
