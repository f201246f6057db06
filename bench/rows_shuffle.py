"""Much data through a shuffle and a merge, against putting the same data, and against xargs on local files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from bench.lab import BUCKET, Lab, LeftOut, expect, s4raw_command
from bench.measure import Comparison, Row, Side
from bench.rows_compute import BUCKETS

KEYS = 64
KEY_MIB, KEY_MIB_QUICK = 16, 2
PIECE = 128 << 10  # bytes that the command reads at once
AIM = 0.5  # of the speed of put
PUT, RING, XARGS = "s4raw cp -r", "s4raw map-to-n, map-from-n", "xargs -P4, twice"


def split_command(each: int) -> str:
    """Cuts a key of ``each`` bytes into BUCKETS files, in one process, as a program that partitions records does.

    (As many ``head -c`` need three times the CPU, more than all that is measured here.)
    """
    pieces = each // BUCKETS // PIECE
    loop = f"for (1..{pieces}) {{ sysread STDIN, $b, {PIECE}; syswrite F, $b }}"
    return f"perl -e 'for $i (0..{BUCKETS - 1}) {{ open F, q(>), $i; {loop} close F; print qq($i\n) }}'"


# The same on local files: outputs beside each other, and each merge reads the files of its own name.
LOCAL = f"""\
mkdir split merged
ls "$0" | xargs -P 4 -n 1 bash -euo pipefail -c 'mkdir split/$1; cd split/$1; eval "$SPLIT" <"$0/$1" >/dev/null' "$0"
seq 0 {BUCKETS - 1} | xargs -P 4 -n 1 bash -euo pipefail -c 'ls -d split/*/$0 | xargs cat >merged/$0'
"""


def shuffle_gib(lab: Lab) -> Row:
    """1:n and n:1 of 1 GiB, on three servers."""
    if not shutil.which("perl"):
        raise LeftOut("there is no perl")
    client = lab.client()
    each = (KEY_MIB_QUICK if lab.quick else KEY_MIB) << 20
    source, inputs = lab.path("shuffle-gib"), f"s4://{BUCKET}/gib/"
    os.mkdir(source)
    lab.at_row_end(shutil.rmtree, source)
    for number in range(KEYS):
        path = os.path.join(source, f"{number:02}")
        lab.random_file(path, each)
        client.put_file(f"{inputs}{number:02}", path)
    lab.at_row_end(client.remove_all, inputs)
    sides = [_put(lab, source, each), _shuffle_and_merge(lab, inputs, each), _local(lab, source, each)]
    comparisons = [Comparison(RING, PUT, "speed", AIM), Comparison(RING, XARGS, "speed")]
    title = f"{KEYS} keys of {each >> 20} MiB through map-to-n ({BUCKETS} files each) and map-from-n"
    samples, size = lab.samples(3, 1), KEYS * each
    return Row("shuffle-gib", title, sides, comparisons, samples, size, "B", touched=2 * size)


def _put(lab: Lab, source: str, each: int) -> Side:
    def prefix(turn: int) -> str:
        return f"s4://{BUCKET}/gib-put{turn}/"

    return lab.s4raw(PUT, lambda turn: ["cp", "-r", source, prefix(turn)], after=_drop(lab, prefix, KEYS * each))


def _shuffle_and_merge(lab: Lab, inputs: str, each: int) -> Side:
    def split(turn: int) -> str:
        return f"s4://{BUCKET}/gib-split{turn}/"

    def merged(turn: int) -> str:
        return f"s4://{BUCKET}/gib-merged{turn}/"

    checks = [_drop(lab, prefix, KEYS * each) for prefix in (split, merged)]

    def after(turn: int) -> None:
        for check in checks:
            check(turn)

    side = lab.s4raw(RING, [], after=after)
    inner = side.arguments

    def arguments(turn: int) -> dict[str, object]:
        """Both commands in one bash, so that they are timed as one."""
        script = '"${@:5}" map-to-n "$1" "$2" "$4"; "${@:5}" map-from-n "$2" "$3" "xargs cat"'
        words = ["both", inputs, split(turn), merged(turn), split_command(each), *s4raw_command()]
        return {**inner(turn), "argv": ["bash", "-euo", "pipefail", "-c", script, *words]}

    side.arguments = arguments
    return side


def _local(lab: Lab, source: str, each: int) -> Side:
    def directory(turn: int) -> str:
        return lab.path(f"gib-local{turn}")

    def check(turn: int) -> None:
        merged = os.path.join(directory(turn), "merged")
        expect(sum(entry.stat().st_size for entry in os.scandir(merged)), KEYS * each, f"bytes in {merged}")
        shutil.rmtree(directory(turn))

    bash = ["bash", "-euo", "pipefail", "-c", 'mkdir "$1"; cd "$1"; export SPLIT="$2"; ' + LOCAL]
    return lab.command(XARGS, lambda turn: [*bash, source, directory(turn), split_command(each)], after=check)


def _drop(lab: Lab, prefix: Callable[[int], str], size: int) -> Callable[[int], None]:
    def check(turn: int) -> None:
        found = sum(entry.size or 0 for entry in lab.client().list(prefix(turn), recursive=True))
        expect(found, size, f"bytes below {prefix(turn)}")
        lab.client().remove_all(prefix(turn))

    return check
