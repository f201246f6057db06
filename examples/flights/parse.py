"""Rows of flights.csv on stdin (no header) to tab-separated lines on stdout, one per flight:

distance (miles, 4 digits), date, scheduled departure (HHMM), carrier, flight, origin, destination, arrival delay
(minutes; NA for a flight that was cancelled or diverted).

The numbers that lead a line have a fixed width, so that the byte order of whole lines is the order by distance.
"""

import csv
import sys
from collections.abc import Iterator

COLUMNS = 19


def lines() -> Iterator[str]:
    for row in csv.reader(sys.stdin):
        if len(row) != COLUMNS:
            sys.exit(f"parse.py: {len(row)} columns instead of {COLUMNS}: {row}")
        year, month, day, _, scheduled, _, _, _, delay, carrier, flight, _, origin, destination, _, distance, *_ = row
        date = f"{year}-{month:>02}-{day:>02}"
        yield f"{distance:>04}\t{date}\t{scheduled:>04}\t{carrier}\t{flight}\t{origin}\t{destination}\t{delay}\n"


sys.stdout.writelines(lines())
