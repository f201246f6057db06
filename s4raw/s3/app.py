"""The S3 application: one HTTP request in, one answer out, over any backend.

It finds out what a request addresses, who sent it and which operation it asks for, and turns what operations answer or
raise into HTTP. It holds no state but its settings.
"""

from __future__ import annotations

import base64
import itertools
import os
import re
import time
import traceback
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from s4raw.errors import S4Error
from s4raw.keys import Key, check_key, check_prefix
from s4raw.log import Log
from s4raw.objects.base import Backend
from s4raw.s3 import errors, xml
from s4raw.s3.call import Answer, Call, Settings
from s4raw.s3.errors import S3Error
from s4raw.s3.http import HttpConnection, HttpError, Request
from s4raw.s3.routes import BUCKET, OBJECT, SERVICE, route
from s4raw.s3.signing import headers_of_query
from s4raw.s3.sigv4 import Identity, authenticate
from s4raw.via import MAX_LENGTH, VIA

HEALTH = "/healthz"
_OF_SIGNATURES = tuple(
    f"X-Amz-{name}=" for name in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Content-Sha256")
)
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


class App:
    """Answers requests; ``handle`` may run in any number of threads at once."""

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        *,
        log: Log | None = None,
        access_log: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``access_log`` is given a line for each request; ``clock`` says what time signatures are checked at."""
        self._backend = backend
        self._settings = settings
        self._log = log
        self._access_log = access_log
        self._clock = clock
        self._host_suffix = f".{settings.domain.lower()}" if settings.domain else ""
        self._ids = itertools.count(int.from_bytes(os.urandom(7), "big") << 4)  # next() is atomic
        self._host_id = base64.b64encode(os.urandom(24)).decode()

    def handle(self, connection: HttpConnection, request: Request) -> None:
        """Answer one request. Raises HttpError when the connection cannot go on."""
        began = time.perf_counter() if self._access_log else 0.0
        request_id = f"{next(self._ids) & 0xFFFFFFFFFFFFFFFF:016X}"
        identifying = [("x-amz-request-id", request_id), ("x-amz-id-2", self._host_id)]
        known: list[str] = ["-", "-"]  # the operation and the access key, for the log
        answer = Answer()
        try:
            answer = self._answer(connection, request, known)
            self._send(connection, answer, [*identifying, *answer.headers])
        except HttpError as broken:
            if broken.status != 408 or connection.answered:
                raise
            answer = self._error(request, request_id, S3Error("RequestTimeout"))  # and the connection ends
            self._send(connection, answer, [*identifying, *answer.headers])
        except Exception as error:
            if connection.answered:  # what was cut off must not look whole: the connection ends
                if not isinstance(error, S4Error):
                    raise
                self._complain(request_id, str(error))
                raise HttpError(0, "the answer broke off") from None
            answer = self._error(request, request_id, self._told(request_id, error))
            self._send(connection, answer, [*identifying, *answer.headers])
        if self._access_log:
            self._note(connection, request, answer, request_id, known, time.perf_counter() - began)

    def _answer(self, connection: HttpConnection, request: Request, known: list[str]) -> Answer:
        method, path = request.method, request.path
        if (
            path == HEALTH
            and method in ("GET", "HEAD")
            and "authorization" not in request.headers
            and not request.query
        ):
            return Answer(200, [("Content-Type", "text/plain")], b"ok\n")
        if self._settings.name:
            _pass_on(request, self._settings.name)
        key, virtual = self._address(request)
        params = _params(request.query) if request.query else {}
        level = OBJECT if key.name else BUCKET if key.bucket else SERVICE
        settings = self._settings
        identity: Identity | None
        if method == "OPTIONS":
            raise _preflight(request)
        if method == "POST" and level == BUCKET and not request.query and _is_form(request):
            identity = None  # the form's policy says who sent it
        else:
            identity = authenticate(
                request, settings.credentials, self._clock(), anonymous=settings.anonymous, virtual_bucket=virtual
            )
            known[1] = identity.access_key or "-"
            if "authorization" not in request.headers and ("X-Amz-Signature" in params or "Signature" in params):
                params.pop("X-Amz-Signature", None)
                if params:  # as a rule, nothing is left
                    request.headers = {**headers_of_query(params), **request.headers}
        copies = "x-amz-copy-source" in request.headers
        operation = route(method, level, params, copies)
        if copies or method == "POST":
            connection.roam()
        known[0] = operation.__name__
        if level == OBJECT:
            check_key(key)
        else:
            check_prefix(key)
        call = Call(request, connection, self._backend, key, params, identity, settings)
        try:
            return operation(call)
        finally:
            call.close()

    def _address(self, request: Request) -> tuple[Key, str]:
        """The bucket and the name that a request is about, and the bucket if the Host header named it."""
        path = _decode(request.path)
        if not path.startswith("/"):
            raise S3Error("InvalidURI", URI=request.path)
        if self._host_suffix:
            host = request.headers.get("host", "").lower().partition(":")[0]
            if host.endswith(self._host_suffix):
                bucket = host[: -len(self._host_suffix)]
                return Key(bucket, path[1:]), bucket
        bucket, _, name = path[1:].partition("/")
        return Key(bucket, name), ""

    def _told(self, request_id: str, error: Exception) -> S3Error:
        """What a client is told of an error; the log is told of what is our fault."""
        if isinstance(error, S3Error):
            return error
        if not isinstance(error, S4Error):
            self._complain(request_id, "".join(traceback.format_exception(error)))
            return S3Error("InternalError")
        told = errors.of(error)
        if told.status >= 500:
            self._complain(request_id, str(error))
        return told

    def _complain(self, request_id: str, what: str) -> None:
        if self._log:
            self._log("error", f"request {request_id}: {what}")

    def _error(self, request: Request, request_id: str, error: S3Error) -> Answer:
        """An error as S3 says it: XML, but nothing where HTTP allows no body."""
        if request.method == "HEAD" or error.status == 304:
            return Answer(error.status, error.headers)
        inner = "".join(f"<{name}>{xml.plain(value)}</{name}>" for name, value in error.extra.items())
        body = (
            f"{xml.DECLARATION}<Error><Code>{error.code}</Code><Message>{xml.plain(error.message)}</Message>{inner}"
            f"<Resource>{xml.plain(request.path)}</Resource><RequestId>{request_id}</RequestId>"
            f"<HostId>{self._host_id}</HostId></Error>"
        )
        return Answer(error.status, [*error.headers, ("Content-Type", "application/xml")], body.encode())

    def _send(self, connection: HttpConnection, answer: Answer, headers: list[tuple[str, str]]) -> None:
        reading = answer.reading
        if reading is None:
            connection.respond(answer.status, headers, answer.body, length=answer.length)
            return
        with reading:
            fd = reading.file()
            if fd is not None:
                connection.respond_file(answer.status, headers, fd, reading.start, reading.end)
            else:
                connection.respond_pieces(answer.status, headers, reading.end - reading.start, reading.pieces())

    def _note(
        self,
        connection: HttpConnection,
        request: Request,
        answer: Answer,
        request_id: str,
        known: list[str],
        seconds: float,
    ) -> None:
        """A line of the access log: who, what, how it ended, how many bytes, how long, by which id."""
        if self._access_log is None:
            return
        reading = answer.reading
        size = len(answer.body) if reading is None else reading.end - reading.start
        target = f"{request.path}?{_redacted(request.query)}" if request.query else request.path
        self._access_log(
            f"{connection.peer} {known[1]} {known[0]} {request.method} {target} {answer.status} {size} "
            f"{seconds * 1000:.1f}ms {request_id}"
        )


def _pass_on(request: Request, name: str) -> None:
    """Remember through which daemons a request has come, for the next one. Raises LoopDetected if it was this one."""
    via = request.headers.get("via", "")
    if name in via or len(via) > MAX_LENGTH:
        raise S3Error("LoopDetected")
    VIA.set(via)


def _redacted(query: str) -> str:
    """A query without what would let a reader of the log repeat the request."""
    return re.sub("((?:X-Amz-)?Signature|X-Amz-Security-Token)=[^&]*", r"\1=...", query)


def _preflight(request: Request) -> S3Error:
    """What S3 says to OPTIONS where a bucket has no CORS rules."""
    if "origin" not in request.headers:
        return S3Error("BadRequest", "Insufficient information. Origin request header needed.")
    method = request.headers.get("access-control-request-method", "null")
    if method not in ("GET", "PUT", "HEAD", "POST", "DELETE"):
        return S3Error("BadRequest", f"Invalid Access-Control-Request-Method: {method}")
    return S3Error("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.", status=403)


def _is_form(request: Request) -> bool:
    return (
        request.headers.get("content-type", "").lower().startswith("multipart/form-data")
        and "authorization" not in request.headers
    )


def _decode(text: str) -> str:
    """A percent-encoded path as text. Raises InvalidURI."""
    if "%" not in text:
        return text
    if _BAD_PERCENT.search(text):
        raise S3Error("InvalidURI", URI=text)
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", URI=text) from None


def _params(query: str) -> dict[str, str]:
    """The parameters of a query, form-encoded, but not what a signature is made of; the first of a name counts.

    Raises InvalidURI.
    """
    found: dict[str, str] = {}
    for pair in query.split("&"):
        if pair and not pair.startswith(_OF_SIGNATURES):
            name, _, value = pair.partition("=")
            found.setdefault(_decode(name.replace("+", " ")), _decode(value.replace("+", " ")))
    return found
