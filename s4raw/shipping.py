"""What map-to-n makes for other servers: a sender for each of them, for the length of a call.

Tasks hand over the files of one command as a parcel and go on with the next command. The files of all tasks for one
server travel pipelined on one connection. How much waits to be sent is bounded, in files and in bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from itertools import islice

from s4raw import bulk, files, wire
from s4raw.bulk import Item
from s4raw.client import Ring
from s4raw.connection import Connection
from s4raw.digest import digest_file
from s4raw.errors import ConnectionLost, InternalError, KeyExists, NoSuchKey, PeerTimeout, S4Error, Unreachable
from s4raw.fanout import Fanout
from s4raw.keys import Key
from s4raw.pipeline import ask
from s4raw.procs import Cancellation

MAX_FILES = 1024  # that wait to be sent, or for an answer
MAX_BYTES = 256 << 20
_OUT_OF_REACH = (ConnectionLost, PeerTimeout, Unreachable)
BATCH = 256  # files


class Parcel:
    """The files of one command for other servers. ``settle`` is called once nothing needs the files any more.

    It is told the error when they have not all arrived. ``again`` says that some may have arrived before: a key that is
    there with the same digest is as good as put.
    """

    def __init__(self, items: list[Item], size: int, again: bool, settle: Callable[[S4Error | None], None]) -> None:
        self.items = items
        self.size = size
        self.again = again
        self.settle = settle
        self.left = len(items)
        self.error: S4Error | None = None


class Shipping:
    """The senders of one call."""

    def __init__(self, ring: Ring, cancellation: Cancellation) -> None:
        self.ring = ring
        self.cancellation = cancellation
        self.lock = threading.Lock()
        self._room = threading.Condition(self.lock)
        self._senders: dict[str, _Sender] = {}
        self._files = self._bytes = 0
        self.closed = False

    def send(self, parcel: Parcel) -> None:
        """Hand over a parcel; waits while too much is waiting. Raises the error that ended the call."""
        place = self.ring.topology.place
        with self.lock:
            while self._files and (self._files + parcel.left > MAX_FILES or self._bytes + parcel.size > MAX_BYTES):
                self.cancellation.check()
                self._room.wait()
            self._files += parcel.left
            self._bytes += parcel.size
            for item in parcel.items:
                server = place(item.key)
                if server not in self._senders:
                    self._senders[server] = _Sender(self, server)
                self._senders[server].add(item, parcel)

    def settled(self, parcel: Parcel, error: S4Error | None) -> None:
        """One file of a parcel has arrived, or will not."""
        with self.lock:
            parcel.left -= 1
            parcel.error = parcel.error or error
            self._files -= 1
            if not parcel.left:
                self._bytes -= parcel.size
                self._room.notify_all()
        if not parcel.left:
            parcel.settle(parcel.error)

    def wake(self) -> None:
        """Let whoever waits look whether the call has ended."""
        with self.lock:
            self._room.notify_all()

    def close(self) -> None:
        """End the senders, once the call has ended."""
        with self.lock:
            self.closed = True
            for sender in self._senders.values():
                sender.wake()
        for sender in self._senders.values():
            sender.join()


class _Sender:
    """Sends to one server what is queued for it."""

    def __init__(self, shipping: Shipping, server: str) -> None:
        self._queue: deque[tuple[Item, Parcel]] = deque()
        self._filled = threading.Condition(shipping.lock)
        self._shipping = shipping
        self._server = server
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, item: Item, parcel: Parcel) -> None:
        """Queue a file. The caller holds the lock."""
        self._queue.append((item, parcel))
        self.wake()

    def wake(self) -> None:
        """There is a file, or the end. The caller holds the lock."""
        self._filled.notify()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def _run(self) -> None:
        fanout, cancellation = Fanout(self._shipping.ring.pool), self._shipping.cancellation
        try:
            with cancellation.calling(fanout.cut):
                while batch := self._take():
                    while batch and cancellation.error is None:
                        self._deliver(fanout, batch)
        except S4Error as error:
            cancellation.set(error)
        except Exception as error:
            cancellation.set(InternalError(f"{type(error).__name__}: {error}"))

    def _take(self) -> deque[tuple[Item, Parcel]]:
        """What is queued, as soon as something is; nothing at the end."""
        with self._shipping.lock:
            while not self._queue and not self._shipping.closed:
                self._filled.wait()
            batch = deque(islice(self._queue, BATCH))
            for _ in batch:
                self._queue.popleft()
            return batch

    def _deliver(self, fanout: Fanout, batch: deque[tuple[Item, Parcel]]) -> None:
        """Send the files of a batch, in order, until one fails: then what is left of the batch is to be sent again."""

        def done(_item: Item, _size: int) -> None:
            self._shipping.settled(batch.popleft()[1], None)

        try:
            self._pass_over(fanout, batch)
            share = [item for item, _ in batch]
            bulk.put_train(self._shipping.ring, fanout, self._server, share, done, self._shipping.cancellation.check)
        except S4Error as error:
            if self._shipping.cancellation.error is not None or not batch:
                return
            if isinstance(error, _OUT_OF_REACH):
                return self._give_up(batch, error)
            failed = batch[0][1]
            for _, parcel in batch:
                parcel.again = True  # some were on their way when the first one failed
            for entry in [entry for entry in batch if entry[1] is failed]:
                batch.remove(entry)
                self._shipping.settled(failed, error)

    def _give_up(self, batch: deque[tuple[Item, Parcel]], error: S4Error) -> None:
        """The server is out of reach: all that waits for it fails, or each parcel would have to find out by itself."""
        with self._shipping.lock:
            batch.extend(self._queue)
            self._queue.clear()
        while batch:
            _, parcel = batch.popleft()
            parcel.again = True  # it may have come through all the same
            self._shipping.settled(parcel, type(error)(error.message, server=self._server))

    def _pass_over(self, fanout: Fanout, batch: deque[tuple[Item, Parcel]]) -> None:
        """Settle what has arrived before, and what belongs to a parcel that has failed; all else stays in the batch.

        Raises KeyExists when a key is there with another digest, and what the server says of one that it cannot tell
        of; the file in question is the first of the batch then.
        """
        asked: list[tuple[Item, Parcel]] = []
        for entry in list(batch):
            if entry[1].error is not None:
                batch.remove(entry)
                self._shipping.settled(entry[1], None)
            elif entry[1].again:
                asked.append(entry)
        keys = [item.key for item, _ in asked]
        answers = list(ask(self._shipping.ring.pool, wire.STAT, keys, _digest, fanout.lease))
        for entry, (key, there) in zip(asked, answers, strict=True):
            if isinstance(there, NoSuchKey):
                continue
            batch.remove(entry)
            if not isinstance(there, S4Error):
                with files.reading(str(entry[0].file)) as fd:
                    if digest_file(fd).digest() == there:
                        self._shipping.settled(entry[1], None)
                        continue
                there = KeyExists("key already exists, with another content", key=str(key), server=self._server)
            batch.appendleft(entry)
            raise there


def _digest(_connection: Connection, _key: Key, frame: wire.Frame) -> bytes:
    return frame.blob("digest")
