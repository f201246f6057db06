"""The client's part of a scrub: every server at once, each at its own bounded rate."""

from __future__ import annotations

from collections.abc import Callable

from s4raw import wire
from s4raw.connection import Connection, Pool, Progress, Status, no_progress
from s4raw.fanout import everywhere
from s4raw.keys import Key

Found = Callable[[str, str, str], object]  # is told of a server, a key, and what is wrong with it


def scrub(pool: Pool, prefix: Key, rate: int, found: Found, progress: Progress = no_progress) -> tuple[int, int]:
    """Let every server verify its keys that begin with ``prefix``, reading ``rate`` bytes a second (0: all it can).

    An empty bucket means all of them. ``found`` is told of each key that is damaged, from several threads. Returns how
    many keys and bytes were read.
    """

    def action(connection: Connection, report: Progress) -> tuple[int, int]:
        request = connection.send(wire.SCRUB, bucket=prefix.bucket, key=prefix.name, rate=rate)
        while (frame := connection.receive_any(request)).opcode != wire.OK:
            if frame.opcode == wire.PROGRESS:
                report(Status(frame.uint("done"), 0))
            else:
                connection.expect(frame, wire.DATA)
                found(connection.server, frame.text("key"), frame.text("message"))
        return frame.uint("count"), frame.uint("size")

    counts = everywhere(pool, progress, action)
    return sum(count for count, _ in counts), sum(size for _, size in counts)
