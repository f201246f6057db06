"""Measuring: the sides of a row run in turn, each sample with its CPU seconds and its peak memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean, median
from typing import Any, Literal, NamedTuple, Protocol

from bench import proc


class Sample(NamedTuple):
    """One run: its value in the row's unit, CPU seconds, and peak memory in KiB (of the largest server).

    ``figures`` are more of its figures, by the names that the row has for them.
    """

    value: float
    client_cpu: float = 0.0
    server_cpu: float = 0.0
    client_peak: int = 0
    server_peak: int = 0
    figures: Mapping[str, float] = {}


class Side(Protocol):
    """One of those that run in turn."""

    name: str

    def run(self, turn: int) -> Sample | None:
        """Do it once; ``turn`` is -1 for the warm-up. None: it takes too long to be run in every turn."""


class Runner(Protocol):
    """Where the client's part runs."""

    def run(self, **arguments: object) -> Mapping[str, Any]:
        """Run it; returns seconds, cpu and peak."""


def nothing(_turn: int) -> None:
    """Nothing to tidy up."""


def no_arguments(_turn: int) -> Mapping[str, object]:
    """The same at each run."""
    return {}


@dataclass
class TimedSide:
    """A side whose client runs in a worker, against servers whose pids are given. ``after`` checks and tidies up."""

    name: str
    runner: Runner
    servers: Sequence[int] = ()
    arguments: Callable[[int], Mapping[str, object]] = no_arguments
    after: Callable[[int], None] = nothing

    def run(self, turn: int) -> Sample:
        """One timed run."""
        for pid in self.servers:
            proc.reset_peak(pid)
        before = sum(map(proc.cpu_seconds, self.servers))
        found = self.runner.run(**self.arguments(turn))
        cpu = sum(map(proc.cpu_seconds, self.servers)) - before
        peak = max((proc.memory_kib(pid, "VmHWM") for pid in self.servers), default=0)
        self.after(turn)
        return Sample(found["seconds"], found["cpu"], cpu, found["peak"], peak)


@dataclass(frozen=True)
class Comparison:
    """A side against another one, or (``against`` empty) its own figure alone, and what it should be.

    ``speed`` is their time over ours (alone: work per second) and should be at least ``aim``; ``time`` is ours over
    theirs, ``memory`` our peak (client and largest server) over theirs, ``p99`` our figure of that name over theirs,
    and those should be at most ``aim``.
    """

    side: str
    against: str = ""
    measure: Literal["speed", "time", "memory", "p99"] = "time"
    aim: float | None = None


@dataclass
class Row:
    """One thing to measure. ``amount`` is the work of one run, in ``work`` (bytes, keys, ...).

    ``touched`` is how many bytes of memory a run takes up, mostly in the page cache: so much is warmed before each.
    ``amounts`` are those of sides that do another amount. ``remarks`` says more of what was measured, in sentences.
    Without ``warm_up`` the first run counts, too. ``figures`` are those that its samples have beside the value, each
    with what it means.
    """

    name: str
    title: str
    sides: Sequence[Side]
    comparisons: Sequence[Comparison]
    samples: int
    amount: float = 0.0
    work: str = ""
    unit: str = "s"
    touched: int = 32 << 20
    notes: Sequence[str] = ()
    amounts: Mapping[str, float] = field(default_factory=dict)
    remarks: Callable[[Measured], Sequence[str]] = lambda _: ()
    warm_up: bool = True
    figures: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Measured:
    """A row with its samples."""

    row: Row
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    @property
    def remarks(self) -> Sequence[str]:
        """What is to be said of the row, in sentences."""
        return [*self.row.notes, *self.row.remarks(self)]

    def median(self, side: str) -> float:
        """The median of a side's values."""
        return median(sample.value for sample in self.samples[side])

    def best(self, side: str) -> float:
        """The lowest of a side's values."""
        return min(sample.value for sample in self.samples[side])

    def mean(self, side: str, what: str) -> float:
        """The mean of another figure: CPU time comes in steps of 10 ms, which a mean averages out."""
        return mean(float(getattr(sample, what)) for sample in self.samples[side])

    def figure(self, side: str, name: str) -> float:
        """The median of one of the row's figures."""
        return median(sample.figures[name] for sample in self.samples[side])

    def peak(self, side: str, what: str) -> int:
        """The highest of the samples' peaks, in KiB."""
        return max(int(getattr(sample, what)) for sample in self.samples[side])

    def rate(self, side: str) -> float:
        """The work of a side per second."""
        return self.row.amounts.get(side, self.row.amount) / self.median(side)

    def memory(self, side: str) -> int:
        """The highest peak of the client and that of the largest server, together, in KiB."""
        return self.peak(side, "client_peak") + self.peak(side, "server_peak")

    def value(self, comparison: Comparison) -> float:
        """What a comparison comes to."""
        side, against = comparison.side, comparison.against
        figures = {"speed": self.rate, "time": self.median, "memory": self.memory, "p99": self._p99}
        figure = figures[comparison.measure]
        return figure(side) / figure(against) if against else figure(side)

    def _p99(self, side: str) -> float:
        return self.figure(side, "p99")

    def ok(self, comparison: Comparison) -> bool | None:
        """Whether the aim is met; None where there is no aim."""
        if comparison.aim is None:
            return None
        value = self.value(comparison)
        return value >= comparison.aim if comparison.measure == "speed" else value <= comparison.aim

    def as_json(self) -> dict[str, object]:
        """Everything, for the record."""
        row = self.row
        return {
            "name": row.name,
            "title": row.title,
            "unit": row.unit,
            "amount": row.amount,
            "work": row.work,
            "notes": list(self.remarks),
            "figures": dict(row.figures),
            "sides": [
                {
                    "name": name,
                    "median": self.median(name),
                    "best": self.best(name),
                    "rate": self.rate(name),
                    "samples": [sample._asdict() for sample in samples],
                }
                for name, samples in self.samples.items()
            ],
            "comparisons": [
                {**asdict(comparison), "value": self.value(comparison), "ok": self.ok(comparison)}
                for comparison in row.comparisons
            ],
        }


@dataclass
class Curve:
    """The same sides at several values of ``x``, each point a row of its own, which is built when its turn comes."""

    name: str
    title: str
    x: str
    points: Mapping[int, Callable[[], Row]]


@dataclass
class MeasuredCurve:
    """A curve with its points."""

    curve: Curve
    points: dict[int, Measured] = field(default_factory=dict)

    @property
    def sides(self) -> Sequence[str]:
        """The names of the sides, which are the same at each point."""
        return list(next(iter(self.points.values())).samples)

    def as_json(self) -> dict[str, object]:
        """Everything, for the record."""
        curve = self.curve
        points = [{"x": x, **measured.as_json()} for x, measured in self.points.items()]
        return {"name": curve.name, "title": curve.title, "x": curve.x, "points": points}


def measure(row: Row, warm: Callable[[int], object]) -> Measured:
    """Warm every side up, then run them in turn: A B, B A, A B, so that none profits from its place in the order.

    ``warm(bytes)`` is called before each run: what was freed by the last one may be cold again.
    """
    found = Measured(row, {side.name: [] for side in row.sides})
    for turn in range(-1 if row.warm_up else 0, row.samples):
        for side in row.sides if turn % 2 == 0 else reversed(row.sides):
            warm(row.touched)
            sample = side.run(turn)
            if turn >= 0 and sample is not None:
                found.samples[side.name].append(sample)
    return found


def measure_curve(curve: Curve, warm: Callable[[int], object], tidy: Callable[[], object]) -> MeasuredCurve:
    """Measure one point after the other; ``tidy`` ends what each has started."""
    found = MeasuredCurve(curve)
    for x, build in curve.points.items():
        found.points[x] = measure(build(), warm)
        tidy()
    return found
