"""Throughput against the size of objects, and against the number of connections that share one."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.lab import BUCKET, Lab, Workers, expect, pids
from bench.measure import Comparison, Curve, Row, Side, TimedSide, nothing
from bench.rows_transfer import drop_file, drop_files
from s4raw import pipeline
from s4raw.local import LocalRing

GET, PUT, BARE_GET, BARE_PUT = "s4raw get", "s4raw put", "bare get", "bare put"
SMALLEST, LARGEST, LARGEST_QUICK = 10, 30, 26  # powers of 2
MOST_KEYS = 2000
SMALL = 1 << 20  # keys that are got pipelined, into memory, and that are not removed before the end: see rows_small
SMALL_BYTES, LARGE_BYTES = 64 << 20, 128 << 20  # of a run
SHARED, SHARED_QUICK = 256 << 20, 64 << 20


def sizes(lab: Lab) -> Curve:
    """Get to nowhere and put, on one connection to one server; small keys pipelined."""
    largest, step = (LARGEST_QUICK, 4) if lab.quick else (LARGEST, 2)

    def point(size: int) -> Callable[[], Row]:
        return lambda: _size_row(lab, size)

    points = {1 << power: point(1 << power) for power in range(SMALLEST, largest + 1, step)}
    return Curve("sizes", "one connection, keys of several sizes, small ones pipelined", "object size in bytes", points)


def _size_row(lab: Lab, size: int) -> Row:
    ring = lab.ring(1)
    run = (SMALL_BYTES if size <= SMALL else LARGE_BYTES) // (4 if lab.quick else 1)
    count = max(1, min(MOST_KEYS, run // size))
    path, key = lab.path(f"size-{size}"), f"s4://{BUCKET}/size/{size}"
    lab.random_file(path, size)
    lab.at_row_end(os.unlink, path)
    lab.client(ring).put_file(key, path)
    depth = pipeline.WINDOW if size <= SMALL else 1
    sender, receiver = (
        lab.worker("bench.bare:sender", path=path),
        lab.worker("bench.bare:receiver", directory=f"{path}-got"),
    )
    options = {"size": size, "requests": count, "depth": depth}
    getter = lab.worker("bench.bare:many_getter", port=sender.run()["port"], **options)
    putter = lab.worker("bench.bare:putter", port=receiver.run()["port"], path=path, **options)
    drop = drop_files(f"{path}-got", size * count) if size > SMALL else nothing
    sides: list[Side] = [
        TimedSide(BARE_GET, getter, [sender.pid]),
        _get(lab, ring, key, size, count),
        TimedSide(BARE_PUT, putter, [receiver.pid], after=drop),
        _put(lab, ring, path, size, count),
    ]
    comparisons = [Comparison(GET, BARE_GET, "speed"), Comparison(PUT, BARE_PUT, "speed")]
    touched = max(32 << 20, size * count)
    return Row("sizes", f"{size} bytes", sides, comparisons, lab.samples(3, 1), size * count, "B", touched=touched)


def _get(lab: Lab, ring: LocalRing, key: str, size: int, count: int) -> Side:
    if size <= SMALL:
        worker = lab.worker("bench.library:get_many", conf=ring.conf, keys=[key] * count, passes=1)
    else:
        worker = lab.worker("bench.library:get_file", conf=ring.conf, key=key, path=os.devnull, passes=count)
    return TimedSide(GET, worker, pids(ring))


def _put(lab: Lab, ring: LocalRing, path: str, size: int, count: int) -> Side:
    client, worker = lab.client(ring), lab.worker("bench.library:put_many", conf=ring.conf, path=path, count=count)

    def prefix(turn: int) -> str:
        return f"s4://{BUCKET}/size-{size}/{turn}/"

    def check(turn: int) -> None:
        found = sum(entry.size or 0 for entry in client.list(prefix(turn), recursive=True))
        expect(found, size * count, f"bytes below {prefix(turn)}")
        if size > SMALL:
            client.remove_all(prefix(turn))

    return TimedSide(PUT, worker, pids(ring), lambda turn: {"prefix": prefix(turn)}, check)


def connections(lab: Lab) -> Curve:
    """One key over several connections, against as many bare loops with a share each."""
    size = SHARED_QUICK if lab.quick else SHARED

    def point(count: int) -> Callable[[], Row]:
        return lambda: _shared_row(lab, size, count)

    title = f"one key of {size >> 20} MiB over several connections, get to a file and put"
    return Curve("connections", title, "connections", {count: point(count) for count in (1, 2, 4, 8)})


def _shared_row(lab: Lab, size: int, count: int) -> Row:
    ring = lab.ring(1)
    client, path, got = lab.client(ring), lab.path(f"shared-{count}"), lab.path(f"shared-{count}-got")
    lab.random_file(path, size)
    lab.at_row_end(os.unlink, path)
    key = f"s4://{BUCKET}/shared/{count}"
    client.put_file(key, path)
    lab.at_row_end(client.remove, key)

    def target(turn: int) -> str:
        return f"{key}-{turn}"

    def drop_key(turn: int) -> None:
        expect(client.stat(target(turn)).size, size, f"bytes in {target(turn)}")
        client.remove(target(turn))

    get = lab.worker("bench.library:get_file", conf=ring.conf, key=key, path=got, connections=count)
    put = lab.worker("bench.library:put_file", conf=ring.conf, path=path, connections=count)
    sides: list[Side] = [
        _bare_get(lab, path, size // count, count),
        TimedSide(GET, get, pids(ring), after=drop_file(got, size)),
        _bare_put(lab, path, size // count, count),
        TimedSide(PUT, put, pids(ring), lambda turn: {"key": target(turn)}, drop_key),
    ]
    comparisons = [Comparison(GET, BARE_GET, "speed"), Comparison(PUT, BARE_PUT, "speed")]
    return Row("connections", f"{count}", sides, comparisons, lab.samples(4, 1), size, "B", touched=size)


def _bare_get(lab: Lab, path: str, size: int, count: int) -> Side:
    """As many loops, each with its part of one file: who writes to a file excludes all others, whatever they are."""
    got, senders = f"{path}-bare", [lab.worker("bench.bare:sender", path=path) for _ in range(count)]
    getters = [
        lab.worker("bench.bare:getter", port=sender.run()["port"], size=size, path=got, offset=number * size)
        for number, sender in enumerate(senders)
    ]
    servers = [sender.pid for sender in senders]
    return TimedSide(BARE_GET, Workers(getters), servers, after=drop_file(got, size * count))


def _bare_put(lab: Lab, path: str, size: int, count: int) -> Side:
    put, offsets = f"{path}-put", range(0, count * size, size)
    receivers = [lab.worker("bench.bare:receiver", directory=put, offset=offset) for offset in offsets]
    putters = [
        lab.worker("bench.bare:putter", port=receiver.run()["port"], path=path, size=size) for receiver in receivers
    ]
    servers = [receiver.pid for receiver in receivers]
    return TimedSide(BARE_PUT, Workers(putters), servers, after=drop_files(put, size * count))
