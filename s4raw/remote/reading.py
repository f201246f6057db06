"""An object of a remote while it is read: straight from the connection, which is made anew when it breaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType

from s4raw.errors import ConnectionLost, PeerTimeout, ProtocolError, S4Error
from s4raw.keys import Key
from s4raw.objects.base import MAX_PARTS, Info, Range
from s4raw.remote.pool import Lease
from s4raw.remote.service import Remote
from s4raw.s3.connection import Answer

PIECE = 1 << 20  # bytes
RESUMPTIONS = 5  # without a byte in between
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})").fullmatch


def span_of(answer: Answer) -> tuple[int, int, int]:
    """From where to where (not included) the body of an answer reaches, and the whole object's size.

    Raises ProtocolError.
    """
    if answer.status != 206:
        return 0, answer.size, answer.size
    found = _CONTENT_RANGE(answer.headers.get("content-range", ""))
    if not found:
        raise ProtocolError("the answer does not say which range it is").at(**answer.where)
    return int(found[1]), int(found[2]) + 1, int(found[3])


class RemoteReading:
    """An open object. Left before its end its connection is closed; else it goes back to the others."""

    def __init__(
        self, remote: Remote, key: Key, info: Info, answer: Answer, lease: Lease, span: tuple[int, int]
    ) -> None:
        """``span`` is the part of what the answer has that is wanted."""
        self.info = info
        self.start, self.end = span
        self._remote = remote
        self._key = key
        self._answer = answer
        self._lease = lease
        self._at = span_of(answer)[0]

    def pieces(self) -> Iterator[memoryview]:
        """The bytes from ``start`` to ``end``; a connection that breaks is replaced, if the object is still the same.

        Raises ConnectionLost, PeerTimeout.
        """
        buffer = memoryview(bytearray(max(1, min(PIECE, self.end - self._at))))
        failures = 0
        while self._at < self.end:
            try:
                count = self._answer.readinto(buffer[: self.end - self._at])
                if not count:
                    raise ConnectionLost(f"the body ended {self.end - self._at} bytes early").at(**self._answer.where)
            except (ConnectionLost, PeerTimeout) as error:
                failures += 1
                self._resume(error, failures)
                continue
            failures, skipped = 0, max(0, self.start - self._at)
            self._at += count
            if skipped < count:
                yield buffer[skipped:count]
        if not self._answer.ended:
            self._answer.readinto(buffer[:1])  # the last chunk, where there are chunks

    def _resume(self, error: S4Error, failures: int) -> None:
        """Ask for the rest. Raises the error if there is none to be had of the same object."""
        self._lease.give_back(False)
        etag = self.info.attributes.etag
        if failures > RESUMPTIONS or not etag:
            raise error
        at = max(self._at, self.start)
        try:
            answer, self._lease = self._remote.open(
                self._key, "", {"range": f"bytes={at}-{self.end - 1}", "if-match": f'"{etag}"'}
            )
        except S4Error:
            raise error from None
        self._answer = answer
        try:
            if span_of(answer)[:2] != (at, self.end):
                raise error
        except ProtocolError:
            raise error from None
        self._at = at

    def file(self) -> int | None:
        """None: there is no file."""
        return None

    def __enter__(self) -> RemoteReading:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lease.give_back(self._answer.ended)


def sayable(wanted: Range | None) -> bool:
    """Whether S3 has words for a range; for those in which no byte can lie it has none."""
    if wanted is None:
        return True
    if wanted.part is not None:
        return 1 <= wanted.part <= MAX_PARTS
    return wanted.suffix is not None or wanted.last is None or wanted.last >= (wanted.first or 0)


def range_text(wanted: Range | None) -> str | None:
    """A Range header; None where the whole object, or one of its parts, is wanted."""
    if wanted is None or wanted.part is not None:
        return None
    if wanted.suffix is not None:
        return f"bytes=-{wanted.suffix}"
    if wanted.first is None and wanted.last is None:
        return None
    return f"bytes={wanted.first or 0}-{'' if wanted.last is None else wanted.last}"
