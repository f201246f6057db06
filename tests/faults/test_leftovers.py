"""Whatever a command leaves in its temporary directory goes with it, however hard it is to remove."""

import subprocess
import sys

import pytest
from conftest import wait_for
from fault_ring import fault_ring, finish, kill, start_cli

DEEP = 'import os; [(os.mkdir("d"), os.chdir("d")) for _ in range(1200)]'
HARD_TO_REMOVE = {
    "read-only": "mkdir -p a/b; touch a/b/c; chmod 0 a/b/c a/b a",
    "the-directory-itself": "touch a; chmod 0 .",
    "a-symlink-out": "ln -s {outside} a; ln -s {outside}/file b; ln -s nowhere c",
    "odd-names": "touch -- -rf '*' ' ' $'\\n' $'\\xff'; mkdir -- -r ...",
    "a-pipe": "mkfifo a",
    "many": "touch {{1..3000}}",
    "deep": f"{sys.executable} -c '{DEEP}'",
}


@pytest.fixture
def outside(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("precious")
    yield tmp_path / "outside"
    assert (tmp_path / "outside" / "file").read_text() == "precious"


@pytest.fixture
def ring(tmp_path):
    try:
        with fault_ring(tmp_path) as ring:
            with ring.client() as client:
                client.put("s4://b/k", b"x")
            yield ring
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "ring"], check=True)  # also what the test's own tools could not remove


@pytest.mark.parametrize("command", HARD_TO_REMOVE.values(), ids=HARD_TO_REMOVE)
def test_what_a_command_leaves_is_removed(ring, outside, tmp_path, command):
    for verb in (["eval", "s4://b/k"], ["map", "s4://b/", "s4://out/"]):
        finish(start_cli(ring, tmp_path, *verb, command.format(outside=outside)), 0)
        ring.check_no_jobs()


@pytest.mark.parametrize("command", HARD_TO_REMOVE.values(), ids=HARD_TO_REMOVE)
def test_what_a_command_leaves_on_a_server_that_is_killed_is_removed_at_the_next_start(
    ring, outside, tmp_path, command
):
    call = start_cli(
        ring, tmp_path, "eval", "s4://b/k", f"{command.format(outside=outside)}; touch {tmp_path}/done; sleep 1000"
    )
    wait_for((tmp_path / "done").exists, "the command to have run")
    ring.kill(0)
    kill(call)
    ring.restart(0)
    ring.check_no_jobs()
