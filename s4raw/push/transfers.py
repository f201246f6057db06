"""The log of transfers, in the shape that reports for s3daemon read; everything else is logged on stderr.

``LEVEL YYYY-MM-DD hh:mm:ss,mmm __main__ - START SECONDS sec - KEY``, in local time; START is in seconds since 1970.
"""

from __future__ import annotations

import os
import time

from s4raw.errors import ConfError
from s4raw.log import LINE_BREAKS

NAME = "__main__"  # what s3daemon's logger was called; reports look for it


class Transfers:
    """Appends lines to a file, or to stderr. Any thread may write; each line is one write."""

    def __init__(self, path: str | None) -> None:
        """Raises ConfError when the file cannot be written."""
        self._path = path
        self._fd = 2
        if path:
            self._fd = self._open(path)

    def _open(self, path: str) -> int:
        try:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o644)
        except OSError as error:
            raise ConfError(f"cannot write the log {path}: {error.strerror}") from None

    def started(self) -> None:
        """The first line."""
        self._write("INFO", "Starting server")

    def stored(self, key: str, start: float, seconds: float) -> None:
        """A file was stored, ``seconds`` after it was accepted at ``start``."""
        self._write("INFO", f"{start:f} {seconds:f} sec - {key}")

    def failed(self, key: str, start: float, seconds: float, error: str) -> None:
        """An attempt has failed."""
        self._write("ERROR", f"{start:f} {seconds:f} sec - {key}: {error}")

    def _write(self, level: str, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        line = f"{level} {stamp},{int(now * 1000) % 1000:03d} {NAME} - {text}".translate(LINE_BREAKS)
        try:
            os.write(self._fd, line.encode(errors="backslashreplace") + b"\n")
        except OSError:
            pass  # a log that cannot be written to is no reason to fail

    def reopen(self) -> None:
        """Write to what has the file's name now: somebody has moved the old one away. From a signal handler, too."""
        if self._path:
            try:
                fd = self._open(self._path)
            except ConfError:
                return  # the old one is better than none
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def close(self) -> None:
        """Close the file."""
        if self._fd != 2:
            os.close(self._fd)
            self._fd = 2
