"""What a map call can be asked for: to keep going, to try again, to go on with another, to say what it would do."""

import json
import os
import re
import subprocess

import pytest
from conftest import CLI

from s4raw.errors import CallFailed, KeyExists, UsageError
from s4raw.events import Attempt, Planned
from s4raw.keys import Key
from s4raw.mapping import Options, new_id

VERBS = ("map", "map-to-n", "map-from-n")
EACH = ("echo $(basename $filename) > 0; cp 0 1; cp 0 2; echo 0; echo 1; echo 2", "map-to-n")


def put(client, count, directory="in"):
    for number in range(count):
        client.put(f"s4://b/{directory}/{number}", b"%d\n" % number)


def below(client, directory):
    """The keys below a directory of bucket b with their content, by relative path."""
    start = len(directory) + 1
    return {
        entry.name[start:]: client.get(Key("b", entry.name))
        for entry in client.list(f"s4://b/{directory}/", recursive=True)
    }


def fails_first(tmp_path, times, command):
    """A command that fails so many times for each key before it succeeds."""
    return f"echo >> {tmp_path}/$filename; (($(wc -l < {tmp_path}/$filename) > {times})) || exit 7; {command}"


# Ids


def test_ids_are_short_and_sort_by_time(monkeypatch):
    monkeypatch.setattr("time.time", iter([1.7e9, 1.7e9 + 1, 1.8e9]).__next__)
    ids = [new_id() for _ in range(3)]
    assert ids == sorted(ids)
    assert all(re.fullmatch("[0-9a-z]{9}", name) for name in ids)


@pytest.mark.parametrize("name", ["UPPER", "../x", "a" * 33, "a b"])
def test_an_id_that_could_be_no_file_is_refused(client, name):
    with pytest.raises(UsageError, match="not the id of a call"):
        client.map("s4://b/in/", "s4://b/out/", "cat", options=Options(id=name))


def test_an_id_that_is_taken_is_refused(client):
    client.map("s4://b/in/", "s4://b/out/", "cat", options=Options(id="taken0"))
    with pytest.raises(UsageError, match="taken0 exists already"):
        client.map("s4://b/in/", "s4://b/out/", "cat", options=Options(id="taken0"))


def test_the_id_is_in_the_json_and_in_errors(s4raw, client):
    put(client, 1)
    name = json.loads(s4raw("map", "--json", "s4://b/in/", "s4://b/out/", "cat").stdout)["id"]
    assert re.fullmatch("[0-9a-z]{9}", name)
    error = s4raw("map", "s4://b/in/", "s4://b/out/", "cat", code=1).stderr.decode()
    assert re.search(r"key already exists \(key .*, server .*, call [0-9a-z]{9}\)", error)


# Keeping going


@pytest.mark.parametrize("verb", VERBS)
def test_a_call_that_keeps_going_finishes_the_rest_and_lists_every_failure(s4raw, client, verb):
    put(client, 9)
    command = "if [[ $filename = [135] ]]; then echo oops $filename >&2; exit 4; fi; echo x > 0; echo 0"
    done = s4raw(verb, "--keep-going", "s4://b/in/", "s4://b/out/", command, code=1)
    lines = done.stderr.decode().splitlines()
    for number in (1, 3, 5):
        key = f"s4://b/{'out' if verb == 'map-from-n' else 'in'}/{number}"
        server = client.topology.place_basename(str(number))
        at = lines.index(f"s4raw: the command exited with 4 (key {key}, server {server})")
        assert lines[at - 1] == f"  oops {number}"
    assert re.fullmatch(r"s4raw: 3 of 9 commands failed \(call [0-9a-z]{9}\)", lines[-1])
    assert len(lines) == 7
    suffix = "/0" if verb == "map-to-n" else ""
    assert sorted(below(client, "out")) == [f"{number}{suffix}" for number in (0, 2, 4, 6, 7, 8)]


def test_a_library_learns_of_failures_as_they_happen(client):
    put(client, 4)
    told = []
    options = Options(keep_going=True, event=told.append, all_events=False)
    with pytest.raises(CallFailed, match="1 of 4 commands failed"):
        client.map("s4://b/in/", "s4://b/out/", "[[ $filename != 2 ]] || { echo oops >&2; exit 5; }", options=options)
    [failure] = told
    assert isinstance(failure, Attempt)
    assert (failure.key, failure.exit_code, failure.stderr) == ("s4://b/in/2", 5, "oops\n")
    assert failure.server == client.topology.place_basename("2")


def test_other_failures_than_a_commands_are_passed_over_too(client):
    put(client, 3)
    client.put("s4://b/out/1", b"old")
    told = []
    with pytest.raises(CallFailed):
        client.map("s4://b/in/", "s4://b/out/", "cat", options=Options(keep_going=True, event=told.append))
    [failure] = [event for event in told if event.error]
    assert "key already exists" in failure.error
    assert failure.exit_code is None
    assert below(client, "out") == {"0": b"0\n", "1": b"old", "2": b"2\n"}


# Trying again


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_that_fails_is_run_again_in_a_clean_directory(s4raw, client, tmp_path, verb):
    put(client, 3)
    marks = tmp_path / "marks"
    marks.mkdir()
    command = "ls -A > " + str(tmp_path / "seen") + "; touch left-over;" + fails_first(marks, 2, "echo x > 0; echo 0")
    done = s4raw(verb, "--retries", "2", "--json", "s4://b/in/", "s4://b/out/", command)
    assert json.loads(done.stdout)["commands"] == 3
    assert (tmp_path / "seen").read_bytes() == b""
    assert len(below(client, "out")) == 3
    assert {path.read_bytes() for path in marks.iterdir()} == {b"\n\n\n"}


def test_a_command_that_fails_too_often_has_failed(s4raw, client, tmp_path):
    put(client, 1)
    command = fails_first(tmp_path, 3, "cat")
    failed = s4raw("map", "--retries", "2", "s4://b/in/", "s4://b/out/", command, code=1)
    assert b"exited with 7" in failed.stderr
    assert (tmp_path / "0").read_bytes() == b"\n\n\n"


def test_a_command_that_took_too_long_is_run_again(client, tmp_path):
    put(client, 1)
    command = f"[[ -e {tmp_path}/again ]] || {{ touch {tmp_path}/again; sleep 1000; }}; cat"
    assert client.map("s4://b/in/", "s4://b/out/", command, timeout=1, options=Options(retries=1)) == 1
    assert below(client, "out") == {"0": b"0\n"}


def test_a_key_that_exists_is_not_tried_again(client):
    put(client, 1)
    client.put("s4://b/out/0", b"old")
    told = []
    with pytest.raises(KeyExists):
        client.map("s4://b/in/", "s4://b/out/", "cat", options=Options(retries=5, event=told.append))
    assert [event.attempt for event in told] == [1]


# Going on


def test_a_map_that_is_resumed_skips_what_is_there(s4raw, client, tmp_path):
    put(client, 6)
    for verb in ("map", "map-from-n"):
        for number in (1, 4):
            client.put(f"s4://b/{verb}/{number}", b"done before")
        command = f"touch {tmp_path}/{verb}-$filename; echo new"
        done = json.loads(s4raw(verb, "--resume", "--json", "s4://b/in/", f"s4://b/{verb}/", command).stdout)
        assert (done["commands"], done["skipped"]) == (4, 2)
        expected = {f"{number}": b"done before" if number in (1, 4) else b"new\n" for number in range(6)}
        assert below(client, verb) == expected
        assert len(list(tmp_path.glob(f"{verb}-*"))) == 4


def test_a_shuffle_that_is_resumed_completes_what_is_there(client):
    put(client, 6)
    command = EACH[0]
    client.map_to_n("s4://b/in/", "s4://b/whole/", command)
    whole = below(client, "whole")
    client.map_to_n("s4://b/in/", "s4://b/out/", command)
    for name in ("0/0", "1/1", "2/2", "3/0", "3/1", "3/2"):
        client.remove(f"s4://b/out/{name}")
    with pytest.raises(KeyExists):
        client.map_to_n("s4://b/in/", "s4://b/out/", command)
    assert client.map_to_n("s4://b/in/", "s4://b/out/", command, options=Options(resume=True)) == 6
    assert below(client, "out") == whole


@pytest.mark.parametrize("name", ["0", "1", "2"])
def test_a_shuffle_is_not_resumed_over_another_content(client, name):
    put(client, 1)
    client.put(f"s4://b/out/0/{name}", b"other")
    with pytest.raises(KeyExists, match="with another content") as caught:
        client.map_to_n("s4://b/in/", "s4://b/out/", EACH[0], options=Options(resume=True))
    assert (caught.value.key, caught.value.server) == (
        f"s4://b/out/0/{name}",
        client.topology.place_basename(name),
    )
    assert client.get(f"s4://b/out/0/{name}") == b"other"


@pytest.mark.parametrize("target", ["s4://b/in/out/", "s4://b/in/"])
def test_a_call_whose_outputs_would_be_inputs_is_not_resumed(s4raw, client, target):
    put(client, 1)
    refused = s4raw("map", "--resume", "s4://b/in/", target, "cat", code=2)
    assert b"lie below its inputs" in refused.stderr


# Saying what would be done


def test_a_dry_run_says_what_would_run_where_and_runs_nothing(s4raw, client, tmp_path):
    put(client, 3)
    client.put("s4://b/in/deep/1_x", b"")
    client.put("s4://b/out/2", b"")
    command = f"touch {tmp_path}/ran"
    servers = {name: client.topology.place_basename(name) for name in ("0", "1", "2")}

    def lines(verb, *more):
        return sorted(
            s4raw(verb, "--dry-run", *more, "s4://b/in/", "s4://b/out/", command).stdout.decode().splitlines()
        )

    each = [(number, servers[number], number) for number in "012"] + [("deep/1_x", servers["1"], "deep/1_x")]
    assert lines("map") == sorted(f"{server} s4://b/in/{key} -> s4://b/out/{out}" for key, server, out in each)
    assert not [line for line in lines("map", "--resume") if line.endswith("/out/2")]
    assert f"{servers['1']} s4://b/in/deep/1_x -> s4://b/out/1_x/" in lines("map-to-n")
    assert f"{servers['1']} s4://b/in/1 s4://b/in/deep/1_x -> s4://b/out/1" in lines("map-from-n")
    [planned] = [json.loads(line) for line in lines("map-from-n", "--json") if "/out/1" in line]
    inputs = ["s4://b/in/1", "s4://b/in/deep/1_x"]
    assert planned == {"server": servers["1"], "inputs": inputs, "output": "s4://b/out/1"}
    assert not (tmp_path / "ran").exists()
    assert sorted(below(client, "out")) == ["2"]


def test_a_library_gets_a_dry_run_as_records(client):
    put(client, 2)
    told = []
    assert client.map_to_n("s4://b/in/", "s4://b/out/", "false", options=Options(dry_run=True, event=told.append)) == 2
    assert sorted(told, key=lambda planned: planned.output) == [
        Planned(client.topology.place_basename(f"{n}"), [f"s4://b/in/{n}"], f"s4://b/out/{n}/") for n in range(2)
    ]


# The log


def test_the_job_log_has_a_line_for_each_attempt(s4raw, client, tmp_path):
    put(client, 4)
    marks = tmp_path / "marks"
    marks.mkdir()
    command = f"[[ $filename != 1 ]] || {{ {fails_first(marks, 1, 'true')}; }}; tail -c +1; head -c 9000000 /dev/zero"
    done = s4raw("map", "--json", "--retries", "1", "--joblog", "log", "s4://b/in/", "s4://b/out/", command)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(lines) == 5
    first, again = sorted((line for line in lines if line["key"] == "s4://b/in/1"), key=lambda line: line["attempt"])
    assert (first["attempt"], first["exit_code"], first["bytes_out"]) == (1, 7, 0)
    assert "exited with 7" in first["error"]
    for line in [again, *(line for line in lines if line["key"] != "s4://b/in/1")]:
        assert (line["exit_code"], line["error"], line["bytes_in"], line["bytes_out"]) == (0, "", 2, 9000002)
        assert line["server"] == client.topology.place_basename(line["key"][-1])
        assert line["call"] == json.loads(done.stdout)["id"]
        assert line["start"] > 1.7e9
        assert line["peak_bytes"] is None  # less than the server's own, which hides it
        assert line["cpu_seconds"] > 0
        assert line["seconds"] > 0


def test_the_peak_of_memory_is_the_command_s_own(tmp_path):
    """The largest of what the command ran, where that is more than the server's own, with that of who started it.

    That is these tests' process, which may be large: so a small one starts the ring.
    """
    command = "cat >/dev/null; head -c 150000000 /dev/zero | tail -c 149000000 | tail -c 1"  # tail keeps them all
    script = f"$S4RAW cp in s4://b/in/ && $S4RAW map --joblog log s4://b/in/ s4://b/out/ '{command}'"
    (tmp_path / "in").write_bytes(b"0")
    environment = {**os.environ, "S4RAW": " ".join(CLI)}
    ring = [*CLI, "local", "-n", "1", "--", "bash", "-c", script]
    subprocess.run(ring, cwd=tmp_path, env=environment, check=True, timeout=100)
    assert 100 << 20 < json.loads((tmp_path / "log").read_text())["peak_bytes"] < 1 << 30


def test_bytes_out_of_a_shuffle_are_those_of_all_its_files(client):
    put(client, 2)
    told = []
    client.map_to_n("s4://b/in/", "s4://b/out/", EACH[0], options=Options(event=told.append))
    assert [event.bytes_out for event in told] == [6, 6]


def test_a_resumed_call_appends_to_the_log_and_any_other_replaces_it(s4raw, client, tmp_path):
    put(client, 3)
    for options, expected in (([], 3), (["--resume"], 6), ([], 3)):
        client.remove_all("s4://b/out/")
        s4raw("map", *options, "--joblog", "log", "s4://b/in/", "s4://b/out/", "cat")
        assert len((tmp_path / "log").read_text().splitlines()) == expected


def test_a_log_that_cannot_be_written_is_named_and_nothing_is_run(s4raw, client):
    put(client, 1)
    failed = s4raw("map", "--joblog", "no/such/log", "s4://b/in/", "s4://b/out/", "cat", code=1)
    assert b"no/such/log" in failed.stderr
    assert below(client, "out") == {}


# How many at once


def test_at_most_so_many_commands_run_at_once_on_each_server(new_ring, tmp_path):
    ring = new_ring(1, ["--max-cpu-jobs", "4"])
    with ring.client() as client:
        put(client, 8)
        command = f"mkdir {tmp_path}/alone; sleep 0.02; rmdir {tmp_path}/alone"
        assert client.map("s4://b/in/", "s4://b/out/", command, options=Options(jobs=1)) == 8


@pytest.mark.parametrize(
    "options", [["--jobs", "0"], ["--jobs", "x"], ["--retries", "-1"], ["--retries", "1.5"], ["--retries", "9999"]]
)
def test_a_number_that_is_none_is_refused(s4raw, options):
    s4raw("map", *options, "s4://b/in/", "s4://b/out/", "cat", code=2)
