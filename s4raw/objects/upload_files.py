"""The files of one multipart upload, and the steps in which they change: nothing here knows buckets or conditions.

    DATA/_s3/uploads/<id>/upload.json   what is known of it, two lines of JSON; without it there is no upload
    DATA/_s3/uploads/<id>/parts         a line of JSON for each part that has come; of a number's the last one counts
    DATA/_s3/uploads/<id>/slots         two bytes for each number: whether its slot is taken, whether it has a line
    DATA/_s3/uploads/<id>/data          the parts that lie in their slots: part n from (n - 1) * unit on
    DATA/_s3/uploads/<id>/part-...      a part that does not

Whoever changes ``parts`` or ``slots`` holds the lock on ``parts`` (flock), for a moment; completing holds it to the
end. Whoever writes to a slot holds a shared lock on ``data``; completing waits until nobody does.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from s4raw.disk import disk_errors, remove_tree
from s4raw.errors import Corrupt, NoSuchUpload
from s4raw.keys import Key
from s4raw.objects import attributes as codec
from s4raw.objects.base import MAX_PARTS, Part, Upload
from s4raw.record import NamedTuple

_ID = re.compile(r"[0-9a-f]{48}")
_UNIT = "user.s4raw.unit"  # of upload.json: the bytes in a slot, set once
_MAX_DATA = 1 << 43  # bytes in a file; ext4 has 16 TiB
FREE, TAKEN, LOST = b"\0", b"\1", b"\2"  # of a slot: LOST once completing has made use of its place
_RECORDED = b"\1"
_TORN = b"\n"

_encode = json.JSONEncoder(separators=(",", ":")).encode


class PartRecord(NamedTuple):
    """A part that has come. ``file`` is empty if it lies in its slot; ``leaves`` are the digests of its leaves."""

    part: Part
    file: str
    leaves: bytes

    def encode(self) -> bytes:
        """Its line."""
        number, size, etag, checksums, mtime_ns = self.part
        line = _encode([number, size, etag, dict(checksums), mtime_ns, self.file, self.leaves.hex()])
        return line.encode("ascii") + b"\n"


def new_id() -> str:
    """An id that sorts by when it was made."""
    return f"{time.time_ns():016x}{os.urandom(16).hex()}"


def is_id(text: str) -> bool:
    """Whether a text is of the form of an id, and so the name of a directory and nothing else."""
    return _ID.fullmatch(text) is not None


def write_new(path: str, upload: Upload) -> None:
    """Make the files of a new upload in an empty directory."""
    bucket, name = upload.key
    fields = {"bucket": bucket, "name": name, "created_ns": upload.created_ns, "algorithm": upload.checksum_algorithm}
    with open(f"{path}/upload.json", "xb") as file:
        file.write(_encode(fields).encode("ascii") + b"\n" + codec.encode(upload.attributes) + b"\n")
    for other in ("parts", "slots", "data"):
        os.close(os.open(f"{path}/{other}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def read_upload(path: str, upload: str) -> Upload | None:
    """What is known of an upload; None if there is none. Raises Corrupt."""
    try:
        with disk_errors(), open(f"{path}/upload.json", "rb") as file:
            head, _, encoded = file.read().partition(b"\n")
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(head)
        key = Key(fields["bucket"], fields["name"])
        return Upload(key, upload, fields["created_ns"], codec.decode(encoded), fields["algorithm"])
    except (ValueError, TypeError, KeyError):
        raise Corrupt(f"what is known of the upload {upload} is damaged") from None


class UploadFiles:
    """The open files of an upload, a context manager."""

    def __init__(self, path: str) -> None:
        """Raises NoSuchUpload when there are none, or when they have become an object."""
        self.path = path
        self._open: list[int] = []
        try:
            with disk_errors():
                self._parts = self._keep("parts", os.O_RDWR | os.O_APPEND)
                self._slots = self._keep("slots", os.O_RDWR)
                self.data = self._open_data()
        except BaseException as error:
            self.close()
            if isinstance(error, FileNotFoundError):
                raise no_such(path) from None
            raise

    def _keep(self, name: str, flags: int) -> int:
        fd = os.open(f"{self.path}/{name}", flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._open.append(fd)
        return fd

    def _open_data(self) -> int:
        try:
            return self._keep("data", os.O_RDWR)
        except PermissionError:  # it was about to become an object when its server was killed
            if os.stat(f"{self.path}/data").st_nlink > 1:
                raise FileNotFoundError from None
            os.chmod(f"{self.path}/data", 0o600)
            return self._keep("data", os.O_RDWR)

    def close(self) -> None:
        """Close them, which gives up all locks."""
        while self._open:
            os.close(self._open.pop())

    def __enter__(self) -> UploadFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock for a change, and turn what the disk says meanwhile into this package's errors.

        Raises NoSuchUpload when the upload has ended.
        """
        with disk_errors():
            fcntl.flock(self._parts, fcntl.LOCK_EX)
            try:
                if not os.access(f"{self.path}/upload.json", os.F_OK) or os.fstat(self.data).st_nlink > 1:
                    raise no_such(self.path)
                yield
            finally:
                fcntl.flock(self._parts, fcntl.LOCK_UN)

    # Slots

    def unit(self, size: int = 0, may_set: bool = False) -> int:
        """The bytes in a slot; 0 when that is not known yet. The first part that may set it does."""
        path = f"{self.path}/upload.json"
        while True:
            with suppress(OSError):
                return int(os.getxattr(path, _UNIT))
            if not may_set or not size:
                return 0
            with disk_errors():
                try:
                    os.setxattr(path, _UNIT, str(size).encode(), os.XATTR_CREATE)
                except FileExistsError:
                    continue

    def take_slot(self, number: int, size: int, may_set: bool) -> int | None:
        """Where part ``number`` is to be written in ``data``; None if it must not be. The caller holds the lock.

        Then a shared lock on ``data`` is held, until ``release_data``.
        """
        unit = self.unit(size, may_set)
        if not 0 < size <= unit or number * unit > _MAX_DATA or self._slot(number) != FREE:
            return None
        fcntl.flock(self.data, fcntl.LOCK_SH)  # completing, which would hold it alone, holds the caller's lock, too
        self._mark(number, TAKEN)
        return (number - 1) * unit

    def _slot(self, number: int) -> bytes:
        return os.pread(self._slots, 1, 2 * number) or FREE

    def _mark(self, number: int, state: bytes) -> None:
        os.pwrite(self._slots, state, 2 * number)

    def release_data(self) -> None:
        """Nothing more is written to the slot."""
        fcntl.flock(self.data, fcntl.LOCK_UN)

    def give_slot_back(self, number: int) -> None:
        """What was written to a slot is of no use. The caller holds the lock."""
        if self._slot(number) == TAKEN:
            self._mark(number, FREE)

    def is_lost(self, number: int) -> bool:
        """Whether somebody has completed the upload, or tried to, and made use of a slot's place."""
        return self._slot(number) == LOST

    def have_data_alone(self, seconds: float) -> bool:
        """Wait until nobody writes to a slot; False when somebody still does. The caller holds the lock."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self.data, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.005)

    def lose_slots(self, keep: dict[int, PartRecord]) -> None:
        """Nobody who has written to a slot that is not in ``keep`` may record that any more."""
        slots = os.pread(self._slots, 2 * MAX_PARTS + 2, 0)
        for number, state in enumerate(slots[::2]):
            if state == TAKEN[0] and (number not in keep or keep[number].file):
                self._mark(number, LOST)

    # Records

    def record(self, record: PartRecord) -> None:
        """A part is there, in place of what had its number. The caller holds the lock. Raises DiskFull."""
        number = record.part.number
        before = self._find(number) if os.pread(self._slots, 1, 2 * number + 1) == _RECORDED else None
        line = record.encode()
        with disk_errors():
            end = os.fstat(self._parts).st_size
            if end and os.pread(self._parts, 1, end - 1) != b"\n":
                line = _TORN + line  # somebody was killed in the middle of it
            os.pwrite(self._slots, _RECORDED, 2 * number + 1)
            written = os.write(self._parts, line)
            if written != len(line):
                os.ftruncate(self._parts, end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if before is not None and before.file:
            with suppress(OSError):
                os.unlink(f"{self.path}/{before.file}")

    def _find(self, number: int) -> PartRecord | None:
        """The last record of a number."""
        raw = b"\n" + self._journal()
        end = len(raw)
        while (at := raw.rfind(b"\n[%d," % number, 0, end)) >= 0:
            found = parse(raw[at + 1 :].partition(b"\n")[0])
            if found is not None:
                return found
            end = at
        return None

    def records(self) -> dict[int, PartRecord]:
        """The parts that are there, by number, in no order."""
        found = {}
        for line in self._journal().split(b"\n"):
            if line and (record := parse(line)) is not None:
                found[record.part.number] = record
        return found

    def _journal(self) -> bytes:
        with disk_errors():
            size = os.fstat(self._parts).st_size
            raw = b""
            while len(raw) < size and (piece := os.pread(self._parts, size - len(raw), len(raw))):
                raw += piece
            return raw

    # Parts in files of their own

    @contextmanager
    def draft(self) -> Iterator[int]:
        """An unnamed file to write a part to, which is gone unless it is kept."""
        with disk_errors():
            try:
                fd = os.open(self.path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                raise no_such(self.path) from None
        try:
            yield fd
        finally:
            os.close(fd)

    def record_apart(self, fd: int, part: Part, leaves: bytes) -> None:
        """A part is there, in the file behind ``fd``, which gets a name. The caller holds the lock. Raises DiskFull."""
        name = f"part-{part.number}-{os.urandom(8).hex()}"
        with disk_errors():
            os.link(f"/proc/self/fd/{fd}", f"{self.path}/{name}", src_dir_fd=fd)
        try:
            self.record(PartRecord(part, name, leaves))
        except BaseException:
            os.unlink(f"{self.path}/{name}")
            raise

    @contextmanager
    def open_apart(self, name: str) -> Iterator[int]:
        """The file of a part that does not lie in its slot. Raises Corrupt when it has gone."""
        with disk_errors():
            try:
                fd = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                raise Corrupt("the file of a part has gone") from None
        try:
            yield fd
        finally:
            os.close(fd)

    def remove(self) -> None:
        """End the upload: from the first step on it is none. The caller holds the lock."""
        discard(self.path)


def parse(line: bytes) -> PartRecord | None:
    """A part's record; None for a line that was not written to its end."""
    try:
        number, size, etag, checksums, mtime_ns, file, leaves = json.loads(line)
        return PartRecord(Part(number, size, etag, checksums, mtime_ns), file, bytes.fromhex(leaves))
    except (ValueError, TypeError):
        return None


def discard(path: str) -> None:
    """Remove an upload's files; what a crash leaves of them is no upload any more."""
    with suppress(FileNotFoundError), disk_errors():
        os.unlink(f"{path}/upload.json")
    remove_tree(path)


def sweep(path: str, keep_seconds: float) -> bool:
    """Remove an upload that nobody has touched for so long, or what is left of one; whether it was removed."""
    try:
        touched = max(os.stat(f"{path}/{name}").st_mtime for name in ("upload.json", "parts", "data"))
        ended = os.stat(f"{path}/data").st_nlink > 1
    except FileNotFoundError:
        remove_tree(path)  # what an end that was cut short has left
        return True
    except OSError:
        return False  # the disk failed: that says nothing about the upload
    if not ended and time.time() - touched <= keep_seconds:
        return False
    try:
        fd = os.open(f"{path}/parts", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        discard(path)
        return True
    except OSError:
        return False  # it is being completed
    finally:
        os.close(fd)


def no_such(path: str) -> NoSuchUpload:
    """The error for an upload that is not there."""
    return NoSuchUpload(f"there is no upload {os.path.basename(path)}")
