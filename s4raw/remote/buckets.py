"""Buckets of a remote, tags of buckets and objects, and what was seen a moment ago and is believed still."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from s4raw.errors import NoSuchBucket, Refused
from s4raw.keys import Key
from s4raw.objects.base import Bucket
from s4raw.remote import listing, values
from s4raw.remote.service import Remote
from s4raw.s3 import xml
from s4raw.s3.client import md5_header

REMEMBERED_SECONDS = 60.0
MOST_REMEMBERED = 10_000
US_EAST_1 = "us-east-1"
V = TypeVar("V")


class Remembered(Generic[V]):
    """What was seen less than a minute ago, by name."""

    def __init__(self) -> None:
        self._seen: dict[object, tuple[float, V]] = {}
        self._lock = threading.Lock()

    def get(self, name: object) -> V | None:
        """What was seen of it; None: nothing, or too long ago."""
        found = self._seen.get(name)
        return found[1] if found and time.monotonic() - found[0] < REMEMBERED_SECONDS else None

    def add(self, name: object, value: V) -> None:
        """It was seen now."""
        with self._lock:
            if len(self._seen) >= MOST_REMEMBERED:
                self._seen.clear()
            self._seen[name] = time.monotonic(), value

    def forget(self, name: object) -> None:
        """It is gone."""
        with self._lock:
            self._seen.pop(name, None)


class Buckets:
    """The buckets of a remote."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._seen: Remembered[bool] = Remembered()

    def seen(self, name: str) -> None:
        """A bucket is there: a request for something in it was answered so."""
        self._seen.add(name, True)

    def gone(self, name: str) -> None:
        """A bucket is not there: a request was answered so."""
        self._seen.forget(name)

    def check(self, name: str) -> None:
        """Raises NoSuchBucket unless the bucket is there, or was a moment ago."""
        if self._seen.get(name):
            return
        try:
            self._look(name)
        except Refused as error:
            if error.http != 403:  # whoever may not list a bucket may still use it
                raise
        self.seen(name)

    def _look(self, name: str) -> None:
        """Raises NoSuchBucket, and Refused as the remote does."""
        self._seen.forget(name)
        try:
            self._remote.call("HEAD", Key(name, ""))
        except Refused as error:
            if error.http == 404:
                raise NoSuchBucket(f"there is no bucket {name!r}", server=error.server) from None
            raise
        self.seen(name)

    def all(self) -> Sequence[Bucket]:
        """All buckets, by name."""
        return sorted(listing.buckets(self._remote, self._lazy), key=lambda bucket: bucket.name)

    def one(self, name: str) -> Bucket:
        """A bucket. Its time is 0 where the remote does not let its buckets be listed. Raises NoSuchBucket, Refused."""
        self._look(name)
        try:
            for found in listing.buckets(self._remote, self._lazy, name):
                if found.name == name:
                    return found
        except Refused:
            pass
        return Bucket(name, 0, self._lazy(name))

    def create(self, name: str) -> bool:
        """Make a bucket; False when it was there already, and is one's own as far as the remote tells."""
        try:
            self._remote.call("HEAD", Key(name, ""))
            return False
        except Refused as error:
            if error.http not in (403, 404):  # what is forbidden may be somebody else's: the remote says so
                raise
        region, body = self._remote.region, b""
        if region != US_EAST_1:
            body = xml.document("CreateBucketConfiguration", xml.element("LocationConstraint", region))
        try:
            self._remote.call("PUT", Key(name, ""), "", {}, body)
        except Refused as error:
            if error.s3_code == "BucketAlreadyOwnedByYou":
                return False
            raise
        self.seen(name)
        return True

    def delete(self, name: str) -> None:
        """Delete an empty bucket, and the uploads under way in it. Raises NoSuchBucket, BucketNotEmpty."""
        self._seen.forget(name)
        self._remote.call("DELETE", Key(name, ""))
        self._seen.forget(name)

    def _lazy(self, name: str) -> Mapping[str, str]:
        return values.LazyTags(None, lambda: tags(self._remote, Key(name, "")))


def tags(remote: Remote, key: Key) -> dict[str, str]:
    """The tags of an object, or of a bucket."""
    try:
        found = remote.call("GET", key, "tagging=", root="Tagging").node.find("TagSet")
    except Refused as error:
        if error.s3_code in ("NoSuchTagSet", "NoSuchTagSetError"):
            return {}
        raise
    return {node.need("Key"): node.need("Value") for node in (found.all("Tag") if found else ())}


def tag(remote: Remote, key: Key, wanted: Mapping[str, str]) -> None:
    """Replace the tags of an object, or of a bucket."""
    if not wanted:
        remote.call("DELETE", key, "tagging=")
        return
    inner = [f"<Tag>{xml.element('Key', name)}{xml.element('Value', value)}</Tag>" for name, value in wanted.items()]
    body = xml.document("Tagging", f"<TagSet>{''.join(inner)}</TagSet>")
    remote.call("PUT", key, "tagging=", md5_header(body), body)
