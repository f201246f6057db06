"""Objects in a data directory keep the promises of all backends."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from objects_conformance import Conformance
from objects_model import Differential
from support import left_over, timeless

from s4raw.objects.local import LocalBackend, open_local


@pytest.fixture
def backend(tmp_path):
    found = open_local(str(tmp_path / "data"))
    yield found
    found.close()
    assert not left_over(tmp_path / "data")


class TestLocal(Conformance):
    pass


@contextmanager
def place() -> Iterator[Callable[[], LocalBackend]]:
    with tempfile.TemporaryDirectory() as path:
        yield lambda: open_local(path)


class Machine(Differential):
    """The data directory beside memory, closed and opened again at any time."""

    place = staticmethod(place)


def test_it_does_what_memory_does():
    run_state_machine_as_test(Machine, settings=settings(timeless, max_examples=30))
