"""Job files: what is known of map calls, across processes and restarts."""

import os

import pytest

from s4raw import jobs
from s4raw.errors import UsageError
from s4raw.jobs import CANCELLED, DONE, KEPT, LOST, RUNNING, SLACK, Job, Jobs


def job(name, **more):
    fields = {"verb": "map", "server": "a:1", "client": "c:2", "indir": "s4://b/in/", "outdir": "s4://b/out/"}
    return Job(name, **{**fields, "command": "cat", "started": 1.0, "pid": os.getpid(), **more})


@pytest.fixture
def files(tmp_path):
    return Jobs(str(tmp_path))


def test_a_call_is_known_from_its_begin_to_after_its_end(files):
    files.begin(job("a"))
    assert files.find("a").state == RUNNING
    files.update(job("a", done=3))
    assert files.find("a").done == 3
    files.end(job("a", state=DONE))
    assert [found.state for found in files.list()] == [DONE]


def test_an_id_is_taken_once(files):
    files.begin(job("a"))
    with pytest.raises(UsageError, match="exists already"):
        files.begin(job("a"))


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", "a.cancel", "ä"])
def test_what_is_no_id_is_refused(files, name):
    with pytest.raises(UsageError):
        files.begin(job(name))
    assert files.find(name) is None
    assert files.cancel(name, "me") == ""


def test_another_process_asks_for_the_end(files, tmp_path):
    files.begin(job("a"))
    assert files.cancelled("a") is None
    assert Jobs(str(tmp_path)).cancel("a", "me") == RUNNING
    assert files.cancelled("a") == "me"
    files.end(job("a", state=CANCELLED))
    assert files.cancelled("a") is None
    assert files.cancel("a", "me") == CANCELLED


def test_a_call_whose_process_has_died_is_lost(files):
    files.begin(job("a", pid=1 << 22))
    assert files.find("a").state == LOST
    assert files.cancel("a", "me") == LOST


def test_after_a_restart_what_ran_is_lost_whoever_has_its_number_now(files, tmp_path):
    files.begin(job("a"))
    files.cancel("a", "me")
    files.begin(job("b", state=DONE))
    again = Jobs(str(tmp_path))
    again.sweep()
    assert {found.id: found.state for found in again.list()} == {"a": LOST, "b": DONE}
    assert sorted(os.listdir(tmp_path / "_jobs")) == ["a", "b"]


def test_the_oldest_that_have_ended_are_forgotten(files, monkeypatch):
    monkeypatch.setattr(jobs, "now", iter(range(10000)).__next__)
    files.begin(job("running"))
    for number in range(KEPT + SLACK + 5):
        files.begin(job(f"j{number:04}"))
        files.end(job(f"j{number:04}", state=DONE))
    left = {found.id for found in files.list()}
    assert "running" in left
    assert f"j{KEPT + SLACK + 4:04}" in left
    assert "j0000" not in left
    assert len(left) <= KEPT + SLACK


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"id": "a"}', b"\xff"])
def test_a_file_that_cannot_be_read_is_no_call(files, tmp_path, content):
    (tmp_path / "_jobs" / "a").write_bytes(content)
    assert files.find("a") is None
    files.sweep()
