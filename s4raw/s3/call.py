"""One S3 request as its operation sees it, and the answer that an operation gives.

An operation is a function ``op(call: Call) -> Answer``; it raises S3Error or S4Error. It writes nothing to the
connection: the application does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from s4raw.keys import Key
from s4raw.objects.base import Attributes, Backend, Reading
from s4raw.s3.checksums import DEFAULT
from s4raw.s3.errors import S3Error
from s4raw.s3.payload import Payload, read_small

if TYPE_CHECKING:
    from s4raw.queue.queue import Queue
    from s4raw.s3.credentials import Credentials
    from s4raw.s3.http import HttpConnection, Request
    from s4raw.s3.sigv4 import Identity

_NONE = Attributes()
MAX_BODY = 4 << 20  # bytes of an XML body: 10,000 parts with their checksums, or 1,000 keys of 1 KiB, escaped


class Answer(NamedTuple):
    """What an operation answers.

    With ``reading`` its bytes are the body; it is closed afterwards. ``length`` is the Content-Length of an answer to
    HEAD, which has no body. The lists are never changed.
    """

    status: int = 200
    headers: list[tuple[str, str]] = []  # noqa: RUF012 (of a tuple)
    body: bytes = b""
    reading: Reading | None = None
    length: int | None = None


class Settings(NamedTuple):
    """What is the same for all requests.

    ``owner`` is the id and name of whom everything belongs to. Requests for ``BUCKET.domain`` name their bucket there.
    ``anonymous`` requests may do everything. ``max_object_size`` is in bytes, of one PutObject; ``scheme`` is that of
    URLs in answers. A request that came via ``name`` has gone round, and is refused. ``queue`` is the write queue, if
    there is one. Of the objects that one request deletes ``deletes_at_once`` go side by side, where each may take as
    long as a remote does.
    """

    credentials: Credentials
    region: str = "us-east-1"
    owner: str = "s4raw"
    domain: str = ""
    anonymous: bool = False
    max_object_size: int = 5 << 30
    scheme: str = "http"
    name: str = ""
    queue: Queue | None = None
    deletes_at_once: int = 1


class Call:
    """A request on its way through an operation.

    ``key`` has the bucket and the object's name, percent-decoded, either of which may be empty; ``params`` is the
    decoded query; ``identity`` says who signed, None where nobody did.
    """

    __slots__ = ("_connection", "_payload", "backend", "identity", "key", "params", "request", "settings")

    def __init__(
        self,
        request: Request,
        connection: HttpConnection,
        backend: Backend,
        key: Key,
        params: Mapping[str, str],
        identity: Identity | None,
        settings: Settings,
    ) -> None:
        self.request = request
        self._connection = connection
        self._payload: Payload | None = None
        self.backend = backend
        self.key = key
        self.params = params
        self.identity = identity
        self.settings = settings

    @property
    def owner(self) -> str:
        """The id and the display name of whom everything here belongs to."""
        return self.settings.owner

    @property
    def region(self) -> str:
        """The region that this server says it is in."""
        return self.settings.region

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers, names in lower case."""
        return self.request.headers

    def url(self, name: str, safe: str = "/") -> str:
        """Where an object of the bucket is, as the client said it: by the Host header, and the bucket in it or not."""
        host, bucket = self.headers.get("host", ""), self.key.bucket
        within = self.settings.domain and host.lower().partition(":")[0] == f"{bucket}.{self.settings.domain}".lower()
        path = quote(name, safe=safe)
        return (
            f"{self.settings.scheme}://{host}/{path}" if within else f"{self.settings.scheme}://{host}/{bucket}/{path}"
        )

    def source(self, attributes: Attributes = _NONE, *, algorithm: str = DEFAULT) -> Payload:
        """The request's body as a source for the backend, which seals it with these attributes.

        ``algorithm`` is that of the checksum if the request names none. It is closed with the request at the latest.
        """
        request = self.request
        self._payload = payload = Payload(
            self._connection.pieces(),
            request.headers,
            request.length,
            self.identity,
            attributes,
            chunked=request.chunked,
            algorithm=algorithm,
        )
        return payload

    def pieces(self) -> Iterator[memoryview]:
        """The body as it was sent, without the transfer coding: for forms, which verify it on their own."""
        return self._connection.pieces()

    def close(self) -> None:
        """End what reads the body."""
        if self._payload is not None:
            self._payload.close()

    def read_body(self, limit: int = MAX_BODY) -> bytes:
        """A small body, whole, verified like an object's. Raises MaxMessageLengthExceeded above ``limit`` bytes."""
        if self.request.length is None and not self.request.chunked:
            return b""
        try:
            return read_small(self.source(), limit)
        except ValueError:
            raise S3Error("MaxMessageLengthExceeded") from None


Operation = Callable[[Call], Answer]
