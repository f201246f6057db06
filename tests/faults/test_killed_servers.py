"""kill -9 of a server: nothing acknowledged is lost, nothing partial is seen, nothing is left running."""

import random
import threading

import pytest
from conftest import cli_runner, wait_for
from fault_ring import fault_ring, finish, start_cli

from s4raw.errors import KeyExists, S4Error

THREADS = 5
PUTS = 20  # of each thread
SIZES = (0, 1, 4096, 256 << 10, (1 << 20) + 1, 3 << 20)
HANG = "touch {}/$filename; sleep 1000 & sleep 1000 | cat; wait"


def content(thread: int, number: int) -> bytes:
    return random.Random(PUTS * thread + number).randbytes(SIZES[(thread + number) % len(SIZES)])


def put_many(ring, thread: int, acknowledged: list[str]) -> None:
    with ring.client() as client:
        for number in range(PUTS):
            try:
                client.put(f"s4://b/{thread}/{number}_k", content(thread, number))
            except S4Error:
                return  # killed, and not up again
            acknowledged.append(f"{thread}/{number}_k")


@pytest.mark.parametrize("acknowledgements", [1, 40, 70])
def test_after_kill_9_amid_100_puts_every_acknowledged_key_is_there_and_no_partial_one(tmp_path, acknowledgements):
    with fault_ring(tmp_path) as ring:
        acknowledged: list[str] = []
        threads = [threading.Thread(target=put_many, args=(ring, thread, acknowledged)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(acknowledged) >= acknowledgements)
        ring.kill(0)
        for thread in threads:
            thread.join()
        on_disk = ring.published()
        ring.restart(0)
        with ring.client() as client:
            listed = [entry.name for entry in client.list("s4://b/", recursive=True)]
            assert set(acknowledged) <= set(listed)
            assert sorted(f"b/{name}" for name in listed) == on_disk
            for name in listed:
                thread, number = name.removesuffix("_k").split("/")
                assert client.get(f"s4://b/{name}") == content(int(thread), int(number))
                with pytest.raises(KeyExists):
                    client.put(f"s4://b/{name}", b"other")
        assert not ring.tmp_names()


@pytest.mark.parametrize("verb", ["map", "map-to-n", "map-from-n"])
def test_after_kill_9_amid_commands_they_are_killed_and_swept_at_the_next_start(tmp_path, verb):
    with fault_ring(tmp_path, count=2) as ring:
        marks = tmp_path / "started"
        marks.mkdir()
        with ring.client() as client:
            for number in range(4):
                client.put(f"s4://b/in/{number}", b"x")
        call = start_cli(ring, tmp_path, verb, "s4://b/in/", "s4://b/out/", HANG.format(marks))
        wait_for(lambda: len(list(marks.iterdir())) == 4, "all commands to run")
        assert ring.jobs() and ring.tmp_names()
        ring.kill(1)
        assert ring.servers[1] in finish(call, 1).decode()
        wait_for(lambda: not list((ring.directory(0) / "_tmp").iterdir()), "the other server to stop its part")
        ring.restart(1)
        ring.check_no_jobs()
        assert sorted(ring.published()) == [f"b/in/{number}" for number in range(4)]
        with ring.client() as client:
            assert client.map("s4://b/in/", "s4://b/out/", "cat") == 4


def test_commands_that_left_their_process_group_do_not_survive_a_restart_either(tmp_path):
    with fault_ring(tmp_path) as ring:
        with ring.client() as client:
            client.put("s4://b/k", b"x")
        call = start_cli(ring, tmp_path, "eval", "s4://b/k", "setsid sleep 1000 & echo started; wait")
        assert call.stdout.read(1)
        ring.kill(0)
        assert ring.servers[0] in finish(call, 1).decode()
        ring.restart(0)
        ring.check_no_jobs()


@pytest.fixture(scope="module")
def crippled(tmp_path_factory):
    """A ring of three of which the second is down; key N lies on server N."""
    with fault_ring(tmp_path_factory.mktemp("crippled"), count=3) as ring:
        with ring.client() as client:
            for number in range(3):
                client.put(f"s4://b/in/{number}", b"%d" % number)
        ring.kill(1)
        yield ring


@pytest.mark.parametrize(
    "arguments",
    [
        ["cp", "-", "s4://b/1"],
        ["cp", "s4://b/in/1", "-"],
        ["cp", "s4://b/in/1", "here"],
        ["cp", "-r", "s4://b/in/", "out/"],
        ["ls"],
        ["ls", "s4://b/in/"],
        ["ls", "-r", "s4://b/"],
        ["rm", "s4://b/in/1"],
        ["rm", "-r", "s4://b/none/"],
        ["eval", "s4://b/in/1", "cat"],
        ["map", "s4://b/in/", "s4://b/out1/", "cat"],
        ["map-to-n", "s4://b/in/", "s4://b/out2/", "cat > 1; echo 1"],
        ["map-from-n", "s4://b/in/", "s4://b/out3/", "cat"],
    ],
    ids=" ".join,
)
def test_a_server_that_is_down_is_named(crippled, tmp_path, arguments):
    error = cli_runner(crippled, tmp_path)(*arguments, code=1).stderr.decode()
    assert crippled.servers[1] in error
    if "s4://b/in/1" in arguments:
        assert "s4://b/in/1" in error
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_down_is_unhealthy_and_the_others_serve_on(crippled, tmp_path):
    run = cli_runner(crippled, tmp_path)
    health = start_cli(crippled, tmp_path, "health")
    assert sorted(health.stdout.readlines()) == sorted(
        f"{word} {server}\n".encode()
        for word, server in zip(("healthy:  ", "unhealthy:", "healthy:  "), crippled.servers, strict=True)
    )
    finish(health, 1)
    assert run("cp", "s4://b/in/0", "-").stdout == b"0"
    assert run("eval", "s4://b/in/2", "cat").stdout == b"2"
    run("cp", "-", "s4://b/5", input=b"5")


def test_files_shipped_to_a_server_that_is_down_fail_the_shuffle_and_name_it(crippled, tmp_path):
    run = cli_runner(crippled, tmp_path)
    error = run("map-to-n", "s4://b/in/", "s4://b/shipped/", "echo x > 1; echo 1", code=1).stderr.decode()
    assert crippled.servers[1] in error
