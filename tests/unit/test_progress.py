"""The progress line, on a terminal of its own."""

import os
import pty

import pytest
from support import at_once, start_task

from s4raw.connection import Status
from s4raw.progress import ProgressLine

CLEAR = "\r\x1b[K"


def on_terminal(*arguments: str) -> str:
    """What a task that shows progress writes to its terminal."""
    ours, theirs = pty.openpty()
    try:
        child = start_task("show_progress", *arguments, stderr=theirs, stdout=theirs)
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # what a terminal says when nobody holds the other end any more
                break
        assert child.wait(100) == 0, shown
        return shown.decode()
    finally:
        os.close(ours)


def test_a_terminal_shows_a_line_that_grows_and_goes():
    shown = on_terminal("bytes", "1000000000")
    lines = shown.split(CLEAR)
    assert lines[0] == lines[-1] == ""
    assert len(lines) > 2
    for line in lines[1:-1]:
        assert line.startswith("cp: ")
        assert " of 953.7 MiB" in line
        assert "/s" in line
        assert "%" in line
        assert "\n" not in line


def test_keys_are_counted_where_keys_are_meant_and_an_unknown_total_is_left_out():
    line = on_terminal("keys", "0").split(CLEAR)[1]
    assert line.startswith("cp: ")
    assert " keys, " in line
    assert line.endswith(" keys/s")
    assert " of " not in line
    assert "%" not in line


@pytest.mark.parametrize("state", ["disabled", "over at once"])
def test_a_terminal_shows_nothing_when_told_so_or_when_it_was_over_at_once(state):
    assert on_terminal("bytes", "1000", state) == ""


def test_what_is_no_terminal_shows_nothing():
    with start_task("show_progress", "bytes", "1000", stderr=-1) as child:
        assert child.communicate(timeout=100) == (b"", b"")
        assert child.returncode == 0


def test_any_thread_may_add():
    line = ProgressLine("cp", "bytes", enabled=True)
    at_once(*[lambda: [line.add(1) for _ in range(1000)]] * 4)
    assert line.done == 4000
    line.update(1, 2)
    assert (line.done, line.total) == (1, 2)
    line.close()
    line.close()


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (Status(3, 9), "map: 3 keys of 9 keys 33%, "),
        (Status(0, 5000, planning=True), "map: looking for keys, 5000 keys so far"),
        (Status(3, 9, failed=2), ", 2 failed"),
        (Status(3, 9, 0, False, "s4://b/k", "a:1", 61.7), ", s4://b/k at a:1 takes 62 s"),
    ],
)
def test_a_call_shows_its_state_its_failures_and_its_straggler(status, shown):
    line = ProgressLine("map", "keys", enabled=False)
    line.show(status)
    assert shown in line._line(1.0)
