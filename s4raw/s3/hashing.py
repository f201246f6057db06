"""Slow digests of large bodies, each in a thread of its own, while the bytes are received and written."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from queue import SimpleQueue

from s4raw.s3.checksums import Hash

BUFFER = 512 << 10  # bytes
BUFFERS = 2  # of one body: one is filled and written, one hashed
MAX_KEPT = 16
_kept: list[memoryview] = []  # memory that was used before is several times faster than fresh memory


class _Worker:
    """A thread that feeds a digest."""

    def __init__(self, state: Hash) -> None:
        self._state = state
        self._jobs: SimpleQueue[memoryview | None] = SimpleQueue()
        self._done: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._state.update(job)
            self._done.put(None)

    def submit(self, job: memoryview) -> None:
        self._jobs.put(job)

    def wait(self) -> None:
        """Wait until the oldest job that was not waited for is done."""
        self._done.get()

    def end(self) -> None:
        """Wait until all jobs are done and the thread has ended."""
        self._jobs.put(None)
        self._thread.join()


def hash_aside(
    pieces: Iterator[memoryview], slow: Sequence[Hash], quick: Sequence[Hash]
) -> Generator[memoryview, None, None]:
    """Pass bytes on, in buffers of its own, and through digests: ``slow`` ones in threads, ``quick`` ones in this one.

    When it ends, or is closed, the threads have ended, and at its end the digests are complete.
    """
    buffers: list[memoryview] = []
    workers: list[_Worker] = []
    try:
        for state in slow:
            workers.append(_Worker(state))
        for buffer in _collect(pieces, buffers, workers):
            for worker in workers:
                worker.submit(buffer)
            for state in quick:
                state.update(buffer)
            yield buffer
    finally:
        for worker in workers:
            worker.end()
        if len(_kept) < MAX_KEPT:
            _kept.extend(buffers)


def _collect(
    pieces: Iterator[memoryview], buffers: list[memoryview], workers: Sequence[_Worker]
) -> Iterator[memoryview]:
    """Copy bytes into buffers by turns, each once the workers are done with what it held."""
    given = filled = 0
    buffer = _next_buffer(buffers, given, workers)
    for piece in pieces:
        at = 0
        while at < len(piece):
            count = min(len(piece) - at, BUFFER - filled)
            buffer[filled : filled + count] = piece[at : at + count]
            at += count
            filled += count
            if filled == BUFFER:
                yield buffer
                given += 1
                buffer, filled = _next_buffer(buffers, given, workers), 0
    if filled:
        yield buffer[:filled]


def _next_buffer(buffers: list[memoryview], given: int, workers: Sequence[_Worker]) -> memoryview:
    if given < BUFFERS:
        try:
            buffers.append(_kept.pop())
        except IndexError:
            buffers.append(memoryview(bytearray(BUFFER)))
    else:
        for worker in workers:
            worker.wait()
    return buffers[given % BUFFERS]
