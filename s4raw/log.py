"""The log: one line an event, on stderr. Safe to call from any thread and from signal handlers."""

from __future__ import annotations

import os
import time

LINE_BREAKS = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}


class Log:
    """Writes ``<UTC time> <who> <event> <details>``, control characters escaped, in one write each."""

    def __init__(self, who: str, fd: int = 2) -> None:
        self._who = who
        self._fd = fd

    def __call__(self, event: str, details: str = "") -> None:
        """Write one line; a log that cannot be written to is no reason to fail."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = f"{stamp}.{int(now * 1000) % 1000:03d}Z s4raw {self._who} {event} {details}".rstrip()
        try:
            os.write(self._fd, line.translate(LINE_BREAKS).encode(errors="replace") + b"\n")
        except OSError:
            pass
