"""One large file: get to nowhere and to a file, put; over one connection and several."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.lab import BUCKET, Lab, expect, pids
from bench.measure import Comparison, Row, Side, TimedSide
from bench.nginx import Nginx, missing

BARE, LIBRARY, CLI, CURL = "bare loop", "s4raw library", "s4raw cp", "nginx + curl"
AIM, CURL_AIM = 0.9, 1.0
CONNECTIONS = (2, 4)


def get_null(lab: Lab) -> Row:
    """A large key to /dev/null."""
    return _get(lab, "get-null", "get of a large file to /dev/null", os.devnull)


def get_file(lab: Lab) -> Row:
    """A large key to a file."""
    return _get(lab, "get-file", "get of a large file to a file", lab.path("got"))


def _get(lab: Lab, name: str, title: str, target: str) -> Row:
    large, ring = lab.large, lab.ring()
    to_file = target != os.devnull
    drop = drop_file(target, large.size) if to_file else lambda _turn: None
    sender = lab.worker("bench.bare:sender", path=large.stored)
    port = sender.run()["port"]
    bare = lab.worker("bench.bare:getter", port=port, size=large.size, path=target if to_file else "")
    library = lab.worker("bench.library:get_file", conf=ring.conf, key=large.key, path=target)
    sides: list[Side] = [
        TimedSide(BARE, bare, [sender.pid], after=drop),
        TimedSide(LIBRARY, library, pids(ring), after=drop),
        lab.s4raw(CLI, ["cp", large.key, target], after=drop),
    ]
    comparisons = [Comparison(LIBRARY, BARE, "speed", AIM), Comparison(CLI, BARE, "speed", AIM)]
    for count in CONNECTIONS if to_file else ():  # what is not a file is fetched in order
        several = f"{CLI} --connections {count}"
        sides.append(lab.s4raw(several, ["cp", "--connections", str(count), large.key, target], after=drop))
        comparisons.append(Comparison(several, BARE, "speed"))
    notes = []
    if absent := missing():
        notes.append(f"{CURL} is left out: no {absent} here")
    else:
        nginx = Nginx(lab.path(f"nginx-{name}"), os.path.dirname(large.stored))
        lab.at_row_end(nginx.stop)
        argv = ["curl", "--silent", "--show-error", "--fail", "-o", target, nginx.url(os.path.basename(large.stored))]
        sides.append(lab.command(CURL, argv, [nginx.pid], drop))
        comparisons.append(Comparison(CLI, CURL, "speed", CURL_AIM))
    touched = large.size if to_file else 32 << 20
    return Row(name, title, sides, comparisons, lab.samples(5, 2), large.size, "B", touched=touched, notes=notes)


def put(lab: Lab) -> Row:
    """A large file to a key."""
    large, ring = lab.large, lab.ring()
    target = lab.path("bare-put")
    receiver = lab.worker("bench.bare:receiver", directory=target)
    key, drop_key = put_target(lab, large.size)
    bare = lab.worker("bench.bare:putter", port=receiver.run()["port"], path=large.path, size=large.size)
    library = lab.worker("bench.library:put_file", conf=ring.conf, path=large.path)
    sides: list[Side] = [
        TimedSide(BARE, bare, [receiver.pid], after=drop_files(target, large.size)),
        TimedSide(LIBRARY, library, pids(ring), lambda turn: {"key": key(turn)}, drop_key),
        lab.s4raw(CLI, lambda turn: ["cp", large.path, key(turn)], after=drop_key),
    ]
    comparisons = [Comparison(LIBRARY, BARE, "speed", AIM), Comparison(CLI, BARE, "speed", AIM)]
    for count in CONNECTIONS:
        several, option = f"{CLI} --connections {count}", ["--connections", str(count)]
        sides.append(lab.s4raw(several, lambda turn, o=option: ["cp", *o, large.path, key(turn)], after=drop_key))
        comparisons.append(Comparison(several, BARE, "speed"))
    lab.at_row_end(lab.drop_large)
    samples = lab.samples(5, 2)
    return Row("put", "put of a large file", sides, comparisons, samples, large.size, "B", touched=large.size)


def drop_file(path: str, size: int) -> Callable[[int], None]:
    """A check that a run has made a file of so many bytes, which goes."""

    def drop(_turn: int) -> None:
        expect(os.path.getsize(path), size, f"bytes in {path}")
        os.unlink(path)

    return drop


def drop_files(directory: str, size: int) -> Callable[[int], None]:
    """A check that a run has made files of so many bytes together, which go."""

    def drop(_turn: int) -> None:
        entries = list(os.scandir(directory))
        expect(sum(entry.stat().st_size for entry in entries), size, f"bytes below {directory}")
        for entry in entries:
            os.unlink(entry.path)

    return drop


def put_target(lab: Lab, size: int) -> tuple[Callable[[int], str], Callable[[int], None]]:
    """A turn's key, in the ring of SERVERS servers, and a check that it has so many bytes, after which it goes."""
    client = lab.client()

    def key(turn: int) -> str:
        return f"s4://{BUCKET}/put/{turn}"

    def drop(turn: int) -> None:
        expect(client.stat(key(turn)).size, size, f"bytes in {key(turn)}")
        client.remove(key(turn))

    return key, drop
