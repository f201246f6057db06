"""Keys that break the grammar, or belong elsewhere, over the raw wire: refused by every verb; nothing leaves DATA."""

import os

import pytest
from fault_ring import fault_ring
from peer import Peer

from s4raw import wire
from s4raw.digest import digest
from s4raw.errors import BadKey, NoSuchKey, S4Error, WrongServer
from s4raw.keys import Key
from s4raw.ring import Topology

BODY = b"hello"
LONG = "k" * 1025

BAD_BUCKETS = ["_tmp", "_format", "_", "..", ".", "a/b", "/", "../x", "a\0b", "b" * 256, "é" * 128]
BAD_NAMES = ["a\0b", "\0", LONG, "é" * 513]
BAD_KEYS = [(bucket, "0") for bucket in ("", *BAD_BUCKETS)] + [("b", name) for name in ("", *BAD_NAMES)]
BAD_PREFIXES = [(bucket, "d/") for bucket in BAD_BUCKETS] + [("b", name + "/") for name in BAD_NAMES]
STRANGE_NAMES = [  # valid S3 keys, so the store keeps them; some would be a way out of DATA if they were paths
    "..", "../x", "../../../x", "a/../../x", "/etc/x", "//x", ".", "./x", "a/..", "..\\x", "%2e%2e/x", "%..", "%",
    "a//b", "_tmp/x", "_format", " ", "\n", "a\nb", "*", "~", "$HOME", "k" * 1024, "k" * 300 + "/" + "l" * 300,
    "k/" * 100 + "k",
]  # fmt: skip


@pytest.fixture(scope="module")
def _ring(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("keys"), count=1) as ring:
        yield ring


@pytest.fixture
def ring(_ring):
    """One server, which has nothing outside its buckets after the test that it did not have before."""
    outside = outside_of(_ring)
    yield _ring
    assert _ring.published() == [] and outside_of(_ring) == outside
    _ring.check_leaks()
    _ring.check_no_traceback()


def outside_of(ring) -> set[str]:
    """Every path around and in the data directory, but for the buckets."""
    top = ring.directory(0)
    around = {str(path) for path in top.parent.parent.rglob("*") if top not in path.parents}
    return around | {str(path) for path in top.rglob("_*")} | {entry for entry in os.listdir("/") if entry != "proc"}


@pytest.fixture
def peer(ring):
    with Peer.greeted(ring.servers[0], Topology(tuple(ring.servers))) as peer:
        yield peer


def put(bucket: str, key: str) -> bytes:
    return wire.encode(wire.PUT, 1, 0, len(BODY), bucket=bucket, key=key, digest=digest(BODY)) + BODY


def put_stream(bucket: str, key: str) -> bytes:
    frames = [wire.encode(wire.PUT, 1, wire.STREAM, bucket=bucket, key=key), wire.encode(wire.DATA, 1, 0, len(BODY))]
    return b"".join([*frames, BODY, wire.encode(wire.END, 1, size=len(BODY), digest=digest(BODY))])


def request(opcode: int, **fields: wire.Value):
    return lambda bucket, key: wire.encode(opcode, 1, bucket=bucket, key=key, **fields)


KEY_REQUESTS = {
    "put": put,
    "put-stream": put_stream,
    "get": request(wire.GET),
    "stat": request(wire.STAT),
    "remove": request(wire.REMOVE),
    "eval": request(wire.EVAL, command="cat", timeout=1000),
}
PREFIX_REQUESTS = {
    "list": request(wire.LIST, recursive=1),
    "remove-prefix": request(wire.REMOVE_PREFIX),
    "map-from": request(wire.MAP, command="cat", timeout=1000, out_bucket="b", out_key="out/"),
    "map-to": lambda bucket, key: wire.encode(
        wire.MAP, 1, bucket="b", key="in/", command="cat", timeout=1000, out_bucket=bucket, out_key=key
    ),
}


def check_refused(peer, frame: bytes, kind: type) -> None:
    peer.send(frame)
    error = peer.error()
    assert isinstance(error, kind), repr(error)
    peer.send(wire.encode(wire.PING, 2))
    answer = peer.frame()
    assert (answer.opcode, answer.request) == (wire.OK, 2)


@pytest.mark.parametrize("verb", KEY_REQUESTS)
def test_a_key_that_breaks_the_grammar_is_refused_and_the_connection_goes_on(peer, verb):
    for bucket, key in BAD_KEYS:
        check_refused(peer, KEY_REQUESTS[verb](bucket, key), BadKey)


@pytest.mark.parametrize("verb", PREFIX_REQUESTS)
def test_a_prefix_that_breaks_the_grammar_is_refused_and_the_connection_goes_on(peer, verb):
    for bucket, key in BAD_PREFIXES:
        check_refused(peer, PREFIX_REQUESTS[verb](bucket, key), BadKey)


@pytest.mark.parametrize("name", STRANGE_NAMES, ids=repr)
def test_a_strange_name_is_kept_inside_its_bucket(ring, peer, name):
    top = ring.directory(0) / "b"
    for send in (put, put_stream):
        peer.send(send("b", name))
        assert peer.frame().opcode == wire.OK
        files = [path for path in top.rglob("*") if path.is_file()]
        assert [file.read_bytes() for file in files] == [BODY] and not files[0].is_symlink()
        peer.send(KEY_REQUESTS["get"]("b", name))
        assert peer.frame().opcode == wire.OK and peer.body == BODY
        peer.send(PREFIX_REQUESTS["list"]("b", name))
        assert peer.frame().opcode == wire.DATA
        assert [entry.name for entry in wire.decode_entries(memoryview(peer.body))] == [name]
        assert peer.frame().opcode == wire.END
        peer.send(KEY_REQUESTS["remove"]("b", name))
        assert peer.frame().opcode == wire.OK
        check_refused(peer, KEY_REQUESTS["get"]("b", name), NoSuchKey)


def test_a_key_of_as_many_levels_as_there_can_be_is_listed_and_deleted(tmp_path):
    key = Key("b", "/".join("k" * 512))
    with fault_ring(tmp_path) as ring, ring.client() as client:
        client.put(key, BODY)
        assert client.get(key) == BODY
        assert [entry.name for entry in client.list("s4://b/", recursive=True)] == [key.name]
        assert [entry.name for entry in client.list("s4://b/")] == ["k/"]
        assert [entry.name for entry in client.list("s4://")] == ["b"]
        assert client.map("s4://b/", "s4://out/", "cat") == 1
        assert client.remove_all("s4://b/") == client.remove_all("s4://out/") == 1


@pytest.fixture
def symlinks(ring, tmp_path):
    """Symlinks in the place of a bucket, a directory and a key, to a file ``0`` outside, and the names to try."""
    (tmp_path / "0").write_bytes(b"secret")
    top = ring.directory(0)
    (top / "b").mkdir()
    for name, target in (("b/link", tmp_path), ("b/file", tmp_path / "0"), ("c", tmp_path)):
        (top / name).symlink_to(target)
    yield [("b", "link/0"), ("b", "file"), ("c", "0")]
    for name in ("b/link", "b/file", "c"):
        (top / name).unlink(missing_ok=True)
    (top / "b").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


@pytest.mark.parametrize("verb", ["get", "stat", "eval"])
def test_no_symlink_is_followed_out_of_the_data_directory(peer, symlinks, verb):
    for bucket, key in symlinks:
        check_refused(peer, KEY_REQUESTS[verb](bucket, key), NoSuchKey)


def test_nothing_is_written_or_deleted_through_a_symlink(peer, symlinks):
    for frame in (put("b", "link/1"), put("b", "file"), put("c", "1")):
        check_refused(peer, frame, S4Error)
    for bucket, key in (("b", "link/0"), ("c", "0")):
        check_refused(peer, KEY_REQUESTS["remove"](bucket, key), NoSuchKey)


@pytest.mark.parametrize("verb", KEY_REQUESTS)
def test_a_key_of_another_server_is_refused(tmp_path, verb):
    with fault_ring(tmp_path, count=2) as ring, ring.client() as client:
        client.put("s4://b/1", BODY)
        with Peer.greeted(ring.servers[0], Topology(tuple(ring.servers))) as peer:
            check_refused(peer, KEY_REQUESTS[verb]("b", "1"), WrongServer)
            check_refused(peer, KEY_REQUESTS[verb]("b", "dir/3_x"), WrongServer)
            peer.send(KEY_REQUESTS[verb]("b", "1"))
            error = peer.error()
            assert ring.servers[1] in error.message and error.server == ring.servers[0] and error.key == "s4://b/1"
        assert ring.published() == ["b/1"]
