"""show.py RESULTS: print the ring's three answers as tables."""

import sys
from pathlib import Path


def rows(directory: Path) -> list[list[str]]:
    return [line.split("\t") for path in sorted(directory.iterdir()) for line in path.read_text().splitlines()]


def table(title: str, cells: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for row in cells:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def main() -> None:
    results = Path(sys.argv[1])
    table("Arrival delay in minutes", [["carrier", "flights", "mean", "p95"], *rows(results / "carriers")])

    counts = {(month, origin): n for month, origin, n in rows(results / "months")}
    months, origins = (sorted(set(names)) for names in zip(*counts, strict=True))
    grid = [[month, *(counts.get((month, origin), "0") for origin in origins)] for month in months]
    table("Flights by month and origin", [["month", *origins], *grid])

    flights = rows(results / "sorted")
    table(f"All {len(flights):,} flights by distance, the first and the last three", flights[:3] + flights[-3:])


main()
