"""A key as a raw file object, over a connection of its own."""

from __future__ import annotations

import io

from s4raw import bodies
from s4raw.connection import Pool
from s4raw.digest import Buffer, Digest, verify
from s4raw.keys import Key


class KeyReader(io.RawIOBase):
    """Reads a key's content as it comes, and raises Corrupt at its end unless it was whole."""

    def __init__(self, pool: Pool, server: str, key: Key) -> None:
        """Ask for the key. Raises NoSuchKey and what a connection raises."""
        self._key = key
        self._state = Digest()
        self._connection = pool.connect(server)
        try:
            self._frame = bodies.get(self._connection, key)
        except BaseException:
            self._connection.close()
            raise

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Buffer) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the key reaches; 0 at its end. Raises Corrupt."""
        view = memoryview(buffer).cast("B")
        count = self._connection.channel.read_into(view)
        self._state.update(view[:count])
        if not self._connection.channel.body_left:
            found, recorded = self._state.digest(), self._frame.blob("digest")
            verify("what came", found, recorded, server=self._connection.server, key=str(self._key))
        return count

    def close(self) -> None:
        """Close the connection; twice is fine."""
        if not self.closed:
            self._connection.close()
        super().close()
