"""Many small requests about keys, pipelined: a connection for each server, all servers at the same time."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial

from s4raw import wire
from s4raw.client import Ring, Stat
from s4raw.connection import ATTEMPTS, Connection
from s4raw.errors import ConnectionLost, NoSuchKey, PeerTimeout, S4Error
from s4raw.fanout import Fanout
from s4raw.keys import Key
from s4raw.wire import Frame

WINDOW = 64  # requests in flight on a connection: few enough to be sent in one go, whatever is still to be read

Answered = Callable[[Key, Frame | None], None]  # is told of each answer; of None where there is no such key


def stat_all(ring: Ring, keys: Iterable[Key]) -> dict[Key, Stat]:
    """What is recorded of those of the keys that exist. Raises Corrupt for one whose record is damaged."""
    found: dict[Key, Stat] = {}

    def answered(key: Key, frame: Frame | None) -> None:
        if frame is not None:
            found[key] = Stat.from_frame(frame, ring.topology.place(key))

    call_all(ring, wire.STAT, keys, answered)
    return found


def remove_all(ring: Ring, keys: Iterable[Key], removed: Callable[[Key], None]) -> None:
    """Delete keys; ``removed`` is told of each one, from several threads. One that is gone already is fine."""
    call_all(ring, wire.REMOVE, keys, lambda key, _frame: removed(key))


def call_all(ring: Ring, opcode: int, keys: Iterable[Key], answered: Answered) -> None:
    """Send a request for each key, and wait for all the answers. The first error but NoSuchKey ends it everywhere.

    After a lost connection what was in flight is sent again. ``answered`` is called from several threads.
    """
    shares: dict[str, deque[Key]] = defaultdict(deque)
    for key in keys:
        shares[ring.topology.place(key)].append(key)
    fanout = Fanout(ring.pool)
    fanout.run([partial(_run, fanout, server, opcode, share, answered) for server, share in shares.items()])


def _run(fanout: Fanout, server: str, opcode: int, todo: deque[Key], answered: Answered) -> None:
    flights: deque[tuple[int, Key]] = deque()
    attempts, left = ATTEMPTS, len(todo)
    while True:
        try:
            with fanout.lease(server, fresh=attempts < ATTEMPTS) as connection:
                return _train(fanout, connection, opcode, todo, flights, answered)
        except (ConnectionLost, PeerTimeout) as error:
            fanout.check()
            todo.extendleft(key for _, key in reversed(flights))
            flights.clear()
            attempts = (ATTEMPTS if len(todo) < left else attempts) - 1
            left = len(todo)
            if not attempts:
                error.at(server=server)
                raise
        except S4Error as error:
            error.at(server=server, key=str(flights[0][1]) if flights else "")
            raise


def _train(
    fanout: Fanout,
    connection: Connection,
    opcode: int,
    todo: deque[Key],
    flights: deque[tuple[int, Key]],
    answered: Answered,
) -> None:
    while todo or flights:
        fanout.check()
        heads = []
        while todo and len(flights) < WINDOW:
            key, request = todo.popleft(), connection.next_request()
            heads.append(wire.encode(opcode, request, bucket=key.bucket, key=key.name))
            flights.append((request, key))
        if heads:
            connection.channel.send(b"".join(heads))
        while len(flights) > (WINDOW // 2 if todo else 0):
            request, key = flights[0]
            frame = _answer(connection, request)
            flights.popleft()
            answered(key, frame)


def _answer(connection: Connection, request: int) -> Frame | None:
    try:
        return connection.receive_ok(request)
    except NoSuchKey:
        return None
