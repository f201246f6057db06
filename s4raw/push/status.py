"""How the uploader is, over HTTP: /metrics for Prometheus, /healthz for probes, /status for people and scripts."""

from __future__ import annotations

import json
from collections.abc import Callable

from s4raw.metrics import CONTENT_TYPE
from s4raw.push.protocol import Status
from s4raw.push.uploader import Uploader
from s4raw.s3.http import HttpConnection, Request

Answer = tuple[int, str, bytes]  # the status, the type of the body, and the body


def _metrics(uploader: Uploader) -> Answer:
    return 200, CONTENT_TYPE, uploader.metrics()


def _health(uploader: Uploader) -> Answer:
    return (503, "text/plain", b"stopping\n") if uploader.stopping else (200, "text/plain", b"ok\n")


def _status(uploader: Uploader) -> Answer:
    return 200, "application/json", json.dumps(uploader.control(Status(), lambda: True)).encode() + b"\n"


PAGES: dict[str, Callable[[Uploader], Answer]] = {"/metrics": _metrics, "/healthz": _health, "/status": _status}


def handle(uploader: Uploader, http: HttpConnection, request: Request) -> None:
    """Answer a request."""
    page = PAGES.get(request.path)
    if page is None:
        status, kind, body = 404, "text/plain", f"there are {', '.join(PAGES)}\n".encode()
    elif request.method not in ("GET", "HEAD"):
        http.respond(405, [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")], b"GET it\n")
        return
    else:
        status, kind, body = page(uploader)
    http.respond(status, [("Content-Type", kind), ("Cache-Control", "no-store")], body)
