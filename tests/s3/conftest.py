"""An S3 server over each backend, in this process on a port of its own, and botocore's client of it."""

import gc
import http.client
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import Credentials as BotoCredentials

from s4raw.objects.base import Backend

from .service import ACCESS_KEY, BACKENDS, REGION, RING, SECRET_KEY, Raw, Reply, Service, on_a_ring


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "also_on_a_ring: runs on a ring of real servers, too, which is slower")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        ring = [RING] if metafunc.definition.get_closest_marker("also_on_a_ring") else []
        metafunc.parametrize("place", [*BACKENDS, *ring])


@pytest.fixture
def backend(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    if place == RING:
        found = on_a_ring(request.getfixturevalue("ring").conf)
    else:
        found = BACKENDS[place](tmp_path / "backend")
    yield found
    found.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the server logged as its own fault."""
    return []


@pytest.fixture(autouse=True)
def no_complaints(complaints: list[str]) -> Iterator[None]:
    """No test makes the server find fault with itself."""
    yield
    assert not complaints, "\n".join(complaints)


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """What this machine's user has set up for AWS is not for these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield


@pytest.fixture
def serve(backend: Backend, complaints: list[str]) -> Iterator[Callable[..., Service]]:
    """Starts servers over the backend with settings of the test's own: ``serve(anonymous=True)``."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Service(backend, complaints, **options))


@pytest.fixture
def service(serve: Callable[..., Service]) -> Service:
    """A server."""
    return serve()


@pytest.fixture
def endpoint(service: Service) -> str:
    """The URL of the server."""
    return service.endpoint


@pytest.fixture
def keys() -> tuple[str, str]:
    """The access key and the secret that servers know."""
    return ACCESS_KEY, SECRET_KEY


@pytest.fixture(scope="session")
def boto() -> boto3.Session:
    session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
    session.client("s3").close()  # which reads what all others share
    return session


@pytest.fixture(scope="module", autouse=True)
def _old_objects_stay(boto: boto3.Session) -> None:
    """What there is by now stays. To look for garbage after each test takes a tenth as long when it is left out."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def new_client(boto: boto3.Session) -> Iterator[Callable[..., BaseClient]]:
    """Makes clients: ``new_client(service, request_checksum_calculation="when_required")``."""
    clients: list[BaseClient] = []

    def make(service: Service, host: str = "", **options: Any) -> BaseClient:
        options.setdefault("s3", {"addressing_style": "path"})
        options.setdefault("signature_version", "s3v4")
        config = Config(retries={"total_max_attempts": 1}, **options)
        clients.append(boto.client("s3", endpoint_url=host or service.endpoint, config=config))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    del clients[:]
    gc.collect()  # errors hold connections, in cycles


@pytest.fixture
def s3(service: Service, new_client: Callable[..., BaseClient]) -> Any:
    """A client of boto3."""
    return new_client(service)


@pytest.fixture
def plain(service: Service, new_client: Callable[..., BaseClient]) -> Any:
    """boto3 that sends checksums only where S3 requires them."""
    return new_client(
        service, request_checksum_calculation="when_required", response_checksum_validation="when_required"
    )


@pytest.fixture
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="bucket")
    return "bucket"


@pytest.fixture
def other_bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="other-bucket")
    return "other-bucket"


@pytest.fixture
def new_raw() -> Iterator[Callable[[Service], Raw]]:
    """Makes what sends requests that no client would, on one connection: see ``raw``."""
    with ExitStack() as stack:
        yield lambda service: _sender(service, stack)


@pytest.fixture
def raw(service: Service, new_raw: Callable[[Service], Raw]) -> Raw:
    """Sends requests that no client would: ``raw("GET", "/bucket?acl", headers={...}, sign=False)``."""
    return new_raw(service)


def _sender(service: Service, stack: ExitStack) -> Raw:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
    stack.callback(connection.close)

    def send(
        method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, sign: bool = True
    ) -> Reply:
        given = dict(headers or {})
        if sign:
            target = quote(target, safe="/?&=%+-_.~*:")
            path, _, query = target.partition("?")
            # A parameter without a value is signed with an empty one.
            query = "&".join(pair if "=" in pair else pair + "=" for pair in query.split("&") if pair)
            url = f"{service.endpoint}{path}" + (f"?{query}" if query else "")
            request = AWSRequest(method, url, data=body, headers=given)
            S3SigV4Auth(BotoCredentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(request)
            given = dict(request.headers.items())
        connection.request(method, target, body, given)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    return send
