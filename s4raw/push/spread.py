"""The same for several things at once, in a few threads: what waits for a disk is done in the time of the slowest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

HELPERS = 3  # threads beside the caller's: a disk's cache is flushed for all of them at once
EACH = 4  # things that are worth a thread

T = TypeVar("T")
R = TypeVar("R")


def spread(work: Callable[[T], R], things: Sequence[T], size: Callable[[R], int], most: int) -> list[R | Exception]:
    """What ``work`` makes of each thing, or what it raised, in their order.

    No other is begun once the sum of the results' sizes is ``most``: then the list is shorter than the things.
    """
    if len(things) == 1:
        try:
            return [work(things[0])]
        except Exception as error:
            return [error]
    results: list[R | Exception] = [RuntimeError("it was not done")] * len(things)
    lock = threading.Lock()
    begun = total = 0

    def run() -> None:
        nonlocal begun, total
        while True:
            with lock:
                if begun == len(things) or total >= most:
                    return
                index, begun = begun, begun + 1
            try:
                results[index] = result = work(things[index])
            except Exception as error:
                results[index] = error
            else:
                with lock:
                    total += size(result)

    helpers = [threading.Thread(target=run, daemon=True) for _ in range(min(HELPERS, len(things) // EACH))]
    started = []
    for helper in helpers:
        try:
            helper.start()
        except RuntimeError:  # there are too many threads: it takes longer
            break
        started.append(helper)
    run()
    for helper in started:
        helper.join()
    return results[:begun]
