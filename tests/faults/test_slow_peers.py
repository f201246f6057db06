"""A peer that is endlessly slow, or silent, costs one connection, for a while; the others are served."""

import time
from itertools import cycle

import pytest
from conftest import rss, thread_count, wait_for
from fault_ring import fault_ring, finish, start_cli
from peer import Peer, claim, hello
from proxy import DOWN, Stall

from s4raw import wire
from s4raw.errors import PeerTimeout
from s4raw.ring import Topology
from s4raw.serving import SPARE_SECONDS

TUNING = (
    "channel.FRAME_SECONDS = channel.STALL_SECONDS = net.STALL_SECONDS = 1.0; net.SEND_SECONDS = 0.3; "
    "channel.Channel.next_frame.__defaults__ = (1.0,); import s4raw.handshake; s4raw.handshake.HELLO_SECONDS = 1.0"
)
PEERS = 5
DROPS = 2000  # at most so many bytes drop by drop
LARGE = 64 << 20  # more than the sockets between take


@pytest.fixture(scope="module")
def _ring(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("slow"), tuning=TUNING) as ring:
        yield ring


@pytest.fixture
def ring(_ring):
    """A server that waits a second where others wait half a minute or more."""
    yield _ring
    assert _ring.published() == []
    _ring.check_leaks()
    _ring.check_no_traceback()


@pytest.fixture
def strangers(ring):
    """Connections that have not said hello."""
    found = [Peer.connect(ring.servers[0]) for _ in range(PEERS)]
    yield found
    for peer in found:
        peer.close()


@pytest.fixture
def peers(ring, strangers):
    """Connections past their handshake."""
    for peer in strangers:
        peer.send(hello(Topology(tuple(ring.servers))))
        assert peer.frame().opcode == wire.HELLO
    return strangers


def check_served_meanwhile(ring) -> None:
    with ring.client() as client:
        client.put("s4://b/k", b"served")
        assert client.get("s4://b/k") == b"served"
        client.remove("s4://b/k")
    soon = 10 * SPARE_SECONDS  # threads of connections that have ended wait for others; those of the peers stay longer
    wait_for(lambda: thread_count(ring.processes[0].pid) <= 1 + PEERS + 1, "a thread for each connection", soon)


def check_given_up(peers) -> None:
    for peer in peers:
        assert isinstance(peer.error(), PeerTimeout)
        assert peer.frame() is None


def drip(ring, peers) -> None:
    """Send byte after byte, until the server has had enough of every one of the peers."""
    for _ in range(DROPS):
        waiting = [peer for peer in peers if not peer.readable()]
        if not waiting:
            break
        for peer in waiting:
            peer.send(b"\0")
        check_served_meanwhile(ring)
        time.sleep(0.01)
    check_given_up(peers)


def test_a_hello_that_drips_without_end_is_given_up(ring, strangers):
    for peer in strangers:
        peer.send(claim(wire.HELLO, wire.MAX_HELLO_HEADER))
    drip(ring, strangers)


def test_frames_that_drip_without_end_are_given_up(ring, peers):
    beginnings = [b"", wire.encode(wire.PING, 1), wire.encode(wire.PUT, 1, wire.STREAM, bucket="b", key="slow")]
    for peer, beginning in zip(peers, cycle(beginnings), strict=False):
        peer.send(beginning, claim(wire.DATA if b"slow" in beginning else wire.GET, wire.MAX_HEADER))
        if beginning == beginnings[1]:
            assert peer.frame().opcode == wire.OK
    drip(ring, peers)


def test_silence_is_given_up(ring, strangers):
    check_served_meanwhile(ring)
    check_given_up(strangers)


IN_THE_MIDDLE = [
    wire.encode(wire.PUT, 1, 0, 1000, bucket="b", key="slow", digest=bytes(16)) + bytes(999),
    wire.encode(wire.PUT, 1, wire.STREAM, bucket="b", key="slow"),
    wire.encode(wire.PUT, 1, wire.STREAM, bucket="b", key="slow") + wire.encode(wire.DATA, 1, 0, 9) + bytes(8),
    wire.encode(wire.GET, 1, bucket="b", key="slow")[:-1],
    wire.encode(wire.GET, 1, bucket="b", key="slow")[:1],
]


def test_silence_in_the_middle_is_given_up_and_publishes_nothing(ring, peers):
    for peer, data in zip(peers, IN_THE_MIDDLE, strict=True):
        peer.send(data)
    check_served_meanwhile(ring)
    check_given_up(peers)


def test_a_client_that_does_not_read_is_given_up(ring, peers):
    with ring.client() as client:
        client.put("s4://b/large", bytes(LARGE))
        memory = rss(ring.processes[0].pid)
        for peer in peers:
            peer.send(wire.encode(wire.GET, 1, bucket="b", key="large"))
        wait_for(lambda: thread_count(ring.processes[0].pid) <= 2, "the server to give up on all of them")
        assert rss(ring.processes[0].pid) < memory + LARGE // 2
        client.remove("s4://b/large")


def test_a_server_that_says_nothing_is_unhealthy(tmp_path):
    with fault_ring(tmp_path, count=2, proxied=True) as ring:
        ring.proxies[1].always = [Stall(DOWN, 0)]
        health = start_cli(ring, tmp_path, "health")
        assert health.stdout.read().decode() == f"healthy:   {ring.servers[0]}\nunhealthy: {ring.servers[1]}\n"
        finish(health, 1)
