"""Starting programs by posix_spawn itself."""

import _ctypes
import os

import pytest

from s4raw import spawning

TRUE = [b"/bin/sh", b"-c", b"true"]


@pytest.fixture
def null():
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


def test_other_threads_go_on_while_a_program_is_started():
    assert not spawning._libc.posix_spawn._flags_ & _ctypes.FUNCFLAG_PYTHONAPI  # that would keep the lock


@pytest.mark.parametrize(
    ("arguments", "environment", "directory"),
    [
        ([*TRUE[:2], b"tr\0ue"], {}, b"/"),
        (TRUE, {b"NAME": b"val\0ue"}, b"/"),
        (TRUE, {}, b"/tmp\0/none"),
    ],
    ids=["argument", "variable", "directory"],
)
def test_text_with_a_nul_is_refused(arguments, environment, directory, null):
    with pytest.raises(ValueError, match="null byte"):
        spawning.spawn(arguments, environment, directory, [null] * 3)


@pytest.mark.parametrize(
    ("program", "directory"), [(b"/bin/sh", b"/no/such/directory"), (b"/no/such/program", b"/")], ids=str
)
def test_what_cannot_be_started_says_why(program, directory, null):
    with pytest.raises(FileNotFoundError):
        spawning.spawn([program, *TRUE[1:]], {}, directory, [null] * 3)


def test_a_program_is_started_in_a_process_group_of_its_own(null):
    pid = spawning.spawn([b"/bin/sh", b"-c", b"kill -STOP $$"], {}, b"/", [null] * 3)
    os.waitpid(pid, os.WUNTRACED)
    assert os.getpgid(pid) == pid
    os.kill(pid, 9)
    os.waitpid(pid, 0)
