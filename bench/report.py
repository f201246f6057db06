"""What was measured, as a table and as JSON, with the facts of the machine (and neither its name nor a path)."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from textwrap import fill

from bench.measure import Comparison, Measured, MeasuredCurve
from bench.s3servers import program

HEAD = (
    "row",
    "side",
    "median",
    "best",
    "rate",
    "ratio",
    "aim",
    "",
    "CPU s client",
    "servers",
    "peak MiB client",
    "server",
)
WIDTH = 120
RIGHT = {2, 3, 4, 8, 9, 10, 11}
PLOTS = {
    "throughput-size.svg": "Throughput of get and put against the size of objects",
    "throughput-connections.svg": "Throughput against the number of connections, and of client processes",
}
BANDS = "Lines go through medians, bands from the slowest run to the fastest.\n"
PAGE = """\
# The last whole run

`make bench`, {when}. Every sample is in [latest.json](latest.json).

{plots}The bare loops (`bench/bare.py`) move the same bytes over the same kind of socket with a request of 8 bytes:
no protocol, no names, no checks but one digest.

## Every row

```
{table}```
{remarks}
## Beside the Go s4

Not of this run: these figures of the Go s4 were measured before, on the same kind of machine.
1 GiB put 0.7 GB/s, get 0.7 (to a file) to 1.4 GB/s (to /dev/null); `cp -r` of 1,000 files of 4 KiB 1.1 s up and 0.75 s
down; `map` with cat over 1,000 keys 1.6 s; `map-to-n` of 1,000 keys into 8 files each 2.5 s; `map-from-n` of those into
8 keys 0.16 s; `ls -r` of 10,000 keys 0.10 s; one `ls` 3 ms.
"""
SUMMARY_HEAD = """\
| what | who | figure | ratio | CPU s client, servers | peak MiB client, server |
| --- | --- | --- | --- | --- | --- |
"""
BEGIN, END = "<!-- make bench writes this -->\n", "<!-- until here -->\n"
MARKS = {True: "ok", False: "short", None: ""}
LEGEND = """\
Samples were taken in turn; ratios are those of medians. speed: the other's time over ours, time: ours over the other's,
memory: our peak over the other's, client and largest server together.
CPU seconds (user and system) are means of a run; a command's include its children's. Peak memory (VmHWM) is that of the
client and of the largest server; a command shows no less than the {floor} MiB of the process that starts it. Commands
include the start of a process, a bare loop and the library do not.
"""


def machine() -> dict[str, object]:
    """What the figures depend on."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        models = re.findall(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    facts: dict[str, object] = {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory GiB": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{package: version(package) for package in ("s4raw", "xxhash", "docopt")},
        "nginx": _first_line("nginx", "-v"),
        "curl": _first_line("curl", "--version"),
        "rclone": _first_line(program("rclone") or "rclone", "version"),
        "moto": _version("moto"),
        "s5cmd": _first_line(program("s5cmd") or "s5cmd", "version"),
        "boto3": _version("boto3"),
        "aws": _first_line(program("aws") or "aws", "--version"),
        "load at start": round(os.getloadavg()[0], 2),
    }
    return {name: value for name, value in facts.items() if value}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _first_line(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"\d[\d.]*", done.stdout + done.stderr)
    return found[0] if found else ""


@dataclass
class Report:
    """A run of the benchmark."""

    quick: bool
    when: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    machine: dict[str, object] = field(default_factory=machine)
    rows: list[Measured] = field(default_factory=list)
    curves: list[MeasuredCurve] = field(default_factory=list)
    floor_kib: int = 0

    def record(self) -> dict[str, object]:
        """Everything that was measured."""
        found = {"version": 2, "quick": self.quick, "when": self.when, "machine": self.machine}
        rows, curves = [row.as_json() for row in self.rows], [curve.as_json() for curve in self.curves]
        return {**found, "rows": rows, "curves": curves}

    def as_json(self) -> str:
        """The record as text."""
        return json.dumps(self.record(), indent=1) + "\n"

    def page(self, plotted: bool) -> str:
        """The page beside the record."""
        pictures = f"{_pictures('')}{BANDS}\n" if plotted else ""
        remarks = "".join(f"- `{name}`: {remark}\n" for name, remark in self._remarks())
        return PAGE.format(when=self.when, plots=pictures, table=self.table(False), remarks=remarks and f"\n{remarks}")

    def summary(self, plotted: bool) -> str:
        """What README.md shows."""
        pictures = _pictures("bench/results/") if plotted else ""
        facts = f"{self.machine['cores']} cores, {self.machine['memory GiB']} GiB, {self.machine['python']}"
        lines = "".join(_short_line(measured) for measured in self.rows)
        return f"{pictures}{SUMMARY_HEAD}{lines}\n{facts}, {self.when[:10]}.\n"

    def _remarks(self) -> Iterator[tuple[str, str]]:
        return ((measured.row.name, remark) for measured in self.rows for remark in measured.remarks)

    def table(self, remarks: bool = True) -> str:
        """All rows, aligned, with the machine above and the curves and the legend below."""
        facts = "".join(f"{name}: {value}\n" for name, value in self.machine.items())
        lines = [HEAD, *(line for row in self.rows for line in _lines(row))]
        notes = [fill(f"{name}: {remark}", WIDTH) + "\n" for name, remark in self._remarks()] if remarks else []
        notes += [f"Short of its aim: {line}\n" for line in self.short()]
        if self.quick:
            notes.append("A quick run: the large file is smaller and the samples are few.\n")
        legend = LEGEND.format(floor=round(self.floor_kib / 1024))
        tables = [_aligned(lines, RIGHT)] if self.rows else []
        tables += [_figure_table(row) for row in self.rows if row.row.figures]
        tables += [_curve_table(curve) for curve in self.curves]
        return "\n".join((facts, *tables, legend + "".join(notes)))

    def short(self) -> list[str]:
        """The aims that were missed, in words."""
        return [
            f"{measured.row.name}: {comparison.side}: {_ratio(measured, comparison)}, aim {_aim(measured, comparison)}"
            for measured in self.rows
            for comparison in measured.row.comparisons
            if measured.ok(comparison) is False
        ]


def _pictures(directory: str) -> str:
    return "".join(f"![{text}]({directory}{name})\n\n" for name, text in PLOTS.items())


def into_readme(text: str, summary: str) -> str:
    """A text with what stands between the two marks replaced. Raises ValueError for one without marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN.strip()} ... {END.strip()} for the figures")
    return f"{before}{begin}\n{summary}\n{end}{after}"


def _short_line(measured: Measured) -> str:
    """A row's first comparison with another side, or else its first, in Markdown."""
    comparisons = measured.row.comparisons
    comparison = next((c for c in comparisons if c.against), comparisons[0])
    side = comparison.side
    median, _, rate = _figures(measured, side)
    client_cpu, server_cpu, client_peak, server_peak = _costs(measured, side)
    cells = (
        measured.row.title,
        side,
        f"{median}, {rate}" if rate else median,
        _ratio(measured, comparison) if comparison.against else "",
        ", ".join(filter(None, (client_cpu, server_cpu))),
        ", ".join(filter(None, (client_peak, server_peak))),
    )
    return f"| {' | '.join(cells)} |\n"


def _curve_table(measured: MeasuredCurve) -> str:
    """A line for each point: the rates of all sides, and the ratios."""
    points = measured.points
    ratios = next(iter(points.values())).row.comparisons
    head = [measured.curve.x, *measured.sides, *(f"{c.side} / {c.against}" for c in ratios)]
    lines = [head]
    for x, point in points.items():
        rates = [_rate(point, side) for side in measured.sides]
        lines.append([f"{x:,}", *rates, *(f"{point.value(c):.2f}" for c in ratios)])
    return f"{measured.curve.name}: {measured.curve.title}\n" + _aligned(lines, set(range(len(head))))


def _figure_table(measured: Measured) -> str:
    """A line for each side: the medians of the row's own figures; what they are stands below."""
    row = measured.row
    lines = [[row.unit, *row.figures]]
    lines += [[side, *(f"{measured.figure(side, name):.3f}" for name in row.figures)] for side in measured.samples]
    meanings = "".join(fill(f"{name}: {meaning}", WIDTH) + "\n" for name, meaning in row.figures.items() if meaning)
    return f"{row.name}: {row.title}\n{_aligned(lines, set(range(1, len(lines[0]))))}{meanings}"


def _lines(measured: Measured) -> Iterator[Sequence[str]]:
    """A line for each side, and more where a side is compared more than once."""
    name = measured.row.name
    for side in measured.samples:
        first, *more = [_compared(measured, c) for c in measured.row.comparisons if c.side == side] or [("", "", "")]
        yield name, side, *_figures(measured, side), *first, *_costs(measured, side)
        yield from (("", "", "", "", "", *compared, "", "", "", "") for compared in more)
        name = ""


def _compared(measured: Measured, comparison: Comparison) -> tuple[str, str, str]:
    return _ratio(measured, comparison), _aim(measured, comparison), MARKS[measured.ok(comparison)]


def _ratio(measured: Measured, comparison: Comparison) -> str:
    value = measured.value(comparison)
    if not comparison.against and comparison.measure == "speed":
        return f"{value:,.0f} {measured.row.work}/s"
    if not comparison.against:
        name = "p99 " * (comparison.measure == "p99")
        return f"{name}{value:.3g} {measured.row.unit}"
    return f"{comparison.measure} {value:.2f} of {comparison.against}"


def _aim(measured: Measured, comparison: Comparison) -> str:
    if comparison.aim is None:
        return ""
    faster = comparison.measure == "speed"
    unit = "" if comparison.against else f" {measured.row.work}/s" if faster else f" {measured.row.unit}"
    aim = f"{comparison.aim:,.0f}" if comparison.aim >= 1000 else f"{comparison.aim:g}"
    return f"{'>=' if faster else '<='} {aim}{unit}"


def _figures(measured: Measured, side: str) -> tuple[str, str, str]:
    row, value = measured.row, measured.median(side)
    spoken = [_spoken(number, row.unit) for number in (value, measured.best(side))]
    if row.unit != "s":
        return spoken[0], spoken[1], ""
    return spoken[0], spoken[1], _rate(measured, side)


def _rate(measured: Measured, side: str) -> str:
    rate, work = measured.rate(side), measured.row.work
    return f"{rate / 1e9:.3g} GB/s" if work == "B" else f"{rate:,.0f} {work}/s"


def _spoken(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.1f} {unit}"
    return f"{value:.3f} s" if value >= 0.1 else f"{1000 * value:.1f} ms"


def _costs(measured: Measured, side: str) -> tuple[str, str, str, str]:
    cpu = [measured.mean(side, what) for what in ("client_cpu", "server_cpu")]
    peak = [measured.peak(side, what) for what in ("client_peak", "server_peak")]
    first, second = (f"{seconds:.3f}" if seconds else "" for seconds in cpu)
    third, fourth = (f"{kib / 1024:.1f}" if kib else "" for kib in peak)
    return first, second, third, fourth


def _aligned(lines: Sequence[Sequence[str]], right: Container[int]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ""
    for line in lines:
        cells = (
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text += "  ".join(cells).rstrip() + "\n"
    return text
