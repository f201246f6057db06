"""Two ends that read different confs refuse each other and name both rings: no key is misplaced."""

import pytest
from conftest import cli_runner
from fault_ring import fault_ring, finish, start_cli
from peer import Peer, hello

from s4raw import wire
from s4raw.errors import RingMismatch
from s4raw.ring import Topology

ELSEWHERE = "127.0.0.1:1"
SAME_SERVERS = {
    "another order": lambda servers: servers[::-1],
    "fewer servers": lambda servers: servers[:1],
}
OTHER_CONFS = SAME_SERVERS | {
    "more servers": lambda servers: [*servers, ELSEWHERE],
    "another server": lambda servers: [servers[0], ELSEWHERE],
}
other_confs = pytest.mark.parametrize("other", OTHER_CONFS.values(), ids=OTHER_CONFS)


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("mismatch"), count=2) as ring:
        with ring.client() as client:
            client.put("s4://b/in/0", b"zero")
            client.put("s4://b/in/1", b"one")
        yield ring


@pytest.mark.parametrize("other", SAME_SERVERS.values(), ids=SAME_SERVERS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["cp", "-", "s4://b/0"],
        ["cp", "s4://b/in/0", "-"],
        ["cp", "-r", "s4://b/in/", "out/"],
        ["ls", "-r", "s4://b/"],
        ["rm", "s4://b/in/0"],
        ["rm", "-r", "s4://b/in/"],
        ["eval", "s4://b/in/0", "cat"],
        ["map", "s4://b/in/", "s4://b/out/", "cat"],
    ],
    ids=" ".join,
)
def test_a_client_with_another_conf_is_refused_and_both_rings_are_named(ring, tmp_path, other, arguments):
    servers = other(ring.servers)
    (tmp_path / "conf").write_text("\n".join(servers))
    run = cli_runner(ring, tmp_path)
    error = run(*arguments, env={"S4_CONF_PATH": "conf"}, code=2).stderr.decode()
    assert "mismatch" in error
    assert Topology(tuple(ring.servers)).describe() in error
    assert Topology(tuple(servers)).describe() in error
    assert ring.published() == ["b/in/0", "b/in/1"]


@other_confs
def test_health_with_another_conf_is_unhealthy(ring, tmp_path, other):
    (tmp_path / "conf").write_text("\n".join(other(ring.servers)))
    health = start_cli(ring, tmp_path, "health", "-c", "conf")
    assert b"healthy:  " not in health.stdout.read()
    finish(health, 1)


@other_confs
def test_a_server_refuses_a_client_with_another_conf_by_itself(ring, other):
    topology = Topology(tuple(other(ring.servers)))
    put = wire.encode(wire.PUT, 1, wire.STREAM, bucket="b", key="0")
    with Peer.connect(ring.servers[0]) as peer:
        peer.send(hello(topology), put)
        error = peer.error()
        assert isinstance(error, RingMismatch) and error.server == ring.servers[0]
        assert topology.describe() in error.message
        assert Topology(tuple(ring.servers)).describe() in error.message
        assert peer.frame() is None


def test_a_server_that_answers_in_the_place_of_another_is_not_used(tmp_path):
    with fault_ring(tmp_path, count=2, proxied=True) as ring:
        first, second = ring.proxies
        first.target, second.target = second.target, first.target
        run = cli_runner(ring, tmp_path)
        for arguments in (["cp", "-", "s4://b/0"], ["ls", "s4://b/"], ["map", "s4://b/", "s4://c/", "cat"]):
            error = run(*arguments, code=2).stderr.decode()
            assert all(server in error for server in ring.servers)
        assert ring.published() == []
