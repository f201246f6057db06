"""Many keys at once: pipelined trains of puts and gets, a connection for each server, all servers at the same time."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from s4raw import bodies, files, wire
from s4raw.client import Ring
from s4raw.connection import ATTEMPTS, Connection, Lending
from s4raw.errors import ConnectionLost, LocalFileError, PeerTimeout, S4Error
from s4raw.fanout import Fanout
from s4raw.keys import Key
from s4raw.pipeline import ask
from s4raw.record import NamedTuple

WINDOW = 64  # requests in flight on a connection


class Item(NamedTuple):
    """One file to put or get: its key, and the local path (or, for a put, an open descriptor)."""

    key: Key
    file: str | int


Done = Callable[[Item, int], None]  # is told of each item that is done, with its size in bytes


def put_train(
    ring: Ring, fanout: Fanout, server: str, items: Iterable[Item], done: Done, check: Callable[[], None]
) -> None:
    """Put many files of one server, over connections that ``fanout`` can cut; ``done`` is told of them in order.

    ``check`` may raise to end it: between two files, and after a connection was lost.
    """
    _Train(ring, fanout.lease, done, check).put(server, items)


def transfer(ring: Ring, items: Iterable[Item], done: Done, upload: bool) -> None:
    """Put or get many files, at all their servers at once. The first error ends it everywhere."""
    fanout = Fanout(ring.pool)
    train = _Train(ring, fanout.lease, done, fanout.check)
    run = train.put if upload else train.get
    fanout.run([partial(run, server, share) for server, share in _by_server(ring, items).items()])


def _by_server(ring: Ring, items: Iterable[Item]) -> dict[str, list[Item]]:
    shares: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        shares[ring.topology.place(item.key)].append(item)
    return shares


class _Flight(NamedTuple):
    """A request whose answer is still to come."""

    item: Item
    sent: bodies.Sent


class _Train:
    """How to put or get many files at one server: pipelined, and one by one what was in flight on a lost connection."""

    def __init__(self, ring: Ring, lease: Lending, done: Done, check: Callable[[], None]) -> None:
        self._ring = ring
        self._lease = lease
        self._done = done
        self._check = check

    def get(self, server: str, share: Iterable[Item]) -> None:
        """Get the files of one server. Raises ConnectionLost after ATTEMPTS without a file that got through."""
        items = deque(share)

        def take(connection: Connection, key: Key, frame: wire.Frame) -> int:
            self._check()
            with files.writing(str(items[0].file)) as fd:
                return bodies.receive_body(connection, frame, key, bodies.write_all(fd))

        for _, size in ask(self._ring.pool, wire.GET, [item.key for item in items], take, self._lease):
            if isinstance(size, S4Error):
                raise size
            self._done(items.popleft(), size)

    def put(self, server: str, share: Iterable[Item]) -> None:
        """Put the files of one server. Raises ConnectionLost after ATTEMPTS without a file that got through."""
        todo, flights = deque(share), deque[_Flight]()
        attempts, left = ATTEMPTS, len(todo)
        while True:
            try:
                with self._lease(server, attempts < ATTEMPTS) as connection:
                    return self._put(connection, todo, flights)
            except (ConnectionLost, PeerTimeout) as error:
                self._check()
                attempts = (ATTEMPTS if len(todo) < left else attempts) - 1
                left = len(todo)
                if not attempts:
                    error.at(server=server)
                    raise
            except S4Error as error:
                error.at(server=server)
                raise
            while flights:
                self._done(flights[0].item, self._put_again(flights[0]))
                flights.popleft()

    def _put(self, connection: Connection, todo: deque[Item], flights: deque[_Flight]) -> None:
        while todo:
            self._check()
            with _source(todo[0]) as fd:
                alone = os.fstat(fd).st_size > bodies.DATA_SIZE
                if alone:
                    self._settle_puts(connection, flights, 0)  # so that an answer in mid-body can only be an error
                item = todo.popleft()
                flights.append(_Flight(item, bodies.Sent(0, 0, b"")))
                flights[-1] = _Flight(item, bodies.send_file(connection, item.key, fd))
            if alone or len(flights) >= WINDOW:
                self._settle_puts(connection, flights, 0 if alone else WINDOW // 2)
        self._settle_puts(connection, flights, 0)

    def _settle_puts(self, connection: Connection, flights: deque[_Flight], most: int) -> None:
        while len(flights) > most:
            try:
                connection.receive_ok(flights[0].sent.request)
            except S4Error as error:
                error.at(key=str(flights[0].item.key))
                raise
            flight = flights.popleft()
            self._done(flight.item, flight.sent.size)

    def _put_again(self, flight: _Flight) -> int:
        with _source(flight.item) as fd:
            return self._ring.put_with(flight.item.key, lambda c, key: bodies.send_file(c, key, fd), lost=flight.sent)


@contextmanager
def _source(item: Item) -> Iterator[int]:
    try:
        with nullcontext(item.file) if isinstance(item.file, int) else files.reading(item.file) as fd:
            yield fd
    except LocalFileError as error:
        error.at(key=str(item.key))
        raise
