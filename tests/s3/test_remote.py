"""A remote S3 as a backend, over our own daemon's application, keeps the promises of all backends."""

from collections.abc import Iterator

import pytest
from objects_conformance import Conformance

from s4raw.objects.memory import MemoryBackend
from s4raw.objects.remote import RemoteBackend, RemoteOptions, open_remote

from .service import ACCESS_KEY, REGION, SECRET_KEY, Service


@pytest.fixture
def backend(complaints: list[str]) -> Iterator[RemoteBackend]:
    with Service(MemoryBackend(), complaints) as service:
        found = open_remote(
            RemoteOptions(service.endpoint, region=REGION, access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        )
        yield found
        found.close()


class TestRemote(Conformance):
    pass
