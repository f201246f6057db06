"""An S3 server in this process, over objects in memory, and boto3 as its client."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.config import Config

from s4raw import net
from s4raw.net import Stream
from s4raw.objects.memory import MemoryBackend
from s4raw.s3.app import App
from s4raw.s3.call import Settings
from s4raw.s3.credentials import Credentials
from s4raw.s3.session import refuse, serve_connection
from s4raw.serving import Acceptor

KEYS = ("AKIDEXAMPLEOFTESTS00", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


def quiet(kind: str, text: str) -> None:
    """A log that fails the test that makes the server complain."""
    assert kind != "error", text


@pytest.fixture(scope="session")
def complaints() -> list[str]:
    """What the server logged as its own fault."""
    return []


@pytest.fixture(scope="session")
def serve(complaints: list[str]) -> Iterator[Callable[..., str]]:
    """Starts a server with settings of the test's own; its URL."""
    running: list[tuple[Acceptor[Stream], threading.Thread]] = []

    def start(**settings: Any) -> str:
        def log(kind: str, text: str) -> None:
            if kind == "error":
                complaints.append(text)

        app = App(MemoryBackend(), Settings(Credentials(dict([KEYS])), **settings), log=log)
        listener = net.listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        acceptor = Acceptor(
            listener,
            Stream,
            lambda connection: serve_connection(connection, app.handle, log=log),
            refuse,
            log,
            max_connections=100,
        )
        thread = threading.Thread(target=acceptor.run)
        thread.start()
        running.append((acceptor, thread))
        return f"http://127.0.0.1:{port}"

    yield start
    for acceptor, thread in running:
        acceptor.stop()
        thread.join(20)
        acceptor.drain(5)
        acceptor.close()


@pytest.fixture(scope="session")
def endpoint(serve: Callable[..., str]) -> str:
    """The URL of the server that the tests share."""
    return serve()


@pytest.fixture(scope="session")
def keys() -> tuple[str, str]:
    """The access key and the secret that the server knows."""
    return KEYS


def client_of(endpoint: str, **options: Any) -> Any:
    """boto3's client of a server."""
    config = Config(signature_version="s3v4", retries={"max_attempts": 0}, s3={"addressing_style": "path"}, **options)
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS[0],
        aws_secret_access_key=KEYS[1],
        config=config,
    )


@pytest.fixture(scope="session", autouse=True)
def _no_proxies() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield


@pytest.fixture(autouse=True)
def no_complaints(complaints: list[str]) -> Iterator[None]:
    """No test makes the server find fault with itself."""
    complaints.clear()
    yield
    assert not complaints


@pytest.fixture(scope="session")
def s3(endpoint: str) -> Iterator[Any]:
    """boto3 with its defaults: checksums in trailers."""
    client = client_of(endpoint)
    yield client
    client.close()


@pytest.fixture(scope="session")
def plain(endpoint: str) -> Iterator[Any]:
    """boto3 that sends checksums only where S3 requires them."""
    client = client_of(
        endpoint, request_checksum_calculation="when_required", response_checksum_validation="when_required"
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """What no other bucket was named by."""
    return iter(range(10_000))


@pytest.fixture
def bucket(s3: Any, numbers: Iterator[int]) -> str:
    """A bucket of the test's own."""
    name = f"bucket-{next(numbers)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def other_bucket(s3: Any, numbers: Iterator[int]) -> str:
    """Another one."""
    name = f"bucket-{next(numbers)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(autouse=True)
def no_leaks(s3: Any) -> None:
    """The connections of the shared client, and the server's threads for them, outlive a test."""
