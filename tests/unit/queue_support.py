"""What tests of the queue share: orders, and a place for objects that fails or waits when it is told to."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from s4raw.keys import Key
from s4raw.objects.memory import MemoryBackend
from s4raw.queue.entries import DELETE, Entry, Limits, Order
from s4raw.queue.pusher import Pusher
from s4raw.queue.queue import Queue


def key(name: str) -> Key:
    """A key of the tests' bucket."""
    return Key("b", name)


def deletion(name: str = "k", alias: str = "") -> Order:
    """An order that needs no file."""
    return Order(alias, key(name), DELETE)


def stored(queue: Queue, name: str, content: bytes, alias: str = "", **options: int) -> Order:
    """An order for a body that lies in the spool."""
    fd = os.memfd_create("body")
    try:
        os.write(fd, content)
        path, identity = queue.spool.adopt(fd)
    finally:
        os.close(fd)
    return Order(alias, key(name), path=path, spooled=True, identity=identity, **options)


class Target(MemoryBackend):
    """Objects in memory. ``before`` is called with the key before each change, and may raise or wait."""

    def __init__(self, before: Callable[[Key], None] = lambda key: None) -> None:
        super().__init__()
        self.create_bucket("b")
        self.before = before
        self.done: list[tuple[str, str, bytes]] = []  # what was done to which name, in this order
        self.busy: dict[str, int] = {}
        self.most_busy = 0  # changes of one key at once
        self._guard = threading.Lock()

    @contextmanager
    def _change(self, key: Key) -> Iterator[None]:
        with self._guard:
            self.busy[key.name] = self.busy.get(key.name, 0) + 1
            self.most_busy = max(self.most_busy, self.busy[key.name])
        try:
            self.before(key)
            yield
        finally:
            with self._guard:
                self.busy[key.name] -= 1

    def put(self, key, source, *conditions):
        with self._change(key):
            info = super().put(key, source, *conditions)
            self.done.append(("put", key.name, self.content(key.name)))
            return info

    def delete(self, key, *conditions):
        with self._change(key):
            self.done.append(("delete", key.name, b""))
            return super().delete(key, *conditions)

    def tag(self, key, tags):
        with self._change(key):
            super().tag(key, tags)
            self.done.append(("tag", key.name, str(dict(tags)).encode()))

    def content(self, name: str) -> bytes:
        """An object's bytes."""
        with self.get(key(name)) as reading:
            return b"".join(map(bytes, reading.pieces()))


@contextmanager
def opened(directory: object, limits: Limits = Limits(), **options: bool) -> Iterator[Queue]:  # noqa: B008
    """A queue, closed in the end."""
    queue = Queue(str(directory), limits, **options)
    try:
        yield queue
    finally:
        queue.close()


@contextmanager
def pushing(queue: Queue, target: MemoryBackend, **options: object) -> Iterator[Pusher]:
    """A pusher at work, stopped in the end."""
    options = {"backoff": (0.001, 0.01), "workers": 4, **options}
    pusher = Pusher(queue, lambda alias: target, **options)
    pusher.start()
    try:
        yield pusher
    finally:
        assert pusher.stop(20)


def ids(entries: "Iterable[Entry]") -> list[int]:
    """Their ids."""
    return [entry.id for entry in entries]
