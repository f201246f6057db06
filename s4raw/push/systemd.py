"""What systemd is told of the daemon, where it asks to be (sd_notify(3)): ready, stopping, and still alive."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from s4raw import unix

SOCKET_VARIABLE, WATCHDOG_VARIABLE, PID_VARIABLE = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"


class Notifier:
    """Tells systemd, if this process is one of its services; nothing else. Stopping it twice is fine."""

    def __init__(self, is_well: Callable[[], bool] = lambda: True) -> None:
        """``is_well`` is asked before systemd is told that we are alive."""
        self._socket = os.environ.get(SOCKET_VARIABLE, "")
        self._is_well = is_well
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def ready(self) -> None:
        """The daemon serves; from here on the watchdog is fed, at twice the pace that it asks for."""
        self._tell("READY=1")
        microseconds, pid = os.environ.get(WATCHDOG_VARIABLE, ""), os.environ.get(PID_VARIABLE)
        if self._socket and microseconds.isdigit() and int(microseconds) and pid in (None, str(os.getpid())):
            self._thread = threading.Thread(target=self._feed, args=(int(microseconds) / 2e6,), daemon=True)
            self._thread.start()

    def _feed(self, seconds: float) -> None:
        while not self._end.wait(seconds):
            if self._is_well():
                self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """The daemon stops; the watchdog is fed until ``close``."""
        self._tell("STOPPING=1")

    def close(self) -> None:
        """End the watchdog's thread."""
        self._end.set()
        if self._thread:
            self._thread.join()
            self._thread = None

    def _tell(self, message: str) -> None:
        if self._socket:
            try:
                unix.notify(self._socket, message)
            except OSError:
                pass  # it is systemd that has a problem then
