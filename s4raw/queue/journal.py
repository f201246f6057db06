"""The queue on disk: a sqlite database that one thread writes to, many changes in one commit.

Whoever hands in a change waits until it is on disk (WAL, synchronous=FULL). While a commit is under way the next
changes gather, so that their number, and not that of the commits, grows with the number of threads.

A deletion that fails is tried again with every commit, so it can never overtake an earlier one: what was delivered last
is deleted last. ``Journal`` knows rows and numbers, not orders; only this module imports sqlite3.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice

from s4raw.disk import disk_error
from s4raw.errors import Busy, ConfError, Corrupt, DiskFull, InternalError, S4Error, StoreError
from s4raw.queue.reserve import Reserve
from s4raw.queue.rows import NEW, Row, State

VERSION = 2
APPLICATION = 0x73345155  # "s4QU", in the database's header
DATABASE, LOCK, RESERVE = "queue.db", "lock", "reserve"
LOG_PAGES = 500  # of 4 KiB: how far the log grows, and the database with it; half of the reserve
LAZY_SECONDS = 0.5  # how long what may be lost waits for a commit that would be made anyway
AGAIN_SECONDS = 1.0  # between attempts to delete what could not be deleted

_SCHEMA = f"""
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created_ns INTEGER NOT NULL,
    alias TEXT NOT NULL, bucket TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    path BLOB NOT NULL, spooled INTEGER NOT NULL, size INTEGER NOT NULL,
    identity TEXT NOT NULL, attributes TEXT NOT NULL, max_attempts INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, retry_at_ns INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
    via TEXT NOT NULL DEFAULT ''
);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""
_FROM_VERSION_1 = f"ALTER TABLE entries ADD COLUMN via TEXT NOT NULL DEFAULT ''; PRAGMA user_version = {VERSION};"
_FIELDS = ", ".join(Row._fields)
_INSERT = f"INSERT INTO entries ({_FIELDS}) VALUES ({', '.join('?' * len(Row._fields))})"
_UPDATE = "UPDATE entries SET attempts = ?, retry_at_ns = ?, parked = ?, error = ? WHERE id = ?"


class Change:
    """Something on its way to the disk. ``wait`` for it once."""

    __slots__ = ("_done", "error")

    def __init__(self) -> None:
        self.error: S4Error | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def finish(self, error: S4Error | None = None) -> None:
        """It is on disk, or it failed."""
        self.error = error
        self._done.release()

    def wait(self) -> None:
        """Wait until it is on disk. Raises what went wrong."""
        self._done.acquire()
        if self.error is not None:
            raise self.error


class Insertion(Change):
    """Rows that are to be inserted, in this order; they have their ids when they are on disk."""

    __slots__ = ("rows",)

    def __init__(self, rows: Sequence[Row]) -> None:
        super().__init__()
        self.rows = rows


class Deletion(Change):
    """Rows that are to be deleted."""

    __slots__ = ("ids",)

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__()
        self.ids = ids


class Journal:
    """The locked directory of a queue, its database, and the thread that writes to it once ``start`` was called."""

    def __init__(self, directory: str) -> None:
        """Open it. If it is ``fresh``, ``create`` comes next.

        Raises ConfError when it cannot be used or is of another version, Corrupt when the database is damaged.
        """
        self.directory = os.path.realpath(directory)
        self.path = os.path.join(self.directory, DATABASE)
        self.commits = 0
        self._sync: Callable[[], None]
        self._inserted: Callable[[Sequence[Row]], None]
        self._changed = threading.Condition()
        self._insertions: list[Insertion] = []
        self._deletions: list[Deletion] = []
        self._states: dict[int, State] = {}
        self._closing = False
        self._thread: threading.Thread | None = None
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            self._lock = _lock(self.directory)
        except OSError as error:
            raise ConfError(f"cannot use the queue's directory {self.directory}: {error.strerror}") from None
        try:
            self._open()
            self._reserve = Reserve(os.path.join(self.directory, RESERVE))
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self) -> None:
        try:
            with open(self.path, "ab", opener=_private) as file:  # sqlite would let others read what it makes
                empty = not file.tell()
        except OSError as error:
            raise ConfError(f"cannot use the queue's database {self.path}: {error.strerror}") from None
        log = f"{self.path}-wal"
        if empty and os.path.exists(log) and os.path.getsize(log):  # sqlite would delete it
            raise Corrupt(f"the queue's database {self.path} is missing or empty, but not its log {log}: restore both")
        try:
            self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _prepare(self) -> None:
        database = self._database
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        if database.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise ConfError(f"the file system of {self.path} cannot hold a database with a log (WAL): use another")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self.fresh = not (application or version or tables)
        if self.fresh:
            return
        if application != APPLICATION:
            raise ConfError(f"{self.path} is not the database of a queue: use another directory")
        if version == 1:
            database.executescript(f"BEGIN IMMEDIATE; {_FROM_VERSION_1} COMMIT;")
        elif version != VERSION:
            raise ConfError(f"the queue {self.path} is of version {version}, this s4raw knows {VERSION} alone")

    def create(self) -> None:
        """Begin a ``fresh`` database. Raises DiskFull, StoreError."""
        try:
            self._database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except (sqlite3.Error, OSError) as error:
            raise self._error(error) from error

    def rows(self) -> Iterator[tuple[Row, State]]:
        """All rows by id. Raises Corrupt. Only before ``start``."""
        fields = len(Row._fields)
        query = f"SELECT {_FIELDS}, {', '.join(State._fields)} FROM entries ORDER BY id"
        try:
            for found in self._database.execute(query):
                state = found[fields:]
                yield Row._make(found[:fields]), State._make(state) if any(state) else NEW
        except sqlite3.Error as error:
            raise self._error(error) from error

    def start(self, sync: Callable[[], None], inserted: Callable[[Sequence[Row]], None]) -> None:
        """Begin to write.

        ``sync`` is called before rows of spooled files are committed, ``inserted`` after each commit with its rows, in
        their order, before those who wait for them go on.
        """
        (last,) = self._database.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'entries'").fetchone()
        self.last_id = last or 0
        self._sync, self._inserted = sync, inserted
        self._thread = threading.Thread(target=self._run, name="queue-journal", daemon=True)
        self._thread.start()

    def insert(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Insert rows, all or none, in this order; they are on disk when they come back, with their ids.

        Raises DiskFull, StoreError, Busy.
        """
        change = Insertion(rows)
        with self._changed:
            self._check_open()
            self._insertions.append(change)
            self._changed.notify()
        change.wait()
        return change.rows

    def delete(self, ids: Sequence[int]) -> Deletion:
        """Hand in rows to be deleted: in the order of these calls, and again until it is done. ``wait`` says when.

        The wait raises Busy when the journal was closed before. So does this, when it was closed already.
        """
        change = Deletion(ids)
        with self._changed:
            self._check_open()
            for id in ids:
                self._states.pop(id, None)
            self._deletions.append(change)
            self._changed.notify()
        return change

    def note(self, id: int, state: State) -> None:
        """What became of a row so far: written soon, with other changes. A crash may lose it."""
        with self._changed:
            self._states[id] = state
            if len(self._states) == 1:
                self._changed.notify()

    def close(self) -> None:
        """Write what can be written, end the thread, unlock the directory. Twice is fine."""
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._database.close()
        os.close(self._lock)

    def _check_open(self) -> None:
        if self._closing:
            raise Busy("the queue is closed")

    def _run(self) -> None:
        failed = False
        while True:
            insertions, deletions, states, last = self._gather(AGAIN_SECONDS if failed else None)
            try:
                failed = self._write(insertions, deletions, states)
            except Exception as error:  # a defect: those who wait must be told all the same
                failed = True
                _finish(insertions, InternalError(f"the queue's journal failed: {error!r}"))
            if not failed:
                with self._changed:
                    del self._deletions[: len(deletions)]
                _finish(deletions)
            if last:
                with self._changed:
                    left = [*self._insertions, *self._deletions]
                _finish(left, Busy("the queue was closed"))
                return

    def _gather(self, again: float | None) -> tuple[list[Insertion], list[Deletion], dict[int, State], bool]:
        """Wait for changes; ``again`` is how long to wait before deletions that failed are another try worth."""
        with self._changed:
            while not (self._insertions or self._closing or (self._deletions and again is None)):
                pause = again if self._deletions else LAZY_SECONDS if self._states else None
                if not self._changed.wait(pause) and pause is not None:
                    break
            insertions, self._insertions = self._insertions, []
            states, self._states = self._states, {}
            return insertions, list(self._deletions), states, self._closing

    def _write(self, insertions: list[Insertion], deletions: list[Deletion], states: dict[int, State]) -> bool:
        """Commit changes; whether it failed. Those who wait for the insertions go on in either case."""
        handed_in = (row for change in insertions for row in change.rows)
        rows = [row._replace(id=id) for id, row in enumerate(handed_in, self.last_id + 1)]
        try:
            if any(row.spooled for row in rows):
                self._sync()
            self._commit(rows, [id for change in deletions for id in change.ids], states)
        except (sqlite3.Error, OSError) as error:
            failure = self._error(error)
            _finish(insertions, failure)
            with self._changed:
                self._states = {**states, **self._states}
            if deletions and isinstance(failure, DiskFull) and self._reserve.give():
                return self._write([], deletions, {})
            return True
        self._reserve.take()
        self.last_id += len(rows)
        with_ids = iter(rows)
        for change in insertions:
            change.rows = list(islice(with_ids, len(change.rows)))
        if rows:
            self._inserted(rows)
        _finish(insertions)
        return False

    def _commit(self, rows: list[Row], ids: list[int], states: dict[int, State]) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            database.executemany(_INSERT, rows)
            database.executemany(_UPDATE, [(*state, id) for id, state in states.items()])
            database.executemany("DELETE FROM entries WHERE id = ?", [(id,) for id in ids])
            database.execute("COMMIT")
            self.commits += 1
        except BaseException:
            if database.in_transaction:
                with suppress(sqlite3.Error):
                    database.execute("ROLLBACK")
            raise

    def _error(self, error: sqlite3.Error | OSError) -> S4Error:
        if isinstance(error, OSError):
            return disk_error(error)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary one
        if code == sqlite3.SQLITE_FULL:
            return DiskFull(f"the disk is full: the queue {self.path} cannot grow")
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return Corrupt(
                f"the queue's database {self.path} is damaged ({error}): restore it, or move it and its log away"
            )
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY):
            return ConfError(f"cannot use the queue's database {self.path}: {error}")
        return StoreError(f"the queue's database {self.path} failed: {error}")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _finish(changes: Iterable[Change], error: S4Error | None = None) -> None:
    for change in changes:
        change.finish(error)


def _lock(directory: str) -> int:
    """Lock the directory, and write into the lock who holds it."""
    fd = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        return fd
    except BlockingIOError:
        holder = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise ConfError(f"the queue {directory} is in use by another process, pid {holder}") from None
    except BaseException:
        os.close(fd)
        raise
