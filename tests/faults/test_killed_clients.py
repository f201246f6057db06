"""kill -9 of a client: a put publishes nothing, a call leaves whole outputs of finished keys and nothing else."""

import os
import random

import pytest
from conftest import wait_for
from fault_ring import fault_ring, kill, start_cli
from proxy import UP, Stall

from s4raw.errors import NoSuchKey

BODY = random.Random(2).randbytes(12 << 20)
SLOW = "sleep 1000 & sleep 1000 | cat & touch {}/$filename; wait"


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    """Two servers with room for the slow commands and the fast ones at once."""
    with fault_ring(tmp_path_factory.mktemp("clients"), count=2, options=("--max-cpu-jobs", "8")) as ring:
        yield ring


@pytest.fixture
def client(ring):
    with ring.client() as client:
        for bucket in list(client.list("s4://")):
            client.remove_all(f"s4://{bucket.name}")
        yield client
    ring.check_leaks()


def check_never_published(ring, client):
    """The servers are at rest, have nothing of the key, and take it when it is put again."""
    client.close()
    ring.check_leaks()
    assert ring.published() == []
    with pytest.raises(NoSuchKey):
        client.get("s4://b/k")
    client.put("s4://b/k", b"again")
    assert client.get("s4://b/k") == b"again"


def test_killed_while_it_puts_a_pipe(ring, client, tmp_path):
    put = start_cli(ring, tmp_path, "cp", "-", "s4://b/k")
    put.stdin.write(BODY)  # returns when all but a pipe's worth is on its way
    kill(put)
    check_never_published(ring, client)


def test_killed_while_it_puts_a_large_file(tmp_path):
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 64 << 20)  # more than the sockets between take
    with fault_ring(tmp_path, proxied=True) as ring, ring.client() as client:
        proxy = ring.proxies[0]
        proxy.plan.append([Stall(UP, 1 << 20)])
        put = start_cli(ring, tmp_path, "cp", "file", "s4://b/k")
        wait_for(proxy.stalled.is_set, "a part of the file to be there")
        kill(put)
        proxy.resume.set()
        check_never_published(ring, client)


def test_killed_while_it_gets(ring, client, tmp_path):
    client.put("s4://b/k", BODY)
    get = start_cli(ring, tmp_path, "cp", "s4://b/k", "-")
    assert get.stdout.read(1)
    kill(get)
    client.close()
    ring.check_leaks()
    assert client.get("s4://b/k") == BODY


def is_slow(number: int) -> bool:
    return number % 5 == 4


CALLS = {  # verb -> the command for the fast keys, the output of key N, its content
    "map": ("cat", "b/out/{n}_x", b"data of {n}"),
    "map-to-n": ("cat > 1_y; echo 1_y", "b/out/{n}_x/1_y", b"data of {n}"),
    "map-from-n": ("xargs cat", "b/out/{n}_x", b"data of {n}"),
}


@pytest.mark.parametrize("verb", CALLS)
def test_killed_amid_a_call(ring, client, tmp_path, verb):
    command, output, content = CALLS[verb]
    numbers = range(20)
    for number in numbers:
        client.put(f"s4://b/in/{number}_x", f"data of {number}".encode())
    marks = tmp_path / "slow"
    marks.mkdir()
    fast, slow = [n for n in numbers if not is_slow(n)], [n for n in numbers if is_slow(n)]
    outputs = sorted(output.format(n=number) for number in fast)
    pattern = "|".join(f"{number}_x" for number in slow)
    text = f"case $filename in {pattern}) {SLOW.format(marks)};; esac; {command}"
    call = start_cli(ring, tmp_path, verb, "s4://b/in/", "s4://b/out/", text)
    wait_for(lambda: len(list(marks.iterdir())) == len(slow), "the slow commands to run")
    wait_for(lambda: [path for path in ring.published() if "/out/" in path] == outputs, "the fast ones to finish")
    assert len(ring.jobs()) >= 3 * len(slow)
    kill(call)
    ring.check_no_jobs()
    assert [path for path in ring.published() if "/out/" in path] == outputs
    for number in fast:
        expected = content.replace(b"{n}", str(number).encode())
        assert client.get("s4://" + output.format(n=number)) == expected


@pytest.mark.parametrize(
    "command",
    [
        "echo started; sleep 1000 & sleep 1000 | cat; wait",
        "echo started; (trap '' TERM HUP INT; sleep 1000 & wait) & wait",
        "echo started >&2; exec >&- 2>&-; sleep 1000",
        "yes",
        "yes >&2",
        "touch started; trap '' PIPE; while :; do echo x || :; done",
    ],
)
def test_killed_amid_an_eval(ring, client, tmp_path, command):
    client.put("s4://b/k", b"x")
    call = start_cli(ring, tmp_path, "eval", "s4://b/k", command)
    wait_for(ring.jobs, "the command to run")
    if ">&2" not in command:
        assert call.stdout.read(1)
    kill(call)
    ring.check_no_jobs()


def test_killed_while_it_waits_for_a_cpu_slot(tmp_path):
    with fault_ring(tmp_path, options=("--max-cpu-jobs", "1")) as ring, ring.client() as client:
        client.put("s4://b/k", b"x")
        first = start_cli(ring, tmp_path, "eval", "s4://b/k", "echo started; sleep 1000")
        assert first.stdout.read(1)
        threads = len(os.listdir(f"/proc/{ring.processes[0].pid}/task"))
        waiting = start_cli(ring, tmp_path, "map", "s4://b/", "s4://out/", f"touch {tmp_path}/ran")
        wait_for(lambda: len(os.listdir(f"/proc/{ring.processes[0].pid}/task")) > threads, "the second call to wait")
        kill(waiting)
        wait_for(lambda: len(os.listdir(f"/proc/{ring.processes[0].pid}/task")) == threads, "it to be given up")
        kill(first)
        ring.check_no_jobs()
        assert client.eval("s4://b/k", "cat", lambda _: None, lambda _: None) == 0
        assert not (tmp_path / "ran").exists()
