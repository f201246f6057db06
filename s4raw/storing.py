"""The store's verbs: what a session answers to PUT, GET, STAT, LIST, REMOVE and REMOVE_PREFIX."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing
from itertools import islice

from s4raw import wire
from s4raw.bodies import check_end
from s4raw.digest import Digest, digest, verify
from s4raw.disk import disk_errors
from s4raw.errors import BadKey, ConnectionLost, KeyExists, ProtocolError, S4Error
from s4raw.keys import Key, check_prefix
from s4raw.net import FileSlice
from s4raw.session import OUT_OF_STEP, PROGRESS_SECONDS, Session, Verb
from s4raw.store import Record
from s4raw.wire import Frame

LIST_PAGE = 512  # entries in one DATA frame


def put(session: Session, frame: Frame) -> None:
    """PUT: publish a body under a key."""
    if frame.flags & wire.STREAM:
        return _put_stream(session, frame)
    key = session.key(frame)
    with session.service.buffers.borrow() as buffer:
        body = buffer[: session.channel.read_into(buffer)]
        found = digest(body)
        verify("what came", found, frame.blob("digest"), key=str(key))
        with session.service.io, session.node.store.draft() as fd:
            _write(fd, body, key)
            session.node.store.publish(fd, key, Record(len(body), found))
    session.ok(frame)


def _put_stream(session: Session, frame: Frame) -> None:
    if frame.body_length:
        raise ProtocolError("a PUT with the flag STREAM has its body in DATA frames, not in its own")
    ended = False
    try:
        key = session.key(frame)
        if session.node.store.exists(key):
            raise KeyExists("key already exists", key=str(key))
        with session.node.store.draft() as fd:
            end, record = _receive_stream(session, frame, key, fd)
            ended = True
            check_end(end, *record)
            with session.service.io:
                session.node.store.publish(fd, key, record)
    except OUT_OF_STEP:
        raise
    except S4Error as error:
        session.report(frame, error.at(key=str(key)) if ended else error)
        if not ended:
            _skip_stream(session, frame)
    else:
        session.ok(frame)


def _receive_stream(session: Session, frame: Frame, key: Key, fd: int) -> tuple[Frame, Record]:
    """Write the DATA of a put to ``fd``; returns its END, and what came."""
    state, size = Digest(), 0
    while (data := _next_data(session, frame)).opcode == wire.DATA:
        with session.service.buffers.borrow() as buffer:  # not while waiting for a slow client's next frame
            while session.channel.body_left:
                count = session.channel.read_into(buffer)
                state.update(buffer[:count])
                size += count
                with session.service.io:
                    _write(fd, buffer[:count], key)
    return data, Record(size, state.digest())


def _next_data(session: Session, frame: Frame) -> Frame:
    data = session.channel.next_frame()
    if data is None:
        raise ConnectionLost("the client left in the middle of a put")
    if data.request != frame.request or data.opcode not in (wire.DATA, wire.END):
        raise ProtocolError(f"expected DATA or END, got {wire.name_of(data.opcode)}")
    return data


def _skip_stream(session: Session, frame: Frame) -> None:
    session.channel.skip_body()
    while _next_data(session, frame).opcode == wire.DATA:
        session.channel.skip_body()


def _write(fd: int, data: memoryview, key: Key) -> None:
    with disk_errors(key):
        while data:
            data = data[os.write(fd, data) :]


def get(session: Session, frame: Frame) -> None:
    """GET: a key's bytes by sendfile, and the digest that was stored with them."""
    stored = session.node.store.open(session.key(frame))
    try:
        size, found = stored.record
        head = wire.encode(wire.OK, frame.request, 0, size, digest=found, mtime=stored.mtime_ns)
        session.channel.send_body(head, FileSlice(stored.fd, 0, size))
    finally:
        os.close(stored.fd)


def stat(session: Session, frame: Frame) -> None:
    """STAT: what is recorded of a key, and where its file lies."""
    key = session.key(frame)
    stored = session.node.store.open(key)
    os.close(stored.fd)
    path = os.fsencode(session.node.store.path(key)).decode(errors="backslashreplace")
    session.ok(frame, size=stored.record.size, digest=stored.record.digest, mtime=stored.mtime_ns, path=path)


def list_keys(session: Session, frame: Frame) -> None:
    """LIST: the keys that begin with a prefix, or (with an empty bucket) the buckets, in order."""
    prefix = Key(frame.text("bucket"), frame.text("key"))
    check_prefix(prefix)
    store = session.node.store
    entries = store.list(prefix, bool(frame.uint("recursive", 0))) if prefix.bucket else store.buckets()
    state, size = Digest(), 0
    with closing(entries):
        while page := b"".join(map(wire.encode_entry, islice(entries, LIST_PAGE))):
            state.update(page)
            size += len(page)
            session.channel.send(wire.encode(wire.DATA, frame.request, 0, len(page)), page)
    session.channel.send(wire.encode(wire.END, frame.request, size=size, digest=state.digest()))


def remove(session: Session, frame: Frame) -> None:
    """REMOVE: delete a key."""
    session.node.store.remove(session.key(frame))
    session.ok(frame)


def remove_prefix(session: Session, frame: Frame) -> None:
    """REMOVE_PREFIX: delete every key of this server that begins with a prefix."""
    prefix = Key(frame.text("bucket"), frame.text("key"))
    check_prefix(prefix)
    if not prefix.bucket:
        raise BadKey("need a bucket to delete from")
    done, told = 0, time.monotonic()

    def each() -> None:
        nonlocal done, told
        done += 1
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            session.progress(frame, done, 0)

    session.ok(frame, count=session.node.store.remove_prefix(prefix, each))


VERBS: Mapping[int, Verb] = {
    wire.PUT: put,
    wire.GET: get,
    wire.STAT: stat,
    wire.LIST: list_keys,
    wire.REMOVE: remove,
    wire.REMOVE_PREFIX: remove_prefix,
}
