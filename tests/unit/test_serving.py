"""Connections as a listener gives them, and how many of them each worker takes."""

import select
import socket

from s4raw.net import Stream, accept, listen, prepare
from s4raw.workers import NEARLY, Balance

OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 4),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 4),
    (socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16),
    (socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16),
)


def options(sock):
    return [sock.getsockopt(level, option, size) for level, option, size in OPTIONS]


def test_accepted_connections_have_the_options_of_a_stream():
    """As the kernel lets them inherit what the listener has."""
    listener = listen("127.0.0.1", 0)
    prepare(listener)
    poller = select.poll()
    poller.register(listener.fileno(), select.POLLIN)
    with socket.create_connection(listener.getsockname(), 20) as client:
        assert poller.poll(20_000)
        sock, _ = accept(listener)
        assert sock.getblocking()
        inherited = options(sock)
        Stream(sock, "")
        assert options(sock) == inherited
        assert options(client) != inherited
        sock.close()
    listener.close()


def test_the_worker_with_the_fewest_connections_accepts_the_next_one():
    balance = Balance(3)
    assert [balance.is_least(worker) for worker in range(3)] == [True, True, True]
    assert balance.set(0, 2) == 2 and balance.set(1, 1) == 3
    assert [balance.is_least(worker) for worker in range(3)] == [False, False, True]
    for worker in range(3):
        balance.set(worker, NEARLY - 1 + worker)
    assert [balance.is_least(worker) for worker in range(3)] == [True, False, False]


def test_where_workers_have_many_connections_a_few_more_are_no_difference():
    balance = Balance(2)
    balance.set(0, 10 * NEARLY)
    balance.set(1, 10 * NEARLY + 11)
    assert balance.is_least(0) and not balance.is_least(1)
    balance.set(1, 10 * NEARLY + 10)
    assert balance.is_least(1)
