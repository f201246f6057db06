"""A server that is lost amid a map call: who says so, who goes on, and how the call is taken up again."""

import json
import re

import pytest
from conftest import cli_runner, wait_for
from fault_ring import SENT, fault_ring, finish, start_cli

KEYS = 12
MAKE = "for i in 0 1 2; do echo $filename $i > $i; done; echo 0; echo 1; echo 2"
COMMANDS = {"map": "echo $filename", "map-to-n": MAKE, "map-from-n": "echo $filename"}


def put(ring):
    with ring.client() as client:
        for number in range(KEYS):
            client.put(f"s4://b/in/{number}", b"x")


def contents(ring, directory):
    with ring.client() as client:
        keys = [f"s4://b/{entry.name}" for entry in client.list(f"s4://b/{directory}/", recursive=True)]
        return {key.removeprefix(f"s4://b/{directory}/"): client.get(key) for key in keys}


def wait_in(place, numbers):
    """A command that waits in these keys until there is a file ``go``, having left one of its key's name."""
    waiting = f"touch {place}/$filename; until [[ -e {place}/go ]]; do sleep 0.02; done"
    return f"case $filename in {'|'.join(numbers)}) {waiting};; esac; "


@pytest.mark.parametrize("keep_going", [False, True])
def test_lost_contact_is_told_as_such_with_the_server_and_what_was_not_confirmed(tmp_path, keep_going):
    with fault_ring(tmp_path, count=3) as ring:
        put(ring)
        marks = tmp_path / "marks"
        marks.mkdir()
        held = [f"{number}" for number in range(KEYS) if ring.place(f"s4://b/in/{number}") == 1]
        command = wait_in(marks, [held[-1], "0"]) + "cat"
        options = ["--keep-going"] if keep_going else []
        call = start_cli(ring, tmp_path, "map", *options, "s4://b/in/", "s4://b/out/", command)
        wait_for(lambda: len(list(marks.iterdir())) == 2, "the commands to run")
        ring.kill(1)
        if keep_going:
            (marks / "go").touch()
        said = finish(call, 1).decode()
        assert re.search(rf"lost contact: .*; \d of its {len(held)} keys were not confirmed", said)
        assert ring.servers[1] in said
        assert "exited with" not in said
        ring.restart(1)
        done = {f"{number}" for number in range(KEYS)} - set(held)
        assert not keep_going or done <= set(contents(ring, "out"))
        jobs = cli_runner(ring, tmp_path)("jobs", "--json").stdout.splitlines()
        states = {job["server"]: job["state"] for job in map(json.loads, jobs)}
        assert states.pop(ring.servers[1]) == "lost"
        assert set(states.values()) <= {"done"} | (set() if keep_going else {"cancelled"})
        ring.check_no_jobs()


@pytest.mark.parametrize("verb", COMMANDS)
def test_a_call_resumed_after_kill_9_makes_exactly_what_an_undisturbed_one_does(tmp_path, verb):
    with fault_ring(tmp_path, count=3) as ring:
        put(ring)
        run, marks = cli_runner(ring, tmp_path), tmp_path / "marks"
        marks.mkdir()
        run(verb, "s4://b/in/", "s4://b/whole/", COMMANDS[verb])
        slow = wait_in(marks, ["10", "11", "9"]) + COMMANDS[verb]
        call = start_cli(ring, tmp_path, verb, "s4://b/in/", "s4://b/out/", slow)
        wait_for(lambda: len(list(marks.iterdir())) == 3 and contents(ring, "out"), "a part of the work to be done")
        ring.kill(2)
        assert ring.servers[2] in finish(call, 1).decode()
        ring.restart(2)
        ring.check_no_jobs()
        assert contents(ring, "out") != contents(ring, "whole")
        run(verb, "--resume", "s4://b/in/", "s4://b/out/", COMMANDS[verb])
        assert contents(ring, "out") == contents(ring, "whole")


@pytest.mark.parametrize("tuning", ["", SENT], ids=["linked", "sent"])
def test_what_a_failed_attempt_has_sent_does_not_stand_in_the_way_of_the_next(tmp_path, tuning):
    with fault_ring(tmp_path, count=3, tuning=tuning) as ring:
        with ring.client() as client:
            client.put("s4://b/in/0", b"")
        marks = tmp_path / "marks"
        marks.mkdir()
        wait = f"n=$(ls {marks} | wc -l); touch {marks}/$n; until [[ -e {tmp_path}/go$n ]]; do sleep 0.02; done; "
        options = ["--keep-going", "--retries", "1"]
        call = start_cli(ring, tmp_path, "map-to-n", *options, "s4://b/in/", "s4://b/out/", wait + MAKE)
        wait_for((marks / "0").exists, "the first attempt")
        ring.kill(2)
        (tmp_path / "go0").touch()
        wait_for((marks / "1").exists, "the second attempt")
        sent = ["b/out/0/0", "b/out/0/1"]  # the second by another thread, which may be about to
        wait_for(lambda: [key for key in ring.published() if "out" in key] == sent, "what the first attempt has sent")
        ring.restart(2)
        (tmp_path / "go1").touch()
        finish(call, 0)
        assert contents(ring, "out") == {f"0/{i}": b"0 %d\n" % i for i in range(3)}


@pytest.mark.parametrize("tuning", ["", SENT], ids=["linked", "sent"])
def test_a_call_that_keeps_going_counts_what_it_cannot_send_as_failed(tmp_path, tuning):
    with fault_ring(tmp_path, count=3, tuning=tuning) as ring:
        put(ring)
        marks = tmp_path / "marks"
        marks.mkdir()
        mine = [f"{number}" for number in range(KEYS) if ring.place(f"s4://b/in/{number}") != 2]
        command = wait_in(marks, mine[:2]) + "if [[ $filename = 1? ]]; then echo x > 0; echo 0; else " + MAKE + "; fi"
        call = start_cli(ring, tmp_path, "map-to-n", "--keep-going", "s4://b/in/", "s4://b/out/", command)
        wait_for(lambda: len(list(marks.iterdir())) == 2, "the commands to run")
        ring.kill(2)
        (marks / "go").touch()
        said = finish(call, 1).decode()
        assert re.search(r"\d+ of \d+ commands failed; .*lost contact", said)
        for name in mine[:2]:
            assert re.search(rf"s4raw: .*s4://b/.*/{name}\b.*{ring.servers[2]}", said)
        ring.restart(2)


def test_a_server_that_looks_for_its_inputs_says_how_many_it_has_found(tmp_path):
    with fault_ring(tmp_path, tuning="import s4raw.session; s4raw.session.PROGRESS_SECONDS = 0") as ring:
        with ring.client() as client:
            for number in range(600):
                client.put(f"s4://b/in/{number}", b"")
            told = []
            client.map("s4://b/in/*1", "s4://b/out/", ":", progress=told.append)
        planning = [status.total for status in told if status.planning]
        assert planning == sorted(planning)
        assert 20 < planning[0] < planning[-1] < 60
        assert told[-1].total == 60
