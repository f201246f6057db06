"""Requests to a remote S3 from any thread: signed, over warm connections, and made again where that can help.

It knows requests and answers; what they mean for objects is the business of its neighbours and of ``objects.remote``.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import NamedTuple, Protocol, TypeVar

from s4raw import via
from s4raw.errors import Cancelled, ConnectionLost, Refused, S4Error
from s4raw.keys import Key
from s4raw.remote import refusals
from s4raw.remote.credentials import Account
from s4raw.remote.pool import Lease, Pool
from s4raw.remote.proxies import proxy_of
from s4raw.s3 import signing, xml
from s4raw.s3.client import MAX_BODY, MAX_ERROR, head_of, path_of, shown
from s4raw.s3.connection import Answer, Connection
from s4raw.s3.errors import S3Error
from s4raw.s3.outgoing import Pieces, Place, Proxy, size_of

FIRST_WAIT, LONGEST_WAIT = 0.05, 20.0  # seconds: the bounds of the first and of any later pause between attempts
MAX_CORRECTIONS = 2  # of a request: where its bucket is, or what the time is there
SKEW_SECONDS = 60  # between clocks, which no server minds: S3 refuses from 15 minutes on
SIGNED_ANYWAY = 4096  # bytes: not worth leaving unsigned
_NUMBER = re.compile("[0-9]{1,6}").fullmatch
_REGION = re.compile("[a-z0-9-]{1,40}").fullmatch
_EXPECTED = re.compile("expecting '([a-z0-9-]{1,40})'").search  # the region, in S3's words
_REGIONAL = re.compile(r"(.*s3[.-])([a-z0-9-]+)(\.amazonaws\.com(?:\.cn)?)").fullmatch


class Sendable(Pieces, Protocol):
    """A body that is made while it is sent."""

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent from its start (again)."""

    @property
    def paced(self) -> bool:
        """Whether somebody else sets the pace at which it is made."""

    def sha256(self) -> str:
        """Its SHA-256 in hex, empty if that is not known before it is sent."""


Body = bytes | memoryview | Sendable
T = TypeVar("T")
_NOTHING = xml.Node("")


@dataclass
class Manner:
    """How to make requests. Times are in seconds; ``attempts`` are those of one request.

    Of at most ``connections`` at once ``keep`` are kept warm. ``signed_payload`` None signs the SHA-256 of a body where
    no TLS protects it. ``via`` is who passes requests on, if that is to be told (RFC 9110, 7.6.3).
    """

    connections: int = 25
    keep: int = 25
    connect_seconds: float = 5.0
    read_seconds: float = 60.0
    attempts: int = 5
    authorities: str | None = None
    virtual: bool = False
    signed_payload: bool | None = None
    via: str = ""


class Reply(NamedTuple):
    """An answer that was read whole."""

    status: int
    headers: dict[str, str]
    content: bytes
    node: xml.Node


class _Request(NamedTuple):
    method: str
    key: Key
    query: str
    headers: Mapping[str, str]
    body: Body

    @property
    def repeatable(self) -> bool:
        return isinstance(self.body, bytes | memoryview) or self.body.repeatable

    @property
    def paced(self) -> bool:
        return not isinstance(self.body, bytes | memoryview) and self.body.paced


class _Course:
    """How a request goes: what the last answer told, and whether an attempt may have been done unseen.

    ``now`` is the time that it was signed for, in seconds since 1970.
    """

    def __init__(self) -> None:
        self.told: Mapping[str, str] = {}
        self.doubtful = False
        self.now = 0.0


class Doubt(Exception):
    """A request was refused, but an attempt before may have been the one that was done."""

    def __init__(self, error: S4Error) -> None:
        super().__init__(str(error))
        self.error = error


class Remote:
    """A remote S3. Not closed, it keeps connections; to close it twice is fine."""

    def __init__(self, account: Account, manner: Manner) -> None:
        """Raises ConfError, UsageError."""
        self._account = account
        self._manner = manner
        self._place = Place.of(account.endpoint)
        proxy_of(self._place)  # one that cannot be used is told of now
        self._context = None
        if self._place.secure:
            from s4raw.s3.tls import client_context

            self._context = client_context(manner.authorities)
        signed = manner.signed_payload
        self._signs = not self._place.secure if signed is None else signed
        self._pools: dict[str, Pool] = {}  # by host
        self._regions: dict[str, str] = {}  # by bucket, where it is not the account's
        self._ahead = 0.0  # seconds by which the server's clock is
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return self._place.url

    @property
    def region(self) -> str:
        """The region that requests are signed for, unless their bucket turns out to be elsewhere."""
        return self._account.region

    def warm(self, count: int | None = None) -> None:
        """Open those connections that are kept warm (or ``count``), if all buckets share them. Raises Unreachable."""
        if not self._manner.virtual:
            self._pool(self._place).warm(self._manner.keep if count is None else count)

    def close(self, cut_off: bool = False) -> None:
        """Close all connections, if they are to be ``cut_off`` also those in use, and wake up who waits."""
        self._closed.set()
        with self._lock:
            pools = [*self._pools.values()]
        for pool in pools:
            pool.close(cut_off)

    def call(
        self,
        method: str,
        key: Key,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        *,
        root: str = "",
        doubts: bool = False,
    ) -> Reply:
        """Make a request, again where that can help, and read its answer: as XML with a ``root``.

        Header names are in lower case, values are Latin-1. Raises what ``refusals`` has, Unreachable, ConnectionLost,
        PeerTimeout, ProtocolError, UsageError, ConfError, what the body raises; and with ``doubts`` Doubt.
        """

        def finish(answer: Answer, lease: Lease) -> Reply:
            content = answer.read(MAX_BODY)
            lease.give_back(answer.ended)
            if answer.status >= 300:
                raise refusals.of(answer, content)
            return Reply(answer.status, answer.headers, content, _node(answer, content, root))

        return self._persist(_Request(method, key, query, headers or {}, body), finish, doubts)

    def open(self, key: Key, query: str, headers: Mapping[str, str]) -> tuple[Answer, Lease]:
        """A GET whose answer the caller reads, who then gives the connection back. Raises what ``call`` does."""

        def finish(answer: Answer, lease: Lease) -> tuple[Answer, Lease]:
            if answer.status >= 300:
                content = answer.read(MAX_ERROR)
                lease.give_back(answer.ended)
                raise refusals.of(answer, content)
            lease.release()
            return answer, lease

        return self._persist(_Request("GET", key, query, headers, b""), finish, False)

    def _persist(self, request: _Request, finish: Callable[[Answer, Lease], T], doubts: bool) -> T:
        """Make a request until it succeeds, cannot, or has been made often enough."""
        attempt, corrections, course = 0, 0, _Course()
        while True:
            try:
                return self._attempt(request, finish, course)
            except S4Error as error:
                if self._moved(request.key.bucket, error, course.told) or self._late(error, course):
                    corrections += 1
                    if corrections <= MAX_CORRECTIONS and request.repeatable:
                        continue
                attempt += 1
                again = refusals.passes(error) and request.repeatable and attempt < self._manner.attempts
                if not again or self._closed.wait(_pause(attempt, course.told.get("retry-after", ""))):
                    if course.doubtful and doubts:
                        raise Doubt(error) from None
                    raise
                course.doubtful = course.doubtful or refusals.doubtful(error)

    def _attempt(self, request: _Request, finish: Callable[[Answer, Lease], T], course: _Course) -> T:
        """Make a request once. That a kept connection was closed meanwhile is found out for free."""
        course.told = {}
        place, path = self._route(request.key)
        where = {"server": place.url, "key": shown(request.key)}
        target = f"{path}?{request.query}" if request.query else path
        payload = self._payload(request.body)
        pool = self._pool(place)
        lease = pool.take()  # which may take a while: signatures grow old
        try:
            course.now = time.time() + self._ahead
            headers = self._sign(request, place, path, payload, course.now)
            if (proxy := lease.connection.proxy) and not place.secure:
                target, headers = f"{place.url}{target}", {**headers, **proxy.headers}
            head = head_of(request.method, target, headers, where)
            if request.paced:
                lease.release()
            kept = lease.connection.is_open()
            try:
                answer = lease.connection.exchange(request.method, head, request.body, where)
            except ConnectionLost:
                if not kept or lease.connection.answered or not request.repeatable:
                    raise
                course.doubtful = True
                lease.give_back(False)
                lease = pool.take(fresh=True)
                if request.paced:
                    lease.release()
                answer = lease.connection.exchange(request.method, head, request.body, where)
            course.told = answer.headers
            return finish(answer, lease)
        except BaseException:
            lease.give_back(False)
            raise

    def _sign(self, request: _Request, place: Place, path: str, payload: str, now: float) -> dict[str, str]:
        method, size = request.method, size_of(request.body)
        sent = {"host": place.host, **request.headers}
        if size or method in ("PUT", "POST"):
            sent["content-length"] = str(size)
        access, secret, token = self._account.keys()
        if token:
            sent["x-amz-security-token"] = token
        region = self._regions.get(request.key.bucket, self._account.region)
        signed = signing.sign_headers(
            method, path, request.query, sent, access, secret, now=now, region=region, payload=payload
        )
        if self._manner.via:  # not signed: who passes the request on adds to it
            signed["via"] = via.extended(self._manner.via)
        return signed

    def _payload(self, body: Body) -> str:
        """What is signed of a body."""
        size = size_of(body)
        if not size:
            return signing.EMPTY_SHA256
        if not self._signs and size > SIGNED_ANYWAY:
            return signing.UNSIGNED
        found = sha256(body).hexdigest() if isinstance(body, bytes | memoryview) else body.sha256()
        return found or signing.UNSIGNED

    def _route(self, key: Key) -> tuple[Place, str]:
        """Where a request for a key goes, and its path there."""
        place, bucket = self._place, key.bucket
        region = self._regions.get(bucket) if self._account.amazon else None
        if region and (found := _REGIONAL(place.host)):
            host = f"{found[1]}{region}{found[3]}"
            place = place._replace(host=host, name=host)
        if not (self._manner.virtual and bucket):
            return place, path_of(key)
        place = place._replace(host=f"{bucket}.{place.host}", name=f"{bucket}.{place.name}")
        return place, path_of(key).removeprefix(f"/{bucket}") or "/"

    def _pool(self, place: Place) -> Pool:
        pool = self._pools.get(place.host)
        if pool is None:
            with self._lock:
                if self._closed.is_set():
                    raise Cancelled("the remote was closed")
                connect, manner = partial(self._connect, place, proxy_of(place)), self._manner
                pool = self._pools.setdefault(place.host, Pool(connect, manner.connections, manner.keep))
        return pool

    def _connect(self, place: Place, proxy: Proxy | None) -> Connection:
        seconds = {"connect_seconds": self._manner.connect_seconds, "read_seconds": self._manner.read_seconds}
        return Connection(place, self._context, proxy=proxy, **seconds)

    def _moved(self, bucket: str, error: S4Error, told: Mapping[str, str]) -> bool:
        """Whether the bucket turns out to be in another region than thought, where to ask again."""
        if not isinstance(error, Refused) or error.http not in (301, 307, 400):
            return False
        expected = _EXPECTED(error.message) if error.s3_code == "AuthorizationHeaderMalformed" else None
        region = told.get("x-amz-bucket-region", expected[1] if expected else "")
        if not _REGION(region) or region == self._regions.get(bucket, self._account.region):
            return False
        self._regions[bucket] = region
        return True

    def _late(self, error: S4Error, course: _Course) -> bool:
        """Whether the server refuses a request for its time, by a clock that it is signed by from now on.

        To HEAD it gives no reasons: then the difference is one.
        """
        if not isinstance(error, Refused) or error.http != 403 or error.s3_code not in ("", "RequestTimeTooSkewed"):
            return False
        there = signing.seconds_of(course.told.get("date", ""))
        if there is None or abs(there - course.now) < SKEW_SECONDS:
            return False
        self._ahead = there - time.time()
        return True


def _node(answer: Answer, content: bytes, root: str) -> xml.Node:
    """The answer as XML. An error may come with a 200, once the server has begun to answer."""
    if not root:
        return _NOTHING
    content = content.lstrip()  # what keeps a connection open while an upload is completed
    try:
        node = xml.read(content, "")
    except (S3Error, IndexError):
        node = _NOTHING
    if _stem(node.name) != _stem(root):
        raise refusals.of(answer, content)
    return node


def _stem(root: str) -> str:
    """What an answer is called in all dialects: servers end its name in different words."""
    return root.removesuffix("Result").removesuffix("Response").removesuffix("Output")


def _pause(attempt: int, after: str) -> float:
    """Seconds until the next attempt: at random below a bound that doubles; longer if the server says so."""
    pause = random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2**attempt))
    return max(pause, min(float(after), LONGEST_WAIT)) if _NUMBER(after) else pause
