"""Behind a write queue a remote looks like one store, whatever was delivered so far and however often it restarts."""

import threading
from contextlib import contextmanager

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from objects_model import Differential
from objects_support import lines
from queued_support import Front, Strange, quick_directory
from support import timeless

from s4raw.errors import Unreachable
from s4raw.objects.base import Query
from s4raw.queue.pusher import Pusher


class Gate:
    """A way to the remote that takes so many deliveries, and then is closed."""

    def __init__(self, remote, count):
        self.remote, self.left, self.lock, self.spent = remote, count, threading.Lock(), threading.Event()
        self.arrived = 0
        self.count = count

    def __getattr__(self, name):
        def through(*arguments):
            with self.lock:
                if not self.left:
                    raise Unreachable("the remote is away")
                self.left -= 1
            done = getattr(self.remote, name)(*arguments)
            with self.lock:
                self.arrived += 1
                if self.arrived == self.count:
                    self.spent.set()
            return done

        return through


class Machine(Differential):
    """A queue before a remote in memory, beside one in memory alone; now and then some of the queue is delivered."""

    @staticmethod
    @contextmanager
    def place():
        with quick_directory() as directory:
            front = Front(directory, Strange(), opened=False)
            Machine.front = front
            yield front.open

    front: Front

    @rule(most=st.integers(1, 6) | st.just(1000), workers=st.integers(1, 3))
    def deliver(self, most, workers):
        front = self.front
        if count := min(most, front.queue.gauges().entries):
            gate = Gate(front.remote, count)
            front.queue.retry()
            pusher = Pusher(front.queue, lambda alias: gate, workers=workers, backoff=(0.01, 0.02))
            pusher.start()
            assert gate.spent.wait(30)
            assert pusher.stop(30)
        for bucket in ("b", "bucket.two"):
            self.list_objects(bucket, Query())

    def teardown(self):
        front = self.front
        try:
            front.queue.retry()
            front.deliver()
            assert not front.queue.gauges().entries and not front.left_over()
            for bucket in self.model.buckets():
                assert lines(front.remote.list(bucket.name, Query())) == lines(self.model.list(bucket.name, Query()))
        finally:
            super().teardown()


def test_it_does_what_the_one_in_memory_does():
    run_state_machine_as_test(Machine, settings=settings(timeless, max_examples=20))
