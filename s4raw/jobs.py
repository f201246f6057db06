"""The map calls of one server, running and recent, as files: every process that works on the data directory sees them.

    DATA/_jobs/<id>          what is known of the call, a JSON object, replaced as a whole
    DATA/_jobs/<id>.cancel   somebody wants the call to end: a line that says who

The process that runs a call writes its file and looks for the other one. A call whose process has died is lost.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from s4raw.disk import disk_errors
from s4raw.errors import UsageError

KEPT = 100  # calls that have ended,
SLACK = 20  # and so many more, before they are looked through
MAX_COMMAND = 500  # characters of a command that are kept
MAX_FILE = 16 << 10
RUNNING, DONE, FAILED, CANCELLED, LOST = "running", "done", "failed", "cancelled", "lost"
_ID = re.compile("[0-9a-z]{1,32}")
_CANCEL, _NEW = ".cancel", ".new"


class Job(NamedTuple):
    """What is known of one call's part on this server. Times are in seconds since 1970; counts are of commands."""

    id: str
    verb: str
    server: str
    client: str
    indir: str
    outdir: str
    command: str
    started: float
    pid: int
    state: str = RUNNING
    updated: float = 0.0
    total: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    message: str = ""


class Jobs:
    """The job files of a data directory."""

    def __init__(self, data: str) -> None:
        self._path = os.path.join(data, "_jobs")
        with disk_errors():
            os.makedirs(self._path, exist_ok=True)

    def sweep(self) -> None:
        """Before the first call of a new server: what still seems to run is lost. Raises StoreError."""
        with disk_errors():
            for name in os.listdir(self._path):
                if not _ID.fullmatch(name):
                    os.unlink(self._file(name))
            for name in os.listdir(self._path):
                if not (job := self._read(name)):
                    os.unlink(self._file(name))  # cut off while it was made, or of another version
                elif job.state == RUNNING:
                    self.update(job._replace(state=LOST, message="its server ended"))

    def begin(self, job: Job) -> None:
        """Make a call known. Raises UsageError for an id that is none or is taken."""
        check_id(job.id)
        with disk_errors():
            try:
                os.close(os.open(self._file(job.id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            except FileExistsError:
                raise UsageError(f"a call with the id {job.id} exists already") from None
        self.update(job)

    def update(self, job: Job) -> None:
        """Say how far a call is. A disk that does not take it is no reason for the call to fail."""
        name = self._file(job.id)
        job = job._replace(command=job.command[:MAX_COMMAND], message=job.message[:MAX_COMMAND], updated=now())
        with suppress(OSError):
            with open(name + _NEW, "w", encoding="utf-8") as file:
                json.dump(job._asdict(), file)
            os.replace(name + _NEW, name)

    def end(self, job: Job) -> None:
        """Say how a call has ended, and forget the oldest of those that have."""
        self.update(job)
        self._forget_wish(job.id)
        if len(os.listdir(self._path)) < KEPT + SLACK:
            return
        ended = [job for job in self.list() if job.state != RUNNING]
        for old in sorted(ended, key=lambda job: job.updated)[:-KEPT]:
            with suppress(OSError):
                os.unlink(self._file(old.id))

    def list(self) -> Iterator[Job]:
        """All calls that are known, in no order."""
        for name in os.listdir(self._path):
            if job := self.find(name):
                yield job

    def find(self, name: str) -> Job | None:
        """The call of this id, if it is known."""
        job = self._read(name)
        if job and job.state == RUNNING and not os.path.exists(f"/proc/{job.pid}"):
            return job._replace(state=LOST, message="its server ended")
        return job

    def _read(self, name: str) -> Job | None:
        if not _ID.fullmatch(name):
            return None
        try:
            with open(self._file(name), encoding="utf-8") as file:
                return Job(**json.loads(file.read(MAX_FILE)))
        except (OSError, ValueError, TypeError):  # gone, just being made, or of another version
            return None

    def cancel(self, name: str, by: str) -> str:
        """Ask the process that runs a call to end it. Returns the call's state, empty for one that is not known."""
        job = self.find(name)
        if job is None:
            return ""
        if job.state == RUNNING:
            wish, draft = self._file(name) + _CANCEL, f"{self._file(name)}.{threading.get_native_id()}{_NEW}"
            with disk_errors():
                with open(draft, "w", encoding="utf-8") as file:
                    file.write(by[:MAX_COMMAND])
                os.replace(draft, wish)  # so that nobody reads it half written
            if (latest := self.find(name)) is None or latest.state != RUNNING:  # it ended meanwhile
                self._forget_wish(name)
        return job.state

    def cancelled(self, name: str) -> str | None:
        """Who wants this call to end; None when nobody does."""
        try:
            with open(self._file(name) + _CANCEL, encoding="utf-8") as file:
                return file.read() or "somebody"
        except FileNotFoundError:
            return None

    def _forget_wish(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(self._file(name) + _CANCEL)

    def _file(self, name: str) -> str:
        return os.path.join(self._path, name)


def now() -> float:
    """Seconds since 1970, to the millisecond."""
    return round(time.time(), 3)


def check_id(name: str) -> str:
    """The id of a call. Raises UsageError for what is none."""
    if not _ID.fullmatch(name):
        raise UsageError(f"not the id of a call: {name!r} (1 to 32 digits and lower-case letters)")
    return name
