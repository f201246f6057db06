"""What a client sends, and where to: values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from s4raw.errors import UsageError


class Place(NamedTuple):
    """Where a server is: its URL's scheme, what the Host header says, and where to connect to."""

    scheme: str
    host: str
    name: str
    port: int | None

    @property
    def url(self) -> str:
        """The URL without a path."""
        return f"{self.scheme}://{self.host}"

    @property
    def secure(self) -> bool:
        """Whether TLS protects what is sent there."""
        return self.scheme == "https"

    @classmethod
    def of(cls, endpoint: str) -> Place:
        """That of a URL, or of HOST:PORT. Raises UsageError."""
        try:
            url = urlsplit(endpoint if "//" in endpoint else f"http://{endpoint}")
            name, port = url.hostname, url.port
        except ValueError:
            name, port, url = None, None, urlsplit("")
        if url.scheme not in ("http", "https") or not name or url.path not in ("", "/") or url.query or url.username:
            raise UsageError(f"need an endpoint as http://HOST:PORT or https://HOST:PORT, got {endpoint!r}")
        return cls(url.scheme, url.netloc, name, port)


class Proxy(NamedTuple):
    """Whom to ask in place of a server: its address, and the headers by which it knows who asks."""

    name: str
    port: int
    headers: Mapping[str, str] = {}


class FileBody(NamedTuple):
    """A body that lies in a regular file, from ``offset`` on; ``size`` is in bytes."""

    fd: int
    offset: int
    size: int


class Pieces(Protocol):
    """A body that is made while it is sent: ``size`` bytes in all, in memory or in files. What it raises ends it."""

    @property
    def size(self) -> int: ...

    def __iter__(self) -> Iterator[bytes | memoryview | FileBody]: ...


Body = bytes | memoryview | FileBody | Pieces


def size_of(body: Body) -> int:
    """The length of a body in bytes."""
    return len(body) if isinstance(body, bytes | memoryview) else body.size
