"""The buckets of a remote store as they were last seen, kept in a file: writes need not ask for them."""

from __future__ import annotations

import json
import os
import threading

from s4raw.disk import disk_errors
from s4raw.errors import ConfError, ConnectionLost, PeerTimeout, Refused, S4Error, Unreachable
from s4raw.objects.base import Bucket


def is_away(error: S4Error) -> bool:
    """Whether an error says nothing but that the remote cannot be asked now."""
    if isinstance(error, Refused):
        return error.http >= 500 and error.http != 508  # it leads back to who asks: it never was there
    return isinstance(error, Unreachable | ConnectionLost | PeerTimeout)


class KnownBuckets:
    """Buckets by name, in memory and in a file that is replaced as a whole. Any thread may use it."""

    def __init__(self, path: str) -> None:
        """Raises ConfError when the file cannot be read, or holds something else."""
        self._path = path
        self._lock = threading.Lock()
        self._forgotten = 0
        try:
            with open(path, encoding="utf-8") as file:
                self._buckets = {name: Bucket(name, int(at), dict(tags)) for name, at, tags in json.load(file)}
        except FileNotFoundError:
            self._buckets = {}
        except (OSError, ValueError, TypeError) as error:
            raise ConfError(
                f"cannot read the known buckets in {path}: {error}; without the file they are asked for again"
            ) from None

    def get(self, name: str) -> Bucket | None:
        """A bucket as it was last seen, if it is known."""
        return self._buckets.get(name)

    @property
    def moment(self) -> int:
        """What ``add`` is to be given by who asks for a bucket from now on."""
        return self._forgotten

    def add(self, bucket: Bucket, asked_at: int) -> None:
        """A bucket is so, said who asked after ``moment`` was ``asked_at``; it counts if none was forgotten since.

        It has no tags where the remote does not tell them: whoever may write may not always see all. Raises DiskFull,
        StoreError, and what asking for tags does.
        """
        try:
            tags = dict(bucket.tags)
        except Refused as error:
            if is_away(error):
                raise
            tags = {}
        bucket = bucket._replace(tags=tags)
        with self._lock:
            if self._buckets.get(bucket.name) != bucket and asked_at == self._forgotten:
                self._keep({**self._buckets, bucket.name: bucket})

    def forget(self, name: str) -> None:
        """A bucket is not there, or will not be any more. Raises DiskFull, StoreError."""
        with self._lock:
            self._forgotten += 1
            if name in self._buckets:
                self._keep({other: bucket for other, bucket in self._buckets.items() if other != name})

    def _keep(self, buckets: dict[str, Bucket]) -> None:
        new = f"{self._path}.new"
        with disk_errors():
            with open(new, "w", encoding="utf-8") as file:
                json.dump([(bucket.name, bucket.created_ns, dict(bucket.tags)) for bucket in buckets.values()], file)
                file.flush()
                os.fsync(file.fileno())
            os.rename(new, self._path)
        self._buckets = buckets
