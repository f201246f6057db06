"""Many small keys: cp -r both ways, gets one by one and pipelined, listings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from bench.lab import BUCKET, SMALL_COUNT, SMALL_SIZE, Lab, expect, pids
from bench.measure import Comparison, Row, Side, TimedSide
from s4raw import bulk, pipeline
from s4raw.keys import Key
from s4raw.local import LocalRing

COPY_SECONDS = 0.25
GETS_AIM, PIPELINED_AIM = 10_000, 40_000  # a second
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


def keys_below(
    lab: Lab, prefix: Callable[[int], str], count: int, ring: LocalRing | None = None
) -> Callable[[int], None]:
    """A check that a run has made so many keys."""

    def check(turn: int) -> None:
        found = sum(1 for _ in lab.client(ring).list(prefix(turn), recursive=True))
        expect(found, count, f"keys below {prefix(turn)}")

    return check


def put_small(lab: Lab, name: str, ring: LocalRing | None = None) -> str:
    """Put the small files below ``name/``, in a ring (None: that of SERVERS servers); returns the prefix.

    Their names are numbers, so they are spread evenly.
    """
    names = sorted(os.listdir(lab.small))
    items = [bulk.Item(Key(BUCKET, f"{name}/{file}"), os.path.join(lab.small, file)) for file in names]
    bulk.transfer(lab.client(ring), items, lambda _item, _size: None, upload=True)
    return f"s4://{BUCKET}/{name}/"


def gets(lab: Lab) -> Row:
    """Small gets, one after the other, on one connection."""
    ring = lab.ring(1)
    keys = small_keys(put_small(lab, "gets", ring))
    library = lab.worker("bench.library:get_each", conf=ring.conf, keys=keys, passes=PASSES)
    sides: list[Side] = [_bare_gets(lab, keys[0], ring, 1), TimedSide(LIBRARY, library, pids(ring))]
    return _gets(lab, "gets", "small gets, one after the other, on one connection", sides, {LIBRARY: GETS_AIM})


def gets_pipelined(lab: Lab) -> Row:
    """Small gets, pipelined: on one connection, and on three to as many servers."""
    one, three = lab.ring(1), lab.ring()
    aims = {}
    keys = small_keys(put_small(lab, "gets-pipelined", one))
    sides: list[Side] = [_bare_gets(lab, keys[0], one, pipeline.WINDOW)]
    for ring in (one, three):
        prefix = put_small(lab, "gets-pipelined-too", ring)
        many = lab.worker("bench.library:get_many", conf=ring.conf, keys=small_keys(prefix), passes=PASSES)
        name = f"{LIBRARY}, {ring.count} server{'s' * (ring.count > 1)}"
        sides.append(TimedSide(name, many, pids(ring)))
        aims[name] = PIPELINED_AIM
    return _gets(lab, "gets-pipelined", "small gets, pipelined", sides, aims)


def small_keys(prefix: str) -> list[str]:
    """The keys that ``put_small`` has put below a prefix."""
    return [f"{prefix}{number:04}" for number in range(SMALL_COUNT)]


def _bare_gets(lab: Lab, key: str, ring: LocalRing, depth: int) -> Side:
    sender = lab.worker("bench.bare:sender", path=lab.stored(key, ring))
    options = {"size": SMALL_SIZE, "requests": SMALL_COUNT * PASSES, "depth": depth}
    return TimedSide(BARE, lab.worker("bench.bare:many_getter", port=sender.run()["port"], **options), [sender.pid])


def _gets(lab: Lab, name: str, title: str, sides: list[Side], aims: Mapping[str, int]) -> Row:
    comparisons = [
        comparison
        for side, aim in aims.items()
        for comparison in (Comparison(side, BARE, "speed"), Comparison(side, measure="speed", aim=aim))
    ]
    return Row(name, title, sides, comparisons, lab.samples(9, 3), SMALL_COUNT * PASSES, "gets")


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


def listing_one(lab: Lab) -> Row:
    """One directory of ten keys, as it is looked at by hand."""
    ring, name = lab.ring(), "s4raw library"
    prefix, count = f"s4://{BUCKET}/ten/", 10
    for number in range(count):
        lab.client().put(f"{prefix}{number:04}", b"")
    directory = lab.path("ten")
    os.mkdir(directory)
    for number in range(count):
        open(os.path.join(directory, f"{number:04}"), "wb").close()
    library = lab.worker("bench.library:list_prefix", conf=ring.conf, prefix=prefix)
    sides: list[Side] = [
        lab.command("ls -l", ["ls", "-l", directory]),
        lab.s4raw("s4raw ls", ["ls", prefix]),
        TimedSide(name, library, pids(ring)),
    ]
    comparisons = [Comparison("s4raw ls", "ls -l"), Comparison(name, "ls -l")]
    return Row("ls-one", f"one ls of {count} keys", sides, comparisons, lab.samples(31, 9), 1, "listings")
