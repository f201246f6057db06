"""One call in several threads: an interrupt waits for all of them, at whatever moment it comes."""

import threading
import time
from types import SimpleNamespace

import pytest

from s4raw.errors import Cancelled
from s4raw.fanout import Fanout

START = threading.Thread.start


@pytest.fixture
def fanout():
    return Fanout(SimpleNamespace())


def until_cut(fanout, ended):
    """A work that ends a while after the call has failed."""
    with pytest.raises(Cancelled):
        while True:
            fanout.check()
            time.sleep(0.001)
    time.sleep(0.05)
    ended.append(True)


def test_an_interrupt_while_a_thread_is_started_waits_for_it(fanout, monkeypatch):
    begun, ended = threading.Event(), []

    def work():
        begun.set()
        until_cut(fanout, ended)

    def interrupted(thread):
        START(thread)
        begun.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fanout.run([work])
    assert ended


def test_a_thread_that_begins_after_an_interrupt_does_nothing(fanout, monkeypatch):
    threads, ran = [], []

    def interrupted(thread):
        threads.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fanout.run([lambda: ran.append(True)])
    START(threads[0])
    threads[0].join()
    assert not ran


def test_an_interrupt_that_takes_the_news_of_an_end_waits_for_the_others_only(fanout, monkeypatch):
    acquire, ended = fanout._ended.acquire, []

    def interrupted(**options):
        assert acquire(**options)
        monkeypatch.setattr(fanout._ended, "acquire", acquire)
        raise KeyboardInterrupt

    monkeypatch.setattr(fanout._ended, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fanout.run([lambda: None, lambda: until_cut(fanout, ended)])
    assert ended
