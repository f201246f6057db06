"""Histograms of upload times, as PNG. matplotlib is imported here alone, and when one is drawn: it is an extra."""

from __future__ import annotations

import os
from array import array
from urllib.parse import quote

from s4raw.errors import ConfError, LocalFileError
from s4raw.push.report import Summary

BINS = 50
OVERALL = "all"


def draw(directory: str, summary: Summary, seconds: array[float], requirement: float) -> str:
    """Draw a histogram of times, with a line at the requirement, both in seconds; returns the path of the picture.

    It is HOST.png in the directory, which is made. Raises ConfError without matplotlib, LocalFileError.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfError(f"pictures need matplotlib ({error}): pip install 's4raw[report]'") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(seconds, bins=BINS, range=(0.0, max(summary.max or 0.0, requirement) * 1.05))
    axes.axvline(
        requirement, color="red", linestyle="--", label=f"requirement: {requirement:g} s, {summary.over} over it"
    )
    axes.set_title(
        f"{_plain(summary.host)}: {summary.count} files, p50 {summary.p50 or 0:.2f} s, p99 {summary.p99 or 0:.2f} s"
    )
    axes.set_xlabel("seconds")
    axes.set_ylabel("files")
    axes.legend()
    path = os.path.join(directory, f"{quote(summary.host, safe=' ', errors='surrogateescape')}.png")
    try:
        os.makedirs(directory, exist_ok=True)
        figure.savefig(path, dpi=100)
    except OSError as error:
        raise LocalFileError(f"local file {path}: {error.strerror}") from None
    return path


def _plain(text: str) -> str:
    """A text that matplotlib draws as it stands: of $, it would make formulas."""
    return text.replace("$", r"\$").encode(errors="replace").decode()
