"""Moving a key to another name: a rename at its server if that is placed there too, else a copy and a delete."""

from __future__ import annotations

from collections.abc import Iterator

from s4raw import bodies, wire
from s4raw.bodies import Moved, Sent, not_told
from s4raw.client import Ring
from s4raw.connection import Connection
from s4raw.digest import room
from s4raw.errors import ConnectionLost, KeyExists, NoSuchKey, PeerTimeout, S4Error, UsageError
from s4raw.keys import Key


def move(ring: Ring, source: Key, target: Key, moved: Moved = not_told) -> None:
    """Give a key another name, which must be free. Raises NoSuchKey, KeyExists, KeyChanged, UsageError.

    At every moment it has one of the two names. What is not a rename goes through this process: ``moved`` is told of
    its bytes. It is verified on its way, and deleted only when the other server has it.
    """
    if source == target:
        raise UsageError(f"{source} cannot be moved to itself")
    if ring.topology.place(source) == ring.topology.place(target):
        _rename(ring, source, target)
    else:
        digest = ring.stat(source).digest
        copy(ring, source, target, moved)
        ring.remove(source, digest)  # not what was put under its name meanwhile


def _rename(ring: Ring, source: Key, target: Key) -> None:
    server, lost = ring.topology.place(source), False
    fields = {"bucket": source.bucket, "key": source.name, "out_bucket": target.bucket, "out_key": target.name}
    while True:
        try:
            with ring.pool.lease(server, fresh=lost) as connection:
                connection.call(wire.MOVE, **fields)
            return
        except (ConnectionLost, PeerTimeout) as error:
            if lost:
                error.at(server=server, key=str(source))
                raise
            lost = True
        except S4Error as error:
            if lost and isinstance(error, NoSuchKey) and _exists(ring, target):
                return  # moved by the attempt whose answer got lost
            if lost and isinstance(error, KeyExists) and ring.stat(source).digest == ring.stat(target).digest:
                return ring.remove(source)  # the server died between the two steps of that attempt
            error.at(server=server, key=str(source))
            raise


def _exists(ring: Ring, key: Key) -> bool:
    try:
        ring.stat(key)
    except NoSuchKey:
        return False
    return True


def copy(ring: Ring, source: Key, target: Key, moved: Moved = not_told) -> int:
    """Copy a key from one server to another, through this process; returns its size. Raises NoSuchKey, KeyExists."""

    def send(connection: Connection, key: Key) -> Sent:
        return bodies.send_chunks(connection, key, _chunks(ring, source), moved)

    return ring.put_with(target, send)


def _chunks(ring: Ring, key: Key) -> Iterator[memoryview]:
    buffer = room()
    with ring.open(key) as file:
        while count := file.readinto(buffer):
            yield buffer[:count]
