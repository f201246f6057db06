"""The store's verbs: what a session answers to PUT, GET, STAT, LIST, REMOVE and REMOVE_PREFIX."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import closing
from itertools import islice

from s4raw import wire
from s4raw.blocks import Record
from s4raw.digest import LEAF, Digest, digest, verify
from s4raw.disk import disk_error, disk_errors
from s4raw.errors import BadKey, BadRange, ConnectionLost, Corrupt, KeyChanged, KeyExists
from s4raw.keys import Key, check_key, check_prefix
from s4raw.net import FileSlice
from s4raw.receiving import Incoming, take
from s4raw.session import PROGRESS_SECONDS, Session, Verb
from s4raw.store import Stored
from s4raw.wire import Frame

SMALL = 64 << 10  # bytes of a body that are read and sent with their head, rather than by sendfile
LIST_PAGE = 512  # entries in one DATA frame


def put(session: Session, frame: Frame) -> None:
    """PUT: publish a body under a key."""
    if frame.flags & wire.STREAM:
        return _put_stream(session, frame)
    key = session.key(frame)
    body = session.channel.read_bytes(frame.body_length)
    found = digest(body)
    if found != frame.blob("digest"):
        verify("what came", found, frame.blob("digest"), key=str(key))
    with session.service.io, session.node.store.draft() as fd:
        _write(fd, body, key)
        session.node.store.publish(fd, key, Record(len(body), found))
    session.ok(frame)


def _put_stream(session: Session, frame: Frame) -> None:
    def receive(body: Incoming) -> None:
        key = session.key(frame)
        if session.node.store.exists(key):
            raise KeyExists("key already exists", key=str(key))
        with session.node.store.draft() as fd:
            state = body.receive(key, lambda data: _write(fd, data, key))
            with session.service.io:
                session.node.store.publish(fd, key, Record.of(state))

    take(session, frame, receive)


def put_part(session: Session, frame: Frame) -> None:
    """PUT_PART: some leaves of a key that is put in parts."""

    def receive(body: Incoming) -> None:
        key, size, offset = session.key(frame), frame.uint("size"), frame.uint("offset")
        if offset % LEAF:
            raise BadRange(f"a part begins at a multiple of {LEAF} bytes, got {offset}")
        with session.node.uploads.open(frame.blob("upload"), size) as upload:
            state = body.receive(key, upload.write(offset))
            if not state.size or (state.size % LEAF and offset + state.size != size):
                raise BadRange(f"a part has a multiple of {LEAF} bytes, unless it is the last; got {state.size}")
            upload.record(offset, state.leaves())

    take(session, frame, receive)


def _write(fd: int, data: bytes | memoryview, key: Key) -> None:
    with disk_errors(key):
        while data:
            data = data[os.write(fd, data) :]


def parts(session: Session, frame: Frame) -> None:
    """PARTS: the digests of the leaves of an upload that are there, zeros for the others."""
    key, size = session.key(frame), frame.uint("size")
    if session.node.store.exists(key):
        raise KeyExists("key already exists", key=str(key))
    session.node.uploads.sweep()
    with session.node.uploads.open(frame.blob("upload"), size, make=True) as upload:
        leaves = upload.recorded()
    session.channel.send(wire.encode(wire.OK, frame.request, 0, len(leaves)), leaves)


def commit(session: Session, frame: Frame) -> None:
    """COMMIT: an upload, all of whose parts are there, becomes the key."""
    key = session.key(frame)
    session.node.uploads.commit(frame.blob("upload"), frame.uint("size"), key, frame.blob("digest"))
    session.ok(frame)


def abort(session: Session, frame: Frame) -> None:
    """ABORT: an upload is given up."""
    session.node.uploads.remove(frame.blob("upload"), frame.uint("size"))
    session.ok(frame)


def get(session: Session, frame: Frame) -> None:
    """GET: a key's bytes by sendfile, all or some blocks of them, and the digests that were stored with them."""
    key = session.key(frame)
    if len(frame.fields) == 2 and (small := session.node.store.read_small(key, SMALL)):
        body, found, mtime = small
        return session.channel.send_soon(wire.encode_small(frame.request, len(body), found, mtime), body)
    stored = session.node.store.open(key)
    try:
        send_stored(session, frame, key, stored, *_wanted(frame, stored.record, key))
    finally:
        os.close(stored.fd)


def send_stored(
    session: Session, frame: Frame, key: Key, stored: Stored, start: int, end: int, **more: wire.Value
) -> None:
    """Answer with an open key's bytes from ``start`` to ``end``, which are bounds of blocks, and what verifies them."""
    record = stored.record
    fields: dict[str, wire.Value] = {"digest": record.digest, "mtime": stored.mtime_ns, **more}
    if record.blocks:
        fields |= {"block": record.block, "blocks": record.between(start, end)}
        if end - start < record.size:
            fields |= {"size": record.size, "offset": start}
    head = wire.encode(wire.OK, frame.request, 0, end - start, **fields)
    if end - start > SMALL:
        try:
            session.channel.send_body(head, FileSlice(stored.fd, start, end - start))
        except OSError as error:  # the client cannot be told any more: it has a part of the body
            session.node.log("error", f"GET: {disk_error(error, key)}")
            raise ConnectionLost("the body broke off") from None
    else:
        with disk_errors(key):
            body = os.pread(stored.fd, end - start, start)
        if len(body) != end - start:
            raise Corrupt(f"the file ended {end - start - len(body)} bytes early", key=str(key))
        session.channel.send_soon(head, body)


def _wanted(frame: Frame, record: Record, key: Key) -> tuple[int, int]:
    """From where to where the client wants the key. Raises BadRange, KeyChanged."""
    if len(frame.fields) > 2:
        if frame.blob("digest", record.digest) != record.digest:
            raise KeyChanged("the key was deleted and put again since this transfer began", key=str(key))
        if "offset" in frame.fields or ("length" in frame.fields and record.size):
            return record.cover(frame.uint("offset", 0), frame.uint("length", record.size))
    return 0, record.size


def stat(session: Session, frame: Frame) -> None:
    """STAT: what is recorded of a key, and where its file lies."""
    key = session.key(frame)
    stored = session.node.store.open(key)
    os.close(stored.fd)
    record = stored.record
    path = os.fsencode(session.node.store.path(key)).decode(errors="backslashreplace")
    fields: dict[str, wire.Value] = {"block": record.block, "blocks": record.blocks} if record.blocks else {}
    session.ok(frame, size=record.size, digest=record.digest, mtime=stored.mtime_ns, path=path, **fields)


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
    """REMOVE: delete a key, or only one of a certain content."""
    digest = frame.blob("digest") if "digest" in frame.fields else None
    session.node.store.remove(session.key(frame), digest)
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


def move(session: Session, frame: Frame) -> None:
    """MOVE: give a key of this server another name that is placed here, too."""
    target = session.node.check_place(check_key(Key(frame.text("out_bucket"), frame.text("out_key"))))
    session.node.store.move(session.key(frame), target)
    session.ok(frame)


VERBS: Mapping[int, Verb] = {
    wire.PUT: put,
    wire.PUT_PART: put_part,
    wire.PARTS: parts,
    wire.COMMIT: commit,
    wire.ABORT: abort,
    wire.GET: get,
    wire.STAT: stat,
    wire.LIST: list_keys,
    wire.REMOVE: remove,
    wire.REMOVE_PREFIX: remove_prefix,
    wire.MOVE: move,
}
