"""A small S3 client for the command line: signed requests over one kept connection, and errors that say where.

It knows requests and answers; ``transfer`` knows how content gets there and back whole. Any S3 that is addressed by
path will do, not only our own daemon.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit

from s4raw.errors import (
    ConnectionLost,
    LocalFileError,
    PeerTimeout,
    ProtocolError,
    Refused,
    S4Error,
    Unreachable,
    UsageError,
)
from s4raw.keys import Key
from s4raw.s3 import signing, xml
from s4raw.s3.errors import S3Error

TIMEOUT_SECONDS = 300.0  # that a server may be silent: completing a large upload takes some
PIECE = 1 << 20  # bytes received at once
MAX_ERROR = 1 << 20  # bytes of an error's text
MAX_BODY = 64 << 20  # bytes of an answer that is read as a whole
SERVICE = Key("", "")


class FileBody(NamedTuple):
    """A body that lies in a regular file, from ``offset`` on; ``size`` is in bytes."""

    fd: int
    offset: int
    size: int


Body = bytes | memoryview | FileBody


class Answer(NamedTuple):
    """An answer that is no error. Header names are in lower case, values decoded as Latin-1."""

    status: int
    headers: dict[str, str]
    response: http.client.HTTPResponse
    where: Mapping[str, str]  # the server and the key, for errors

    @property
    def size(self) -> int:
        """The length of the body in bytes, as the head says. Raises ProtocolError if it does not."""
        text = self.headers.get("content-length", "")
        if not (text.isascii() and text.isdigit()):
            raise ProtocolError("the answer does not say how long it is").at(**self.where)
        return int(text)


class Entry(NamedTuple):
    """A bucket, an object, or a common prefix of a listing; ``time`` is as S3 writes it, empty for a prefix."""

    name: str
    size: int = 0
    time: str = ""
    is_prefix: bool = False


class Client:
    """A client of one S3 server. Not for several threads at once; to close it twice is fine."""

    def __init__(
        self, endpoint: str, pair: tuple[str, str] | None, *, region: str = "us-east-1", authorities: str | None = None
    ) -> None:
        """``endpoint`` is a URL; ``pair`` an access key with its secret, None to sign nothing.

        ``authorities`` is a file of certificates (PEM) to trust instead of the system's. Raises UsageError, ConfError.
        """
        scheme, self._host, name, port = _parts(endpoint)
        self.endpoint = f"{scheme}://{self._host}"
        self._pair = pair
        self._region = region
        if scheme == "https":
            from s4raw.s3.tls import client_context

            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                name, port, timeout=TIMEOUT_SECONDS, context=client_context(authorities)
            )
        else:
            self._connection = http.client.HTTPConnection(name, port, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def healthy(self) -> bool:
        """Whether /healthz says so; it needs no keys. Raises Unreachable, ConnectionLost, PeerTimeout."""
        where = {"server": self.endpoint, "key": ""}
        answer = self._attempts("GET", "/healthz", {"host": self._host}, b"", where)
        body_of(answer, MAX_ERROR)
        return answer.status == 200

    def request(
        self, method: str, key: Key, query: str = "", headers: Mapping[str, str] | None = None, body: Body = b""
    ) -> Answer:
        """Send a request; the answer's body is still to be read. ``headers`` have lower-case names.

        Raises Refused, Unreachable, ConnectionLost, PeerTimeout, ProtocolError, UsageError, LocalFileError.
        """
        where = {"server": self.endpoint, "key": shown(key)}
        path, size = path_of(key), body.size if isinstance(body, FileBody) else len(body)
        sent = {**(headers or {}), "host": self._host}
        if size or method in ("PUT", "POST"):
            sent["content-length"] = str(size)
        if self._pair:
            payload = signing.UNSIGNED if size > MAX_ERROR or isinstance(body, FileBody) else sha256(body).hexdigest()
            now = time.time()
            sent = signing.sign_headers(
                method, path, query, sent, *self._pair, now=now, region=self._region, payload=payload
            )
        answer = self._attempts(method, f"{path}?{query}" if query else path, sent, body, where)
        if answer.status >= 300:
            raise _refusal(answer)
        return answer

    def read(
        self,
        method: str,
        key: Key,
        query: str = "",
        body: bytes = b"",
        *,
        root: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> xml.Node:
        """Send a request, and read the answer as XML; without a root it need not be any.

        Raises what ``request`` does.
        """
        answer = self.request(method, key, query, headers, body)
        content = body_of(answer)
        if not root:
            return xml.Node("")
        try:
            return xml.read(content, root)
        except S3Error:
            raise _refusal(answer, content) from None

    def pieces(self, answer: Answer) -> Iterator[memoryview]:
        """The body of an answer, each piece valid until the next. Raises ConnectionLost, PeerTimeout."""
        buffer, left = memoryview(bytearray(min(PIECE, max(1, answer.size)))), answer.size
        while left:
            try:
                count = answer.response.readinto(buffer[: min(left, len(buffer))])
            except (OSError, http.client.HTTPException) as error:
                self.close()
                raise _lost(error, answer.where) from None
            if not count:
                self.close()
                raise ConnectionLost(f"the body ended {left} bytes early").at(**answer.where)
            left -= count
            yield buffer[:count]

    def buckets(self) -> Iterator[Entry]:
        """All buckets, by name."""
        token = ""
        while True:
            found = self.read("GET", SERVICE, query_of({"continuation-token": token}), root="ListAllMyBucketsResult")
            buckets = found.find("Buckets")
            for node in buckets.all("Bucket") if buckets else ():
                yield Entry(node.need("Name"), time=node.get("CreationDate") or "")
            token = found.get("ContinuationToken") or ""
            if not token:
                return

    def objects(self, prefix: Key, recursive: bool) -> Iterator[Entry]:
        """The objects of a bucket whose names begin so, in their order, page by page; directories as one entry each."""
        token = ""
        while True:
            query = {"list-type": "2", "encoding-type": "url", "prefix": prefix.name, "continuation-token": token}
            if not recursive:
                query["delimiter"] = "/"
            found = self.read("GET", Key(prefix.bucket, ""), query_of(query), root="ListBucketResult")
            page = [
                Entry(_decoded(node, "Key"), int(node.need("Size")), node.need("LastModified"))
                for node in found.all("Contents")
            ]
            page += [Entry(_decoded(node, "Prefix"), is_prefix=True) for node in found.all("CommonPrefixes")]
            yield from sorted(page, key=lambda entry: entry.name.encode())
            token = found.get("NextContinuationToken") or ""
            if not token:
                return

    def tags(self, key: Key) -> dict[str, str]:
        """The tags of an object or a bucket, by name."""
        try:
            found = self.read("GET", key, "tagging=", root="Tagging").find("TagSet")
        except Refused as error:
            if error.s3_code == "NoSuchTagSet":
                return {}
            raise
        return {node.need("Key"): node.need("Value") for node in (found.all("Tag") if found else ())}

    def set_tags(self, key: Key, tags: Mapping[str, str]) -> None:
        """Replace the tags of an object or a bucket."""
        if not tags:
            self.read("DELETE", key, "tagging=")
            return
        inner = "".join(
            f"<Tag>{xml.element('Key', name)}{xml.element('Value', value)}</Tag>" for name, value in tags.items()
        )
        body = xml.document("Tagging", f"<TagSet>{inner}</TagSet>")
        self.read("PUT", key, "tagging=", body, headers=md5_header(body))

    def presign(self, method: str, key: Key, expires: int) -> str:
        """A URL that lets its holder do one request for ``expires`` seconds. Raises UsageError."""
        if self._pair is None:
            raise UsageError("a URL is signed with a key: presign does not go with --anonymous")
        path = path_of(key)
        try:
            query = signing.presign(
                method, path, "", self._host, *self._pair, now=time.time(), expires=expires, region=self._region
            )
        except ValueError as error:
            raise UsageError(str(error)) from None
        return f"{self.endpoint}{path}?{query}"

    def _attempts(
        self, method: str, target: str, headers: Mapping[str, str], body: Body, where: dict[str, str]
    ) -> Answer:
        """Exchange a request for an answer; once more if the kept connection was closed meanwhile."""
        for _ in range(2):
            reused = self._connection.sock is not None
            try:
                return self._exchange(method, target, headers, body, where)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if not (reused and isinstance(error, ConnectionError)):
                    raise _lost(error, where) from None
            except ValueError as error:  # a host, a region or the like that no header can hold
                self.close()
                raise UsageError(f"this cannot be sent: {error}").at(**where) from None
            except BaseException:
                self.close()
                raise
        raise ConnectionLost("the connection was closed twice").at(**where)

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: Body, where: dict[str, str]
    ) -> Answer:
        connection = self._connection
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            if isinstance(body, FileBody):
                self._send_file(body, where)
            elif body:
                connection.send(body)
        except ConnectionError:  # a server that refuses a body need not read it
            try:
                return self._answer(where)
            except (OSError, http.client.HTTPException):
                pass
            raise
        return self._answer(where)

    def _send_file(self, body: FileBody, where: dict[str, str]) -> None:
        if not body.size:
            return
        with open(body.fd, "rb", buffering=0, closefd=False) as file:
            sent = self._connection.sock.sendfile(file, body.offset, body.size)
        if sent < body.size:
            raise LocalFileError(f"the file became shorter while it was sent, by {body.size - sent} bytes").at(**where)

    def _answer(self, where: dict[str, str]) -> Answer:
        response = self._connection.getresponse()
        headers: dict[str, str] = {}
        for name, value in response.getheaders():
            headers.setdefault(name.lower(), value)
        return Answer(response.status, headers, response, where)


def path_of(key: Key) -> str:
    """The path of a key in a URL: every byte that is not plain is encoded, slashes and dots stay as they are."""
    if not key.bucket:
        return "/"
    bucket = quote(key.bucket, safe="")
    return f"/{bucket}/{quote(key.name, safe='/')}" if key.name else f"/{bucket}"


def query_of(params: Mapping[str, str]) -> str:
    """A query of those parameters that are not empty."""
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in params.items() if value)


def shown(key: Key) -> str:
    """A key as errors name it."""
    return f"{key.bucket}/{key.name}" if key.name else key.bucket


def md5_header(body: bytes) -> dict[str, str]:
    """The Content-MD5 of a small body, without which some servers take no tags."""
    from base64 import b64encode
    from hashlib import md5

    return {"content-md5": b64encode(md5(body, usedforsecurity=False).digest()).decode()}


def _parts(endpoint: str) -> tuple[str, str, str, int | None]:
    """The scheme, the Host header, the host's name and the port of a URL. Raises UsageError."""
    try:
        url = urlsplit(endpoint if "//" in endpoint else f"http://{endpoint}")
        name, port = url.hostname, url.port
    except ValueError:
        name, port, url = None, None, urlsplit("")
    if url.scheme not in ("http", "https") or not name or url.path not in ("", "/") or url.query or url.username:
        raise UsageError(f"need an endpoint as http://HOST:PORT or https://HOST:PORT, got {endpoint!r}")
    return url.scheme, url.netloc, name, port


def _decoded(node: xml.Node, name: str) -> str:
    return unquote(node.need(name))


def body_of(answer: Answer, most: int = MAX_BODY) -> bytes:
    """The whole body of an answer, which frees the connection. Raises ConnectionLost, PeerTimeout, ProtocolError."""
    try:
        content = answer.response.read(most + 1)
        left = answer.response.length
    except (OSError, http.client.HTTPException) as error:
        answer.response.close()
        raise _lost(error, answer.where) from None
    if len(content) > most:
        raise ProtocolError(f"the answer has more than {most} bytes").at(**answer.where)
    if left:
        raise ConnectionLost(f"the answer ended {left} bytes early").at(**answer.where)
    return content


def _refusal(answer: Answer, content: bytes | None = None) -> S4Error:
    """The error that an answer means, in S3's own words where it has some."""
    if content is None:
        content = body_of(answer, MAX_ERROR)
    try:
        node = xml.read(content, "Error")
    except (S3Error, IndexError):
        if answer.status < 300:
            return ProtocolError("the answer is not the XML that S3 has for this").at(**answer.where)
        words = {404: "there is no such bucket or key", 403: "access denied"}.get(answer.status, "no reason given")
        error = Refused(f"HTTP {answer.status} {answer.response.reason}: {words}")
    else:
        error = Refused(f"{node.get('Code')}: {node.get('Message')}")
        error.s3_code = node.get("Code") or ""
    error.http = answer.status
    return error.at(**answer.where)


def _lost(error: Exception, where: Mapping[str, str]) -> S4Error:
    """What became of a connection."""
    if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        return ProtocolError(f"no HTTP: {error or type(error).__name__}").at(**where)
    if isinstance(error, TimeoutError):
        return PeerTimeout(f"no answer for {TIMEOUT_SECONDS:.0f} s").at(**where)
    number = getattr(error, "errno", None)
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(f"{os.strerror(number or 0)}; is the daemon running? (s4raw s3 run)").at(**where)
    if isinstance(error, ConnectionError):
        return ConnectionLost("the server closed the connection").at(**where)
    reason = getattr(error, "verify_message", "") or getattr(error, "strerror", "") or str(error)
    return Unreachable(f"cannot connect: {reason}").at(**where)
