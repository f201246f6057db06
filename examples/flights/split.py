"""Split parsed flights on stdin into numbered files in the current directory and print their names.

split.py carrier            arrival delays of landed flights, a file per carrier: UA goes to 01090_UA
split.py distance BOUND...  whole lines, a file per range: 00000 is below the first bound, 00001 below the second ...

The leading number decides which server a file goes to; every server gives the same name to the same group.
"""

import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path


def by_carrier(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        fields = line.rstrip("\n").split("\t")
        carrier, delay = fields[3], fields[7]
        if delay != "NA":
            yield (
                f"{int(carrier, 36):05}_{carrier}",
                f"{delay}\n",
            )  # a code of two letters or digits is a base-36 number


def by_distance(lines: Iterable[str], bounds: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        yield f"{bisect_right(bounds, line[:4]):05}", line


def main() -> None:
    match sys.argv[1:]:
        case ["carrier"]:
            named = by_carrier(sys.stdin)
        case ["distance", *bounds]:
            named = by_distance(sys.stdin, bounds)
        case _:
            sys.exit(__doc__)
    files: defaultdict[str, list[str]] = defaultdict(list)
    for name, line in named:
        files[name].append(line)
    for name, text in files.items():
        Path(name).write_text("".join(text))
        print(name)


main()
