"""Many small keys: cp -r both ways, gets one by one and pipelined, a long listing."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.lab import BUCKET, SERVERS, SMALL_COUNT, SMALL_SIZE, Lab, expect, pids
from bench.measure import Comparison, Row, Side, TimedSide
from s4raw import bulk
from s4raw.keys import Key

COPY_SECONDS = 0.4
LISTED = 10_000
PASSES = 5
CLI, LOCAL, BARE, LIBRARY = "s4raw cp -r", "local cp -r", "bare loop", "s4raw library"


def copy_up(lab: Lab) -> Row:
    """A directory of small files into the ring."""

    def prefix(turn: int) -> str:
        return f"s4://{BUCKET}/up{turn}/"

    sides: list[Side] = [
        _local_copy(lab, "up"),
        lab.s4raw(CLI, lambda turn: ["cp", "-r", lab.small, prefix(turn)], after=keys_below(lab, prefix, SMALL_COUNT)),
    ]
    return _copy(lab, "cp-up", f"cp -r of {SMALL_COUNT} files of 4 KiB into the ring", sides)


def copy_down(lab: Lab) -> Row:
    """A directory of small keys out of the ring."""
    prefix = put_small(lab, "down")

    def target(turn: int) -> str:
        return lab.path(f"down{turn}")

    sides: list[Side] = [
        _local_copy(lab, "down"),
        lab.s4raw(CLI, lambda turn: ["cp", "-r", prefix, f"{target(turn)}/"], after=files_below(target, SMALL_COUNT)),
    ]
    return _copy(lab, "cp-down", f"cp -r of {SMALL_COUNT} keys of 4 KiB out of the ring", sides)


def _local_copy(lab: Lab, name: str) -> Side:
    def target(turn: int) -> str:
        return lab.path(f"local-{name}{turn}")

    return lab.command(
        LOCAL, lambda turn: ["cp", "-r", lab.small, target(turn)], after=files_below(target, SMALL_COUNT)
    )


def _copy(lab: Lab, name: str, title: str, sides: list[Side]) -> Row:
    comparisons = [Comparison(CLI, aim=COPY_SECONDS), Comparison(CLI, LOCAL)]
    return Row(name, title, sides, comparisons, lab.samples(15, 5), SMALL_COUNT, "files")


# Nothing small is deleted before the end: for a minute, ext4 passes over the inodes of what was deleted one by one, and
# whoever makes files next would pay for it.


def files_below(directory: Callable[[int], str], count: int) -> Callable[[int], None]:
    """A check that a run has made so many files."""

    def check(turn: int) -> None:
        expect(sum(len(files) for _, _, files in os.walk(directory(turn))), count, f"files in {directory(turn)}")

    return check


def keys_below(lab: Lab, prefix: Callable[[int], str], count: int, servers: int = SERVERS) -> Callable[[int], None]:
    """A check that a run has made so many keys."""

    def check(turn: int) -> None:
        found = sum(1 for _ in lab.client(servers).list(prefix(turn), recursive=True))
        expect(found, count, f"keys below {prefix(turn)}")

    return check


def put_small(lab: Lab, name: str, count: int = SERVERS) -> str:
    """Put the small files below ``name/``, in a ring of ``count`` servers; returns the prefix.

    Their names are numbers, so they are spread evenly.
    """
    client = lab.client(count)
    names = sorted(os.listdir(lab.small))
    items = [bulk.Item(Key(BUCKET, f"{name}/{file}"), os.path.join(lab.small, file)) for file in names]
    bulk.transfer(client, items, lambda _item, _size: None, upload=True)
    return f"s4://{BUCKET}/{name}/"


def gets(lab: Lab) -> Row:
    """Small gets, one after the other."""
    return _gets(lab, "gets", "small gets, one after the other", 1)


def gets_pipelined(lab: Lab) -> Row:
    """Small gets, pipelined."""
    return _gets(lab, "gets-pipelined", "small gets, pipelined", bulk.WINDOW)


def _gets(lab: Lab, name: str, title: str, depth: int) -> Row:
    ring, prefix = lab.ring(), put_small(lab, name)
    keys = [f"{prefix}{number:04}" for number in range(SMALL_COUNT)]
    count = len(keys) * PASSES
    sender = lab.worker("bench.bare:sender", path=lab.stored(keys[0]))
    options = {"size": SMALL_SIZE, "count": count, "depth": depth}
    bare = lab.worker("bench.bare:small_getter", port=sender.run()["port"], **options)
    target = "bench.library:get_each" if depth == 1 else "bench.library:get_train"
    library = lab.worker(target, conf=ring.conf, keys=keys, passes=PASSES)
    sides: list[Side] = [TimedSide(BARE, bare, [sender.pid]), TimedSide(LIBRARY, library, pids(ring))]
    return Row(name, title, sides, [Comparison(LIBRARY, BARE, "speed")], lab.samples(9, 3), count, "gets")


def listing(lab: Lab) -> Row:
    """A long recursive listing."""
    client, ring = lab.client(), lab.ring()
    source = os.path.join(lab.small, "0000")
    items = [bulk.Item(Key("list", f"{number % 100:02}/{number:05}"), source) for number in range(LISTED)]
    bulk.transfer(client, items, lambda _item, _size: None, upload=True)
    output = lab.path("listed")

    def check(_turn: int) -> None:
        with open(output, "rb") as file:
            expect(sum(1 for _ in file), LISTED, "ls: lines")

    roots = [os.path.join(str(ring.data), str(index), "list") for index in range(ring.count)]
    find = ["find", *roots, "-type", "f", "-printf", "%TY-%Tm-%Td %TH:%TM:%TSZ %s %P\\n"]
    sides: list[Side] = [
        lab.command("find -printf", find, after=check, stdout=output),
        lab.s4raw("s4raw ls -r", ["ls", "-r", "s4://list/"], after=check, stdout=output),
    ]
    title, comparisons = f"listing of {LISTED} keys", [Comparison("s4raw ls -r", "find -printf")]
    return Row("ls", title, sides, comparisons, lab.samples(9, 3), LISTED, "keys")
