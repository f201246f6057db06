"""``python -m bench``: measure, print one table, record it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bench import (
    plots,
    rows_compute,
    rows_push,
    rows_queue,
    rows_s3,
    rows_s3_names,
    rows_shuffle,
    rows_sizes,
    rows_small,
    rows_start,
    rows_transfer,
    rows_workers,
)
from bench.lab import Lab, LeftOut
from bench.measure import Curve, Row, measure, measure_curve
from bench.report import Report, into_readme

HERE = Path(__file__).parent
RESULTS = HERE / "results"
README = HERE.parent / "README.md"

# What would change the figures: without compiled modules on disk, say, every start-up compiles them.
SETTINGS = ("S4_CONF_PATH", "S4_TIMEOUT", "S4RAW_SECRET_FILE", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")

STOPS = (signal.SIGINT, signal.SIGTERM)

# In the order they run: what uses the large file comes first, and the last of those drops it.
ROWS: dict[str, Callable[[Lab], Row]] = {
    "get-null": rows_transfer.get_null,
    "get-file": rows_transfer.get_file,
    "put": rows_transfer.put,
    "cp-up": rows_small.copy_up,
    "cp-down": rows_small.copy_down,
    "gets": rows_small.gets,
    "gets-pipelined": rows_small.gets_pipelined,
    "workers": rows_workers.workers,
    "ls": rows_small.listing,
    "ls-one": rows_small.listing_one,
    "map": rows_compute.map_cat,
    "shuffle": rows_compute.shuffle,
    "shuffle-split": rows_compute.shuffle_split,
    "merge": rows_compute.merge,
    "start": rows_start.start,
    "imports": rows_start.imports,
    "idle": rows_start.idle,
    "map-many": rows_compute.map_many,
    "shuffle-gib": rows_shuffle.shuffle_gib,
    **rows_s3.large_rows(),
    "s3-multipart": rows_s3.multipart,
    "s3-gets": rows_s3.gets_one,
    "s3-gets-16": rows_s3.gets_many,
    "s3-puts": rows_s3.puts_one,
    "s3-puts-16": rows_s3.puts_many,
    **rows_s3_names.copies(),
    **rows_push.rows(),
    **rows_queue.rows(),
    "s3-memory": rows_s3_names.memory,
    "s3-list": rows_s3_names.whole_listing,
    "s3-pages": rows_s3_names.pages,
}

CURVES: dict[str, Callable[[Lab], Curve]] = {
    "clients": rows_workers.clients,
    "connections": rows_sizes.connections,
    "sizes": rows_sizes.sizes,
}
NAMES = [*ROWS, *CURVES]


def main() -> int:
    """Run the rows that are asked for; returns the exit code, which says nothing about aims."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"which to run: {', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a smaller large file, fewer samples")
    parser.add_argument("--dir", help="where the data goes: at most 12 GiB, removed afterwards (default: bench/.tmp)")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(NAMES):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    for name in SETTINGS:
        os.environ.pop(name, None)
    for number in STOPS:
        signal.signal(number, _interrupt)
    directory = Path(options.dir or HERE / ".tmp")
    directory.mkdir(parents=True, exist_ok=True)
    report = Report(options.quick)
    try:
        _run(report, options.rows or NAMES, str(directory))
    except KeyboardInterrupt:
        sys.stdout.write(report.table())  # of the rows that were done by then
        return 130
    finally:
        if not options.dir:
            with suppress(OSError):  # another run is at work in it
                directory.rmdir()
    sys.stdout.write(report.table())
    whole = not options.quick and not options.rows
    _record(report, "latest" if whole else "partial")
    return 0


def _interrupt(*_: object) -> None:
    """End the run, once: a second signal must not end the tidying up."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(report: Report, names: Sequence[str], directory: str) -> None:
    with Lab(directory, report.quick) as lab:
        report.floor_kib = lab.commands.run(argv=["true"])["peak"]
        for name in filter(names.__contains__, NAMES):
            started = time.monotonic()
            sys.stderr.write(f"{name} ...")
            sys.stderr.flush()
            try:
                if name in ROWS:
                    report.rows.append(measure(ROWS[name](lab), lab.warm))
                    lab.end_row()
                else:
                    report.curves.append(measure_curve(CURVES[name](lab), lab.warm, lab.end_row))
            except LeftOut as reason:
                sys.stderr.write(f" left out: {reason}")
            except RuntimeError as error:  # one side has failed: the other rows are worth having all the same
                sys.stderr.write(f" failed: {error}\n")
                lab.end_row()
            sys.stderr.write(f" {time.monotonic() - started:.0f} s\n")


def _record(report: Report, name: str) -> None:
    """Write the JSON and the pictures; those of a whole run become ``latest``, with a page, and go into README.md."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(report.as_json(), encoding="utf-8")
    written = [RESULTS / f"{name}.json"]
    if plotted := plots.available():
        written += plots.draw(report.record(), RESULTS, "" if name == "latest" else f"{name}.")
    else:
        sys.stderr.write("no matplotlib: the plots are left out (pip install 's4raw[bench]')\n")
    if name == "latest":
        written += [RESULTS / "README.md", README]
        (RESULTS / "README.md").write_text(report.page(plotted), encoding="utf-8")
        README.write_text(into_readme(README.read_text(encoding="utf-8"), report.summary(plotted)), encoding="utf-8")
    sys.stderr.write("".join(f"written to {os.path.relpath(path)}\n" for path in written))


if __name__ == "__main__":
    sys.exit(main())
