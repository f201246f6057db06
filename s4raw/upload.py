"""One large file to a key in parts: over several connections, or on from where an earlier attempt stopped."""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from functools import partial

from s4raw import bodies, wire
from s4raw.bodies import Moved, not_told
from s4raw.connection import ATTEMPTS, Connection, Pool
from s4raw.digest import DIGEST_SIZE, LEAF, Digest, digest, digest_file, root
from s4raw.errors import ConnectionLost, KeyExists, NoSuchUpload, S4Error
from s4raw.fanout import Fanout
from s4raw.keys import Key

PART = 32 << 20  # bytes, a multiple of LEAF
ID_SIZE = 16


class Upload:
    """A regular file, behind ``fd``, on its way to a key of the same content as it has now.

    The server keeps the parts under an id. One that resumes is made of the file's digest, so that the parts of another
    content are never taken for this one's; any other is random, and given up when the upload fails.
    """

    def __init__(self, pool: Pool, server: str, key: Key, fd: int, moved: Moved = not_told) -> None:
        self._pool = pool
        self._server = server
        self._key = key
        self._fd = fd
        self._moved = moved
        self._size = os.fstat(fd).st_size
        self._id = b"\0" + os.urandom(ID_SIZE - 1)  # the zero says that nobody resumes it
        self._leaves = bytearray(max(1, -(-self._size // LEAF)) * DIGEST_SIZE)
        self._todo: deque[tuple[int, int]] = deque()

    def run(self, connections: int, resume: bool) -> int:
        """Send what the server does not have, then commit; returns the size in bytes. Raises KeyExists, DiskFull.

        A commit may have been done although its answer was lost, or the process that resumes was killed waiting for it:
        if the key is there with this content, it is put.
        """
        if resume:
            state = digest_file(self._fd)
            self._leaves[:] = state.leaves()
            self._id = b"\1" + digest(f"{self._key}\0".encode() + state.digest())[1:]
        try:
            self._todo.extend(self._missing(self._call(wire.PARTS)))
            count = min(connections, len(self._todo))
            if count:
                fanout = Fanout(self._pool)
                fanout.run([partial(self._work, fanout)] * count)
            self._call(wire.COMMIT, digest=root(bytes(self._leaves)))
        except BaseException as error:
            done = isinstance(error, ConnectionLost | KeyExists | NoSuchUpload) and self._is_done()
            if done or not resume:
                with suppress(S4Error):
                    self._call(wire.ABORT)
            if not done:
                raise
        return self._size

    def _call(self, opcode: int, **fields: wire.Value) -> bytes:
        """Ask the server something about this upload, again if the connection was lost; the answer's body."""

        def ask(connection: Connection) -> bytes:
            answer = connection.call(opcode, **self._fields(), **fields)
            return connection.channel.read_bytes(answer.body_length)

        return self._pool.repeat(self._server, ask)

    def _fields(self) -> dict[str, wire.Value]:
        return {"bucket": self._key.bucket, "key": self._key.name, "size": self._size, "upload": self._id}

    def _missing(self, recorded: bytes) -> list[tuple[int, int]]:
        """Runs of leaves that the server does not have as they are here: from where to where in the file."""
        parts: list[tuple[int, int]] = []
        for start in range(0, self._size, LEAF):
            end = min(start + LEAF, self._size)
            at = slice(start // LEAF * DIGEST_SIZE, (start // LEAF + 1) * DIGEST_SIZE)
            if recorded[at] == self._leaves[at] != bytes(DIGEST_SIZE):
                self._moved(end - start)
            elif parts and parts[-1][1] == start and end - parts[-1][0] <= PART:
                parts[-1] = (parts[-1][0], end)
            else:
                parts.append((start, end))
        return parts

    def _work(self, fanout: Fanout) -> None:
        """Send parts until there are none left."""
        attempts = ATTEMPTS
        while True:
            try:
                with fanout.lease(self._server, attempts < ATTEMPTS) as connection:
                    while True:
                        try:
                            part = self._todo.popleft()
                        except IndexError:
                            return
                        try:
                            self._send(connection, *part)
                        except ConnectionLost:
                            self._todo.append(part)
                            raise
                        attempts = ATTEMPTS
            except ConnectionLost:
                fanout.check()
                attempts -= 1
                if not attempts:
                    raise

    def _send(self, connection: Connection, start: int, end: int) -> None:
        state, fields = Digest(), self._fields()
        sent = bodies.send_range(
            connection, wire.PUT_PART, self._fd, start, end, state, self._moved, **fields, offset=start
        )
        connection.receive_ok(sent.request)
        at = start // LEAF * DIGEST_SIZE
        self._leaves[at : at + len(state.leaves())] = state.leaves()

    def _is_done(self) -> bool:
        """Whether the key is there, with the content that the file has."""
        with suppress(S4Error), self._pool.lease(self._server, fresh=True) as connection:
            answer = connection.call(wire.STAT, bucket=self._key.bucket, key=self._key.name)
            return answer.blob("digest") == root(bytes(self._leaves))
        return False
