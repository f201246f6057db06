"""One call in several threads: an interrupt waits for all of them, at whatever moment it comes."""

import _thread
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from s4raw.errors import Cancelled, NoSuchKey
from s4raw.fanout import Fanout

START = _thread.start_new_thread
INTERRUPTS = 2000
INTERRUPTED = f"""
import os, random, signal, sys, threading, time
from types import SimpleNamespace
from s4raw.fanout import Fanout

armed, running, lock = False, 0, threading.Lock()

def interrupt(*_):
    global armed
    if armed:
        armed = False
        raise KeyboardInterrupt

def press():
    while True:
        time.sleep(random.random() * 0.002)
        os.kill(os.getpid(), signal.SIGINT)

def work():
    global running
    with lock:
        running += 1
    time.sleep(random.random() * 0.0004)
    with lock:
        running -= 1

signal.signal(signal.SIGINT, interrupt)
threading.Thread(target=press, daemon=True).start()
interrupts = 0
while interrupts < {INTERRUPTS}:
    fanout = Fanout(SimpleNamespace())
    try:
        armed = True
        fanout.run([work] * 4)
        armed = False
    except KeyboardInterrupt:
        interrupts += 1
        if running:
            sys.exit("an interrupt did not wait for all threads")
signal.signal(signal.SIGINT, signal.SIG_IGN)
"""


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


def test_interrupts_at_any_moment_wait_for_all_threads():
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=90)


def test_an_interrupt_while_a_thread_is_started_waits_for_it(fanout, monkeypatch):
    begun, ended = threading.Event(), []

    def work():
        begun.set()
        until_cut(fanout, ended)

    def interrupted(function, arguments):
        START(function, arguments)
        begun.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(_thread, "start_new_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fanout.run([work])
    assert ended


def test_a_thread_that_begins_after_an_interrupt_does_nothing(fanout, monkeypatch):
    late, ran = [], []

    def interrupted(function, arguments):
        late.append(function)
        raise KeyboardInterrupt

    monkeypatch.setattr(_thread, "start_new_thread", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fanout.run([lambda: ran.append(True)])
    late[0]()
    assert not ran


def test_an_interrupt_that_takes_the_news_of_an_end_waits_for_the_others_only(fanout):
    news, begun, ended = fanout._ended, threading.Event(), []

    def work():
        begun.set()
        until_cut(fanout, ended)

    def interrupted():
        assert news.acquire()
        fanout._ended = news
        raise KeyboardInterrupt

    fanout._ended = SimpleNamespace(acquire=interrupted, locked=news.locked, release=news.release)
    with pytest.raises(KeyboardInterrupt):
        fanout.run([begun.wait, work])
    assert ended


def test_the_first_error_is_raised_also_when_no_thread_can_be_started_after_it(fanout, monkeypatch):
    def fail():
        raise NoSuchKey("first")

    def starting(function, arguments):
        if fanout._error is not None:
            raise RuntimeError("can't start new thread")
        function()

    monkeypatch.setattr(_thread, "start_new_thread", starting)
    with pytest.raises(NoSuchKey, match="first"):
        fanout.run([fail, fail])


def test_what_cannot_be_started_cuts_what_runs(fanout, monkeypatch):
    ended = []

    def starting(function, arguments):
        monkeypatch.setattr(_thread, "start_new_thread", refusing)
        START(function, arguments)

    def refusing(function, arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", starting)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        fanout.run([lambda: until_cut(fanout, ended)] * 2)
    assert len(ended) <= 1 and not fanout._todo
