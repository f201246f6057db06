"""Many small requests about keys, pipelined: one thread, a connection for each server, answers in the keys' order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

from s4raw import bodies, wire
from s4raw.bodies import Stat
from s4raw.connection import ATTEMPTS, Connection, Lending, Pool
from s4raw.errors import ConnectionLost, NoSuchKey, PeerTimeout, ProtocolError, S4Error
from s4raw.keys import Key
from s4raw.wire import Frame

WINDOW = 256  # requests in flight, at all servers together
MAX_BYTES = 32 << 10  # of requests in flight at one server

More = Callable[[Key], dict[str, wire.Value]]
_Flight = tuple[Key, int, int]  # a request whose answer is still to come: about what, its id, its bytes

TYPE_CHECKING = False  # typing's own is not imported at run time, for a fast start
if TYPE_CHECKING:
    from typing import TypeVar

    Result = TypeVar("Result")
    Take = Callable[[Connection, Key, Frame], Result]  # makes something of an answer, whose body it reads


def get_all(pool: Pool, keys: Iterable[Key]) -> Iterator[tuple[Key, bytes]]:
    """Each key with its content, verified. Raises NoSuchKey at the first that is not there."""
    for key, found in ask(pool, wire.GET, keys, _content):
        if isinstance(found, S4Error):
            raise found
        yield key, found


def _content(connection: Connection, key: Key, frame: Frame) -> bytes:
    return bodies.receive_bytes(connection, frame, key)


def stat_all(pool: Pool, keys: Iterable[Key]) -> dict[Key, Stat]:
    """What is recorded of those of the keys that exist. Raises Corrupt for one whose record is damaged."""
    found = {}
    for key, answer in ask(
        pool, wire.STAT, keys, lambda connection, _, frame: Stat.from_frame(frame, connection.server)
    ):
        if isinstance(answer, Stat):
            found[key] = answer
        elif not isinstance(answer, NoSuchKey):
            raise answer
    return found


def remove_all(
    pool: Pool, keys: Iterable[Key], removed: Callable[[Key], object], digests: Mapping[Key, bytes] | None = None
) -> None:
    """Delete keys; ``removed`` is told of each one. One that is gone already is fine.

    With ``digests`` each is deleted only if it has that content; one that has none there has come since. Raises
    KeyChanged.
    """
    more: More | None = None if digests is None else (lambda key: {"digest": digests.get(key, b"")})
    for key, answer in ask(pool, wire.REMOVE, keys, lambda *_: None, more=more):
        if isinstance(answer, S4Error) and not isinstance(answer, NoSuchKey):
            raise answer
        removed(key)


def ask(
    pool: Pool,
    opcode: int,
    keys: Iterable[Key],
    take: Take[Result],
    lease: Lending | None = None,
    more: More | None = None,
) -> Iterator[tuple[Key, Result | S4Error]]:
    """Send a request for each key; yields what ``take`` makes of each answer, or the error that the server sent.

    After a lost connection what was in flight on it is asked again. Raises ConnectionLost after ATTEMPTS without an
    answer, and whatever ``take`` raises. ``more`` gives the fields of a request beyond bucket and key.
    """
    lanes: dict[str, tuple[deque[Key], Generator[tuple[Key, Result | S4Error], None, None]]] = {}
    order: deque[str] = deque()  # which server's answer is the next
    try:
        for key in keys:
            server = pool.topology.place(key)
            if server not in lanes:
                todo: deque[Key] = deque()
                lanes[server] = (todo, _lane(server, opcode, todo, take, lease or pool.lease, more))
            lanes[server][0].append(key)
            order.append(server)
            if len(order) >= WINDOW:
                yield next(lanes[order.popleft()][1])
        while order:
            yield next(lanes[order.popleft()][1])
        for _, answers in lanes.values():
            next(answers, None)  # nothing is in flight: the connection is given back
    finally:
        for _, answers in lanes.values():
            answers.close()  # something may be: if the caller has had enough, or one of them failed


def _lane(
    server: str, opcode: int, todo: deque[Key], take: Take[Result], lease: Lending, more: More | None
) -> Generator[tuple[Key, Result | S4Error], None, None]:
    """The answers of one server to requests for the keys in ``todo``, which grows while they are asked for."""
    flights: deque[_Flight] = deque()
    attempts = ATTEMPTS
    while True:
        try:
            with lease(server, attempts < ATTEMPTS) as connection:
                while todo or flights:
                    if not flights or len(todo) >= WINDOW // 4:
                        _send(connection, opcode, todo, flights, more)
                    answer = _receive(connection, *flights[0][:2], take)
                    key = flights.popleft()[0]
                    attempts = ATTEMPTS
                    yield key, answer
                return
        except (ConnectionLost, PeerTimeout) as error:
            attempts -= 1
            if not attempts:
                error.at(server=server)
                raise
            todo.extendleft(key for key, _, _ in reversed(flights))
            flights.clear()


def _send(connection: Connection, opcode: int, todo: deque[Key], flights: deque[_Flight], more: More | None) -> None:
    """Send requests for what is to do, in one go.

    No more than a socket takes: the server may be waiting for us to read its answers before it reads on.
    """
    heads, under_way = [], sum(size for _, _, size in flights)
    while todo and under_way < MAX_BYTES:
        key, request = todo.popleft(), connection.next_request()
        fields = more(key) if more else {}
        head = wire.encode(opcode, request, bucket=key.bucket, key=key.name, **fields)
        heads.append(head)
        flights.append((key, request, len(head)))
        under_way += len(head)
    if heads:
        connection.channel.send(b"".join(heads))


def _receive(connection: Connection, key: Key, request: int, take: Take[Result]) -> Result | S4Error:
    try:
        frame = connection.receive_ok(request)
    except (ConnectionLost, PeerTimeout, ProtocolError):
        raise
    except S4Error as error:
        return error.at(server=connection.server, key=str(key))
    try:
        return take(connection, key, frame)
    except S4Error as error:
        error.at(server=connection.server, key=str(key))
        raise
