"""The names of buckets that are known to be at a remote store, kept in a file: writes need not ask for them."""

from __future__ import annotations

import json
import os
import threading

from s4raw.disk import disk_errors
from s4raw.errors import ConfError


class KnownBuckets:
    """Names of buckets, in memory and in a file that is replaced as a whole. Any thread may use it."""

    def __init__(self, path: str) -> None:
        """Raises ConfError when the file cannot be read, or holds something else."""
        self._path = path
        self._lock = threading.Lock()
        self._forgotten = 0
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        except FileNotFoundError:
            found = []
        except (OSError, ValueError) as error:
            raise ConfError(f"cannot read the names of known buckets in {path}: {error}") from None
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise ConfError(f"{path} does not hold the names of known buckets; remove it, and they are asked for again")
        self._names = set(found)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    @property
    def moment(self) -> int:
        """What ``add`` is to be given by who asks for a bucket from now on."""
        return self._forgotten

    def add(self, name: str, asked_at: int) -> None:
        """A bucket is there, said who asked after ``moment`` was ``asked_at``; it counts if none was forgotten since.

        Raises DiskFull, StoreError.
        """
        with self._lock:
            if name not in self._names and asked_at == self._forgotten:
                self._keep(self._names | {name})

    def forget(self, name: str) -> None:
        """A bucket is not there, or will not be any more. Raises DiskFull, StoreError."""
        with self._lock:
            self._forgotten += 1
            if name in self._names:
                self._keep(self._names - {name})

    def _keep(self, names: set[str]) -> None:
        new = f"{self._path}.new"
        with disk_errors():
            with open(new, "w", encoding="utf-8") as file:
                json.dump(sorted(names), file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(new, self._path)
        self._names = names
