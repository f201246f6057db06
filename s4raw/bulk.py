"""Many keys at once: pipelined trains of puts and gets, a connection for each server, all servers at the same time."""

from __future__ import annotations

import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext

from s4raw import bodies, files, wire
from s4raw.client import Ring
from s4raw.connection import Connection
from s4raw.errors import Cancelled, ConnectionLost, PeerTimeout, S4Error
from s4raw.keys import Key
from s4raw.record import NamedTuple

WINDOW = 64  # requests in flight on a connection


class Item(NamedTuple):
    """One file to put or get: its key, and the local path (or, for a put, an open descriptor)."""

    key: Key
    file: str | int


Done = Callable[[Item, int], None]  # is told of each item that is done, with its size in bytes


def put_all(ring: Ring, items: Iterable[Item], done: Done, check: Callable[[], None] = lambda: None) -> None:
    """Put many files, one server after the other. ``check`` may raise, between two of them, to end it."""
    for server, share in _by_server(ring, items).items():
        _run_train(ring, server, iter(share), done, check, _put_train, _put_again)


def transfer(ring: Ring, items: Iterable[Item], done: Done, upload: bool) -> None:
    """Put or get many files, at all their servers at once. The first error ends it everywhere."""
    train, again = (_put_train, _put_again) if upload else (_get_train, _get_again)
    errors: list[BaseException] = []

    def check() -> None:
        if errors:
            raise Cancelled("another transfer of this call failed")

    def run(server: str, share: list[Item]) -> None:
        try:
            _run_train(ring, server, iter(share), done, check, train, again)
        except BaseException as error:
            errors.append(error)

    shares = _by_server(ring, items)
    threads = [threading.Thread(target=run, args=share, daemon=True) for share in shares.items()]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:  # an interrupt: let the others end before it goes on
        errors.append(error)
        raise
    if errors:
        raise errors[0]


def _by_server(ring: Ring, items: Iterable[Item]) -> dict[str, list[Item]]:
    shares: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        shares[ring.topology.place(item.key)].append(item)
    return shares


class _Flight(NamedTuple):
    """A request whose answer is still to come."""

    request: int
    item: Item
    size: int


Train = Callable[[Connection, Iterator[Item], "deque[_Flight]", Done, Callable[[], None]], None]


def _run_train(
    ring: Ring,
    server: str,
    items: Iterator[Item],
    done: Done,
    check: Callable[[], None],
    train: Train,
    again: Callable[[Ring, Item], int],
) -> None:
    """Send a train; when its connection is lost, do what was in flight one by one, then go on with the rest."""
    flights: deque[_Flight] = deque()
    lost = False
    while True:
        try:
            with ring.pool.lease(server, fresh=lost) as connection:
                return train(connection, items, flights, done, check)
        except (ConnectionLost, PeerTimeout):
            lost = True
        except S4Error as error:
            error.at(server=server, key=str(flights[0].item.key) if flights else "")
            raise
        while flights:
            done(flights[0].item, again(ring, flights[0].item))
            flights.popleft()


def _put_train(
    connection: Connection, items: Iterator[Item], flights: deque[_Flight], done: Done, check: Callable[[], None]
) -> None:
    for item in items:
        check()
        with _source(item) as fd:
            size = os.fstat(fd).st_size
            if size > wire.WHOLE_BODY:
                _settle_puts(connection, flights, done, 0)  # so that an answer in mid-body can only be an error
            flights.append(_Flight(0, item, size))
            sent = bodies.send_file(connection, item.key, fd)
            flights[-1] = _Flight(sent.request, item, sent.size)
        if size > wire.WHOLE_BODY:
            _settle_puts(connection, flights, done, 0)
        elif len(flights) >= WINDOW:
            _settle_puts(connection, flights, done, WINDOW // 2)
    _settle_puts(connection, flights, done, 0)


def _settle_puts(connection: Connection, flights: deque[_Flight], done: Done, most: int) -> None:
    while len(flights) > most:
        connection.receive_ok(flights[0].request)
        flight = flights.popleft()
        done(flight.item, flight.size)


def _put_again(ring: Ring, item: Item) -> int:
    with _source(item) as fd:
        return ring.put_with(item.key, lambda connection, key: bodies.send_file(connection, key, fd), lost=True)


@contextmanager
def _source(item: Item) -> Iterator[int]:
    with nullcontext(item.file) if isinstance(item.file, int) else files.reading(item.file) as fd:
        yield fd


def _get_train(
    connection: Connection, items: Iterator[Item], flights: deque[_Flight], done: Done, check: Callable[[], None]
) -> None:
    more = True
    while more or flights:
        heads = []
        while more and len(flights) < WINDOW:
            item = next(items, None)
            if item is None:
                more = False
                break
            request = connection.next_request()
            heads.append(wire.encode(wire.GET, request, bucket=item.key.bucket, key=item.key.name))
            flights.append(_Flight(request, item, 0))
        connection.channel.send(b"".join(heads))
        while len(flights) > (WINDOW // 2 if more else 0):
            check()
            item = flights[0].item
            frame = connection.receive_ok(flights[0].request)
            with files.writing(str(item.file)) as fd:
                size = bodies.receive_body(connection, frame, item.key, bodies.write_all(fd))
            flights.popleft()
            done(item, size)


def _get_again(ring: Ring, item: Item) -> int:
    return ring.get_file(item.key, str(item.file))
