"""The backend in memory keeps the promises of all backends."""

from contextlib import nullcontext

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from objects_conformance import Conformance
from objects_model import Differential
from support import timeless

from s4raw.objects.memory import MemoryBackend


@pytest.fixture
def backend():
    return MemoryBackend()


class TestMemory(Conformance):
    pass


class Machine(Differential):
    """Memory beside memory: what the machine itself does is sound."""

    @staticmethod
    def place():
        memory = MemoryBackend()
        return nullcontext(lambda: memory)


def test_two_of_a_kind_do_the_same():
    run_state_machine_as_test(Machine, settings=settings(timeless, max_examples=30))
