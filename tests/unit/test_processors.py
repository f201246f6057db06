"""When other programs are taken to keep the processors busy."""

from types import SimpleNamespace

import pytest

from s4raw import processors
from s4raw.processors import CROWDED, FIRST_SECONDS, LOOK_SECONDS, _Others


class Machine:
    """A time and two processors; what others use of it is said when it passes."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.others = 50.0

    def passes(self, seconds, share):
        self.now += seconds
        self.others += 2 * seconds * share


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(processors, "time", SimpleNamespace(monotonic=lambda: machine.now))
    monkeypatch.setattr(processors, "used_by_others", lambda: (2 * machine.now, machine.others))
    return machine


def test_at_first_nobody_knows_and_soon_they_do(machine):
    others = _Others()
    assert not others.look()
    machine.passes(FIRST_SECONDS / 2, 1.0)
    assert not others.look()
    machine.passes(FIRST_SECONDS, 1.0)
    assert others.look()


@pytest.mark.parametrize(("share", "many"), [(CROWDED - 0.01, False), (CROWDED + 0.01, True)])
def test_from_a_share_on_they_use_too_much(machine, share, many):
    others = _Others()
    others.look()
    for _ in range(3):
        machine.passes(1.01 * LOOK_SECONDS, share)
        assert others.look() == many


def test_between_two_looks_it_is_as_it_was(machine):
    others = _Others()
    others.look()
    machine.passes(LOOK_SECONDS, 1.0)
    assert others.look()
    machine.passes(LOOK_SECONDS / 2, 0.0)
    assert others.look()
    machine.passes(LOOK_SECONDS, 0.0)
    assert not others.look()


def test_what_they_used_long_ago_says_nothing_of_now(machine):
    others = _Others()
    others.look()
    machine.passes(LOOK_SECONDS, 1.0)
    assert others.look()
    machine.passes(5 * LOOK_SECONDS, 1.0)
    assert not others.look()
    machine.passes(1.01 * FIRST_SECONDS, 0.0)
    assert not others.look()


def test_where_nobody_says_what_they_use_it_is_taken_to_be_much(machine, monkeypatch):
    def missing():
        raise FileNotFoundError

    monkeypatch.setattr(processors, "used_by_others", missing)
    assert _Others().look()
