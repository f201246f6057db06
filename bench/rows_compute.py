"""Commands over many keys: map, shuffle, merge, against xargs with the same commands over the same files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.lab import BUCKET, SERVERS, SMALL_COUNT, Lab, expect
from bench.measure import Comparison, Row, Side, TimedSide
from bench.rows_small import files_below, keys_below, put_small
from s4raw.daemon import Options

MAP_AIM = 1.15
BUCKETS = 8
FLOOR = "xargs -P4"
BASH = ("bash", "-eou", "pipefail", "-c")
SPLIT = f"split -n r/{BUCKETS} -d -a 1 - ''; printf '%s\\n' *"
MERGE = "xargs cat"


def map_cat(lab: Lab) -> Row:
    """1:1, on a ring of three servers and on one."""
    rings = {SERVERS: f"s4raw map, {SERVERS} servers", 1: "s4raw map, 1 server"}
    slots = Options().max_cpu_jobs * SERVERS
    prefixes = {count: put_small(lab, "map", count) for count in rings}
    inputs = [lab.stored(f"{prefixes[SERVERS]}{number:04}") for number in range(SMALL_COUNT)]
    command, wide = 'cat <"$1" >"${1##*/}"', f"xargs -P{slots}, the CPU slots"
    sides: list[Side] = [
        _xargs(lab, FLOOR, 4, command, inputs, SMALL_COUNT),
        _xargs(lab, wide, slots, command, inputs, SMALL_COUNT),
        *(_mapper(lab, name, "map", prefixes[count], "cat", SMALL_COUNT, count) for count, name in rings.items()),
    ]
    comparisons = [Comparison(name, FLOOR, "time", MAP_AIM) for name in rings.values()]
    comparisons.append(Comparison(rings[SERVERS], wide))
    samples = lab.samples(7, 3)
    return Row("map", f"map of {SMALL_COUNT} keys with cat", sides, comparisons, samples, SMALL_COUNT, "keys")


def shuffle(lab: Lab) -> Row:
    """1:n."""
    prefix, name = put_small(lab, "shuffle"), "s4raw map-to-n"
    inputs = [lab.stored(f"{prefix}{number:04}") for number in range(SMALL_COUNT)]
    count = SMALL_COUNT * BUCKETS
    command = f'mkdir "${{1##*/}}"; cd "${{1##*/}}"; <"$1" {SPLIT} >/dev/null'
    sides: list[Side] = [
        _xargs(lab, FLOOR, 4, command, inputs, count),
        _mapper(lab, name, "map-to-n", prefix, SPLIT, count),
    ]
    title, samples = f"shuffle of {SMALL_COUNT} keys into {BUCKETS} buckets each", lab.samples(5, 2)
    return Row("shuffle", title, sides, [Comparison(name, FLOOR)], samples, SMALL_COUNT, "keys")


def merge(lab: Lab) -> Row:
    """n:1, of what a shuffle has made."""
    prefix, name, client = put_small(lab, "unmerged"), "s4raw map-from-n", lab.client()
    shuffled = f"s4://{BUCKET}/shuffled/"
    expect(client.map_to_n(prefix, shuffled, SPLIT), SMALL_COUNT, "merge: keys shuffled")
    groups = [Path(lab.stored(f"{shuffled}0000/{bucket}")) for bucket in range(BUCKETS)]
    patterns = [str(path.parent.parent / "*" / path.name) for path in groups]
    command = """printf '%s\\n' $1 | xargs cat >"${1##*/}\""""
    sides: list[Side] = [
        _xargs(lab, FLOOR, 4, command, patterns, BUCKETS),
        _mapper(lab, name, "map-from-n", shuffled, MERGE, BUCKETS),
    ]
    title, files = f"merge of {SMALL_COUNT * BUCKETS} keys into {BUCKETS}", SMALL_COUNT * BUCKETS
    return Row("merge", title, sides, [Comparison(name, FLOOR)], lab.samples(9, 3), files, "keys")


def _xargs(lab: Lab, name: str, jobs: int, command: str, inputs: Sequence[str], count: int) -> Side:
    """``xargs -P`` with the same bash, an input's path as ``$1``, in a directory where the ``count`` outputs go."""
    listed = lab.path(f"xargs-{lab.new_number()}")
    with open(listed, "w", encoding="utf-8") as file:
        file.write("".join(f"{path}\n" for path in inputs))

    def directory(turn: int) -> str:
        return f"{listed}-out{turn}"

    def arguments(turn: int) -> Mapping[str, object]:
        os.mkdir(directory(turn))
        argv = ["xargs", "-P", str(jobs), "-d", "\\n", "-n", "1", *BASH, command, "bash"]
        return {"argv": argv, "cwd": directory(turn), "stdin": listed, "env": {"LC_ALL": "C"}}

    return TimedSide(name, lab.commands, (), arguments, files_below(directory, count))


def _mapper(lab: Lab, name: str, verb: str, inputs: str, command: str, outputs: int, count: int = SERVERS) -> Side:
    def target(turn: int) -> str:
        return f"s4://{BUCKET}/{verb}-out{turn}/"

    check = keys_below(lab, target, outputs, count)
    return lab.s4raw(name, lambda turn: [verb, inputs, target(turn), command], count, check)
