"""The data directory of one server: its format, its lock, what its file system must be able to do, its temp dirs.

    ROOT/<bucket>/...   the keys (``store`` owns them)
    ROOT/_format        the version of this layout
    ROOT/_place         which server of how many the keys belong to
    ROOT/_lock          locked by the server that uses the directory
    ROOT/_removals      locked, shared, while a key is deleted; alone, while a file makes way for a directory
    ROOT/_tmp/...       one directory for each running command; swept at start
    ROOT/_drafts/...    empty directories that lie far from each other on the disk (see ``places``); swept at start

``disk_errors`` is the one place that turns OSError into this package's errors.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from s4raw.errors import BadKey, ConfError, DiskFull, S4Error, StoreError
from s4raw.keys import Key
from s4raw.places import Places
from s4raw.syscalls import exchange

FORMAT = "s4raw 2\n"
DRAFTS = "_drafts"
JOB_VARIABLE = "S4RAW_DATA"  # in the environment of every command: the data directory of the server that runs it
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAX_SWEEPS = 10
_PROBE = "user.s4raw.probe"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GET_FLAGS, _SET_FLAGS, _TOP_OF_HIERARCHY = 0x80086601, 0x40086602, 0x20000  # linux/fs.h: FS_IOC_GETFLAGS, FS_TOPDIR_FL


class disk_errors:
    """Turn an OSError of the block into BadKey, DiskFull or StoreError; FileNotFoundError passes through."""

    __slots__ = ("_key",)

    def __init__(self, key: Key | None = None) -> None:
        self._key = key

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise disk_error(error, self._key) from error


def disk_error(error: OSError, key: Key | None = None) -> S4Error:
    """What to tell of an error of the data directory's disk."""
    name = str(key) if key else ""
    if error.errno in _FULL:
        return DiskFull(f"the disk is full: {error.strerror}", key=name)
    if error.errno == errno.ENAMETOOLONG:
        return BadKey("the key is too long for the file system", key=name)
    return StoreError(f"the disk failed: {error.strerror} (errno {error.errno})", key=name)


class Draft:
    """A ``with`` block that has an unnamed file. (A generator would do, in three times the time.)"""

    __slots__ = ("_fd", "_places")

    def __init__(self, places: Places) -> None:
        self._places = places

    def __enter__(self) -> int:
        with disk_errors():
            self._fd = self._places.new_file()
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class DataDirectory:
    """An opened and locked data directory. ``root`` and ``tmp`` are descriptors, ``path`` and ``tmp_path`` names."""

    def __init__(self, path: str) -> None:
        """Open or create it. Raises ConfError when it is in use, of another version, or on an unfit file system."""
        self.path = os.path.realpath(path)
        self.tmp_path = os.path.join(self.path, "_tmp")
        self._descriptors: list[int] = []
        try:
            os.makedirs(self.tmp_path, exist_ok=True)
            os.makedirs(os.path.join(self.path, DRAFTS), exist_ok=True)
            self._open_all()
            os.close(self._open("_removals"))
            self._spread()
            self._take_lock()
            self._check_format()
            self._sweep()
            self._check_file_system()
        except OSError as error:
            self.close()
            raise ConfError(f"cannot use the data directory {self.path}: {error.strerror}") from None
        except BaseException:
            self.close()
            raise

    def _spread(self) -> None:
        """Ask ext4 to lay the directories of commands out in parts of the disk that have room (``chattr +T``).

        It looks for a free inode near the directory of a new file, and passes over all that were freed in the last five
        minutes, one by one: after 8,000 keys were deleted a new file beside them takes ten times as long.
        """
        for directory in (self.tmp, self._drafts):
            with suppress(OSError):  # another file system
                flags = bytearray(8)
                fcntl.ioctl(directory, _GET_FLAGS, flags)
                wanted = int.from_bytes(flags[:4], sys.byteorder) | _TOP_OF_HIERARCHY
                fcntl.ioctl(directory, _SET_FLAGS, wanted.to_bytes(4, sys.byteorder) + flags[4:])

    @classmethod
    def visit(cls, path: str) -> DataDirectory:
        """Open the directory of another server, which has it locked, to publish keys there. Raises OSError."""
        data = cls.__new__(cls)
        data.path, data._descriptors = path, []
        data.tmp_path = os.path.join(path, "_tmp")
        try:
            data._open_all()
        except OSError:
            data.close()
            raise
        return data

    def _open_all(self) -> None:
        self.root = self._keep(os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self.tmp = self._keep(os.open(self.tmp_path, _DIRECTORY))
        self._drafts = self._keep(os.open(DRAFTS, _DIRECTORY, dir_fd=self.root))
        self.places = Places(self.root, self._drafts)

    def identity(self) -> bytes:
        """What no other directory has, as long as this machine runs: the same for all who mean this one."""
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            boot = file.read(80).strip()
        status = os.fstat(self.root)
        return b"%b %d %d" % (boot, status.st_dev, status.st_ino)

    def is_ours(self) -> bool:
        """Whether it belongs to this user, and has the format of this version."""
        if os.fstat(self.root).st_uid != os.geteuid():
            return False
        try:
            with open(os.path.join(self.path, "_format"), encoding="utf-8", errors="replace") as file:
                return file.read(80) == FORMAT
        except OSError:
            return False

    def _keep(self, fd: int) -> int:
        self._descriptors.append(fd)
        return fd

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._keep(self._open("_lock")), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfError(f"the data directory {self.path} is in use by another server") from None

    def _open(self, name: str) -> int:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=self.root)

    def close(self) -> None:
        """Unlock and close the directory."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _check_format(self) -> None:
        path = os.path.join(self.path, "_format")
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = file.read(80)
        except FileNotFoundError:
            found = ""
        if not found:  # a new directory, or one whose first start was cut off
            with open(path, "w", encoding="utf-8") as file:
                file.write(FORMAT)
            return
        if found != FORMAT:
            raise ConfError(f"the data directory {self.path} has the format {found.strip()!r}, need {FORMAT.strip()!r}")

    def claim(self, place: str) -> None:
        """Say which server of how many the keys here belong to, as ``index/count``. Raises ConfError if it was another.

        With a conf of another length, or another line of it, keys would not be found where they are looked for.
        """
        path = os.path.join(self.path, "_place")
        with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
            found = file.read(80).strip()
            empty = all(name.startswith("_") for name in os.listdir(self.root))
            if found and found != place and not empty:
                raise ConfError(
                    f"the data directory {self.path} holds the keys of server {found} of a ring, the conf makes this "
                    f"server {place}: put the conf back as it was, or use another directory"
                )
        with open(path, "w", encoding="utf-8") as file:
            file.write(place + "\n")

    def _check_file_system(self) -> None:
        """Try each thing the store is built on, so that an unfit file system is refused before it holds a key."""
        step = "unnamed files (O_TMPFILE)"
        try:
            fd = os.open(self.path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                step = "extended attributes (user.*)"
                os.setxattr(fd, _PROBE, b"1")
                os.removexattr(fd, _PROBE)
                step = "linking an unnamed file through /proc/self/fd"
                os.link(f"/proc/self/fd/{fd}", "probe", src_dir_fd=fd, dst_dir_fd=self.tmp)
                step = "exchanging two names (RENAME_EXCHANGE)"
                os.mkdir("probe-2", dir_fd=self.tmp)
                exchange(self.tmp, "probe", self.tmp, "probe-2")
                os.rmdir("probe", dir_fd=self.tmp)
                os.unlink("probe-2", dir_fd=self.tmp)
            finally:
                os.close(fd)
        except OSError as error:
            kind = _file_system(self.path)
            raise ConfError(
                f"the file system of {self.path} ({kind}) cannot do what the store needs, {step}: {error.strerror}; "
                "use ext4, xfs, btrfs, or tmpfs on Linux 6.6 or later"
            ) from None

    def _sweep(self) -> None:
        """Remove what a server that was killed left behind: its commands, then their temp dirs."""
        for _ in range(MAX_SWEEPS):
            if not self._kill_orphans():  # one that was killed may have forked meanwhile
                break
        for directory in (self.tmp_path, os.path.join(self.path, DRAFTS)):
            for name in os.listdir(directory):
                remove_tree(os.path.join(directory, name))

    def _kill_orphans(self) -> int:
        marker, killed = f"{JOB_VARIABLE}={self.path}".encode(), 0
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            with suppress(OSError):
                with open(f"/proc/{name}/environ", "rb") as file:
                    orphan = marker in file.read().split(b"\0")
                if orphan:
                    os.kill(int(name), signal.SIGKILL)
                    killed += 1
        return killed

    @contextmanager
    def removals(self, alone: bool) -> Iterator[None]:
        """Hold the lock that keeps deletes (shared) and make-way (alone) apart, across processes."""
        fd = self._open("_removals")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def scratch(self) -> Iterator[Scratch]:
        """A directory for one command after the other; removed in the end with all that is in it."""
        with disk_errors():
            path = tempfile.mkdtemp(dir=self.tmp_path, prefix="job-")
        try:
            yield Scratch(path)
        finally:
            remove_tree(path)


class Scratch:
    """The temporary directory ``path``, emptied and used again.

    Making and removing one for each command takes as long on ext4 as starting bash, and all commands wait for each
    other meanwhile, at the directory that theirs lie in.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def clear(self, keep: Sequence[str] = ()) -> None:
        """Make it as good as new, whatever a command did to it, but for the files (or what they lie in) to ``keep``."""
        kept = {path[len(self.path) + 1 :].partition("/")[0] for path in keep}
        try:
            mode = os.lstat(self.path).st_mode
            if not stat.S_ISDIR(mode):
                os.unlink(self.path)
                os.mkdir(self.path, 0o700)
            elif stat.S_IMODE(mode) != 0o700:
                os.chmod(self.path, 0o700)
            for name in os.listdir(self.path):
                if name in kept:
                    continue
                path = f"{self.path}/{name}"
                try:
                    os.unlink(path)  # nearly always a file
                except OSError:
                    remove_tree(path)
        except FileNotFoundError:
            os.makedirs(self.path, 0o700, exist_ok=True)


def remove_tree(path: str) -> None:
    """Remove a file or a directory with all that is in it, also what its owner made unwritable.

    What cannot be removed (a mount point, say) stays until the next sweep.
    """
    if os.path.islink(path) or not os.path.isdir(path):
        with suppress(OSError):
            os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except (OSError, RecursionError):  # something is unwritable, or nested too deeply for Python
        open_all = ["find", path, "-type", "d", "-exec", "chmod", "u+rwx", "{}", ";"]  # no files: they may be keys too
        for command in (open_all, ["rm", "-rf", "--", path]):
            subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


def _file_system(path: str) -> str:
    """The type of the file system that holds ``path``, from /proc/self/mounts."""
    best, kind = "", "unknown"
    with suppress(OSError), open("/proc/self/mounts", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, mount, found, *_ = line.split(" ")
            inside = path == mount or path.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best):
                best, kind = mount, found
    return kind
