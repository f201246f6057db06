"""Calls on objects, as a server answers them to a daemon."""

import time
from types import SimpleNamespace

import pytest

from s4raw import objecting
from s4raw.digest import digest
from s4raw.errors import ConnectionLost, NoSuchKey
from s4raw.keys import Key
from s4raw.objects import codec
from s4raw.objects.base import ALWAYS, Attributes, Info

CALL = codec.dumps(["copy", Key("b", "from"), Key("b", "to"), None, ALWAYS, ALWAYS])
FRAME = SimpleNamespace(body_length=len(CALL), request=7, blob=lambda _: digest(CALL))


class Session:
    """What ``call`` needs of one; ``told`` is what it sends, in order."""

    def __init__(self, copy, leaves=False) -> None:
        self.told: list[str] = []
        self.leaves = leaves
        self.channel = SimpleNamespace(read_bytes=lambda _: CALL, send_soon=lambda *_: self.told.append("answer"))
        self.node = SimpleNamespace(check_place=lambda key: key, objects=SimpleNamespace(copy=copy))

    def progress(self, *_: object) -> None:
        self.told.append("progress")
        if self.leaves:
            raise ConnectionLost("left")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(objecting, "ALIVE_SECONDS", 0.01)


def slowly(*_: object) -> Info:
    time.sleep(0.2)
    return Info(0, 0, Attributes())


def test_a_call_that_takes_long_shows_that_it_is_worked_on():
    session = Session(slowly)
    objecting.call(session, FRAME)
    assert session.told.count("progress") > 2
    assert session.told[-1] == "answer"


def test_it_goes_on_when_nobody_listens_any_more():
    session = Session(slowly, leaves=True)
    objecting.call(session, FRAME)
    assert session.told == ["progress", "answer"]


def test_its_error_comes_after_the_last_sign_of_life():
    def fail(*_: object) -> Info:
        slowly()
        raise NoSuchKey("gone")

    session = Session(fail)
    with pytest.raises(NoSuchKey):
        objecting.call(session, FRAME)
    count = len(session.told)
    time.sleep(0.05)
    assert len(session.told) == count > 2
