"""Commands over many keys: map, shuffle, merge, against xargs with the same commands over the same files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.lab import BUCKET, SERVERS, SMALL_COUNT, Lab, expect
from bench.measure import Comparison, Row, Side, TimedSide
from bench.rows_small import files_below, keys_below, put_small, small_keys
from s4raw import bulk
from s4raw.daemon import Options
from s4raw.keys import Key
from s4raw.local import LocalRing

MAP_AIM = 1.15
SHUFFLE_SECONDS = 1.2
MEMORY_AIM = 1.5  # times what a map of few keys takes
MANY, MANY_QUICK = 100_000, 20_000
BUCKETS = 8
FLOOR = "xargs -P4"
BASH = ("bash", "-eou", "pipefail", "-c")
LIGHT = 'for i in 0 1 2 3 4 5 6 7; do echo "$filename" >$i; echo $i; done'  # bash alone: no process is started
SPLIT = f"split -n r/{BUCKETS} -d -a 1 - ''; printf '%s\\n' *"
MERGE = "xargs cat"


def map_cat(lab: Lab) -> Row:
    """1:1, on a ring of three servers and on one."""
    rings = {ring.count: ring for ring in (lab.ring(), lab.ring(1))}
    names = {count: f"s4raw map, {count} server{'s' * (count > 1)}" for count in rings}
    slots = Options().max_cpu_jobs * SERVERS
    prefixes = {count: put_small(lab, "map", ring) for count, ring in rings.items()}
    inputs = [lab.stored(key) for key in small_keys(prefixes[SERVERS])]
    command, wide = 'cat <"$1" >"${1##*/}"', f"xargs -P{slots}, the CPU slots"
    sides: list[Side] = [
        _xargs(lab, FLOOR, 4, command, inputs, SMALL_COUNT),
        _xargs(lab, wide, slots, command, inputs, SMALL_COUNT),
        *(_mapper(lab, names[n], "map", prefixes[n], "cat", SMALL_COUNT, ring) for n, ring in rings.items()),
    ]
    comparisons = [Comparison(name, FLOOR, "time", MAP_AIM) for name in names.values()]
    comparisons.append(Comparison(names[SERVERS], wide))
    samples = lab.samples(7, 1)
    return Row("map", f"map of {SMALL_COUNT} keys with cat", sides, comparisons, samples, SMALL_COUNT, "keys")


def shuffle(lab: Lab) -> Row:
    """1:n, with a command that costs as little as a command can."""
    row = _shuffle(lab, "shuffle", "bash alone", LIGHT, 'filename="${1##*/}"; ')
    row.comparisons = [Comparison("s4raw map-to-n", aim=SHUFFLE_SECONDS), *row.comparisons]
    return row


def shuffle_split(lab: Lab) -> Row:
    """1:n, with split, which reads its input."""
    return _shuffle(lab, "shuffle-split", "split", SPLIT, "")


def _shuffle(lab: Lab, row: str, by: str, command: str, before: str) -> Row:
    prefix, name = put_small(lab, row), "s4raw map-to-n"
    inputs, count = [lab.stored(key) for key in small_keys(prefix)], SMALL_COUNT * BUCKETS
    alike = f'{before}mkdir "${{1##*/}}"; cd "${{1##*/}}"; {{ {command}; }} <"$1" >/dev/null'
    sides: list[Side] = [
        _xargs(lab, FLOOR, 4, alike, inputs, count),
        _mapper(lab, name, "map-to-n", prefix, command, count),
    ]
    title, samples = f"shuffle of {SMALL_COUNT} keys into {BUCKETS} files each, by {by}", lab.samples(5, 1)
    return Row(row, title, sides, [Comparison(name, FLOOR)], samples, SMALL_COUNT, "keys")


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


def map_many(lab: Lab) -> Row:
    """One map over very many keys: what it takes of memory, beside a map over few."""
    ring, client = lab.fresh_ring(), lab.client
    many = MANY_QUICK if lab.quick else MANY
    sides: list[Side] = []
    amounts = {}
    for count in (SMALL_COUNT, many):
        name, prefix = f"s4raw map, {count:,} keys", f"many{count}/"
        items = (bulk.Item(Key(BUCKET, f"{prefix}{number:06}"), os.devnull) for number in range(count))
        bulk.transfer(client(ring), items, lambda _item, _size: None, upload=True)
        sides.append(_mapper(lab, name, "map", f"s4://{BUCKET}/{prefix}", ":", count, ring))
        amounts[name] = float(count)
    few, lots = amounts
    comparisons = [Comparison(lots, few, "memory", MEMORY_AIM)]
    title = "map of very many empty keys with a command that does nothing: its memory"
    return Row("map-many", title, sides, comparisons, 1, 0, "keys", amounts=amounts, warm_up=False)


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


def _mapper(
    lab: Lab, name: str, verb: str, inputs: str, command: str, outputs: int, ring: LocalRing | None = None
) -> Side:
    def target(turn: int) -> str:
        return f"s4://{BUCKET}/{verb}-out-{number}-{turn}/"

    number = lab.new_number()
    check = keys_below(lab, target, outputs, ring)
    return lab.s4raw(name, lambda turn: [verb, inputs, target(turn), command], ring, check)
