"""``jobs`` and ``cancel``: map calls by their id, while they run and after."""

import json
import re
import subprocess

import pytest
from conftest import CLI, cli_runner, wait_for
from test_cli_interrupt import alive, keys, start

RING = 3


def jobs(s4raw, *arguments):
    """What ``s4raw jobs --json`` says."""
    return [json.loads(line) for line in s4raw("jobs", "--json", *arguments).stdout.splitlines()]


def hang(client, tmp_path, count=4):
    """A command that leaves its process's number and runs on, but for one key; the inputs for it."""
    for number in range(count):
        client.put(f"s4://b/in/{number}", b"")
    return f"""
        if [[ $filename = 0 ]]; then echo whole > 0; echo 0; exit; fi
        sleep 1000 & echo $BASHPID $! > {tmp_path}/$filename.new; mv {tmp_path}/$filename.new {tmp_path}/$filename.pids
        wait"""


def test_a_running_call_is_listed_by_server_and_then_how_it_ended(s4raw, ring, client, tmp_path):
    command = hang(client, tmp_path)
    with start(ring, "map", "s4://b/in/", "s4://b/out/", command) as process:
        wait_for(
            lambda: [job for job in jobs(s4raw) if job["state"] == "running" and job["done"]], "progress to be told"
        )
        [name] = {job["id"] for job in jobs(s4raw) if job["state"] == "running"}
        found = jobs(s4raw, name)
        assert {job["server"] for job in found} == set(client.topology.servers)
        assert (sum(job["done"] for job in found), sum(job["total"] for job in found)) == (1, 4)
        for job in found:
            assert (job["verb"], job["indir"], job["outdir"]) == ("map", "s4://b/in/", "s4://b/out/")
            assert job["command"] == command[:500]
        lines = s4raw("jobs", name).stdout.decode().splitlines()
        assert lines[0].split() == ["ID", "VERB", "STATE", "SERVER", "DONE", "FAILED", "RATE", "AGE", "COMMAND"]
        assert all(
            re.match(rf"{name}  map   running  127.0.0.1:\d+ +\d/\d +0 +[\d.]+/s +\d+s +if \[\[", line)
            for line in lines[1:]
        )
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr, process.stdin):
            stream.close()
    wait_for(lambda: {job["state"] for job in jobs(s4raw, name)} == {"cancelled"}, "the servers to notice")
    assert {job["message"] for job in jobs(s4raw, name)} == {"the client left"}


def test_calls_that_ended_say_how(s4raw, client):
    for number in range(3):
        client.put(f"s4://b/in/{number}", b"")
    done = json.loads(s4raw("map", "--json", "s4://b/in/", "s4://b/out/", "cat").stdout)["id"]
    assert {(job["state"], job["done"]) for job in jobs(s4raw, done)} == {("done", 1)}
    error = s4raw("map", "--keep-going", "s4://b/in/", "s4://b/bad/", "exit 1", code=1).stderr.decode()
    name = re.search(r"call (\w+)", error)[1]
    assert {(job["state"], job["failed"]) for job in jobs(s4raw, name)} == {("failed", 1)}


@pytest.mark.parametrize("verb", ["map", "map-to-n", "map-from-n"])
def test_a_call_that_is_cancelled_leaves_nothing_and_its_client_says_by_whom(s4raw, ring, client, tmp_path, verb):
    with start(ring, verb, "s4://b/in/", "s4://b/out/", hang(client, tmp_path)) as process:
        wait_for(lambda: keys(client, "s4://b/out/") and len(list(tmp_path.glob("*.pids"))) == 3, "the commands to run")
        [name] = {job["id"] for job in jobs(s4raw) if job["state"] == "running"}
        s4raw("cancel", name, env={"USER": "somebody"})
        _, error = process.communicate(timeout=60)
        assert process.returncode == 130
        assert re.search(rf"cancelled by somebody at \S+ \(server .*, call {name}\)", error.decode())
    assert {job["state"] for job in jobs(s4raw, name)} == {"cancelled"}
    pids = [pid for path in tmp_path.glob("*.pids") for pid in path.read_text().split()]
    wait_for(lambda: not any(map(alive, pids)), "the killed processes to be gone")
    assert ring.tmp_names() == []
    [done] = keys(client, "s4://b/out/")
    assert client.get(f"s4://b/{done}") == (b"whole\n" if verb == "map-to-n" else b"0\n")


def test_what_does_not_run_cannot_be_cancelled(s4raw, client):
    assert b"no such call (call nosuch)" in s4raw("cancel", "nosuch", code=1).stderr
    assert b"no such call (call ../_lock)" in s4raw("cancel", "../_lock", code=1).stderr
    client.put("s4://b/in/1", b"")
    name = json.loads(s4raw("map", "--json", "s4://b/in/", "s4://b/out/", "cat").stdout)["id"]
    assert f"ended already (done) (call {name})".encode() in s4raw("cancel", name, code=1).stderr
    assert b"no such call (call nosuch)" in s4raw("jobs", "nosuch", code=1).stderr


def test_an_interrupted_call_says_its_id_and_what_was_done(ring, client, tmp_path):
    for number, code in ((2, 130), (15, 143)):
        client.remove_all("s4://b/")
        for path in tmp_path.glob("*.pids"):
            path.unlink()
        with start(ring, "map", "s4://b/in/", "s4://b/out/", hang(client, tmp_path)) as process:
            wait_for(lambda: len(list(tmp_path.glob("*.pids"))) == 3, "the commands to run")
            process.send_signal(number)
            _, error = process.communicate(timeout=60)
        assert process.returncode == code
        assert re.fullmatch(rb"s4raw: interrupted: \d of 4 keys were done \(call [0-9a-z]{9}\)\n", error)
        pids = [pid for path in tmp_path.glob("*.pids") for pid in path.read_text().split()]
        wait_for(lambda pids=pids: not any(map(alive, pids)), "the commands to end")


def test_a_straggler_is_named_with_its_server(client, tmp_path):
    for number in range(6):
        client.put(f"s4://b/in/{number}", b"")
    seen = []

    def progress(status):
        seen.append(status)
        if status.slowest:
            (tmp_path / "go").touch()

    client.map(
        "s4://b/in/",
        "s4://b/out/",
        f"until [[ $filename != 3 || -e {tmp_path}/go ]]; do sleep 0.1; done",
        progress=progress,
    )
    [slow] = {(status.slowest, status.server) for status in seen if status.slowest}
    assert slow == ("s4://b/in/3", client.topology.place_basename("3"))
    assert max(status.seconds for status in seen) > 2


def test_a_server_that_does_not_answer_is_told_of_and_the_others_still_listed(new_ring, tmp_path):
    ring = new_ring(2)
    with ring.client() as client:
        client.put("s4://b/in/1", b"")
        client.map("s4://b/in/", "s4://b/out/", "cat")
    ring.processes[1].terminate()
    ring.processes[1].wait()
    done = subprocess.run([*CLI, "jobs", "-c", ring.conf], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert ring.servers[0].encode() in done.stdout
    assert ring.servers[1].encode() in done.stderr
    assert ring.servers[1].encode() in cli_runner(ring, tmp_path)("cancel", "abc", code=1).stderr
