"""Daemons over a directory and over a ring of three servers, shared by the tests of this process."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import children

from s4raw.local import LocalRing

from .daemon import Daemon

NUMBERS = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _environment() -> Iterator[None]:
    """What this machine's user has set up for AWS is not for these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        yield


@pytest.fixture(scope="session")
def s3_ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRing]:
    """Three servers."""
    with LocalRing(3, str(tmp_path_factory.mktemp("s3_ring"))) as ring:
        yield ring


@pytest.fixture(scope="session")
def ring_daemon(s3_ring: LocalRing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), "--ring", "--conf", s3_ring.conf) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def local_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("daemon")
    with Daemon(directory, "--local", str(directory / "data")) as daemon:
        yield daemon


@pytest.fixture(scope="session", params=["local", "ring"])
def daemon(request: pytest.FixtureRequest) -> Daemon:
    """A daemon over each kind of place."""
    found: Daemon = request.getfixturevalue(f"{request.param}_daemon")
    return found


@pytest.fixture(scope="session")
def s3(daemon: Daemon) -> Iterator[Any]:
    """boto3, which says what is there whatever other clients believe."""
    client = daemon.boto()
    yield client
    client.close()


@pytest.fixture
def bucket(s3: Any) -> str:
    """A bucket of the test's own."""
    name = f"bucket-{next(NUMBERS)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Clients in this process keep threads and connections as they like; no process is left behind."""
    before = set(children(os.getpid()))
    yield
    assert set(children(os.getpid())) <= before
    if "daemon" in request.fixturenames:
        daemon: Daemon = request.getfixturevalue("daemon")
        assert not daemon.faults(), daemon.faults()


def tree(directory: Path) -> dict[str, bytes]:
    """The files below a directory and what is in them."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
