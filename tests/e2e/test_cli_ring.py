"""``health``, ``servers`` and ``server``: the ring as its user sees it, and one node by hand."""

import signal
import socket
import subprocess
from contextlib import contextmanager

import pytest
from conftest import CLI, cli_runner, wait_for

from s4raw.client import Ring


def cli(*arguments, **options):
    """Run the command line without a look at how it ends."""
    return subprocess.run([*CLI, *arguments], capture_output=True, timeout=60, check=False, **options)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


@contextmanager
def server(cwd, conf, *options):
    """One ``s4raw server`` in ``cwd``, once it answers; killed at the end if it still runs."""
    with open(cwd / "server.log", "ab") as log:
        process = subprocess.Popen([*CLI, "server", "-c", conf, *options], cwd=cwd, stdout=log, stderr=log)
    try:
        with Ring.from_conf(str(conf)) as client:
            healthy = lambda: any(error is None for _, error in client.health())  # noqa: E731
            wait_for(lambda: process.poll() is not None or healthy(), "the server to answer")
        assert process.poll() is None, (cwd / "server.log").read_text()
        yield process
    finally:
        process.kill()
        process.wait()


def conf_of(tmp_path, *lines):
    path = tmp_path / "ring.conf"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# health and servers


def test_servers_prints_the_conf(s4raw, ring):
    assert s4raw("servers").stdout.decode().splitlines() == ring.servers


def test_health_of_a_ring_that_is_well(s4raw, ring):
    assert s4raw("health").stdout.decode().splitlines() == [f"healthy:   {server}" for server in ring.servers]


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_health_names_the_servers_that_are_not_well(new_ring, how):
    ring = new_ring(3)
    process = ring.processes.pop(1)
    process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    done = cli("health", "-c", ring.conf)
    process.kill()
    process.wait()
    assert done.returncode == 1
    marks = ("healthy:  ", "unhealthy:", "healthy:  ")
    expected = [f"{mark} {server}" for mark, server in zip(marks, ring.servers, strict=True)]
    assert done.stdout.decode().splitlines() == expected


# server


def test_a_server_finds_its_own_line(tmp_path):
    [port] = free_ports(1)
    conf = conf_of(tmp_path, "", f"  127.0.0.1:{port}  ", "192.0.2.1:9", "")
    with server(tmp_path, conf) as process:
        assert f"healthy:   127.0.0.1:{port}\n" in cli("health", "-c", conf).stdout.decode()
        assert cli("cp", "-c", conf, "-", "s4://b/00000", input=b"x").returncode == 0
        assert (tmp_path / "s4_data/b/00000").read_bytes() == b"x"
        process.terminate()
        assert process.wait(60) == 0


def test_several_local_lines_need_a_port(tmp_path):
    ports = free_ports(2)
    conf = conf_of(tmp_path, *(f"127.0.0.1:{port}" for port in ports))
    failed = cli("server", "-c", conf, cwd=tmp_path)
    assert failed.returncode == 2
    assert b"--port" in failed.stderr
    assert not (tmp_path / "s4_data").exists()
    with server(tmp_path, conf, "--port", str(ports[1]), "--data", "here"):
        assert (tmp_path / "here").is_dir()
        assert cli("eval", "-c", conf, "s4://b/00001", "cat").returncode == 1  # nothing there, but it answers


def test_a_conf_without_a_line_of_this_machine(tmp_path):
    for options in ([], ["--port", "9"]):
        failed = cli("server", "-c", conf_of(tmp_path, "192.0.2.1:9"), *options, cwd=tmp_path)
        assert failed.returncode == 2
        assert b"ring.conf" in failed.stderr


@pytest.mark.parametrize("option", ["--max-cpu-jobs", "--max-io-jobs", "--max-connections", "--port"])
def test_counts_are_whole_numbers_from_one(tmp_path, option):
    conf = conf_of(tmp_path, "192.0.2.1:9")
    for number in ("0", "-1", "many", "0.5"):
        failed = cli("server", "-c", conf, option, number, cwd=tmp_path)
        assert failed.returncode == 2
        assert f"{option} needs" in failed.stderr.decode()


def test_a_taken_port_or_data_directory_is_exit_code_2(ring, tmp_path):
    taken = ring.servers[0].rpartition(":")[2]
    failed = cli("server", "-c", ring.conf, "--port", taken, cwd=tmp_path)
    assert failed.returncode == 2
    assert f"cannot listen on {ring.servers[0]}" in failed.stderr.decode()
    [port] = free_ports(1)
    failed = cli("server", "-c", conf_of(tmp_path, f"127.0.0.1:{port}"), "--data", f"{ring.data}/0", cwd=tmp_path)
    assert failed.returncode == 2
    assert b"in use" in failed.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_finishes_what_runs(new_ring, tmp_path, number):
    ring = new_ring(1)
    process = ring.processes.pop()
    cli_runner(ring, tmp_path)("cp", "-", "s4://b/key", input=b"content")
    go = tmp_path / "go"
    command = f"echo running; until [[ -e {go} ]]; do sleep 0.01; done; cat"
    with subprocess.Popen([*CLI, "eval", "-c", ring.conf, "s4://b/key", command], stdout=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"running\n"
        process.send_signal(number)
        wait_for(lambda: cli("health", "-c", ring.conf).returncode == 1, "the server to stop accepting")
        assert process.poll() is None
        go.touch()
        assert client.communicate(timeout=60)[0] == b"content"
        assert client.returncode == 0
    assert process.wait(60) == 0
    assert ring.tmp_names() == []


def test_a_server_cuts_off_what_is_not_done_after_its_grace(new_ring, tmp_path):
    ring = new_ring(1, ["--grace", "0.1"])
    process = ring.processes.pop()
    cli_runner(ring, tmp_path)("cp", "-", "s4://b/key")
    command = [*CLI, "eval", "-c", ring.conf, "s4://b/key", "echo running; sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"running\n"
        process.terminate()
        _, error = client.communicate(timeout=60)
        assert client.returncode == 1
        assert f"(key s4://b/key, server {ring.servers[0]})" in error.decode()
    assert process.wait(60) == 0
    assert ring.tmp_names() == []


def test_the_access_log_has_a_line_for_each_request(new_ring, tmp_path):
    ring = new_ring(1, ["--access-log"])
    cli_runner(ring, tmp_path)("cp", "-", "s4://b/key", input=b"x")
    cli_runner(ring, tmp_path)("cp", "s4://b/missing", "copy", code=1)
    assert " PUT s4://b/key ok " in ring.log(0)
    wait_for(lambda: " GET s4://b/missing NoSuchKey " in ring.log(0), "the line of the second request")
