"""One large file: get to nowhere and to a file, put."""

from __future__ import annotations

import os

from bench.lab import BUCKET, Lab, expect, pids
from bench.measure import Comparison, Row, Side, TimedSide
from bench.nginx import Nginx, missing

BARE, LIBRARY, CLI, CURL = "bare loop", "s4raw library", "s4raw cp", "nginx + curl"
GET_AIM, PUT_AIM, CURL_AIM = 0.85, 0.8, 1.0


def get_null(lab: Lab) -> Row:
    """A large key to /dev/null."""
    return _get(lab, "get-null", "get of a large file to /dev/null", os.devnull)


def get_file(lab: Lab) -> Row:
    """A large key to a file."""
    return _get(lab, "get-file", "get of a large file to a file", lab.path("got"))


def _get(lab: Lab, name: str, title: str, target: str) -> Row:
    large, ring = lab.large, lab.ring()
    to_file = target != os.devnull

    def drop(_turn: int) -> None:
        if to_file:
            expect(os.path.getsize(target), large.size, f"{name}: bytes in the file")
            os.unlink(target)

    sender = lab.worker("bench.bare:sender", path=large.stored)
    port = sender.run()["port"]
    bare = lab.worker("bench.bare:getter", port=port, size=large.size, path=target if to_file else "")
    library = lab.worker("bench.library:get_file", conf=ring.conf, key=large.key, path=target)
    sides: list[Side] = [
        TimedSide(BARE, bare, [sender.pid], after=drop),
        TimedSide(LIBRARY, library, pids(ring), after=drop),
        lab.s4raw(CLI, ["cp", large.key, target], after=drop),
    ]
    comparisons = [Comparison(LIBRARY, BARE, "speed", GET_AIM), Comparison(CLI, BARE, "speed", GET_AIM)]
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
    return Row(name, title, sides, comparisons, lab.samples(9, 5), large.size, "B", touched=touched, notes=notes)


def put(lab: Lab) -> Row:
    """A large file to a key."""
    large, ring, client = lab.large, lab.ring(), lab.client()
    target = os.path.join(str(ring.data), "bare")
    receiver = lab.worker("bench.bare:receiver", path=target)

    def drop_file(_turn: int) -> None:
        expect(os.path.getsize(target), large.size, "put: bytes in the file")
        os.unlink(target)

    def key(turn: int) -> str:
        return f"s4://{BUCKET}/put/{turn}"

    def drop_key(turn: int) -> None:
        expect(client.stat(key(turn)).size, large.size, "put: bytes in the key")
        client.remove(key(turn))

    bare = lab.worker("bench.bare:putter", port=receiver.run()["port"], path=large.path)
    library = lab.worker("bench.library:put_file", conf=ring.conf, path=large.path)
    sides: list[Side] = [
        TimedSide(BARE, bare, [receiver.pid], after=drop_file),
        TimedSide(LIBRARY, library, pids(ring), lambda turn: {"key": key(turn)}, drop_key),
        lab.s4raw(CLI, lambda turn: ["cp", large.path, key(turn)], after=drop_key),
    ]
    comparisons = [Comparison(LIBRARY, BARE, "speed", PUT_AIM), Comparison(CLI, BARE, "speed", PUT_AIM)]
    lab.at_row_end(lab.drop_large)
    samples = lab.samples(9, 5)
    return Row("put", "put of a large file", sides, comparisons, samples, large.size, "B", touched=large.size)
