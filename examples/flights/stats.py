"""stats.py NAME: sorted whole numbers on stdin to one line: NAME, how many, their mean, their 95th percentile.

The percentile is the nearest rank: the smallest value that at least 95 of 100 do not exceed.
"""

import sys


def main() -> None:
    values = [int(line) for line in sys.stdin]
    rank = -(-95 * len(values) // 100)
    mean = sum(values) / len(values)
    print(sys.argv[1], len(values), f"{mean:.2f}", values[rank - 1], sep="\t")


main()
