"""Through which daemons a request has come: each tells the next one, so that one that meets itself can refuse.

It is the value of the header Via (RFC 9110, 7.6.3). It belongs to the request that a thread works for: threads that
help are started in its context, and what is queued keeps it.
"""

from __future__ import annotations

from contextvars import ContextVar

MAX_LENGTH = 1024  # bytes: some thirty daemons, one in front of the other; what has come through more goes nowhere

VIA: ContextVar[str] = ContextVar("via", default="")  # of the request that is being worked for; empty: a client's own


def extended(name: str) -> str:
    """What the next one is to be told by the daemon ``name``."""
    before = VIA.get()
    return f"{before}, 1.1 {name}" if before else f"1.1 {name}"
