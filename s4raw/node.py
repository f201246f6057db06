"""This server: its store, its place in the ring, its CPU slots and calls, and a client for the others."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from s4raw.client import Ring
from s4raw.disk import JOB_VARIABLE
from s4raw.errors import WrongServer
from s4raw.handshake import SECRET_VARIABLE
from s4raw.jobs import Jobs
from s4raw.keys import Key
from s4raw.log import Log
from s4raw.objects.local import LocalBackend
from s4raw.procs import Slots
from s4raw.ring import CONF_VARIABLE
from s4raw.store import Store
from s4raw.uploads import Uploads


@dataclass
class Node:
    """What the verbs of a server work with."""

    store: Store
    ring: Ring
    me: str
    cpu: Slots
    log: Log
    environment: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.objects = LocalBackend(self.store)
        self.uploads = Uploads(self.store)
        self.jobs = Jobs(self.store.data.path)
        environment = {
            **os.environ,
            "LC_ALL": "C",
            CONF_VARIABLE: os.path.abspath(self.ring.topology.source),
            JOB_VARIABLE: self.store.data.path,
        }
        if SECRET_VARIABLE in os.environ:
            environment[SECRET_VARIABLE] = os.path.abspath(os.environ[SECRET_VARIABLE])
        self.environment = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}

    def command_environment(self, key: Key, cwd: str) -> dict[bytes, bytes]:
        """A command's environment: ours, the ring's conf, ``$filename``, and ``cwd`` for temporary files."""
        return {**self.environment, b"filename": os.fsencode(key.basename), b"TMPDIR": os.fsencode(cwd)}

    def owns(self, key: Key) -> bool:
        """Whether the key is placed on this server."""
        return self.ring.topology.place(key) == self.me

    def check_place(self, key: Key) -> Key:
        """Raise WrongServer for a key that is placed elsewhere."""
        place = self.ring.topology.place(key)
        if place != self.me:
            raise WrongServer(f"the key belongs on {place}", key=str(key), server=self.me)
        return key
