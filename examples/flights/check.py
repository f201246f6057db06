"""check.py CSV RESULTS: work out the job's three answers in one process and compare them with the ring's.

Shares no code with the job. Exits with 1 and a diff where the answers differ.
"""

import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from difflib import unified_diff
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from time import perf_counter

Flight = dict[str, str]


def percentile95(delays: list[int]) -> int:
    counts, seen = Counter(delays), 0
    for delay in sorted(counts):
        seen += counts[delay]
        if 100 * seen >= 95 * len(delays):
            return delay
    raise ValueError("no delays")


def carriers(flights: list[Flight]) -> list[str]:
    delays: defaultdict[str, list[int]] = defaultdict(list)
    for flight in flights:
        if flight["arr_delay"] != "NA":
            delays[flight["carrier"]].append(int(flight["arr_delay"]))
    return [f"{name}\t{len(d)}\t{fmean(d):.2f}\t{percentile95(d)}" for name, d in sorted(delays.items())]


def months(flights: list[Flight]) -> list[str]:
    counts = Counter((int(flight["month"]), flight["origin"]) for flight in flights)
    return [f"{month:02}\t{origin}\t{n}" for (month, origin), n in sorted(counts.items())]


def by_distance(flights: list[Flight]) -> list[str]:
    rows = []
    for f in flights:
        date = "-".join(f[part].zfill(2) for part in ("year", "month", "day"))
        rest = (f["carrier"], f["flight"], f["origin"], f["dest"], f["arr_delay"])
        rows.append((int(f["distance"]), date, int(f["sched_dep_time"]), rest))
    return ["\t".join((f"{miles:04}", date, f"{time:04}", *rest)) for miles, date, time, rest in sorted(rows)]


ANSWERS: dict[str, Callable[[list[Flight]], list[str]]] = {
    "carriers": carriers,
    "months": months,
    "sorted": by_distance,
}


def differ(name: str, expected: list[str], given: list[str]) -> None:
    at = next(i for i, (a, b) in enumerate(zip_longest(expected, given)) if a != b)
    near = slice(max(at - 2, 0), at + 8)  # difflib is not made for hundreds of thousands of lines
    names = f"{name} near line {at + 1}, expected", f"{name} near line {at + 1}, from the ring"
    sys.stderr.writelines(f"{line.rstrip()[:160]}\n" for line in unified_diff(expected[near], given[near], *names))


def main() -> None:
    source, results = Path(sys.argv[1]), Path(sys.argv[2])
    start, wrong = perf_counter(), []
    with source.open(newline="") as file:
        flights = list(csv.DictReader(file))
    for name, answer in ANSWERS.items():
        expected = "".join(f"{line}\n" for line in answer(flights))
        given = b"".join(path.read_bytes() for path in sorted((results / name).iterdir())).decode()
        if given != expected:
            differ(name, expected.splitlines(keepends=True), given.splitlines(keepends=True))
            wrong.append(name)
    if wrong:
        sys.exit(f"check.py: the ring's answer differs: {', '.join(wrong)}")
    print(f"  {'check: one process gives the same bytes':<44} {perf_counter() - start:6.2f} s")


main()
