"""A remote in memory behind a queue, with a pusher or without, that can be closed and opened again."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from s4raw.errors import NoSuchKey, Unreachable
from s4raw.keys import Key
from s4raw.objects.base import ALWAYS, Conditions, Info, Range, Source
from s4raw.objects.memory import MemoryBackend, MemoryReading
from s4raw.objects.queued import QueuedBackend
from s4raw.queue.pusher import Pusher
from s4raw.queue.queue import Queue


@contextmanager
def quick_directory() -> Iterator[Path]:
    """A directory in memory, where nothing takes the time of a disk; on disk where memory keeps no attributes."""
    shared = "/dev/shm"
    try:
        with tempfile.NamedTemporaryFile(dir=shared) as probe:
            os.setxattr(probe.name, "user.probe", b"")
    except OSError:
        shared = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(dir=shared) as directory:
        yield Path(directory)


class Strange(MemoryBackend):
    """A remote whose mappings are no dictionaries, and cannot be written down as they are."""

    def head(self, key: Key, conditions: Conditions = ALWAYS) -> Info:
        return strange(super().head(key, conditions))

    def get(self, key: Key, wanted: Range | None = None, conditions: Conditions = ALWAYS) -> MemoryReading:
        reading = super().get(key, wanted, conditions)
        reading.info = strange(reading.info)
        return reading


def strange(info: Info) -> Info:
    """The same object, with mappings that are no dictionaries."""
    own = info.attributes
    kept = {name: MappingProxyType(getattr(own, name)) for name in ("headers", "metadata", "tags", "checksums")}
    return info._replace(attributes=own._replace(**kept))


class Told(QueuedBackend):
    """One that is asked first whether there is an object to delete, which it does not look for itself."""

    def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
        try:
            self.head(key)
            there = True
        except NoSuchKey:
            there = False
        except Unreachable:  # nobody knows
            return super().delete(key, conditions)
        told = super().delete(key, conditions)
        assert told or not there
        return there

    def close(self) -> None:
        super().close()
        self._queue.close()


class Dated(Strange):
    """A remote that takes over when an object was accepted, as no S3 does: so that times, too, can be compared."""

    queue: Queue

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        oldest = self.queue.pending("", key)[0]
        super().put(key, source, conditions)
        with self._lock:
            objects = self._bucket(key.bucket).objects
            info, content = objects[key.name]
            objects[key.name] = info._replace(mtime_ns=oldest.created_ns), content
            return objects[key.name][0]


class Front:
    """A queue over a remote, and what opens it again over the same remote."""

    queue: Queue
    backend: QueuedBackend

    def __init__(self, directory: Path, remote: MemoryBackend | None = None, opened: bool = True) -> None:
        self.directory = directory
        self.remote = remote or MemoryBackend()
        if opened:
            self.open()

    def open(self) -> QueuedBackend:
        """Open it; closing the backend closes the queue."""
        self.queue = Queue(str(self.directory / "queue"))
        if isinstance(self.remote, Dated):
            self.remote.queue = self.queue
        self.backend = Told(self.remote, self.queue, str(self.directory / "queue" / "s3"))
        return self.backend

    def close(self) -> None:
        """Close it; the remote stays."""
        self.backend.close()

    @contextmanager
    def pushing(self, workers: int = 4) -> Iterator[Pusher]:
        """With a pusher that delivers while the block lasts."""
        pusher = Pusher(self.queue, lambda alias: self.remote, workers=workers, backoff=(0.01, 0.05))
        pusher.start()
        try:
            yield pusher
        finally:
            assert pusher.stop(30)

    def deliver(self) -> None:
        """Deliver all there is."""
        with self.pushing():
            assert self.queue.flush(30)

    def left_over(self) -> list[str]:
        """The files in the spool."""
        return [path.name for path in (self.directory / "queue" / "spool").iterdir()]
