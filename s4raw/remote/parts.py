"""One object in parts that travel side by side: out of a file, a source, or another object."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import partial

from s4raw.errors import S4Error
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Part, Source
from s4raw.objects.sources import FileSource
from s4raw.remote import values
from s4raw.remote.bodies import FileSending
from s4raw.remote.service import Body, Remote
from s4raw.remote.uploading import abort, complete, create, cut
from s4raw.s3.client import query_of
from s4raw.s3.outgoing import size_of

AT_ONCE = 8  # parts of a file: the other connections are for others
BUFFERED = 4  # parts of a source that are held in memory at once
NONE: Mapping[str, str] = {}
COPIED = 512 << 20  # bytes of a part that is copied


class Team:
    """Threads that send the parts of one upload. ``stopped`` makes them end soon."""

    def __init__(self, most: int) -> None:
        """At most ``most`` parts are on their way at once."""
        self._most = most
        self._jobs: deque[Callable[[], Part]] = deque()
        self._open = 0  # parts that are promised, and not sent
        self._idle = 0
        self._parts: dict[int, Part] = {}
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self.stopped = threading.Event()

    def add(self, send: Callable[[], Part]) -> None:
        """Have a part sent. Raises what another part failed with."""
        with self._changed:
            self._jobs.append(send)
            self._open += 1
            if self._idle >= len(self._jobs):
                self._changed.notify_all()
            elif len(self._threads) < self._most:
                thread = threading.Thread(target=copy_context().run, args=(self._work,), name="upload")
                self._threads.append(thread)
                thread.start()
            self._check()

    def wait_for_room(self) -> None:
        """Wait until fewer than ``most`` parts are on their way. Raises what one of them failed with."""
        with self._changed:
            while self._open >= self._most and self._error is None:
                self._changed.wait()
            self._check()

    def finish(self) -> list[Part]:
        """Wait until all are sent; they, by number. Raises what one of them failed with."""
        with self._changed:
            while self._open and self._error is None:
                self._changed.wait()
            self._check()
        self.stop()
        return [self._parts[number] for number in sorted(self._parts)]

    def stop(self) -> None:
        """End the threads; twice is fine."""
        self.stopped.set()
        with self._changed:
            self._jobs.clear()
            self._changed.notify_all()
        for thread in self._threads:
            with suppress(RuntimeError):  # its start was interrupted: it will find nothing to do
                thread.join()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                while not self._jobs and not self.stopped.is_set():
                    self._changed.wait()
                self._idle -= 1
                if not self._jobs:
                    return
                send = self._jobs.popleft()
            part, failure = None, None
            try:
                part = send()
            except BaseException as error:
                failure = error
            with self._changed:
                self._open -= 1
                if part is not None:
                    self._parts[part.number] = part
                elif self._error is None:
                    self._error = failure
                self._changed.notify_all()


Fill = Callable[[Team, str], Attributes]


def _send(remote: Remote, key: Key, upload: str, number: int, body: Body, checksums: Mapping[str, str] = NONE) -> Part:
    query = query_of({"partNumber": str(number), "uploadId": upload})
    headers = {values.CHECKSUM + name.lower(): value for name, value in checksums.items()}
    reply = remote.call("PUT", key, query, headers, body)
    return Part(number, size_of(body), values.etag_of(reply.headers), checksums)


def _gather(
    remote: Remote,
    key: Key,
    attributes: Attributes,
    conditions: Mapping[str, str],
    most: int,
    fill: Fill,
    algorithm: str = "",
) -> tuple[int, Attributes]:
    """Make an upload, have it filled with parts, and complete it; what fails, or is interrupted, gives it up."""
    upload = create(remote, key, attributes, algorithm)
    team = Team(most)
    try:
        sealed = fill(team, upload)
        parts = team.finish()
        said = complete(remote, key, upload, parts, conditions)
    except BaseException:
        team.stop()
        try:
            abort(remote, key, upload)
        except S4Error:
            pass  # the server sweeps it some day; the first error says more
        raise
    bare = sealed._replace(checksums={}, checksum_type="", parts=[Part(part.number, part.size) for part in parts])
    return sum(part.size for part in parts), values.stored(bare, said)


def put_file(
    remote: Remote, key: Key, source: FileSource, conditions: Mapping[str, str], part_size: int
) -> tuple[int, Attributes]:
    """Store a file in parts, several at once; its size and the object's attributes.

    The parts are those that ``known`` names, if it does, with their checksums: so what was told of the object before,
    its ETag and its checksum, becomes true.
    """
    known = source.known
    spans = cut(source.identity.size, part_size, known)
    algorithm = next(iter(known.checksums), "")
    same = [part.size for part in known.parts] == [size for _, size in spans]
    if not (algorithm and same and all(algorithm in part.checksums for part in known.parts)):
        algorithm = ""

    def fill(team: Team, upload: str) -> Attributes:
        for number, (offset, size) in enumerate(spans, 1):
            body = FileSending(source, offset, size, team.stopped)
            checksums = {algorithm: known.parts[number - 1].checksums[algorithm]} if algorithm else NONE
            team.add(partial(_send, remote, key, upload, number, body, checksums))
        return known

    return _gather(remote, key, known, conditions, AT_ONCE, fill, algorithm)


def put_source(
    remote: Remote, key: Key, source: Source, conditions: Mapping[str, str], part_size: int
) -> tuple[int, Attributes]:
    """Store a source in parts that are held in memory, a few at a time; its size and the object's attributes."""

    def fill(team: Team, upload: str) -> Attributes:
        for number, buffer in enumerate(_buffers(source, part_size), 1):
            team.add(partial(_send, remote, key, upload, number, buffer))
            team.wait_for_room()
        return source.seal()

    return _gather(remote, key, source.known, conditions, BUFFERED, fill)


def copy(
    remote: Remote,
    source: Mapping[str, str],
    size: int,
    target: Key,
    attributes: Attributes,
    conditions: Mapping[str, str],
) -> tuple[int, Attributes]:
    """Make an object of another one, of ``size`` bytes, at the server; ``source`` are the headers that name it."""

    def one(upload: str, number: int, offset: int, length: int) -> Part:
        query = query_of({"partNumber": str(number), "uploadId": upload})
        headers = {**source, "x-amz-copy-source-range": f"bytes={offset}-{offset + length - 1}"}
        reply = remote.call("PUT", target, query, headers, root="CopyPartResult")
        return Part(number, length, (reply.node.get("ETag") or "").strip('"'))

    def fill(team: Team, upload: str) -> Attributes:
        for number, (offset, length) in enumerate(cut(size, COPIED), 1):
            team.add(partial(one, upload, number, offset, length))
        return attributes

    return _gather(remote, target, attributes, conditions, AT_ONCE, fill)


def _buffers(source: Source, part_size: int) -> Iterator[memoryview]:
    """A source in parts that lie in memory; one at least."""
    if source.size is not None:
        part_size = max(size for _, size in cut(source.size, part_size))
    buffer, filled, made = bytearray(part_size), 0, 0
    for piece in source:
        while piece:
            count = min(len(piece), part_size - filled)
            buffer[filled : filled + count] = piece[:count]
            filled, piece = filled + count, piece[count:]
            if filled == part_size:
                yield memoryview(buffer)
                buffer, filled, made = bytearray(part_size), 0, made + 1
    if filled or not made:
        yield memoryview(buffer)[:filled]
