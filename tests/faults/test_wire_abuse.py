"""Bytes that no client of ours would send: each gets an error frame or a closed connection, and the server goes on."""

import random
import struct

import pytest
from conftest import descriptors, rss, wait_for
from fault_ring import fault_ring
from peer import HEAD, Peer, claim, hello, sealed

from s4raw import wire
from s4raw.digest import digest
from s4raw.errors import Corrupt, KeyExists, ProtocolError, VersionMismatch
from s4raw.ring import Topology

GIB = 1 << 30
BODY = b"hello"


@pytest.fixture(scope="module")
def _ring(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("abuse"), count=2) as ring:
        yield ring


@pytest.fixture
def ring(_ring):
    """Two servers that after the test still serve, hold nothing of the test's, and logged no traceback."""
    with _ring.client() as client:
        client.remove_all("s4://b/")
    yield _ring
    with _ring.client() as client:
        client.put("s4://after/0", b"0")
        assert client.get("s4://after/0") == b"0"
        client.remove("s4://after/0")
    assert _ring.published() == []
    _ring.check_leaks()
    _ring.check_no_traceback()


@pytest.fixture
def stranger(ring):
    """A connection that has not said hello."""
    with Peer.connect(ring.servers[0]) as peer:
        yield peer


@pytest.fixture
def peer(ring):
    """A connection to server 0, past its handshake. Key N lies on server N % 2."""
    with Peer.greeted(ring.servers[0], Topology(tuple(ring.servers))) as peer:
        yield peer


def field(tag: int, value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BI", tag, len(value) if length is None else length) + value


def headed(opcode: int, header: bytes) -> bytes:
    """A frame with a header of any bytes."""
    return sealed(HEAD.pack(wire.MAGIC, wire.VERSION, opcode, 0, 1, len(header), 0), header)


def of_version(version: int) -> bytes:
    return sealed(HEAD.pack(wire.MAGIC, version, wire.PING, 0, 1, 0, 0))


def put(bucket="b", key="0", body=BODY, **fields) -> bytes:
    given = {"bucket": bucket, "key": key, "digest": digest(body)} | fields
    return wire.encode(wire.PUT, 1, 0, len(body), **{name: value for name, value in given.items() if value is not None})


BREAKING = {  # frames after which a connection cannot go on
    "wrong magic": (sealed(HEAD.pack(b"s4rx", wire.VERSION, wire.PING, 0, 1, 0, 0)), ProtocolError),
    "http": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", ProtocolError),
    "zeros": (bytes(1000), ProtocolError),
    "random": (random.Random(1).randbytes(1000), ProtocolError),
    "version 0": (of_version(0), VersionMismatch),
    "the next version": (of_version(wire.VERSION + 1), VersionMismatch),
    "opcode 0": (claim(0), ProtocolError),
    "opcode 255": (claim(255), ProtocolError),
    "a header of 4 GiB": (claim(wire.GET, header=4 * GIB - 1), ProtocolError),
    "a header over the limit": (claim(wire.GET, header=wire.MAX_HEADER + 1), ProtocolError),
    "a put of 2^63": (claim(wire.PUT, body=1 << 63), ProtocolError),
    "a put of 2^64 - 1": (claim(wire.PUT, body=(1 << 64) - 1), ProtocolError),
    "a put over the limit of one frame": (claim(wire.PUT, body=wire.WHOLE_BODY + 1), ProtocolError),
    "data of 2^63": (claim(wire.DATA, body=1 << 63), ProtocolError),
    "a get with a body": (claim(wire.GET, body=1), ProtocolError),
    "a field beyond the header": (headed(wire.GET, field(1, b"b", length=4 * GIB - 1)), ProtocolError),
    "a header that ends in a field's head": (headed(wire.GET, b"\1\1\0"), ProtocolError),
    "a wrong checksum": (wire.encode(wire.PING, 1)[:-1] + b"\0", ProtocolError),
    "a header that was changed": (wire.encode(wire.GET, 1, bucket="b", key="0")[:-1] + b"2", ProtocolError),
    "an unknown field": (headed(wire.GET, field(200, b"x")), ProtocolError),
    "a field twice": (headed(wire.GET, field(1, b"b") + field(1, b"c")), ProtocolError),
    "a number of 3 bytes": (headed(wire.LIST, field(1, b"b") + field(2, b"") + field(10, b"123")), ProtocolError),
    "a key that is not UTF-8": (headed(wire.GET, field(1, b"b") + field(2, b"\xff\xfe")), ProtocolError),
    "a key of a lone surrogate": (headed(wire.GET, field(1, b"b") + field(2, b"\xed\xa0\x80")), ProtocolError),
    "a bucket that is not UTF-8": (headed(wire.LIST, field(1, b"\x80") + field(2, b"")), ProtocolError),
    "END without PUT": (wire.encode(wire.END, 1, size=0, digest=bytes(16)), ProtocolError),
    "DATA without PUT": (wire.encode(wire.DATA, 1, 0, 1) + b"x", ProtocolError),
    "an answer": (wire.encode(wire.OK, 1, 0, 1 << 62), ProtocolError),
    "an error": (wire.encode(wire.ERROR, 1, code=1, message="no"), ProtocolError),
    "progress": (wire.encode(wire.PROGRESS, 1, done=1, total=1), ProtocolError),
    "a second HELLO": (hello(Topology(("127.0.0.1:1",))), ProtocolError),
    "a proof that nobody asked for": (wire.encode(wire.PROOF, proof=bytes(32)), ProtocolError),
    "PUT without a digest": (put(digest=None) + BODY, ProtocolError),
    "PUT without a key": (put(key=None) + BODY, ProtocolError),
    "PUT without a bucket": (put(bucket=None) + BODY, ProtocolError),
    "GET without fields": (wire.encode(wire.GET, 1), ProtocolError),
    "LIST without fields": (wire.encode(wire.LIST, 1), ProtocolError),
    "EVAL without a command": (wire.encode(wire.EVAL, 1, bucket="b", key="0", timeout=1), ProtocolError),
    "MAP without outputs": (wire.encode(wire.MAP, 1, bucket="b", key="", command="x", timeout=1), ProtocolError),
}


@pytest.mark.parametrize(("data", "kind"), BREAKING.values(), ids=BREAKING)
def test_a_broken_frame_ends_the_connection_with_an_error(ring, peer, data, kind):
    memory = rss(ring.processes[0].pid)
    peer.send(data)
    error = peer.error()
    assert isinstance(error, kind) and error.server == ring.servers[0]
    assert peer.frame() is None
    assert rss(ring.processes[0].pid) < memory + (64 << 20), "memory was taken for what a frame claims"


WHOLE = put() + BODY


@pytest.mark.parametrize("length", [1, 4, wire.HEAD_SIZE - 1, wire.HEAD_SIZE, wire.HEAD_SIZE + 3, len(WHOLE) - 1])
def test_a_frame_that_ends_early_does_nothing(ring, peer, length):
    peer.send(WHOLE[:length])
    peer.end()
    assert peer.frame() is None


BEFORE_HELLO = {
    "a ping": wire.encode(wire.PING, 1),
    "a put": WHOLE,
    "an eval": wire.encode(wire.EVAL, 1, bucket="b", key="0", command="cat", timeout=1000),
    "a large header": claim(wire.HELLO, header=wire.MAX_HELLO_HEADER + 1),
    "an empty hello": wire.encode(wire.HELLO),
    "a short nonce": hello(Topology(("127.0.0.1:1",)), nonce=b"short"),
    "random": random.Random(2).randbytes(100),
}


@pytest.mark.parametrize("data", BEFORE_HELLO.values(), ids=BEFORE_HELLO)
def test_nothing_is_served_before_hello(ring, stranger, data):
    stranger.send(data, WHOLE)
    assert isinstance(stranger.error(), ProtocolError)
    assert stranger.frame() is None


STREAMS = {
    "data of another request": [wire.encode(wire.DATA, 2, 0, 5) + BODY],
    "the end of another request": [wire.encode(wire.END, 2, size=0, digest=digest(b""))],
    "a ping in the middle": [wire.encode(wire.DATA, 1, 0, 5) + BODY, wire.encode(wire.PING, 1)],
    "data of 64 MiB and more": [wire.encode(wire.DATA, 1, 0, wire.MAX_DATA + 1)],
    "an end without a size": [wire.encode(wire.END, 1, digest=digest(b""))],
    "an end without a digest": [wire.encode(wire.END, 1, size=0)],
}


@pytest.mark.parametrize("frames", STREAMS.values(), ids=STREAMS)
def test_a_stream_that_is_out_of_step_ends_the_connection_and_publishes_nothing(ring, peer, frames):
    peer.send(wire.encode(wire.PUT, 1, wire.STREAM, bucket="b", key="0"), *frames)
    assert isinstance(peer.error(), ProtocolError)
    assert peer.frame() is None


def test_a_streamed_put_with_a_body_of_its_own_is_refused(ring, peer):
    peer.send(wire.encode(wire.PUT, 1, wire.STREAM, 5, bucket="b", key="0"), BODY)
    peer.send(wire.encode(wire.END, 1, size=5, digest=digest(BODY)))
    assert isinstance(peer.error(), ProtocolError)


@pytest.mark.parametrize("size", [4, 5, 1 << 62])
def test_a_put_whose_end_does_not_match_its_data_is_refused_and_the_connection_goes_on(ring, peer, size):
    peer.send(wire.encode(wire.PUT, 1, wire.STREAM, bucket="b", key="0"), wire.encode(wire.DATA, 1, 0, 5), BODY)
    peer.send(wire.encode(wire.END, 1, size=size, digest=digest(b"other" if size == 5 else BODY)))
    check_refused(peer, Corrupt, "s4://b/0")


@pytest.mark.parametrize(
    "wrong", [digest(b"other"), b"", digest(BODY)[:-1], bytes(10_000)], ids=["other", "empty", "short", "long"]
)
def test_a_put_with_a_wrong_digest_is_refused_and_the_connection_goes_on(ring, peer, wrong):
    peer.send(put(digest=wrong), BODY)
    check_refused(peer, Corrupt, "s4://b/0")


def check_refused(peer, kind, key: str = "") -> None:
    error = peer.error()
    assert isinstance(error, kind), repr(error)
    assert key in error.key
    peer.send(wire.encode(wire.PING, 7))
    assert peer.frame().opcode == wire.OK


def test_the_stream_that_comes_second_is_refused_and_its_connection_goes_on(ring, peer):
    begin = [wire.encode(wire.PUT, 1, wire.STREAM, bucket="b", key="0"), wire.encode(wire.DATA, 1, 0, 5), BODY]
    end = wire.encode(wire.END, 1, size=5, digest=digest(BODY))
    with Peer.greeted(ring.servers[0], Topology(tuple(ring.servers))) as second, ring.client() as client:
        for racer in (peer, second):
            racer.send(*begin)
        wait_for(lambda: drafts(ring) == 2, "both to be on their way")
        peer.send(end)
        assert peer.frame().opcode == wire.OK
        second.send(end)
        check_refused(second, KeyExists, "s4://b/0")
        client.remove("s4://b/0")


def drafts(ring) -> int:
    """How many keys server 0 is receiving."""
    return sum("(deleted)" in what for what in descriptors(ring.processes[0].pid).values())
