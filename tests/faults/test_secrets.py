"""A ring with a pre-shared key: who does not hold it is refused before any verb, at either end."""

import hmac
import socket
import threading
from contextlib import contextmanager

import pytest
from conftest import cli_runner
from fault_ring import fault_ring, finish, start_cli
from peer import NONCE, Peer, hello

from s4raw import wire
from s4raw.client import Ring
from s4raw.digest import digest
from s4raw.errors import AuthFailed, ProtocolError
from s4raw.handshake import MIN_SECRET_BYTES, SECRET_VARIABLE
from s4raw.ring import Topology

SECRET = b"correct horse battery staple"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of secrets: ``right``, ``wrong``, ``short``; ``gone`` is no file."""
    directory = tmp_path_factory.mktemp("secrets")
    for name, content in (
        ("right", SECRET + b"\n"),
        ("wrong", SECRET[::-1]),
        ("short", SECRET[: MIN_SECRET_BYTES - 1]),
    ):
        (directory / name).write_bytes(content)
    return {name: str(directory / name) for name in ("right", "wrong", "short", "gone")} | {"none": ""}


@pytest.fixture(scope="module")
def _guarded(tmp_path_factory, files):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_VARIABLE, files["right"])
        with fault_ring(tmp_path_factory.mktemp("guarded"), count=2) as ring:
            with ring.client() as client:
                client.put("s4://b/in/0_k", b"zero")
                client.put("s4://b/in/1_k", b"one")
            yield ring


@pytest.fixture
def ring(_guarded):
    """A ring with a secret and two keys, which stay what they are."""
    before = _guarded.published()
    yield _guarded
    _guarded.check_leaks()
    assert _guarded.published() == before == ["b/in/0_k", "b/in/1_k"]


@pytest.fixture
def topology(ring):
    return Topology(tuple(ring.servers))


@pytest.fixture
def run(ring, tmp_path):
    return cli_runner(ring, tmp_path)


def test_with_the_secret_everything_works_also_between_servers(ring, run, files):
    def with_secret(*arguments, **more):
        return run(*arguments, env={SECRET_VARIABLE: files["right"]}, **more)

    with_secret("map-to-n", "s4://b/in/", "s4://b/out/", "cat > 0_x; cat 0_x > 1_x; echo 0_x; echo 1_x")
    assert with_secret("cp", "s4://b/out/0_k/1_x", "-").stdout == b"zero"
    with_secret("health")
    with_secret("rm", "-r", "s4://b/out/")


VERBS = [
    ["cp", "-", "s4://b/new"],
    ["cp", "s4://b/in/0_k", "-"],
    ["cp", "-r", "s4://b/in/", "out/"],
    ["ls", "s4://b/"],
    ["rm", "s4://b/in/0_k"],
    ["rm", "-r", "s4://b/"],
    ["eval", "s4://b/in/0_k", "cat"],
    ["map", "s4://b/in/", "s4://b/out/", "cat"],
    ["map-to-n", "s4://b/in/", "s4://b/out/", "true"],
    ["map-from-n", "s4://b/in/", "s4://b/out/", "cat"],
]


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
@pytest.mark.parametrize("secret", ["wrong", "none"])
def test_a_client_without_the_secret_is_refused(ring, run, files, arguments, secret):
    done = run(*arguments, env={SECRET_VARIABLE: files[secret]}, code=2)
    assert done.stdout == b"" and SECRET_VARIABLE in done.stderr.decode()
    assert any(server in done.stderr.decode() for server in ring.servers)


@pytest.mark.parametrize("secret", ["wrong", "none"])
def test_a_client_without_the_secret_finds_the_servers_unhealthy(ring, tmp_path, monkeypatch, files, secret):
    monkeypatch.setenv(SECRET_VARIABLE, files[secret])
    health = start_cli(ring, tmp_path, "health")
    assert health.stdout.read().count(b"unhealthy:") == 2
    finish(health, 1)


@pytest.mark.parametrize("secret", ["short", "gone"])
def test_a_secret_that_cannot_be_used_is_wrong_configuration(run, files, secret):
    error = run("ls", env={SECRET_VARIABLE: files[secret]}, code=2).stderr.decode()
    assert files[secret] in error


@pytest.mark.parametrize("secret", ["short", "gone"])
def test_a_server_does_not_start_with_a_secret_that_cannot_be_used(ring, tmp_path, monkeypatch, files, secret):
    monkeypatch.setenv(SECRET_VARIABLE, files[secret])
    port = ring.servers[0].rpartition(":")[2]
    server = start_cli(ring, tmp_path, "server", "--port", port, "--data", "another")
    assert files[secret] in finish(server, 2).decode()


def test_a_server_without_the_secret_is_refused_by_a_client_that_has_one(tmp_path, monkeypatch, files):
    monkeypatch.setenv(SECRET_VARIABLE, files["none"])
    with fault_ring(tmp_path) as ring:
        run = cli_runner(ring, tmp_path)
        error = run("cp", "-", "s4://b/k", env={SECRET_VARIABLE: files["right"]}, code=2).stderr.decode()
        assert ring.servers[0] in error and SECRET_VARIABLE in error
        assert ring.published() == []


def put_frame() -> bytes:
    body = b"stolen"
    return wire.encode(wire.PUT, 1, 0, len(body), bucket="b", key="0_new", digest=digest(body)) + body


def client_proof(topology, server_nonce: bytes) -> bytes:
    """The proof of a client that holds the secret and chose NONCE."""
    return hmac.digest(SECRET, b"s4raw client" + NONCE + server_nonce + topology.digest, "sha256")


def test_a_proof_cannot_be_used_again(ring, topology):
    with Peer.connect(ring.servers[0]) as peer:
        peer.send(hello(topology))
        recorded = client_proof(topology, peer.frame().blob("nonce"))
        peer.send(wire.encode(wire.PROOF, proof=recorded), wire.encode(wire.PING, 1))
        assert peer.frame().opcode == wire.OK
    refused(ring, topology, lambda _: recorded)


GARBAGE = {
    "empty": lambda _: b"",
    "zeros": lambda _: bytes(32),
    "client-nonce": lambda _: NONCE,
    "server-nonce": lambda answer: answer.blob("nonce"),
    "server-proof": lambda answer: answer.blob("proof"),
    "unkeyed": lambda answer: hmac.digest(b"", b"s4raw client" + NONCE + answer.blob("nonce"), "sha256"),
}


@pytest.mark.parametrize("proof_of", GARBAGE.values(), ids=GARBAGE)
def test_a_proof_that_is_none_is_refused_before_any_verb(ring, topology, proof_of):
    refused(ring, topology, proof_of)


def refused(ring, topology, proof_of):
    with Peer.connect(ring.servers[0]) as peer:
        peer.send(hello(topology))
        peer.send(wire.encode(wire.PROOF, proof=proof_of(peer.frame())), put_frame())
        assert isinstance(peer.error(), AuthFailed)
        assert peer.frame() is None


@pytest.mark.parametrize(
    "frames",
    [
        [put_frame()],
        [wire.encode(wire.PING, 1)],
        [wire.encode(wire.GET, 1, bucket="b", key="0_k")],
        [wire.encode(wire.EVAL, 1, bucket="b", key="0_k", command="cat", timeout=1000)],
        [wire.encode(wire.PROOF)],
        [wire.encode(wire.PROOF, 0, 0, 0, nonce=NONCE)],
        [b"\0" * 64],
    ],
)
def test_nothing_but_a_proof_is_read_from_a_stranger(ring, topology, frames):
    with Peer.connect(ring.servers[0]) as peer:
        peer.send(hello(topology), *frames)
        assert peer.frame().opcode == wire.HELLO
        assert isinstance(peer.error(), AuthFailed | ProtocolError)
        assert peer.frame() is None


@contextmanager
def impostor(**fields):
    """A server without the secret, whose HELLO to one client has these fields; yields its ring and all that it got."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        topology = Topology((f"127.0.0.1:{listener.getsockname()[1]}",))
        got = []

        def serve():
            with Peer(listener.accept()[0]) as peer:
                got.append(peer.frame())
                answer = {"server": topology.servers[0]} | fields
                peer.send(hello(topology, **answer))
                got.extend(peer.frames())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield topology, got
        finally:
            thread.join()


@pytest.mark.parametrize("fields", [{}, {"proof": b""}, {"proof": bytes(32)}, {"proof": NONCE}])
def test_a_client_says_nothing_to_a_server_without_the_secret(fields):
    with impostor(**fields) as (topology, got), Ring(topology, SECRET) as client, pytest.raises(AuthFailed):
        client.put("s4://b/k", b"for friends only")
    assert [frame.opcode for frame in got] == [wire.HELLO]
