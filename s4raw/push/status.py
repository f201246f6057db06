"""How the uploader is, over HTTP: /metrics for Prometheus, /healthz for probes, /status for people and scripts."""

from __future__ import annotations

import json

from s4raw.metrics import CONTENT_TYPE
from s4raw.push.protocol import Status
from s4raw.push.uploader import Uploader
from s4raw.s3.pages import Making, Page


def pages(uploader: Uploader) -> Making:
    """What makes each page."""

    def health() -> Page:
        return (503, "text/plain", b"stopping\n") if uploader.stopping else (200, "text/plain", b"ok\n")

    def status() -> Page:
        return 200, "application/json", json.dumps(uploader.control(Status(), lambda: True)).encode() + b"\n"

    return {"/metrics": lambda: (200, CONTENT_TYPE, uploader.metrics()), "/healthz": health, "/status": status}
