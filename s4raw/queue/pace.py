"""A rate that many threads share: a token bucket."""

from __future__ import annotations

import threading
import time

_BURST_SECONDS = 0.25  # what was not used for so long may be used later


class Pace:
    """So many bytes a second for all together; 0: as many as they like."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._free = 0.0  # from when on the next byte may go, by the monotonic clock

    def charge(self, count: int) -> float:
        """Count bytes; how many seconds to wait before they may go."""
        if not self.rate or not count:
            return 0.0
        with self._lock:
            now = time.monotonic()
            start = max(self._free, now - _BURST_SECONDS)
            self._free = start + count / self.rate
            return max(0.0, start - now)

    def wait(self, count: int) -> None:
        """Wait until so many bytes may go."""
        pause = self.charge(count)
        if pause > 0:
            time.sleep(pause)
