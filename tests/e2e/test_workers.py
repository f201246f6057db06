"""``server --workers``: several processes are one server, with one set of CPU slots, and end as one."""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import CLI, children, descriptors, names, wait_for

from s4raw.client import Ring
from s4raw.errors import S4Error

WORKERS = 3


def started(new_ring, count=1, workers=WORKERS, options=()):
    """A ring whose servers have several workers, at rest."""
    ring = new_ring(count, ["--workers", str(workers), *options])
    wait_for(lambda: all(len(children(process.pid)) == workers for process in ring.processes))
    return ring


@pytest.fixture
def ring(new_ring):
    ring = started(new_ring)
    yield ring
    ring.stop()  # workers are children, which the leak check of a ring knows nothing of


def sockets(pid):
    """How many connections a worker has, beside the socket that it listens on."""
    return sum(target.startswith("socket:") for target in descriptors(pid).values()) - 1


def test_keys_that_one_worker_took_are_there_for_all(ring):
    clients = [Ring.from_conf(ring.conf) for _ in range(2 * WORKERS)]
    try:
        for number, client in enumerate(clients):
            client.put(f"s4://b/{number}", str(number).encode())
        for client in clients:
            assert [client.get(f"s4://b/{number}") for number in range(len(clients))] == [
                str(number).encode() for number in range(len(clients))
            ]
    finally:
        for client in clients:
            client.close()


def test_connections_are_spread_evenly(ring):
    workers = children(ring.processes[0].pid)
    clients, used = [Ring.from_conf(ring.conf) for _ in range(2 * WORKERS)], []
    try:
        for number, client in enumerate(clients, 1):
            client.put(f"s4://b/{number}", b"x")
            used.append(client)
            wait_for(lambda: sum(map(sockets, workers)) == len(used))
        assert max(map(sockets, workers)) - min(map(sockets, workers)) <= 1
    finally:
        for client in clients:
            client.close()


def test_cpu_slots_are_one_for_all_workers(new_ring, tmp_path):
    """Each call is taken by another worker; their commands never run at the same time."""
    ring = started(new_ring, options=["--max-cpu-jobs", "1"])
    lock = tmp_path / "lock"
    errors = []

    def call(number):
        with Ring.from_conf(ring.conf) as client:
            for key in range(4):
                client.put(f"s4://b/{number}/{key}", b"x")
            try:
                client.map(f"s4://b/{number}/", f"s4://b/out{number}/", f"mkdir {lock} && sleep 0.05 && rmdir {lock}")
            except S4Error as error:
                errors.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    ring.stop()


def test_a_call_is_listed_and_cancelled_by_another_worker(ring):
    with Ring.from_conf(ring.conf) as client:
        client.put("s4://b/in/1", b"x")
        failures = []

        def call():
            with Ring.from_conf(ring.conf) as other:
                try:
                    other.map("s4://b/in/", "s4://b/out/", "sleep 60")
                except S4Error as error:
                    failures.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        try:
            wait_for(lambda: running(client))
        finally:
            for name in running(client):
                client.cancel(name, "the test")
            thread.join()
        assert "cancelled by the test" in str(failures[0])
        assert not list(client.list("s4://b/out/", recursive=True))


def running(client):
    """The ids of the calls that run, as any worker tells."""
    (_, jobs) = next(iter(client.jobs()))
    return [job["id"] for job in jobs if job["state"] == "running" and job["total"]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_of_them(ring, number):
    master = ring.processes[0]
    workers = children(master.pid)
    master.send_signal(number)
    assert master.wait(20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_workers_end_when_the_master_is_killed(ring):
    master = ring.processes[0]
    workers = children(master.pid)
    master.kill()
    master.wait()
    wait_for(lambda: not any("s4raw" in command(pid) for pid in workers), "the workers to end")


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_a_worker_that_dies_takes_the_server_down(ring):
    master = ring.processes[0]
    workers = children(master.pid)
    os.kill(workers[0], signal.SIGKILL)
    assert master.wait(20) == 1
    assert "a worker process died" in ring.log(0)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_what_runs_is_finished_before_the_workers_end(ring):
    with Ring.from_conf(ring.conf) as client:
        client.put("s4://b/1", b"x")
        process = subprocess.Popen(
            [*CLI, "eval", "s4://b/1", "sleep 1; echo done"],
            env={**os.environ, "S4_CONF_PATH": ring.conf},
            stdout=subprocess.PIPE,
        )
        wait_for(lambda: any(names(f"/proc/{pid}/task") and children(pid) for pid in children(ring.processes[0].pid)))
    ring.processes[0].terminate()
    assert process.communicate()[0] == b"done\n"
    assert process.returncode == 0
    assert ring.processes[0].wait(20) == 0


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5"])
def test_what_is_no_number_of_workers_is_refused(s4raw, count):
    s4raw("server", f"--workers={count}", code=2)
