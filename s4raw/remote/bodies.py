"""Bodies on their way to a remote: files that are sent by the kernel, and sources that can be read only once."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator

from s4raw.errors import Cancelled, Corrupt, LocalFileError
from s4raw.objects.base import Attributes, Source
from s4raw.objects.sources import FileSource
from s4raw.s3.outgoing import FileBody

PIECE = 1 << 20  # bytes
SLICE = 8 << 20  # bytes that the kernel is told to send at once
THROTTLED = 256 << 10  # bytes that a throttle is asked for at once: with many senders each may wait long for its turn
HELD = 4096  # bytes that are sent only once all is known to be well


def read_file(fd: int, offset: int, size: int) -> bytes:
    """Bytes of a file. Raises LocalFileError, also when it has fewer."""
    try:
        found = os.pread(fd, size, offset)
    except OSError as error:
        raise LocalFileError(f"cannot read the file: {error.strerror}") from None
    if len(found) < size:
        raise LocalFileError("the file became shorter while it was read")
    return found


class FileSending:
    """A file, or a part of one, as a body; sent again from its start if need be.

    Its end is held back until the file is known to be what it was: a file that changes meanwhile becomes no object.
    """

    repeatable = True
    paced = False

    def __init__(
        self, source: FileSource, offset: int = 0, size: int | None = None, stopped: threading.Event | None = None
    ) -> None:
        """Once ``stopped`` is set it ends with Cancelled."""
        self._source = source
        self._stopped = stopped
        self._offset = offset
        self.size = source.identity.size - offset if size is None else size
        self._sha256 = ""

    def __iter__(self) -> Iterator[bytes | FileBody]:
        held = min(HELD, self.size)
        throttle = self._source.throttle or (lambda _count: None)
        step = SLICE if self._source.throttle is None else THROTTLED
        for at in range(0, self.size - held, step):
            if self._stopped is not None and self._stopped.is_set():
                raise Cancelled("the upload was given up")
            count = min(step, self.size - held - at)
            throttle(count)
            yield FileBody(self._source.fd, self._offset + at, count)
        throttle(held)
        last = read_file(self._source.fd, self._offset + self.size - held, held)
        self._source.check()
        yield last

    def sha256(self) -> str:
        """Its SHA-256 in hex. Raises LocalFileError."""
        if not self._sha256:
            self._sha256 = self.digest("sha256")
        return self._sha256

    def digest(self, name: str) -> str:
        """A digest of it in hex. Raises LocalFileError."""
        return digest_file(name, self._source.fd, self._offset, self.size)


def digest_file(name: str, fd: int, offset: int, size: int) -> str:
    """A digest of a part of a file in hex. Raises LocalFileError."""
    state, buffer, done = hashlib.new(name, usedforsecurity=False), memoryview(bytearray(min(PIECE, size or 1))), 0
    while done < size:
        try:
            count = os.preadv(fd, [buffer[: size - done]], offset + done)
        except OSError as error:
            raise LocalFileError(f"cannot read the file: {error.strerror}") from None
        if not count:
            raise LocalFileError("the file became shorter while it was read")
        state.update(buffer[:count])
        done += count
    return state.hexdigest()


class StreamSending:
    """A source that gives its pieces once. The last bytes are held back until it is sealed."""

    paced = True

    def __init__(self, source: Source, size: int) -> None:
        self._source = source
        self.size = size
        self.sealed: Attributes | None = None
        self._begun = False

    @property
    def repeatable(self) -> bool:
        """Whether no piece was asked for yet."""
        return not self._begun

    def sha256(self) -> str:
        """Its SHA-256 in hex if its sender announced that, else nothing."""
        try:
            return b64decode(self._source.known.checksums.get("SHA256", ""), validate=True).hex()
        except Base64Error:
            return ""

    def __iter__(self) -> Iterator[bytes | memoryview]:
        self._begun = True
        held, count = b"", 0
        for piece in self._source:
            count += len(piece)
            if count > self.size:
                break
            if held:
                yield held
            cut = max(0, len(piece) - HELD)
            if cut:
                yield piece[:cut]
            held = bytes(piece[cut:])
        if count != self.size:
            raise Corrupt(f"the body has not the {self.size} bytes that it was to have")
        self.sealed = self._source.seal()
        yield held


class Allowance:
    """Memory for bodies that are read before they are sent: so many bytes in all."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes, which are taken then."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give_back(self, size: int) -> None:
        """They are free again."""
        with self._lock:
            self._left += size


def read_source(source: Source, size: int) -> tuple[memoryview, Attributes]:
    """All ``size`` bytes of a source, and what it sealed. Raises Corrupt if it has not as many."""
    content, at = memoryview(bytearray(size)), 0
    for piece in source:
        if at + len(piece) > size:
            break
        content[at : at + len(piece)] = piece
        at += len(piece)
    else:
        if at == size:
            return content, source.seal()
    raise Corrupt(f"the body has not the {size} bytes that it was to have")


def spool(source: Source) -> tuple[FileSource, int]:
    """A source of unknown length as a file that has no name, and its descriptor, which is the caller's to close.

    Raises LocalFileError, and what the source raises.
    """
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            for piece in source:
                while piece:
                    piece = piece[file.write(piece) :]
            fd = os.dup(file.fileno())
    except OSError as error:
        raise LocalFileError(f"cannot write a temporary file: {error.strerror}") from None
    try:
        return FileSource(fd, source.seal()), fd
    except BaseException:
        os.close(fd)
        raise
