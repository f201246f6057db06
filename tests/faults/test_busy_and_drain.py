"""A server that is full says so and recovers; an idle connection ends quietly; a server that is told to stop drains."""

import signal

import pytest
from conftest import descriptors, thread_count, wait_for
from fault_ring import fault_ring, finish, start_cli
from peer import Peer

from s4raw import wire
from s4raw.errors import Busy, S4Error
from s4raw.ring import Topology

BODY = bytes(3 << 20)


def topology(ring):
    return Topology(tuple(ring.servers))


def greeted(ring) -> Peer:
    return Peer.greeted(ring.servers[0], topology(ring))


def test_the_connection_over_the_cap_is_told_busy_and_a_client_gets_through_when_one_has_left(tmp_path):
    with fault_ring(tmp_path, options=("--max-connections", "2"), proxied=True) as ring, ring.client() as client:
        first, second = greeted(ring), greeted(ring)
        with first, Peer.connect(ring.servers[0]) as third:
            error = third.error()
            assert isinstance(error, Busy) and error.server == ring.servers[0]
            assert third.frame() is None
            attempts = len(ring.proxies[0].passages)
            put = start_cli(ring, tmp_path, "cp", "-", "s4://b/k")
            wait_for(lambda: len(ring.proxies[0].passages) >= attempts + 2, "the client to come a second time")
            second.close()
            finish(put, 0)
            first.send(wire.encode(wire.PING, 1))
            assert first.frame().opcode == wire.OK
        assert client.get("s4://b/k") == b""


def test_a_client_that_finds_a_server_busy_for_too_long_says_so(tmp_path):
    with fault_ring(tmp_path, options=("--max-connections", "1")) as ring:
        with greeted(ring):
            error = finish(start_cli(ring, tmp_path, "ls"), 1).decode()
        assert "1 connections" in error and ring.servers[0] in error


def test_an_idle_connection_ends_quietly_and_its_client_reconnects(tmp_path):
    with fault_ring(tmp_path, options=("--idle-timeout", "0.1")) as ring, ring.client() as client:
        with greeted(ring) as peer:
            assert peer.frame() is None
        client.put("s4://b/k", b"hello")
        wait_for(lambda: not ring.leaks(), "the server to close the kept connection")
        assert client.get("s4://b/k") == b"hello"
        assert "closed" not in ring.log(0)


def test_a_slow_pipe_is_not_an_idle_connection(tmp_path):
    with fault_ring(tmp_path, options=("--idle-timeout", "0.1")) as ring, ring.client() as client:
        put = start_cli(ring, tmp_path, "cp", "-", "s4://b/k")
        put.stdin.write(b"one")
        put.stdin.flush()
        wait_for(lambda: thread_count(ring.processes[0].pid) > 1, "the put to begin")
        with greeted(ring) as peer:  # the time that makes a connection idle passes
            assert peer.frame() is None
        put.stdin.write(b" two")
        finish(put, 0)
        assert client.get("s4://b/k") == b"one two"


@pytest.fixture
def draining(tmp_path):
    """A server with a key ``s4://b/in/k``, and functions to stop it and to wait for its end."""
    with fault_ring(tmp_path, options=("--grace", "60")) as ring:
        with ring.client() as client:
            client.put("s4://b/in/k", b"hello")
        yield ring


def begin_drain(ring) -> None:
    ring.processes[0].send_signal(signal.SIGTERM)
    wait_for(lambda: " drain" in ring.log(0), "the server to drain")


def check_stopped(ring, clean: bool = True) -> None:
    assert ring.processes[0].wait(20) == 0
    assert ("cut off" not in ring.log(0)) == clean
    assert not ring.jobs() and not ring.tmp_names()


def begin_put(ring, cwd):
    put = start_cli(ring, cwd, "cp", "-", "s4://b/k")
    put.stdin.write(BODY)  # returns when all but a pipe's worth is on its way
    server = ring.processes[0].pid
    wait_for(lambda: any("(deleted)" in what for what in descriptors(server).values()), "the server to write a draft")
    return put


def begin_call(ring, cwd, *arguments):
    """Start a compute call; returns it when its command runs. The command goes on when ``go`` is there."""
    work = "cat > k; echo k" if arguments[0] == "map-to-n" else "cat"
    call = start_cli(ring, cwd, *arguments, f"touch {cwd}/started; until [ -e {cwd}/go ]; do sleep 0.01; done; {work}")
    wait_for((cwd / "started").exists, "the command to run")
    return call


def test_a_put_that_runs_when_the_server_is_told_to_stop_finishes(draining, tmp_path):
    put = begin_put(draining, tmp_path)
    begin_drain(draining)
    put.stdin.write(BODY)
    finish(put, 0)
    check_stopped(draining)
    assert draining.published() == ["b/in/k", "b/k"]
    assert (draining.directory(0) / "b/k").read_bytes() == 2 * BODY


@pytest.mark.parametrize("verb", ["map", "map-to-n", "map-from-n"])
def test_a_call_that_runs_when_the_server_is_told_to_stop_finishes(draining, tmp_path, verb):
    call = begin_call(draining, tmp_path, verb, "s4://b/in/", "s4://b/out/")
    begin_drain(draining)
    (tmp_path / "go").touch()
    finish(call, 0)
    check_stopped(draining)
    assert draining.published() == ["b/in/k", "b/out/k/k" if verb == "map-to-n" else "b/out/k"]


def test_an_eval_that_runs_when_the_server_is_told_to_stop_finishes(draining, tmp_path):
    call = begin_call(draining, tmp_path, "eval", "s4://b/in/k")
    begin_drain(draining)
    (tmp_path / "go").touch()
    assert call.stdout.read() == b"hello"
    finish(call, 0)
    check_stopped(draining)


def test_a_server_that_drains_refuses_connections_and_requests(draining, tmp_path):
    with greeted(draining) as idle, greeted(draining) as busy:
        busy.send(wire.encode(wire.PUT, 1, wire.STREAM, bucket="b", key="k"))
        data = wire.encode(wire.DATA, 1, 0, 1) + b"x"
        busy.send(data, data)
        call = begin_call(draining, tmp_path, "eval", "s4://b/in/k")
        begin_drain(draining)
        assert idle.frame() is None
        assert draining.servers[0] in finish(start_cli(draining, tmp_path, "cp", "s4://b/in/k", "-"), 1).decode()
        busy.send(wire.encode(wire.END, 1, size=0, digest=bytes(16)), wire.encode(wire.PING, 2))
        assert busy.error().message  # the put's own: the digest is not right
        assert not any(frame.opcode == wire.OK for frame in busy.frames())
        (tmp_path / "go").touch()
        finish(call, 0)
        check_stopped(draining)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_at_rest_stops_at_once(tmp_path, number):
    with fault_ring(tmp_path, options=("--grace", "1000")) as ring, ring.client() as client:
        client.put("s4://b/k", b"hello")  # its connection is kept
        ring.processes[0].send_signal(number)
        check_stopped(ring)


def test_what_runs_beyond_the_grace_period_is_cut_and_nothing_stays(tmp_path):
    with fault_ring(tmp_path, options=("--grace", "0.2")) as ring:
        with ring.client() as client:
            for number in range(3):
                client.put(f"s4://b/in/{number}", b"hello")
        hang = f"touch {tmp_path}/$filename; sleep 1000 & sleep 1000 | cat; wait"
        calls = [
            start_cli(ring, tmp_path, "map", "s4://b/in/0*", "s4://b/out/", hang),
            start_cli(ring, tmp_path, "map-to-n", "s4://b/in/1*", "s4://b/out/", hang),
            start_cli(ring, tmp_path, "eval", "s4://b/in/2", hang),
        ]
        put = begin_put(ring, tmp_path)
        wait_for(lambda: all((tmp_path / str(number)).exists() for number in range(3)), "the commands to run")
        begin_drain(ring)
        check_stopped(ring, clean=False)
        for call in (*calls, put):
            assert ring.servers[0] in finish(call, 1).decode()
        assert ring.published() == [f"b/in/{number}" for number in range(3)]


def test_a_server_that_was_told_to_stop_can_be_started_again(draining, tmp_path):
    begin_drain(draining)
    check_stopped(draining)
    draining.restart(0)
    with draining.client() as client:
        assert client.get("s4://b/in/k") == b"hello"
        with pytest.raises(S4Error):
            client.put("s4://b/in/k", b"other")
