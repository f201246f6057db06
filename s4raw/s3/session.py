"""One HTTP client's connection: its requests are handled in order, until it leaves, breaks the rules, or we drain."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from s4raw import processors
from s4raw.errors import S4Error
from s4raw.log import Log
from s4raw.net import Stream
from s4raw.s3.http import LIMITS, HttpConnection, HttpError, Limits, Request
from s4raw.serving import Connection

Handler = Callable[[HttpConnection, Request], None]
RETRY_SECONDS = 1
_BUSY = b"too many connections\n"


def serve_connection(
    connection: Connection[Stream], handle: Handler, limits: Limits = LIMITS, log: Log | None = None
) -> None:
    """Answer the requests of a connection, each by ``handle``, which answers it once.

    What ``handle`` raises ends this connection: HttpError with its status, anything else with 500 and a traceback in
    the log.
    """
    stream = connection.channel
    try:
        stream.handshake(limits.head_seconds)
    except S4Error as error:
        if log:
            log("closed", f"client {stream.peer}: {error.message}")
        return
    http = HttpConnection(stream, limits)
    processors.come_home()
    try:
        while (request := http.next_request()) is not None:
            if not connection.begin():
                raise HttpError(503, "the server is shutting down")
            handle(http, request)
            if not http.complete:
                raise RuntimeError(f"no answer to {request.method} {request.path}")
            if not connection.end():
                break
    except HttpError as error:
        if log:
            log("closed", f"client {stream.peer}: {error.status or 'lost'}: {error.reason}")
        http.give_up(error)
    except Exception:
        if log:
            log("error", f"client {stream.peer}: {traceback.format_exc()}")
        http.give_up(HttpError(500, "internal error"))
    http.finish()


def refuse(stream: Stream) -> None:
    """Answer a connection beyond the limit, without waiting for its request. Over TLS it is closed without a word."""
    head = f"HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_SECONDS}\r\nConnection: close\r\n"
    stream.send(f"{head}Content-Type: text/plain\r\nContent-Length: {len(_BUSY)}\r\n\r\n".encode() + _BUSY)
