"""The curves of a record as pictures: ``python -m bench.plots [RECORD [svg|png]]`` draws a record again.

The only module that needs matplotlib, which the extra ``bench`` brings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = Mapping[str, Mapping[str, Any]]  # curves of a record, by name

BLUE, ORANGE, GREEN, GREY = "#1f6fb4", "#d95f02", "#1b8a5a", "#7a7a7a"
LOOKS = {  # of each side: its colour, line and marker; what is measured beside s4raw is dashed
    "s4raw get": (BLUE, "-", "o"),
    "bare get": (BLUE, "--", ""),
    "s4raw put": (ORANGE, "-", "s"),
    "bare put": (ORANGE, "--", ""),
    "server --workers 1": (BLUE, "-", "o"),
    "server --workers 2": (GREEN, "-", "D"),
    "bare loops": (GREY, "--", ""),
}
SPOKEN = {
    "s4raw get": "s4raw get",
    "s4raw put": "s4raw put",
    "bare get": "bare loop, get",
    "bare put": "bare loop, put",
}
STYLE = {
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "svg.hashsalt": "s4raw",
}
PICTURES = {"throughput-size": ("sizes",), "throughput-connections": ("connections", "clients")}


def available() -> bool:
    """Whether matplotlib is here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def draw(record: Mapping[str, Any], directory: Path, prefix: str = "", suffix: str = "svg") -> list[Path]:
    """Draw what the record has the curves for; returns the files. Raises ImportError without matplotlib."""
    import matplotlib
    from matplotlib.figure import Figure

    curves = {curve["name"]: curve for curve in record["curves"]}
    drawn = []
    with matplotlib.rc_context(STYLE):
        for name, needed in PICTURES.items():
            if not set(needed) <= set(curves):
                continue
            figure = Figure(figsize=(8.4, 4.4), layout="constrained")
            (_sizes if name == "throughput-size" else _connections)(figure, curves)
            drawn.append(directory / f"{prefix}{name}.{suffix}")
            figure.savefig(drawn[-1], dpi=110, metadata={"Date": None} if suffix == "svg" else None)
    return drawn


def _sizes(figure: Figure, curves: Curves) -> None:
    axes = figure.add_subplot()
    _lines(axes, curves["sizes"], 1e-9, ("s4raw get", "bare get", "s4raw put", "bare put"))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_title("Throughput against object size, one connection to one server")
    axes.set_xlabel("object size (up to 1 MiB pipelined)")
    axes.set_ylabel("throughput, GB/s")
    found = [point["x"] for point in curves["sizes"]["points"]]
    ticks = [size for size in (2**power for power in range(10, 31, 4)) if size <= found[-1]]
    axes.set_xticks(ticks, [_bytes(size) for size in ticks])
    axes.minorticks_off()
    low, high = axes.get_ylim()
    ticks = [tick for tick in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10) if low <= tick <= high]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.legend(loc="lower right", ncols=2)


def _connections(figure: Figure, curves: Curves) -> None:
    left, right = figure.subplots(1, 2)
    _lines(left, curves["connections"], 1e-9, ("s4raw get", "bare get", "s4raw put", "bare put"))
    size = curves["connections"]["points"][0]["amount"]
    left.set_title(f"One key of {_bytes(size)}, get to a file and put")
    left.set_xlabel("connections that share the key")
    left.set_ylabel("throughput, GB/s")
    _lines(right, curves["clients"], 1e-3, ("server --workers 1", "server --workers 2", "bare loops"))
    right.set_title("Gets of 4 KiB, one after the other")
    right.set_xlabel("client processes, a connection each")
    right.set_ylabel("thousand gets/s")
    for axes, name in ((left, "connections"), (right, "clients")):
        counts = [point["x"] for point in curves[name]["points"]]
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
    left.set_ylim(0)
    left.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.16))
    right.set_yscale("log")
    low, high = right.get_ylim()
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= tick <= high]
    right.set_yticks(ticks, [str(tick) for tick in ticks])
    right.minorticks_off()
    right.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, -0.16), columnspacing=1.2)


def _lines(axes: Axes, curve: Mapping[str, Any], unit: float, names: Sequence[str]) -> None:
    """A line for each side through its medians, in a band from its slowest to its fastest run."""
    xs = [point["x"] for point in curve["points"]]
    for name in names:
        sides = [next(side for side in point["sides"] if side["name"] == name) for point in curve["points"]]
        seconds = [[sample["value"] for sample in side["samples"]] for side in sides]
        amounts = [point["amount"] * unit for point in curve["points"]]
        colour, line, marker = LOOKS[name]
        faint = line == "--"
        axes.plot(
            xs,
            [side["rate"] * unit for side in sides],
            color=colour,
            linestyle=line,
            linewidth=1.2 if faint else None,
            marker=marker,
            label=SPOKEN.get(name, name),
        )
        if not faint:
            slowest = [amount / max(found) for amount, found in zip(amounts, seconds, strict=True)]
            fastest = [amount / min(found) for amount, found in zip(amounts, seconds, strict=True)]
            axes.fill_between(xs, slowest, fastest, color=colour, alpha=0.12, linewidth=0)


def _bytes(size: float) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << power:
            return f"{size / (1 << power):g} {unit}"
    return f"{size:g} B"


def main() -> int:
    """Draw a record again, beside it."""
    path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "results" / "latest.json")
    suffix = sys.argv[2] if len(sys.argv) > 2 else "svg"
    record = json.loads(path.read_text(encoding="utf-8"))
    for file in draw(record, path.parent, "" if path.stem == "latest" else f"{path.stem}.", suffix):
        sys.stderr.write(f"written to {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
