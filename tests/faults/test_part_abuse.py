"""Requests for parts that no client of ours would send: refused in words, and nothing is left of them."""

import pytest
from fault_ring import fault_ring
from peer import Peer

from s4raw import wire
from s4raw.digest import LEAF, digest
from s4raw.errors import (
    BadKey,
    BadRange,
    Corrupt,
    DiskFull,
    KeyChanged,
    NoSuchKey,
    NoSuchUpload,
    ProtocolError,
    WrongServer,
)
from s4raw.ring import Topology

ID = bytes(range(16))
SIZE = 2 * LEAF + 5
BODY = bytes(range(1, 251)) * (SIZE // 250 + 1)


@pytest.fixture(scope="module")
def _ring(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("abuse"), count=2) as ring:
        yield ring


@pytest.fixture
def ring(_ring):
    """Two servers that after the test still serve, hold nothing of the test's, and logged no traceback."""
    yield _ring
    with _ring.client() as client:
        client.remove_all("s4://b/")
        client.put("s4://b/0", b"0")
        assert client.get("s4://b/0") == b"0"
        client.remove("s4://b/0")
    assert _ring.published() == [] and uploads(_ring) == []
    _ring.check_leaks()
    _ring.check_no_traceback()


def uploads(ring) -> list[str]:
    """The uploads that lie on the servers' disks."""
    return [path.name for index in range(ring.count) for path in ring.directory(index).glob("_uploads/*")]


@pytest.fixture
def peer(ring):
    """A connection to server 0, past its handshake. Key N lies on server N % 2."""
    with Peer.greeted(ring.servers[0], Topology(tuple(ring.servers))) as peer:
        yield peer


def ask(opcode: int, **fields: wire.Value) -> bytes:
    """A request about the upload, with some fields of its own."""
    given = {"bucket": "b", "key": "0", "upload": ID, "size": SIZE} | fields
    return wire.encode(opcode, 1, **given)


def part(offset: int = 0, body: bytes = BODY[:LEAF], **fields: wire.Value) -> bytes:
    """A PUT_PART with its body."""
    given = {"bucket": "b", "key": "0", "upload": ID, "size": SIZE, "offset": offset} | fields
    data = wire.encode(wire.DATA, 1, 0, len(body)) + body if body else b""
    end = wire.encode(wire.END, 1, size=len(body), digest=digest(body))
    return wire.encode(wire.PUT_PART, 1, wire.STREAM, **given) + data + end


@pytest.fixture
def begun(peer):
    """An upload without a part, given up at the end."""
    peer.send(ask(wire.PARTS))
    assert peer.frame().opcode == wire.OK and peer.body == bytes(48)
    yield
    peer.send(ask(wire.ABORT))
    assert peer.frame().opcode == wire.OK


REFUSED = {
    "an offset between leaves": (part(1), BadRange),
    "an offset behind the end": (part(3 * LEAF), BadRange),
    "an offset far behind the end": (part((1 << 64) - LEAF), BadRange),
    "more than there is room for": (part(2 * LEAF, BODY[:6]), BadRange),
    "half a leaf": (part(0, BODY[:1000]), BadRange),
    "a leaf and a half": (part(0, BODY[: LEAF + 1000]), BadRange),
    "no byte": (part(0, b""), BadRange),
    "no byte far behind the end": (part((1 << 64) - LEAF, b""), BadRange),
    "a part of what was not begun": (part(upload=bytes(16)), NoSuchUpload),
    "a part of another size": (part(size=SIZE + 1), NoSuchUpload),
    "a part of a key of another server": (part(key="1"), WrongServer),
    "parts of what is no key": (ask(wire.PARTS, bucket=".."), BadKey),
    "a commit of nothing": (ask(wire.COMMIT, digest=digest(BODY), upload=bytes(16)), NoSuchUpload),
    "a commit of another size": (ask(wire.COMMIT, digest=digest(BODY), size=SIZE + 1), NoSuchUpload),
    "a commit of 2^60 bytes": (ask(wire.COMMIT, digest=digest(BODY), size=1 << 60), NoSuchUpload),
    "a commit without parts": (ask(wire.COMMIT, digest=digest(BODY[:SIZE])), NoSuchUpload),
    "2^60 bytes": (ask(wire.PARTS, size=1 << 60), DiskFull),
    "2^64 - 1 bytes": (ask(wire.PARTS, size=(1 << 64) - 1), DiskFull),
    "a part of 2^60 bytes": (part(size=1 << 60), NoSuchUpload),
}


@pytest.mark.parametrize(("asked", "kind"), REFUSED.values(), ids=REFUSED)
def test_a_part_that_cannot_be_is_refused_and_the_connection_goes_on(ring, peer, begun, asked, kind):
    peer.send(asked)
    error = peer.error()
    assert type(error) is kind and error.server == ring.servers[0], repr(error)
    assert uploads(ring) == [f"{ID.hex()}-{SIZE}"]
    peer.send(ask(wire.PARTS))  # nothing of it is recorded
    assert peer.frame().opcode == wire.OK and peer.body == bytes(48)


BREAKING = {
    "a short id": ask(wire.PARTS, upload=ID[:-1]),
    "a long id": ask(wire.COMMIT, upload=ID * 100, digest=bytes(16)),
    "an empty id": ask(wire.ABORT, upload=b""),
    "an id that is a path": part(upload=b"../../../../etc"),
    "PARTS without an id": wire.encode(wire.PARTS, 1, bucket="b", key="0", size=5),
    "PARTS without a size": wire.encode(wire.PARTS, 1, bucket="b", key="0", upload=ID),
    "COMMIT without a digest": ask(wire.COMMIT),
    "PUT_PART without an offset": wire.encode(wire.PUT_PART, 1, wire.STREAM, bucket="b", key="0", upload=ID, size=5),
    "PUT_PART with a body of its own": wire.encode(wire.PUT_PART, 1, bucket="b", key="0", upload=ID, size=5, offset=0),
}


@pytest.mark.parametrize("asked", BREAKING.values(), ids=BREAKING)
def test_a_askedfor_parts_that_is_malformed_ends_the_connection(ring, peer, asked):
    peer.send(asked)
    error = peer.error()
    assert isinstance(error, ProtocolError) and error.server == ring.servers[0]
    assert peer.frame() is None


def test_a_part_that_is_not_what_its_end_says_is_not_recorded(ring, peer, begun):
    body = BODY[:LEAF]
    for size, found in ((LEAF, digest(b"other")), (LEAF - 1, digest(body)), (1 << 62, digest(body))):
        peer.send(part()[: -len(wire.encode(wire.END, 1, size=LEAF, digest=digest(body)))])
        peer.send(wire.encode(wire.END, 1, size=size, digest=found))
        error = peer.error()
        assert type(error) is Corrupt and error.key == "s4://b/0"
    peer.send(ask(wire.PARTS))
    assert peer.frame().opcode == wire.OK and peer.body == bytes(48)


def test_an_upload_by_hand_becomes_the_key(ring, peer, begun):
    for offset in (2 * LEAF, 0, LEAF):
        peer.send(part(offset, BODY[:SIZE][offset : offset + LEAF]))
        assert peer.frame().opcode == wire.OK
    peer.send(ask(wire.COMMIT, digest=digest(BODY[:SIZE])))
    assert peer.frame().opcode == wire.OK
    peer.send(part())
    assert isinstance(peer.error(), NoSuchUpload)
    peer.send(wire.encode(wire.GET, 1, bucket="b", key="0"))
    assert peer.frame().opcode == wire.OK and peer.body == BODY[:SIZE]


# Ranges


@pytest.fixture
def stored(ring, peer):
    """Two keys."""
    with ring.client() as client:
        client.put("s4://b/0", BODY[:SIZE])
        client.put("s4://b/2", BODY[1:SIZE])


def get(**fields: wire.Value) -> bytes:
    return wire.encode(wire.GET, 1, **{"bucket": "b", "key": "0"} | fields)


NO_RANGE = {
    "behind the end": get(offset=SIZE, length=1),
    "far behind the end": get(offset=(1 << 64) - 1, length=(1 << 64) - 1),
    "of no bytes": get(offset=0, length=0),
    "of no bytes at the end": get(offset=SIZE, length=0),
}


@pytest.mark.parametrize("asked", NO_RANGE.values(), ids=NO_RANGE)
def test_a_range_that_holds_nothing_is_refused_and_the_connection_goes_on(ring, peer, stored, asked):
    peer.send(asked)
    error = peer.error()
    assert type(error) is BadRange and error.server == ring.servers[0]
    peer.send(wire.encode(wire.PING, 7))
    assert peer.frame().opcode == wire.OK


RANGES = {
    "of a huge length": ({"offset": 1, "length": (1 << 64) - 1}, 0, SIZE),
    "without a length": ({"offset": LEAF + 1}, LEAF, SIZE),
    "without an offset": ({"length": 5}, 0, LEAF),
    "of one block": ({"offset": 2 * LEAF - 1, "length": 1}, LEAF, 2 * LEAF),
    "of the last byte": ({"offset": SIZE - 1, "length": 99}, 2 * LEAF, SIZE),
}


@pytest.mark.parametrize(("fields", "start", "end"), RANGES.values(), ids=RANGES)
def test_a_range_comes_as_the_blocks_that_hold_it(peer, stored, fields, start, end):
    peer.send(get(**fields))
    answer = peer.frame()
    assert answer.opcode == wire.OK and peer.body == BODY[start:end]
    assert answer.uint("offset", 0) == start and answer.uint("size", SIZE) == SIZE
    assert answer.blob("digest") == digest(BODY[:SIZE])
    assert answer.blob("blocks") == b"".join(digest(BODY[at : min(at + LEAF, end)]) for at in range(start, end, LEAF))


@pytest.mark.parametrize("wrong", [digest(BODY[1:SIZE]), b"", bytes(16), bytes(1000)])
def test_a_key_with_another_digest_is_not_sent(ring, peer, stored, wrong):
    peer.send(get(digest=wrong), get(digest=wrong, offset=5, length=1), get(digest=digest(BODY[:SIZE])))
    for _ in range(2):
        error = peer.error()
        assert type(error) is KeyChanged and (error.key, error.server) == ("s4://b/0", ring.servers[0])
    assert peer.frame().opcode == wire.OK and peer.body == BODY[:SIZE]


def test_a_range_of_what_is_not_there_is_a_missing_key(peer):
    peer.send(get(offset=0, length=1, digest=bytes(16)))
    assert type(peer.error()) is NoSuchKey
