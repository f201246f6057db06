"""The S3 application as a service of this process, and what its tests say often."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from s4raw.keys import Key
from s4raw.net import Stream, listen
from s4raw.objects.base import Backend, Query
from s4raw.objects.local import open_local
from s4raw.objects.memory import MemoryBackend
from s4raw.objects.remote import RemoteBackend, RemoteOptions, open_remote
from s4raw.objects.ring import RingBackend
from s4raw.ring import Topology
from s4raw.s3.app import App
from s4raw.s3.call import Settings
from s4raw.s3.credentials import Credentials
from s4raw.s3.head import LIMITS, Limits
from s4raw.s3.session import refuse, serve_connection
from s4raw.serving import Acceptor

ACCESS_KEY, SECRET_KEY = "AKIDOFTHETESTSEXAMPLE", "the-secret-of-the-tests/EXAMPLE+KEY"
REGION = "us-east-1"

# name -> makes a backend, given a directory of its own
BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "memory": lambda directory: MemoryBackend(),
    "local": lambda directory: open_local(str(directory)),
}

RING = "ring"  # servers of their own, so only what is marked ``also_on_a_ring`` runs there


def on_a_ring(conf: str) -> Backend:
    """The objects of a ring, of which there are none."""
    backend = RingBackend(Topology.read(conf), b"")
    for bucket in backend.buckets():
        while entries := backend.list(bucket.name, Query()).entries:
            for entry in entries:
                backend.delete(Key(bucket.name, entry.name))
        backend.delete_bucket(bucket.name)
    return backend


class Service:
    """The S3 application on a port; a context manager."""

    def __init__(self, backend: Backend, complaints: list[str], limits: Limits = LIMITS, **options: Any) -> None:
        def log(event: str, details: str = "") -> None:
            if event == "error":
                complaints.append(details)

        self._settings = Settings(
            **{"credentials": Credentials({ACCESS_KEY: SECRET_KEY}), "region": REGION} | options,
        )
        self._log, self._limits = log, limits
        self.lines: list[str] = []
        self.port = 0
        self._open(backend)

    def _open(self, backend: Backend) -> None:
        self.backend = backend
        self.app = app = App(backend, self._settings, log=self._log, access_log=self.lines.append)
        self.listener = listen("127.0.0.1", self.port)
        self.port = self.listener.getsockname()[1]
        self.acceptor = Acceptor(
            self.listener,
            Stream,
            lambda connection: serve_connection(connection, app.handle, self._limits, self._log),
            refuse,
            self._log,
            max_connections=100,
        )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def restart(self, reopen: Callable[[], Backend]) -> None:
        """Stop, and serve on the same port what ``reopen`` gives, as another process would."""
        self._stop()
        self._open(reopen())
        self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self.acceptor.run)
        self._thread.start()

    def _stop(self) -> None:
        self.acceptor.stop()
        self._thread.join()
        self.acceptor.drain(10)
        self.acceptor.close()

    def __enter__(self) -> "Service":
        self._stack = threading.stack_size()
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        threading.stack_size(self._stack)


class Reply(NamedTuple):
    """The answer to a raw request."""

    status: int
    headers: dict[str, str]
    body: bytes


Raw = Callable[..., Reply]


def fails(code: str, status: int, call: Callable[..., object], **arguments: Any) -> dict[str, Any]:
    """Check that a call of a client fails with this code and status; what the answer said besides."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    found: dict[str, Any] = caught.value.response  # type: ignore[assignment]
    assert (found["Error"]["Code"], found["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), found
    return found


class Remote(RemoteBackend):
    """A remote S3 that is another such application, over memory; it ends when this is closed."""

    def __init__(self) -> None:
        self._service = Service(MemoryBackend(), [])
        self._service.__enter__()
        given = {"region": REGION, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        super().__init__(open_remote(RemoteOptions(self._service.endpoint, **given))._remote)

    def close(self) -> None:
        super().close()
        self._service.__exit__()
