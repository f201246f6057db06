"""The node: which function answers which opcode of the wire."""

from __future__ import annotations

from collections.abc import Mapping

from s4raw import computing, objecting, scrubbing, storing, wire
from s4raw.digest import digest
from s4raw.errors import UsageError
from s4raw.session import Session, Verb
from s4raw.wire import Frame


def ping(session: Session, frame: Frame) -> None:
    """PING: the server is there. A server that shares its file system finds its data by this; see ``nearby``."""
    data = session.node.store.data
    try:
        session.ok(frame, path=data.path, digest=digest(data.identity()))
    except (UsageError, OSError):  # a path that is not UTF-8; no /proc
        session.ok(frame)


VERBS: Mapping[int, Verb] = {wire.PING: ping, **storing.VERBS, **scrubbing.VERBS, **computing.VERBS, **objecting.VERBS}
