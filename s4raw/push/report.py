"""What the logs of uploads say of their times: the daemon's own logs, and those of s3daemon, which have the same lines.

A log of gigabytes is read as a stream; of every upload only its seconds are kept, as a float.
"""

from __future__ import annotations

import os
import re
import zlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from math import ceil, fsum

from s4raw.errors import LocalFileError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

REQUIREMENT_SECONDS = 7.0
# The name through its first part between dashes that has a letter and ends in a digit: of lsstcam-dc01-20250213.log it
# is lsstcam-dc01, and of node3.log it is node3.
HOST = re.compile(r"(?:[^-]+-)*?[0-9]*[A-Za-z][^-.]*[0-9](?=[-.]|$)")
_ENDINGS = re.compile(r"(\.log)?(\.[0-9]+)?(\.gz)?$")
# INFO 2025-02-13 21:31:13,123 __main__ - 1739482273.123456 1.234567 sec - bucket/key
_LINE = re.compile(rb"([A-Z]+) [^\n]*? - ([0-9]+(?:\.[0-9]+)?) ([0-9]+(?:\.[0-9]+)?) sec - ")
_SORTED_AT_ONCE = 1 << 20
_BINS = 4096


@dataclass(slots=True)
class Times:
    """The uploads of a host. Times in seconds; ``first`` start and ``last`` end since 1970."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    failures: int = 0
    unreadable: int = 0  # lines that say nothing of an upload
    first: float = float("inf")
    last: float = float("-inf")

    def add(self, start: float, seconds: float) -> None:
        """An upload that was done."""
        self.seconds.append(seconds)
        self.first = min(self.first, start)
        self.last = max(self.last, start + seconds)

    def add_all(self, other: Times) -> None:
        """The uploads of another host, too."""
        self.seconds.extend(other.seconds)
        self.failures += other.failures
        self.unreadable += other.unreadable
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)


@dataclass(frozen=True, slots=True)
class Summary:
    """A line of the report. Times in seconds; ``rate``: uploads a second, from the first start to the last end.

    Percentiles are by the nearest rank: a time that did occur, which so many in a hundred did not exceed.
    """

    host: str
    count: int
    failures: int
    unreadable: int
    mean: float | None
    p50: float | None
    p99: float | None
    max: float | None
    rate: float | None
    over: int  # that took longer than the requirement


def host_of(path: str, pattern: re.Pattern[str] | None = None) -> str:
    """The host that a log is of, from its name; the name without its endings if there is none to be seen in it.

    A pattern is looked for in the whole path: its first group, if it has one, or all of it is the host.
    """
    name = os.path.basename(path)
    stem = _ENDINGS.sub("", name) or name
    found = pattern.search(path) if pattern else HOST.match(stem)
    if found is None:
        return stem
    return found.group(1 if found.re.groups else 0) or stem


def read(paths: Iterable[str], pattern: re.Pattern[str] | None = None) -> dict[str, Times]:
    """The uploads in logs, by host; logs may be compressed by gzip. Raises LocalFileError."""
    hosts: dict[str, Times] = {}
    for path in paths:
        times = hosts.setdefault(host_of(path, pattern), Times())
        try:
            with closing(_open(path)) as file:
                _read(file, times)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise LocalFileError(f"log {path}: {reason}") from None
    return hosts


def _open(path: str) -> IO[bytes]:
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    if not compressed:
        return open(path, "rb", buffering=1 << 18)
    import gzip

    return gzip.open(path)  # type: ignore[return-value]


def _read(lines: Iterable[bytes], times: Times) -> None:
    """Sort the lines of a log; those that follow an error, a traceback, belong to it."""
    traceback = False
    for line in lines:
        found = _LINE.match(line)
        if found is not None and found[1] == b"INFO":
            times.add(float(found[2]), float(found[3]))
            traceback = False
        elif line.startswith(b"ERROR "):
            times.failures += 1
            traceback = True
        elif line.startswith((b"INFO ", b"WARNING ", b"CRITICAL ", b"DEBUG ")):
            traceback = False
            times.unreadable += b" - Starting" not in line
        elif not traceback and line.strip():
            times.unreadable += 1


def summary(host: str, times: Times, requirement: float) -> Summary:
    """What is to be said of a host."""
    seconds, count = times.seconds, len(times.seconds)
    said = {"failures": times.failures, "unreadable": times.unreadable}
    if not count:
        return Summary(host, 0, **said, mean=None, p50=None, p99=None, max=None, rate=None, over=0)
    span = times.last - times.first
    return Summary(
        host,
        count,
        **said,
        mean=fsum(seconds) / count,
        p50=quantile(seconds, 0.5),
        p99=quantile(seconds, 0.99),
        max=max(seconds),
        rate=count / span if span else None,
        over=sum(each > requirement for each in seconds),
    )


def overall(hosts: dict[str, Times]) -> Times:
    """All hosts together."""
    all_of_them = Times()
    for times in hosts.values():
        all_of_them.add_all(times)
    return all_of_them


def quantile(values: array[float], q: float) -> float:
    """The smallest of the values that at least ``q`` of them do not exceed.

    Many are not sorted, which would take their memory five times: they are counted in bins, and the one bin that
    matters is looked at again.
    """
    rank = max(ceil(q * len(values)), 1) - 1
    while len(values) > _SORTED_AT_ONCE:
        least, most = min(values), max(values)
        if least == most:
            return least
        scale = (_BINS - 1) / (most - least)
        counts = [0] * _BINS
        for value in values:
            counts[int((value - least) * scale)] += 1
        chosen = 0
        while rank >= counts[chosen]:
            rank -= counts[chosen]
            chosen += 1
        values = array("d", (value for value in values if int((value - least) * scale) == chosen))
    return sorted(values)[rank]


def table(summaries: Iterable[Summary], requirement: float) -> Iterator[str]:
    """The report as lines of text."""
    rows: list[tuple[str, ...]] = [
        ("HOST", "FILES", "FAILED", "MEAN", "P50", "P99", "MAX", "RATE", f"OVER {requirement:g} s")
    ]
    for each in summaries:
        times = [_number(value, " s") for value in (each.mean, each.p50, each.p99, each.max)]
        rows.append((each.host, str(each.count), str(each.failures), *times, _number(each.rate, "/s"), str(each.over)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for host, *numbers in rows:
        cells = (cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True))
        yield "  ".join((host.ljust(widths[0]), *cells)).rstrip()


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.2f}{unit}"
