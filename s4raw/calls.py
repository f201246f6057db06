"""A map call on this server: its plan, its worker threads, its progress, its end.

The plan (the list of tasks) is made before the first command runs, so a call never sees its own outputs. Worker threads
take from it, each command under one of the server's CPU slots. The first failure ends the call: running commands are
killed, nothing more is published. What had finished by then stays, whole.
"""

from __future__ import annotations

import os
import tempfile
import threading
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from s4raw.compute import MapFromNTask, MapRequest, MapTask, MapToNTask, Node, Task, run_task
from s4raw.disk import disk_errors
from s4raw.errors import Cancelled, InternalError, S4Error
from s4raw.keys import Key, common_suffix, key_prefix
from s4raw.procs import Cancellation

_END = b"\0\0\n"


class MapCall:
    """One call. Whoever made it waits on ``finished`` (a descriptor), then calls ``join`` and ``close``."""

    def __init__(self, node: Node, request: MapRequest, shape: Shape) -> None:
        self.done = 0
        self.total = 0
        self._node = node
        self._request = request
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._running = 0
        group, self._build = shape
        self._files = ExitStack()
        self.cancellation = Cancellation()
        self._files.callback(self.cancellation.close)
        try:
            with disk_errors():
                self.finished = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._files.callback(os.close, self.finished)
                self._spool = self._files.enter_context(tempfile.TemporaryFile(dir=node.store.data.tmp_path))
                for names in group(node, request):
                    self._spool.write("\0".join(names).encode() + _END)  # a name is never empty, nor holds a NUL
                    self.total += 1
                self._spool.flush()
        except BaseException:
            self.close()
            raise
        self._tasks = self._read_tasks()

    def start(self) -> None:
        """Start as many workers as there are CPU slots, or tasks."""
        count = min(self._node.cpu.count, self.total)
        self._running = count + 1  # and this thread, so that the call cannot finish before all have started
        try:
            for _ in range(count):
                worker = threading.Thread(target=self._work, daemon=True)
                worker.start()
                self._workers.append(worker)
        except RuntimeError as error:
            self.cancellation.set(InternalError(f"cannot start a worker: {error}", server=self._node.me))
        for _ in range(1 + count - len(self._workers)):
            self._leave()

    def join(self) -> S4Error | None:
        """Wait for the workers; what ended the call, if it failed."""
        for worker in self._workers:
            worker.join()
        return self.cancellation.error

    def close(self) -> None:
        """End the call if it still runs, and release what it held. Nobody uses its descriptors after this."""
        self.cancellation.set(Cancelled("the call was given up"))
        self.join()
        with suppress(OSError):  # what a full disk did not take
            self._files.close()

    def _read_tasks(self) -> Iterator[Task]:
        """Build the tasks from the spool, which keeps memory bounded whatever their number."""
        self._spool.seek(0)
        record = b""
        for line in self._spool:
            record += line
            if record.endswith(_END):
                yield self._build(self._node, self._request, record[: -len(_END)].decode().split("\0"))
                record = b""

    def _work(self) -> None:
        try:
            with self._node.store.data.scratch() as scratch:
                while self.cancellation.error is None:
                    with self._lock:
                        task = next(self._tasks, None)
                    if task is None:
                        return
                    with self._node.cpu.take(self.cancellation.check):
                        run_task(self._node, task, self._request, self.cancellation, scratch.path)
                    scratch.clear()
                    with self._lock:
                        self.done += 1
        except S4Error as error:
            self.cancellation.set(error.at(server=self._node.me))
        except Exception as error:
            self._node.log("error", traceback.format_exc())
            self.cancellation.set(InternalError(f"{type(error).__name__}: {error}", server=self._node.me))
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                os.eventfd_write(self.finished, 1)


Shape = tuple[
    Callable[[Node, MapRequest], Iterator[list[str]]],  # which keys make up each task, by name
    Callable[[Node, MapRequest, list[str]], Task],
]


def _each(node: Node, request: MapRequest) -> Iterator[list[str]]:
    for key in request.keys(node.store):
        yield [key.name]


def _grouped(node: Node, request: MapRequest) -> Iterator[list[str]]:
    """Group by numeric prefix, or whole basename. The one plan whose names are in memory, all at once."""
    groups: dict[str, list[str]] = defaultdict(list)
    for key in request.keys(node.store):
        groups[key_prefix(key.basename)].append(key.name)
    for prefix in sorted(groups):
        yield groups[prefix]


def _map_task(node: Node, request: MapRequest, names: list[str]) -> Task:
    output = request.outputs.join(names[0][len(request.inputs.name) :])
    return MapTask(node, Key(request.inputs.bucket, names[0]), output)


def _map_to_n_task(node: Node, request: MapRequest, names: list[str]) -> Task:
    key = Key(request.inputs.bucket, names[0])
    return MapToNTask(node, key, request.outputs.join(key.basename))


def _map_from_n_task(node: Node, request: MapRequest, names: list[str]) -> Task:
    inputs = [Key(request.inputs.bucket, name) for name in names]
    basenames = [key.basename for key in inputs]
    output = request.outputs.join(key_prefix(basenames[0]) + common_suffix(basenames))
    return MapFromNTask(node, output, inputs)


MAP: Shape = (_each, _map_task)
MAP_TO_N: Shape = (_each, _map_to_n_task)
MAP_FROM_N: Shape = (_grouped, _map_from_n_task)
