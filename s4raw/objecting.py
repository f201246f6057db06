"""The verbs of S3 objects: what a session answers to the S3 daemons of the ring, from its own part of the objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from threading import Event, Thread
from typing import Any

from s4raw import wire
from s4raw.digest import Digest, digest, verify
from s4raw.errors import ProtocolError, S4Error
from s4raw.keys import Key
from s4raw.objects import codec
from s4raw.objects.base import Attributes
from s4raw.receiving import Incoming, take
from s4raw.session import Session, Verb
from s4raw.store import Stored
from s4raw.storing import send_stored
from s4raw.wire import Frame

LONG = ("copy", "complete")  # they may read and write all of an object
ALIVE_SECONDS = 10.0
MAX_INFO = wire.MAX_HEADER - (8 << 10)  # bytes of what goes with an object's bytes, in the answer's header


class _Arriving:
    """A body that comes in DATA frames; its attributes come with its end."""

    known = Attributes()

    def __init__(self, body: Incoming, key: Key, size: int | None) -> None:
        self.size = size
        self._body = body
        self._key = key

    def __iter__(self) -> Iterator[memoryview]:
        return self._body.pieces(self._key, Digest())

    def seal(self) -> Attributes:
        """The attributes to store."""
        sealed: Attributes = codec.loads(self._body.sealed, codec.attributes)
        return sealed


def call(session: Session, frame: Frame) -> None:
    """OBJECT: a call on the objects of this server."""
    raw = session.channel.read_bytes(frame.body_length)
    verify("what came", digest(raw), frame.blob("digest"))
    name, arguments = codec.loads(raw, _named)
    for argument in arguments:
        if isinstance(argument, Key):
            session.node.check_place(argument)
    with _alive(session, frame) if name in LONG else nullcontext():
        answer = codec.dumps(getattr(session.node.objects, name)(*arguments))
    session.channel.send_soon(wire.encode(wire.OK, frame.request, 0, len(answer), digest=digest(answer)), answer)


@contextmanager
def _alive(session: Session, frame: Frame) -> Iterator[None]:
    """Say now and then that a call is still worked on, or whoever waits for it would take this server for dead."""
    done = Event()

    def tell() -> None:
        with suppress(S4Error):  # it has left; the answer will find that out
            while not done.wait(ALIVE_SECONDS):
                session.progress(frame, 0, 0)

    thread = Thread(target=tell)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _named(raw: Any) -> tuple[str, list[Any]]:
    name, *arguments = raw
    return codec.text(name), codec.arguments(name, arguments)


def put(session: Session, frame: Frame) -> None:
    """OBJECT_PUT: an object, or a part of one."""

    def receive(body: Incoming) -> bytes:
        what, *rest = codec.loads(frame.text("call"), list)
        if what == "put":
            key, conditions, size = codec.key(rest[0]), codec.conditions(rest[1]), rest[2]
            source = _Arriving(body, session.node.check_place(key), size)
            return codec.dumps(session.node.objects.put(key, source, conditions))
        if what == "put_part":
            key, upload, number, size = codec.key(rest[0]), codec.text(rest[1]), codec.number(rest[2]), rest[3]
            source = _Arriving(body, session.node.check_place(key), size)
            return codec.dumps(session.node.objects.put_part(key, upload, number, source))
        raise ProtocolError(f"no such put of objects: {what!r}")

    take(session, frame, receive)


def get(session: Session, frame: Frame) -> None:
    """OBJECT_GET: an object, or the blocks that hold a range of it, as GET sends them; and what is known of it."""
    key, wanted, conditions = codec.loads(frame.text("call"), _wanted)
    with session.node.objects.get(session.node.check_place(key), wanted, conditions) as reading:
        record, length = reading.record, reading.end - reading.start
        stored = Stored(reading.file(), record, reading.info.mtime_ns, "")
        start, end = record.cover(reading.start, length) if 0 < length < record.size else (0, length)
        info = codec.dumps([[reading.start, reading.end], reading.info])
        if len(info) > MAX_INFO:
            info = codec.dumps([[reading.start, reading.end], _brief(reading.info)])
        send_stored(session, frame, key, stored, start, end, call=info.decode())


def _wanted(raw: Any) -> tuple[Any, Any, Any]:
    key, wanted, conditions = raw
    return codec.key(key), codec.optional(codec.span)(wanted), codec.conditions(conditions)


def _brief(info: Any) -> Any:
    """An object's Info, its parts without checksums: with them, 10,000 parts would not fit into a header."""
    parts = [(part.number, part.size) for part in info.attributes.parts]
    return info._replace(attributes=info.attributes._replace(parts=parts))


VERBS: Mapping[int, Verb] = {wire.OBJECT: call, wire.OBJECT_PUT: put, wire.OBJECT_GET: get}
