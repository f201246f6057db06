"""What a daemon says of itself over HTTP, on a port of its own: small pages, made when somebody asks for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from s4raw.log import Log
from s4raw.net import Stream, listen
from s4raw.s3.http import LIMITS, HttpConnection, Request
from s4raw.s3.session import refuse, serve_connection
from s4raw.serving import Acceptor

CONNECTIONS = 64
ANSWER_SECONDS = 5.0  # for clients to take their answers in the end

Page = tuple[int, str, bytes]  # the status, the type of the body, and the body
Making = Mapping[str, Callable[[], Page]]  # what makes the page of a path


class Pages:
    """Pages on a port. ``start`` serves them in threads until ``stop``."""

    def __init__(
        self, host: str, port: int, pages: Making, log: Log, *, idle_seconds: float = LIMITS.idle_seconds
    ) -> None:
        """Raises ConfError when it cannot listen there."""
        listener = listen(host, port)
        self.address = "{}:{}".format(*listener.getsockname())
        self._pages = pages
        limits = LIMITS._replace(idle_seconds=idle_seconds)
        self._acceptor = Acceptor(
            listener,
            Stream,
            lambda connection: serve_connection(connection, self._handle, limits, log),
            refuse,
            log,
            max_connections=CONNECTIONS,
        )
        self._thread: threading.Thread | None = None
        self._stopped = False

    def start(self) -> None:
        """Begin to answer."""
        self._thread = threading.Thread(target=self._acceptor.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer what was asked, and release the port. Twice is fine."""
        if self._stopped:
            return
        self._stopped = True
        self._acceptor.stop()
        if self._thread:
            self._thread.join()
        self._acceptor.drain(ANSWER_SECONDS)
        self._acceptor.close()

    def _handle(self, http: HttpConnection, request: Request) -> None:
        page = self._pages.get(request.path)
        if page is None:
            status, kind, body = 404, "text/plain", f"there are {', '.join(self._pages)}\n".encode()
        elif request.method not in ("GET", "HEAD"):
            http.respond(405, [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")], b"GET it\n")
            return
        else:
            status, kind, body = page()
        http.respond(status, [("Content-Type", kind), ("Cache-Control", "no-store")], body)
