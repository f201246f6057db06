"""A small S3 client for the command line: signed requests over one kept connection, and errors that say where.

It knows requests and answers; ``transfer`` knows how content gets there and back whole. Any S3 that is addressed by
path will do, not only our own daemon.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from s4raw.errors import ConnectionLost, ProtocolError, Refused, S4Error, Unreachable, UsageError
from s4raw.keys import Key
from s4raw.s3 import signing, xml
from s4raw.s3.connection import Answer, Connection
from s4raw.s3.errors import S3Error
from s4raw.s3.outgoing import Body, Place, size_of

TIMEOUT_SECONDS = 300.0  # that a server may be silent: completing a large upload takes some
PIECE = 1 << 20  # bytes received at once
MAX_ERROR = 1 << 20  # bytes of an error's text
MAX_BODY = 64 << 20  # bytes of an answer that is read as a whole
SERVICE = Key("", "")
_UNSENDABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search


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
        place = Place.of(endpoint)
        self.endpoint, self._host = place.url, place.host
        self._pair = pair
        self._region = region
        context = None
        if place.secure:
            from s4raw.s3.tls import client_context

            context = client_context(authorities)
        self._connection = Connection(place, context, connect_seconds=TIMEOUT_SECONDS, read_seconds=TIMEOUT_SECONDS)

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
        answer.read(MAX_ERROR)
        return answer.status == 200

    def request(
        self, method: str, key: Key, query: str = "", headers: Mapping[str, str] | None = None, body: Body = b""
    ) -> Answer:
        """Send a request; the answer's body is still to be read. ``headers`` have lower-case names.

        Raises Refused, Unreachable, ConnectionLost, PeerTimeout, ProtocolError, UsageError, LocalFileError.
        """
        where = {"server": self.endpoint, "key": shown(key)}
        path, size = path_of(key), size_of(body)
        sent = {**(headers or {}), "host": self._host}
        if size or method in ("PUT", "POST"):
            sent["content-length"] = str(size)
        if self._pair:
            whole = isinstance(body, bytes | memoryview) and size <= MAX_ERROR
            payload = sha256(body).hexdigest() if whole else signing.UNSIGNED  # type: ignore[arg-type]
            now = time.time()
            sent = signing.sign_headers(
                method, path, query, sent, *self._pair, now=now, region=self._region, payload=payload
            )
        answer = self._attempts(method, f"{path}?{query}" if query else path, sent, body, where)
        if answer.status >= 300:
            raise refusal(answer, answer.read(MAX_ERROR))
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
        content = answer.read(MAX_BODY)
        return parsed(answer, content, root) if root else xml.Node("")

    def pieces(self, answer: Answer) -> Iterator[memoryview]:
        """The body of an answer, each piece valid until the next. Raises ConnectionLost, PeerTimeout."""
        buffer = memoryview(bytearray(min(PIECE, max(1, answer.size))))
        while count := answer.readinto(buffer):
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
        head = head_of(method, target, headers, where)
        if not self._connection.alive():
            self._connection.close()
        reused = self._connection.is_open()
        try:
            return self._connection.exchange(method, head, body, where)
        except ConnectionLost:
            if not reused or self._connection.answered:
                raise
            return self._connection.exchange(method, head, body, where)
        except Unreachable as error:
            if "refused" in error.message:
                error.message += "; is the daemon running? (s4raw s3 run)"
            raise


def head_of(method: str, target: str, headers: Mapping[str, str], where: Mapping[str, str]) -> bytes:
    """The head of a request. Raises UsageError for what no header can hold."""
    lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in headers.items()], "", ""]
    text = "\r\n".join(lines)
    if _UNSENDABLE(text) or text.count("\n") != len(headers) + 2:
        raise UsageError("a header or the path has control characters").at(**where)
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise UsageError(f"this cannot be sent: {error}").at(**where) from None


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


def _decoded(node: xml.Node, name: str) -> str:
    return unquote_plus(node.need(name))


def parsed(answer: Answer, content: bytes, root: str) -> xml.Node:
    """The body of an answer as XML. Raises Refused for an error in its place, which S3 may send with a 200 as well."""
    content = content.lstrip()  # what keeps a connection open while an upload is completed
    try:
        return xml.read(content, root)
    except (S3Error, IndexError):
        raise refusal(answer, content) from None


def refusal(answer: Answer, content: bytes) -> S4Error:
    """The error that an answer means, in S3's own words where it has some."""
    try:
        node = xml.read(content, "Error")
    except (S3Error, IndexError):
        if answer.status < 300:
            return ProtocolError("the answer is not the XML that S3 has for this").at(**answer.where)
        words = {404: "there is no such bucket or key", 403: "access denied"}.get(answer.status, "no reason given")
        error = Refused(f"HTTP {answer.status} {answer.reason}: {words}")
    else:
        error = Refused(f"{node.get('Code')}: {node.get('Message')}")
        error.s3_code = node.get("Code") or ""
    error.http = answer.status
    return error.at(**answer.where)
