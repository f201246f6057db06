"""``local``: an embedded ring around a command, or until it is told to stop."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CLI, children, wait_for

S4RAW = f"{sys.executable} -m s4raw"


def local(tmp_path, *arguments):
    """Run ``s4raw local`` to its end, with temporary files below ``tmp_path``."""
    return subprocess.run(
        [*CLI, "local", *arguments],
        env=environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        timeout=100,
        check=False,
    )


def environment(tmp_path):
    return {**os.environ, "TMPDIR": str(tmp_path), "S4_CONF_PATH": "/nowhere"}


def start(tmp_path, *arguments):
    command = [*CLI, "local", *arguments]
    return subprocess.Popen(command, env=environment(tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, process_group=0)


def is_gone(server):
    """Whether nobody listens on a server's address any more."""
    address, _, port = server.partition(":")
    with socket.socket() as sock:
        return sock.connect_ex((address, int(port))) != 0


def test_a_command_runs_in_a_ring_of_its_own_and_its_exit_code_is_passed_on(tmp_path):
    script = (
        f"{S4RAW} servers; {S4RAW} health >&2; echo 1 | {S4RAW} cp - s4://b/key; {S4RAW} eval s4://b/key cat; exit 7"
    )
    done = local(tmp_path, "-n", "2", "--", "bash", "-c", script)
    *servers, content = done.stdout.decode().splitlines()
    assert (done.returncode, content, len(servers)) == (7, "1", 2)
    assert done.stderr.count(b"\nhealthy:") + done.stderr.startswith(b"healthy:") == 2
    assert all(map(is_gone, servers))
    assert os.listdir(tmp_path) == []


def test_three_servers_are_the_default_and_arguments_go_through(tmp_path):
    done = local(
        tmp_path, "--", "bash", "-c", f'{S4RAW} servers | wc -l; echo "$@"', "bash", "--", "-n", "a  b", "--help"
    )
    assert done.stdout == b"3\n-- -n a  b --help\n"
    assert local(tmp_path, "true").returncode == 0


def test_data_that_is_asked_for_stays(tmp_path):
    assert local(tmp_path, "--data", "data", "--", "bash", "-c", f"echo 1 | {S4RAW} cp - s4://b/key").returncode == 0
    done = local(tmp_path, "--data", "data", "--", "bash", "-c", f"{S4RAW} cp s4://b/key -")
    assert done.stdout == b"1\n"
    assert local(tmp_path, "-n", "0", "--data", "data", "--", "true").returncode == 2


def test_a_command_that_cannot_run_is_wrong_usage(tmp_path):
    failed = local(tmp_path, "--", "no-such-command-at-all")
    assert failed.returncode == 2
    assert b"no-such-command-at-all" in failed.stderr
    assert os.listdir(tmp_path) == []


def test_a_command_that_a_signal_killed(tmp_path):
    assert local(tmp_path, "--", "bash", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_a_ring_that_cannot_start_says_why(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/1").write_text("no directory")
    failed = local(tmp_path, "--data", "data", "--", "true")
    assert failed.returncode == 2
    assert b"data/1" in failed.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_command_it_stays_up_until_told_to_stop(tmp_path, number):
    with start(tmp_path, "-n", "2") as process:
        try:
            export, conf = process.stdout.readline().decode().strip().split("=")
            assert export == "export S4_CONF_PATH"
            servers = Path(conf).read_text().split()
            done = subprocess.run([*CLI, "health", "-c", conf], stdout=subprocess.PIPE, timeout=60, check=True)
            assert done.stdout.decode().splitlines() == [f"healthy:   {server}" for server in servers]
            process.send_signal(number)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert all(map(is_gone, servers))
    assert os.listdir(tmp_path) == []


def test_servers_do_not_outlive_a_ring_that_was_killed(tmp_path):
    with start(tmp_path, "-n", "2", "--data", str(tmp_path / "data")) as process:
        conf = Path(process.stdout.readline().decode().strip().partition("=")[2])
        servers = conf.read_text().split()
        assert len(children(process.pid)) == 2
        process.kill()
    wait_for(lambda: all(map(is_gone, servers)), "the servers to stop")
    for number in range(2):
        log = tmp_path / f"data/server-{number}.log"
        wait_for(lambda log=log: log.read_text().rstrip().endswith(" stop"), "the servers to drain")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_and_the_ring(tmp_path, number, code):
    with start(tmp_path, "--", "bash", "-c", f"{S4RAW} servers; echo; exec sleep 1000") as process:
        try:
            servers = [line.decode().strip() for line in iter(process.stdout.readline, b"\n")]
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # as a terminal does
            else:
                process.send_signal(number)
            assert process.wait(60) == code
        finally:
            process.kill()
    assert len(servers) == 3
    assert all(map(is_gone, servers))
    assert os.listdir(tmp_path) == []
