"""What was measured, as a table and as JSON, with the facts of the machine (and neither its name nor a path)."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from bench.measure import Comparison, Measured

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
RIGHT = {2, 3, 4, 8, 9, 10, 11}
MARKS = {True: "ok", False: "short", None: ""}
LEGEND = """\
Samples were taken in turn; ratios are those of medians. speed: the other's time over ours, time: ours over the other's.
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
        "load at start": round(os.getloadavg()[0], 2),
    }
    return {name: value for name, value in facts.items() if value}


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
    floor_kib: int = 0

    def as_json(self) -> str:
        """The whole record."""
        found = {"version": 1, "quick": self.quick, "when": self.when, "machine": self.machine}
        return json.dumps({**found, "rows": [row.as_json() for row in self.rows]}, indent=1) + "\n"

    def table(self) -> str:
        """All rows, aligned, with the machine above and the legend below."""
        facts = "".join(f"{name}: {value}\n" for name, value in self.machine.items())
        lines = [HEAD, *(line for row in self.rows for line in _lines(row))]
        notes = [f"{measured.row.name}: {note}\n" for measured in self.rows for note in measured.row.notes]
        notes += [f"Short of its aim: {line}\n" for line in self.short()]
        if self.quick:
            notes.append("A quick run: the large file is smaller and the samples are few.\n")
        legend = LEGEND.format(floor=round(self.floor_kib / 1024))
        return "\n".join((facts, _aligned(lines), legend + "".join(notes)))

    def short(self) -> list[str]:
        """The aims that were missed, in words."""
        return [
            f"{measured.row.name}: {comparison.side}: {_ratio(measured, comparison)}, aim {_aim(measured, comparison)}"
            for measured in self.rows
            for comparison in measured.row.comparisons
            if measured.ok(comparison) is False
        ]


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
    if not comparison.against:
        return f"{value:.3g} {measured.row.unit}"
    return f"{comparison.measure} {value:.2f} of {comparison.against}"


def _aim(measured: Measured, comparison: Comparison) -> str:
    if comparison.aim is None:
        return ""
    unit = "" if comparison.against else f" {measured.row.unit}"
    return f"{'>=' if comparison.measure == 'speed' else '<='} {comparison.aim:g}{unit}"


def _figures(measured: Measured, side: str) -> tuple[str, str, str]:
    row, value = measured.row, measured.median(side)
    spoken = [_spoken(number, row.unit) for number in (value, measured.best(side))]
    if row.unit != "s":
        return spoken[0], spoken[1], ""
    rate = row.amount / value
    return spoken[0], spoken[1], f"{rate / 1e9:.2f} GB/s" if row.work == "B" else f"{rate:,.0f} {row.work}/s"


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


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ""
    for line in lines:
        cells = (
            cell.rjust(width) if index in RIGHT else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        text += "  ".join(cells).rstrip() + "\n"
    return text
