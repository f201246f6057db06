"""The client: one ``Ring`` object for all the servers of a conf. Any number of threads may share it.

    ring = Ring.from_conf()
    ring.put("s4://bucket/dir/key", b"...")
    ring.get("s4://bucket/dir/key")
    for entry in ring.list("s4://bucket/dir/", recursive=True): ...
    ring.map("s4://bucket/in/", "s4://bucket/out/", "sort | uniq -c")

Every method may raise Unreachable, ConnectionLost, PeerTimeout, Busy, RingMismatch, AuthFailed and Corrupt; what else
it raises is said with it. Every error names the server, and the key where there is one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from io import BufferedReader

from s4raw import bodies, files, wire
from s4raw.bodies import Moved, Sent, Stat, not_told
from s4raw.commands import Commands, Sink, located
from s4raw.connection import ATTEMPTS, Connection, Pool, Progress, connections_for, no_progress
from s4raw.digest import LEAF, Buffer
from s4raw.errors import BadRange, ConnectionLost, KeyExists, NoSuchKey, PeerTimeout, S4Error, UsageError
from s4raw.handshake import read_secret
from s4raw.keys import Entry, Key, parse_key, parse_prefix
from s4raw.listing import merged
from s4raw.ring import Topology

HEALTH_SECONDS = 1.0

TYPE_CHECKING = False  # typing's own is not imported at run time, for a fast start
if TYPE_CHECKING:
    from typing import TypeVar

    Result = TypeVar("Result")

Send = Callable[[Connection, Key], Sent]  # sends a put


class Ring(Commands):
    """A client of a ring of servers. Keys are given as ``s4://bucket/key`` or as ``Key``."""

    def __init__(self, topology: Topology, secret: bytes = b"") -> None:
        self.topology = topology
        self.pool = Pool(topology, secret)

    @classmethod
    def from_conf(cls, path: str | None = None) -> Ring:
        """A client of the ring in a conf file: ``path``, else ``$S4_CONF_PATH``, else ``~/.s4.conf``.

        The pre-shared key is read from the file in ``$S4RAW_SECRET_FILE``, if that is set. Raises ConfError.
        """
        return cls(Topology.read(path), read_secret())

    def close(self) -> None:
        """Close the kept connections."""
        self.pool.close()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Putting

    def put(self, key: str | Key, data: Buffer) -> None:
        """Store bytes under a key. Raises KeyExists, BadKey, DiskFull."""
        self.put_with(as_key(key), lambda connection, key: bodies.send_bytes(connection, key, data))

    def put_file(
        self,
        key: str | Key,
        path: str,
        moved: Moved = not_told,
        connections: int | None = None,
        resume: bool = False,
    ) -> int:
        """Store the content of a file, or all that comes out of a pipe; returns its size in bytes.

        ``connections`` share a large file (None: as many as its size is worth). With ``resume`` an upload that failed
        is gone on with, if the file still has the same content; a key that is there with this content is put. ``moved``
        is told of bytes as they go.

        Raises KeyExists, BadKey, DiskFull, LocalFileError.
        """
        key = as_key(key)
        with files.reading(path) as fd:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                return self.put_stream(key, fd, moved)
            connections = connections or connections_for(status.st_size)
            if status.st_size > wire.WHOLE_BODY and (resume or connections > 1):
                from s4raw.upload import Upload

                with located(self.topology, key) as server:
                    return Upload(self.pool, server, key, fd, moved).run(connections, resume)
            lost = Sent(0, 0, b"") if resume else None
            return self.put_with(key, lambda connection, key: bodies.send_file(connection, key, fd, moved), lost=lost)

    def put_stream(self, key: str | Key, fd: int, moved: Moved = not_told) -> int:
        """Store all that comes out of a descriptor until its end; returns its size. It is not sent a second time."""
        return self.put_with(
            as_key(key), lambda connection, key: bodies.send_stream(connection, key, fd, moved), attempts=1
        )

    def put_with(self, key: Key, send: Send, attempts: int = ATTEMPTS, lost: Sent | None = None) -> int:
        """Put, and put again when the connection was lost; returns the size in bytes.

        ``lost`` is an attempt of the caller's own that got no answer. The key may be there because of such an attempt:
        with the digest of what was sent, it is put.
        """
        server, sent = self.topology.place(key), lost or Sent(0, 0, b"")
        again = lost is not None
        for left in range(attempts - 1, -1, -1):
            try:
                with self.pool.lease(server, fresh=again or attempts == 1) as connection:
                    latest = send(connection, key)
                    sent = latest if latest.digest else sent  # none: the server said no before all was sent
                    connection.receive_ok(latest.request)
                break
            except (ConnectionLost, PeerTimeout) as error:
                again = True
                if not left and not self._has(key, sent.digest):
                    error.at(key=str(key))
                    raise
            except KeyExists:
                if not again or not self._has(key, sent.digest):
                    raise
                break
            except S4Error as error:
                error.at(server=server, key=str(key))
                raise
        return sent.size

    def _has(self, key: Key, digest: bytes) -> bool:
        with suppress(S4Error):
            return bool(digest) and self.stat(key).digest == digest
        return False

    # Getting

    def get(self, key: str | Key) -> bytes:
        """A key's content. Raises NoSuchKey."""
        key = as_key(key)

        def receive(connection: Connection) -> bytes:
            return bodies.receive_bytes(connection, bodies.get(connection, key), key)

        return self._at(key, receive)

    def get_many(self, keys: Iterable[str | Key]) -> Iterator[tuple[Key, bytes]]:
        """Each key with its content, in order; many requests are in flight at once. Raises NoSuchKey."""
        from s4raw import pipeline

        return pipeline.get_all(self.pool, map(as_key, keys))

    def get_range(self, key: str | Key, offset: int, length: int) -> bytes:
        """``length`` bytes of a key from ``offset``, or as many as there are; verified. Raises NoSuchKey, BadRange.

        Whole blocks are fetched, since only those have digests: 1 MiB, or more in keys of over 128 MiB.
        """
        key = as_key(key)
        if offset < 0 or length <= 0:
            raise BadRange(f"a range has a first byte and a length, got {length} bytes from {offset}", key=str(key))
        offset, length = min(offset, wire.MAX_BODY), min(length, wire.MAX_BODY)

        def receive(connection: Connection) -> bytes:
            frame = bodies.get(connection, key, offset=offset, length=length)
            skip = offset - frame.uint("offset", 0)
            return bodies.receive_bytes(connection, frame, key)[skip : skip + length]

        return self._at(key, receive)

    def get_file(
        self,
        key: str | Key,
        path: str,
        moved: Moved = not_told,
        connections: int | None = None,
        resume: bool = False,
    ) -> int:
        """Copy a key to a file, by way of ``PATH .part``; returns its size. Raises NoSuchKey, LocalFileError.

        ``connections`` share a large key (None: as many as its size is worth). With ``resume`` the ``.part`` file of a
        copy that failed stays, and is gone on with: blocks that are the key's are kept.
        """
        from s4raw.download import Download

        key = as_key(key)
        with located(self.topology, key) as server, files.writing(path, resume) as fd:
            return Download(self.pool, server, key, fd, moved).run(connections, resume)

    def get_stream(
        self, key: str | Key, write: Sink, moved: Moved = not_told, offset: int = 0, length: int | None = None
    ) -> int:
        """Pass a key's content to ``write`` as it comes, or a part of it; returns its size. Raises NoSuchKey, BadRange.

        When this raises, what was written must be thrown away.
        """
        key = as_key(key)
        return self._at(key, lambda c: bodies.receive_part(c, key, write, moved, offset, length), attempts=1)

    def open(self, key: str | Key) -> BufferedReader:
        """A key as a file to read, which raises Corrupt at its end if it was not whole. Raises NoSuchKey."""
        from s4raw.reader import KeyReader

        key = as_key(key)
        with located(self.topology, key) as server:
            return BufferedReader(KeyReader(self.pool, server, key), LEAF)

    def stat(self, key: str | Key) -> Stat:
        """A key's size, digest, time and server, from its record: nothing is read. Raises NoSuchKey."""
        key = as_key(key)
        server = self.topology.place(key)
        frame = self._at(key, lambda c: c.call(wire.STAT, bucket=key.bucket, key=key.name))
        return Stat.from_frame(frame, server)

    def _at(self, key: Key, action: Callable[[Connection], Result], attempts: int = ATTEMPTS) -> Result:
        """Do something at a key's server, again if the connection was lost. With one attempt, over a new connection."""
        server = self.topology.place(key)
        try:
            return self.pool.repeat(server, action, attempts)
        except S4Error as error:
            error.at(server=server, key=str(key))
            raise

    # Listing and deleting

    def list(self, prefix: str | Key, recursive: bool = False) -> Iterator[Entry]:
        """The keys of the whole ring that begin with a prefix, in order of their UTF-8 bytes.

        Not recursive: only those without a further ``/``, and common prefixes for the others. With an empty bucket, the
        buckets.
        """
        return merged(self.pool, parse_prefix(prefix) if isinstance(prefix, str) else prefix, recursive)

    def remove(self, key: str | Key, digest: bytes | None = None) -> None:
        """Delete a key, with ``digest`` only if it has that content. Raises NoSuchKey, KeyChanged."""
        key = as_key(key)
        server, lost = self.topology.place(key), False
        fields: dict[str, wire.Value] = {"bucket": key.bucket, "key": key.name}
        if digest is not None:
            fields["digest"] = digest
        while True:
            try:
                with self.pool.lease(server, fresh=lost) as connection:
                    connection.call(wire.REMOVE, **fields)
                return
            except S4Error as error:
                if lost and isinstance(error, NoSuchKey):
                    return  # deleted by the attempt whose answer got lost
                if lost or not isinstance(error, ConnectionLost):
                    error.at(server=server, key=str(key))
                    raise
                lost = True

    def remove_all(self, prefix: str | Key, progress: Progress = no_progress) -> int:
        """Delete every key that begins with a prefix, on every server; returns how many there were."""
        from s4raw.fanout import everywhere

        prefix = parse_prefix(prefix) if isinstance(prefix, str) else prefix
        if not prefix.bucket:
            raise UsageError("need a bucket: a whole ring is not deleted at once")

        def remove(connection: Connection, report: Progress) -> int:
            return connection.call(wire.REMOVE_PREFIX, report, bucket=prefix.bucket, key=prefix.name).uint("count")

        return sum(everywhere(self.pool, progress, remove))

    # Every server

    def health(self, seconds: float = HEALTH_SECONDS) -> Sequence[tuple[str, S4Error | None]]:
        """Ask every server, all at once, and wait at most ``seconds`` for each: what is wrong with it, or None."""
        from s4raw.fanout import health

        return health(self.pool, seconds)


def as_key(key: str | Key) -> Key:
    """A key as given by a caller. Raises BadKey."""
    return parse_key(key) if isinstance(key, str) else key
