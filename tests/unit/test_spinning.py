"""Spin, then block: who looks for the next message, and who blocks at once."""

import select
import socket
import ssl

import pytest

from s4raw import processors, spinning
from s4raw.channel import Channel
from s4raw.net import Stream
from s4raw.s3.http import LIMITS, HttpConnection
from s4raw.s3.tls import TlsStream
from s4raw.spinning import BACKOFF, QUICK, QUICK_SECONDS, SPIN_SECONDS, Spin
from s4raw.wire import PING, encode

PATIENCE = 5.0  # seconds that a test waits for what nobody has looked for
LOOKS = 3  # in vain, until SPIN_SECONDS are over


class Clock:
    """A time that passes only where it is told to; ``looks`` counts how often somebody looked in vain."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0

    def looked(self) -> None:
        self.looks += 1
        self.now += SPIN_SECONDS / 2.5


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()

    class Poll:
        def __init__(self):
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, timeout):
            found = self._poll.poll(timeout)
            if not found:
                clock.looked()
            return found

    poll = select.poll
    monkeypatch.setattr(spinning.select, "poll", Poll)
    monkeypatch.setattr(spinning, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(processors, "crowded", lambda: False)
    monkeypatch.setattr(spinning, "_POSSIBLE", True)
    monkeypatch.setattr(Spin, "latest", None)
    return clock


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def messages(clock, spin, fd, count, seconds=QUICK_SECONDS / 2):
    """So many messages, that come so long after each of them was waited for; how often somebody looked in vain."""
    before = clock.looks
    for _ in range(count):
        since = spin.begin(fd)
        clock.now = max(clock.now, since + seconds)
        spin.end(since)
    return clock.looks - before


def test_after_quick_messages_the_next_one_is_looked_for(clock, ends):
    spin, fd = Spin(), ends[0].fileno()
    assert messages(clock, spin, fd, QUICK + 1) == 0  # the first of all is nobody's next one
    looked = clock.looked
    for _ in range(3):
        clock.looked = lambda: (looked(), ends[1].send(b"x"))
        spin.end(spin.begin(fd))
        assert ends[0].recv(2) == b"x"  # what was seen is still there
    assert clock.looks == 3


def test_the_end_of_a_connection_ends_the_looking(clock, ends):
    spin = Spin()
    messages(clock, spin, ends[0].fileno(), QUICK + 1)
    ends[1].close()
    spin.begin(ends[0].fileno())
    assert clock.looks == 0
    spin.begin(-1)  # it was closed by another thread
    assert clock.looks == 0


def test_who_looked_in_vain_blocks_for_a_while_and_each_time_for_longer(clock, ends):
    spin, fd = Spin(), ends[0].fileno()
    messages(clock, spin, fd, QUICK + 1)
    assert messages(clock, spin, fd, 1) == LOOKS
    assert messages(clock, spin, fd, BACKOFF + QUICK - 1) == 0
    assert messages(clock, spin, fd, 1) == LOOKS
    assert messages(clock, spin, fd, 2 * BACKOFF + QUICK - 1) == 0
    assert messages(clock, spin, fd, 1) == LOOKS


def test_what_comes_while_somebody_else_runs_here_was_looked_for_in_vain(clock, ends):
    spin, fd = Spin(), ends[0].fileno()
    messages(clock, spin, fd, QUICK + 1)

    def preempted():
        clock.now += 2 * SPIN_SECONDS
        ends[1].send(b"x")

    clock.looked = preempted
    spin.end(spin.begin(fd))
    assert ends[0].recv(2) == b"x"
    clock.looked = lambda: pytest.fail("looked again")
    messages(clock, spin, fd, BACKOFF)


def test_after_a_slow_message_nobody_looks(clock, ends):
    spin, fd = Spin(), ends[0].fileno()
    messages(clock, spin, fd, QUICK)
    messages(clock, spin, fd, 1, seconds=2 * QUICK_SECONDS)
    assert messages(clock, spin, fd, QUICK) == 0


def test_of_several_busy_connections_none_looks(clock, ends):
    one, other = Spin(), Spin()
    for _ in range(3 * QUICK):
        for spin, end in zip((one, other), ends, strict=True):
            assert messages(clock, spin, end.fileno(), 1) == 0


def test_on_one_processor_nobody_looks(clock, ends, monkeypatch):
    monkeypatch.setattr(spinning, "_POSSIBLE", False)
    assert messages(clock, Spin(), ends[0].fileno(), 3 * QUICK) == 0


def test_while_other_programs_keep_the_processors_busy_nobody_looks(clock, ends, monkeypatch):
    monkeypatch.setattr(processors, "crowded", lambda: True)
    assert messages(clock, Spin(), ends[0].fileno(), 3 * QUICK) == 0


def requests_of_the_ring(stream):
    channel = Channel(stream, "peer")
    return encode(PING, 1), lambda: channel.next_frame(PATIENCE)


def requests_of_http(stream):
    http = HttpConnection(Stream(stream, "peer"), LIMITS)

    def next_request():
        assert http.next_request(PATIENCE)
        http.respond(204, [])

    return b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", next_request


@pytest.mark.parametrize("protocol", [requests_of_the_ring, requests_of_http])
def test_connections_look_for_their_next_request(clock, ends, protocol):
    request, take = protocol(ends[0])
    for _ in range(QUICK + 1):
        ends[1].send(request)
        take()
    assert clock.looks == 0
    looked = clock.looked
    clock.looked = lambda: (looked(), ends[1].send(request))
    take()
    assert clock.looks == 1


def test_over_tls_nobody_looks(clock, ends):
    stream = TlsStream(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ends[0], "peer")
    for _ in range(3 * QUICK):
        stream.came(stream.look_out())
    assert clock.looks == 0
