"""Counters and histograms, and the text in which Prometheus reads them (exposition format 0.0.4).

Any thread may count.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 7.0, 10.0, 30.0, 60.0, 300.0)

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
Labels = Mapping[str, str]


class Counter:
    """A number that only grows, for each value of its label if it has one."""

    kind = "counter"

    def __init__(self, name: str, text: str, label: str = "", values: Sequence[str] = ("",)) -> None:
        """``values`` are those that are shown before anything was counted."""
        self.name, self.text = name, text
        self._label = label
        self._lock = threading.Lock()
        self._counts: dict[str, float] = dict.fromkeys(values, 0)

    def add(self, amount: float = 1, value: str = "") -> None:
        """Count; ``value`` is that of the label."""
        with self._lock:
            self._counts[value] = self._counts.get(value, 0) + amount

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """What there is to show: the end of the name, labels, a number."""
        with self._lock:
            counts = dict(self._counts)
        for value, count in counts.items():
            yield "", {self._label: value} if self._label else {}, count


class Histogram:
    """How many of the numbers that were seen are at most so large, for each of some bounds."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float] = SECONDS) -> None:
        self.name, self.text = name, text
        self._bounds = bounds
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, number: float) -> None:
        """A number was seen."""
        at = bisect_left(self._bounds, number)
        with self._lock:
            self._counts[at] += 1
            self._sum += number

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """What there is to show: the end of the name, labels, a number."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        seen = 0
        for bound, count in zip((*map(_number, self._bounds), "+Inf"), counts, strict=True):
            seen += count
            yield "_bucket", {"le": bound}, seen
        yield "_sum", {}, total
        yield "_count", {}, seen


class Gauge:
    """A number as it is now, measured by whoever shows it."""

    def __init__(self, name: str, text: str, number: float, kind: str = "gauge", labels: Labels | None = None) -> None:
        self.name, self.text, self.kind = name, text, kind
        self._number, self._labels = number, labels or {}

    def samples(self) -> Iterator[tuple[str, Labels, float]]:
        """What there is to show: the end of the name, labels, a number."""
        yield "", self._labels, self._number


def exposition(metrics: Iterable[Counter | Histogram | Gauge]) -> bytes:
    """The text for Prometheus; its names are unique, or it would refuse all of it."""
    lines = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.text.translate(_ESCAPES)}\n# TYPE {metric.name} {metric.kind}\n")
        for end, labels, number in metric.samples():
            inner = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
            lines.append(f"{metric.name}{end}{f'{{{inner}}}' if inner else ''} {_number(number)}\n")
    return "".join(lines).encode()


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)
