"""What tests of the queue run in processes of their own: ``python queue_tasks.py FUNCTION ARGUMENTS``."""

import os
import random
import sys
import threading
from collections.abc import Iterator

from objects_support import Body
from queue_support import Target, key, opened, stored

from s4raw.errors import DiskFull
from s4raw.keys import Key
from s4raw.objects.base import Conditions, Info, Source
from s4raw.objects.local import open_local
from s4raw.queue.entries import Order
from s4raw.queue.pusher import Pusher
from s4raw.queue.queue import Queue

KEYS = 4  # of each thread
SIZES = (10, 5000, 200_000)


def content_of(name: str, number: int) -> bytes:
    """The bytes of one version of a key: they begin with its number."""
    head = b"%d %s\n" % (number, name.encode())
    return head.ljust(SIZES[number % 3], b"x")


def accept(queue: Queue, files: str, name: str, number: int) -> None:
    """Queue a version of a key, in one of the ways in which there are files."""
    content, how = content_of(name, number), number % 4
    if how == 0:
        queue.add(stored(queue, name, content))
    elif how == 1:
        path, identity, attributes = queue.spool.store(Body(content))
        queue.add(Order("", key(name), path=path, spooled=True, identity=identity, attributes=attributes))
    else:
        path = os.path.join(files, f"{name}-{number}").encode()
        with open(path, "wb") as file:
            file.write(content)
        if how == 2:
            queue.add(Order("", key(name), path=path))
            return
        fd = os.open(path, os.O_RDONLY)
        kept, identity = queue.spool.snapshot(fd, path)
        os.close(fd)
        os.unlink(path)
        queue.add(Order("", key(name), path=kept, spooled=True, identity=identity))


def accept_forever(directory: str, run: str) -> None:
    """Queue versions of keys from four threads until killed; say which, after each."""
    files = os.path.join(directory, "files")
    os.makedirs(files, exist_ok=True)

    def work(thread: int) -> None:
        for number in range(1_000_000):
            name = f"{run}-{thread}-{number % KEYS}"
            accept(queue, files, name, number)
            os.write(1, f"{name} {number}\n".encode())

    with opened(os.path.join(directory, "q")) as queue:
        in_threads(work)


def in_threads(work: object) -> None:
    """Four threads, for ever."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Logged:
    """Objects in a data directory, and a file that says what arrived, in this order."""

    def __init__(self, root: str) -> None:
        self.backend = open_local(os.path.join(root, "objects"))
        self.backend.create_bucket("b")
        self.log = os.open(os.path.join(root, "arrived"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def put(self, key: Key, source: Source, conditions: Conditions = Conditions()) -> Info:  # noqa: B008
        """Put, and write down what."""
        if random.random() < 0.1:
            raise DiskFull("now and then")
        info = self.backend.put(key, source, conditions)
        with self.backend.get(key) as reading:
            line = bytes(next(reading.pieces())).partition(b"\n")[0]
        os.write(self.log, line + b"\n")
        return info

    def close(self) -> None:
        """Close both."""
        os.close(self.log)
        self.backend.close()


def push_forever(directory: str, run: str) -> None:
    """Like ``accept_forever``, and deliver at the same time."""
    target = Logged(directory)
    files = os.path.join(directory, "files")
    os.makedirs(files, exist_ok=True)

    def work(thread: int) -> None:
        for number in range(int(run), int(run) + 1_000_000):
            name = f"{thread}-{number % KEYS}"
            accept(queue, files, name, number)
            os.write(1, f"{name} {number}\n".encode())

    with opened(os.path.join(directory, "q")) as queue:
        Pusher(queue, lambda alias: target, workers=4, backoff=(0.001, 0.01)).start()
        in_threads(work)


def push_all(directory: str) -> None:
    """Deliver what is left."""
    target = Logged(directory)
    with opened(os.path.join(directory, "q")) as queue:
        pusher = Pusher(queue, lambda alias: target, workers=4, backoff=(0.001, 0.01))
        pusher.start()
        assert queue.flush(60)
        assert pusher.stop(60)
        assert not queue.gauges().entries, queue.entries()
        assert not queue.spool.names()
    target.close()


def fill(root: str) -> None:
    """Queue bodies until the disk is full: what was accepted is there, nothing else is, and delivering makes room."""
    target, sizes = Target(), {}
    with opened(os.path.join(root, "q")) as queue:
        for _ in range(2):
            for number in range(1000):
                name = str(len(sizes))
                try:
                    queue.add(stored(queue, name, bytes(50_000 + number)))
                except DiskFull:
                    break
                sizes[name] = 50_000 + number
            else:
                raise AssertionError("the disk never was full")
            assert len(queue.spool.names()) == queue.gauges().entries > 10
            deliver_all(queue, target)
        assert {name: len(target.content(name)) for name in sizes} == sizes


def fill_with_rows(root: str) -> None:
    """Leave no room for the database itself: orders are refused, deliveries go on, and with room all goes on."""
    target, count = Target(), 300
    with opened(os.path.join(root, "q")) as queue:
        for number in range(count):  # not in the database proper yet, which cannot grow any more soon
            queue.add(Order("", key(f"first {number}" + "x" * 900), "delete"))
        with open(os.path.join(root, "others"), "wb", buffering=0) as others:
            fill_up(others.write)
        for _ in orders_until_full(queue):
            count += 1
        deliver_all(queue, target)
        os.unlink(os.path.join(root, "others"))
        queue.add(stored(queue, "after", b"x"))
        deliver_all(queue, target)
    with opened(os.path.join(root, "q")) as queue:
        assert not queue.entries()
    assert len(target.done) == count + 1


def fill_up(write: object) -> None:
    """Write until nothing fits, down to the last byte."""
    size = 1 << 16
    while size:
        try:
            if write(bytes(size)) < size:
                size //= 2
        except OSError:
            size //= 2


def orders_until_full(queue: Queue) -> Iterator[None]:
    """Queue orders without a file."""
    for number in range(100_000):
        try:
            queue.add(Order("", key(f"{number}" + "x" * 900), "delete"))
        except DiskFull:
            return
        yield
    raise AssertionError("the disk never was full")


def deliver_all(queue: Queue, target: Target) -> None:
    """Push until the queue is empty."""
    pusher = Pusher(queue, lambda alias: target, workers=4)
    pusher.start()
    assert queue.flush(30), queue.gauges()
    assert pusher.stop(60), "a worker cannot end"
    assert not queue.spool.names()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
