"""Spin, then block: who looks for the next message, and who blocks at once."""

import socket

import pytest

from s4raw import spinning
from s4raw.spinning import BACKOFF, QUICK, QUICK_SECONDS, SPIN_SECONDS, Spin


class Clock:
    """A time that passes only where it is told to; ``looks`` counts how often somebody looked in vain."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0
        self.step = SPIN_SECONDS / 2.5

    def look(self) -> None:
        self.looks += 1
        self.now += self.step


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(spinning, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(spinning.os, "sched_yield", clock.look)
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
    spin = Spin()
    assert messages(clock, spin, ends[0].fileno(), QUICK + 1) == 0  # the first of all is nobody's next one
    look = clock.look
    spinning.os.sched_yield = lambda: (look(), ends[1].send(b"x"))
    spin.end(spin.begin(ends[0].fileno()))
    assert clock.looks == 1
    assert ends[0].recv(2) == b"x"  # what was seen is still there


def test_the_end_of_a_connection_ends_the_looking(clock, ends):
    spin = Spin()
    messages(clock, spin, ends[0].fileno(), QUICK + 1)
    ends[1].close()
    spin.begin(ends[0].fileno())
    assert clock.looks == 0


def test_who_looked_in_vain_blocks_for_a_while(clock, ends):
    spin, fd = Spin(), ends[0].fileno()
    messages(clock, spin, fd, QUICK + 1)
    assert messages(clock, spin, fd, 1) == 3  # until SPIN_SECONDS are over
    assert messages(clock, spin, fd, BACKOFF + QUICK - 1) == 0
    assert messages(clock, spin, fd, 1) == 3


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
