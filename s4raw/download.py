"""One large key into a file: over one connection or several, block by block, from where it stopped."""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from functools import partial

from s4raw import bodies, wire
from s4raw.blocks import Record
from s4raw.bodies import Moved, not_told
from s4raw.connection import ATTEMPTS, Connection, Lending, Pool, connections_for
from s4raw.digest import LEAF, digest_file
from s4raw.errors import ConnectionLost, KeyChanged, ProtocolError
from s4raw.fanout import Fanout
from s4raw.keys import Key
from s4raw.record import NamedTuple

PART = 64 << 20  # bytes asked for at once where several connections share a key
FIRST = 32 << 20  # bytes asked for before it is known how many there are
DEPTH = 2  # requests in flight on a connection, so that the next part is on its way while one comes


class _Part(NamedTuple):
    """Some bytes of the key, from where to where (None: to its end), and the id of the request for them."""

    start: int
    end: int | None
    request: int = 0


class Download:
    """A key on its way into the file behind ``fd``, which may hold a part of it already.

    Every block is verified as it comes, so what was lost with a connection is asked for again from the block it was
    lost in. The first answer says which content it is, by its digest; a key that was replaced since is refused.
    """

    def __init__(self, pool: Pool, server: str, key: Key, fd: int, moved: Moved = not_told) -> None:
        self._pool = pool
        self._server = server
        self._key = key
        self._fd = fd
        self._moved = moved
        self._seekable = stat.S_ISREG(os.fstat(fd).st_mode)
        self._todo: deque[_Part] = deque([_Part(0, None)])
        self._lock = threading.Lock()
        self._digest = b""
        self._size = 0
        self._block = LEAF
        self._came = 0

    def run(self, connections: int | None, resume: bool) -> int:
        """Fetch what is missing; returns the key's size in bytes.

        ``connections`` None: as many as the size is worth. With ``resume`` the blocks that the file has are kept, if
        they are the key's. Raises NoSuchKey, KeyChanged, Corrupt, and ConnectionLost after ATTEMPTS without a block.
        """
        if not self._seekable:
            resume, connections = False, 1
        count = connections or 1
        if resume or count > 1:
            answer = self._pool.repeat(
                self._server, lambda c: c.call(wire.STAT, bucket=self._key.bucket, key=self._key.name)
            )
            record = bodies.described(answer, answer.uint("size"), self._server)
            self._digest, self._size = record.digest, record.size
            count = connections or connections_for(record.size)
            self._todo = deque(self._parts(record, resume, PART if count > 1 else None))
        elif connections is None:  # a small key takes one request; the beginning of a large one says how large it is
            self._todo = deque([_Part(0, FIRST)])
            self._work(self._pool.lease)
            count = connections_for(self._size)
            self._todo = deque(self._rest(PART if count > 1 else self._size))
        count = min(count, len(self._todo))
        if count == 1:
            self._work(self._pool.lease)
        elif count:
            fanout = Fanout(self._pool)
            fanout.run([partial(self._work, fanout.lease)] * count)
        if resume:
            os.ftruncate(self._fd, self._size)
        return self._size

    def _rest(self, most: int) -> list[_Part]:
        """What comes after the beginning, which ended with a block, in parts of whole blocks."""
        step = -(-max(most, 1) // self._block) * self._block
        return [_Part(at, min(at + step, self._size)) for at in range(self._came, self._size, step)]

    def _parts(self, record: Record, resume: bool, most: int | None) -> list[_Part]:
        """What to ask for: runs of blocks that the file does not have."""
        parts: list[_Part] = []
        have = os.fstat(self._fd).st_size if resume else 0
        at = 0
        for length, expected in record.pieces(0, record.size):
            if at + length <= have and digest_file(self._fd, at, at + length).digest() == expected:
                self._moved(length)
            elif parts and parts[-1].end == at and (most is None or at + length - parts[-1].start <= most):
                parts[-1] = _Part(parts[-1].start, at + length)
            else:
                parts.append(_Part(at, at + length))
            at += length
        return parts

    def _work(self, lease: Lending) -> None:
        """Fetch parts until there are none left."""
        attempts = ATTEMPTS
        while True:
            flights: deque[_Part] = deque()
            before = self._left()
            try:
                with lease(self._server, attempts < ATTEMPTS) as connection:
                    return self._fetch(connection, flights)
            except ConnectionLost:
                with self._lock:
                    self._todo.extendleft(part._replace(request=0) for part in reversed(flights))
                attempts = (ATTEMPTS if self._left() != before else attempts) - 1
                if not attempts or not self._seekable:
                    raise

    def _left(self) -> list[_Part]:
        with self._lock:
            return list(self._todo)

    def _fetch(self, connection: Connection, flights: deque[_Part]) -> None:
        while True:
            while len(flights) < DEPTH and (part := self._next()) is not None:
                flights.append(part)
                flights[-1] = part._replace(request=self._ask(connection, part))
            if not flights:
                return
            self._receive(connection, flights)
            flights.popleft()

    def _next(self) -> _Part | None:
        with self._lock:
            return self._todo.popleft() if self._todo else None

    def _ask(self, connection: Connection, part: _Part) -> int:
        fields: dict[str, wire.Value] = {"bucket": self._key.bucket, "key": self._key.name}
        if self._digest:
            fields["digest"] = self._digest
        if part.start:
            fields["offset"] = part.start
        if part.end is not None:
            fields["length"] = part.end - part.start
        return connection.send(wire.GET, **fields)

    def _receive(self, connection: Connection, flights: deque[_Part]) -> None:
        """Write the first of the parts in flight into the file; after an error it begins with the block that broke."""
        answer = connection.receive_ok(flights[0].request)
        digest, size = answer.blob("digest"), answer.uint("size", answer.body_length)
        if self._digest and digest != self._digest:
            raise KeyChanged("another content came than this transfer began with", key=str(self._key))
        self._digest, self._size = digest, size
        start = answer.uint("offset", 0)
        if start != flights[0].start:
            raise ProtocolError(f"the server sent bytes from {start}, asked were those from {flights[0].start}")
        self._block, self._came = answer.uint("block", LEAF), start + answer.body_length
        if flights[0].end is not None:
            flights[0] = flights[0]._replace(end=self._came)  # blocks may reach beyond what was asked for

        def verified(length: int) -> None:
            flights[0] = flights[0]._replace(start=flights[0].start + length)

        write = write_at(self._fd, start) if self._seekable else bodies.write_all(self._fd)
        bodies.receive_body(connection, answer, self._key, write, self._moved, verified)


def write_at(fd: int, offset: int) -> bodies.Write:
    """A ``write`` that puts all bytes into a file from ``offset`` on."""

    def write(data: memoryview) -> None:
        nonlocal offset
        while data:
            count = os.pwrite(fd, data, offset)
            offset += count
            data = data[count:]

    return write
