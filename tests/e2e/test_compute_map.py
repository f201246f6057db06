"""``map``: every key through a command, to the same path below another directory, on the same server."""

import os
import re
from pathlib import Path

import pytest

from s4raw.keys import Key

WORDS = [f"{word}{number}" for number in range(100) for word in ("Alpha", "Beta", "Gamma", "Delta")]


def put(client, names, directory="in", content=b"x"):
    for name in names:
        client.put(f"s4://b/{directory}/{name}", content)


def below(client, directory):
    """The keys below a directory of bucket b with their content, by relative path."""
    start = len(directory) + 1
    return {
        entry.name[start:]: client.get(Key("b", entry.name))
        for entry in client.list(f"s4://b/{directory}/", recursive=True)
    }


def test_every_key_goes_through_the_command(s4raw, client):
    pieces = {f"{number:05}": "".join(f"{word}\n" for word in WORDS[number::6]) for number in range(6)}
    for name, text in pieces.items():
        client.put(f"s4://b/in/{name}", text.encode())
    done = s4raw("map", "s4://b/in/", "s4://b/out/", "tr A-Z a-z")
    assert (done.stdout, done.stderr) == (b"", b"")
    assert below(client, "out") == {name: text.lower().encode() for name, text in pieces.items()}


def test_the_relative_path_and_the_suffix_are_kept(s4raw, client):
    names = ["000_key0", "deep/er/000_key0", "deep/001_key1.txt", "name"]
    put(client, names)
    s4raw("map", "s4://b//in", "s4://b/out//x", "cat")
    assert sorted(below(client, "out/x")) == sorted(names)


def test_a_whole_bucket_into_another(s4raw, client):
    put(client, ["1", "2"])
    s4raw("map", "s4://b", "s4://c", "cat")
    assert [entry.name for entry in client.list("s4://c", recursive=True)] == ["in/1", "in/2"]


def test_input_and_output_lie_on_the_same_server(s4raw, ring, client):
    names = [*(f"{number:05}_x" for number in range(6)), "name", "d.txt", "f.txt"]
    put(client, names)
    s4raw("map", "s4://b/in/", "s4://b/out/", "pwd")
    for name, directory in below(client, "out").items():
        [data] = [data for data in map(Path, _data(ring)) if (data / "b/in" / name).exists()]
        assert directory.decode().startswith(f"{data}/_tmp/")
        assert (data / "b/out" / name).exists()


def _data(ring):
    return [f"{ring.data}/{index}" for index in range(ring.count)]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*4", ["00004"]),
        ("*_1", ["00001_1", "deep/00002_1"]),
        ("0000[0-3]", ["00000"]),
        ("00001_?", ["00001_1", "00001_2"]),
        ("*/*", ["deep/00002_1", "deep/00004_2"]),
        ("nosuch*", []),
    ],
)
def test_a_glob_picks_the_inputs_and_keeps_their_paths(s4raw, client, glob, expected):
    put(client, ["00000", "00001_1", "00001_2", "00004", "deep/00002_1", "deep/00004_2"])
    s4raw("map", f"s4://b//in/{glob}", "s4://b/out/", "cat")
    assert sorted(below(client, "out")) == expected


def test_a_glob_below_a_directory_keeps_the_path_from_the_glob_on(s4raw, client):
    put(client, ["deep/1", "deep/2", "deep/er/1"])
    s4raw("map", "s4://b/in/deep/*1", "s4://b/out/", "cat")
    assert sorted(below(client, "out")) == ["1", "er/1"]


def test_filename_is_the_basename(s4raw, client):
    put(client, ["deep/00001_a", "name"])
    s4raw("map", "s4://b/in/", "s4://b/out/", "echo $filename")
    assert below(client, "out") == {"deep/00001_a": b"00001_a\n", "name": b"name\n"}


@pytest.mark.parametrize("place", ["s4://b/nothing/", "s4://nobucket/", "s4://b/in/*z"])
@pytest.mark.parametrize("verb", ["map", "map-to-n", "map-from-n"])
def test_no_keys_is_no_failure(s4raw, client, verb, place):
    put(client, ["1"])
    assert b'"commands": 0' in s4raw(verb, "--json", place, "s4://b/out/", "exit 1").stdout
    assert below(client, "out") == {}


def test_empty_and_large_outputs(s4raw, client):
    put(client, ["1", "2", "3"])
    s4raw("map", "s4://b/in/", "s4://b/none/", "true")
    assert below(client, "none") == {"1": b"", "2": b"", "3": b""}
    s4raw("map", "s4://b/in/", "s4://b/large/", "head -c 5000000 /dev/zero; cat")
    assert below(client, "large") == dict.fromkeys("123", bytes(5_000_000) + b"x")


def test_an_output_may_lie_below_the_input(s4raw, client):
    put(client, ["1", "2", "3"])
    for directory in ("in/out", "in"):
        s4raw("map", "s4://b/in/", f"s4://b/{directory}/again/", "cat")
    assert sorted(below(client, "in/out")) == ["again/1", "again/2", "again/3"]
    assert len(below(client, "in/again")) == 6


def test_a_command_finds_its_directory_empty_whatever_the_one_before_did(new_ring):
    ring = new_ring(1, ["--max-cpu-jobs", "1"])
    with ring.client() as client:
        put(client, [f"{number}" for number in range(8)])
        mess = [
            "touch file .hidden 'a b'; mkdir -p d/e; touch d/e/f; chmod 0 d/e d; ln -s / s; mkfifo p",
            'chmod 0 "$PWD"',
            'rmdir "$PWD"',
            'rmdir "$PWD"; ln -s /nowhere "$PWD"',
            'rmdir "$PWD"; touch "$PWD"',
            'ln "$(readlink /proc/self/fd/0)" hard || true',
            "true",
        ]
        cases = "".join(f"{number}) {command};; " for number, command in enumerate(mess))
        client.map("s4://b/in/", "s4://b/out/", f"ls -A; case $filename in {cases} esac")
        assert below(client, "out") == {f"{number}": b"" for number in range(8)}
        assert below(client, "in") == {f"{number}": b"x" for number in range(8)}


# Failures


def test_a_failure_shows_stderr_exit_code_server_and_key(s4raw, client):
    put(client, [f"{number:05}" for number in range(9)])
    command = "if [[ $filename = 00004 ]]; then echo oops >&2; printf 'no newline' >&2; exit 3; fi; cat"
    failed = s4raw("map", "s4://b/in/", "s4://b/out/", command, code=1)
    server = client.stat("s4://b/in/00004").server
    last = f"s4raw: the command exited with 3 (key s4://b/in/00004, server {server}, call ID)"
    assert re.sub(r"call \w{9}\b", "call ID", failed.stderr.decode()).splitlines() == ["oops", "no newline", last]
    assert "00004" not in below(client, "out")


def test_of_a_long_stderr_the_end_is_shown(s4raw, client):
    put(client, ["1"])
    failed = s4raw("map", "s4://b/in/", "s4://b/out/", "seq 1000000 >&2; exit 1", code=1).stderr
    assert failed.startswith(b"".join(b"%d\n" % number for number in range(1, 1000001))[-(64 << 10) :])


@pytest.mark.parametrize("command", ["false; true", "echo $nosuch", "cat nosuch | cat"])
def test_commands_are_strict(s4raw, client, command):
    put(client, ["1"])
    s4raw("map", "s4://b/in/", "s4://b/out/", command, code=1)
    assert below(client, "out") == {}


def test_the_first_failure_ends_the_call_everywhere(s4raw, client, tmp_path):
    put(client, [f"{number:05}" for number in range(30)])
    command = f"""
        case $filename in
            00000) while (($(ls {tmp_path} | wc -l) < 2)); do sleep 0.01; done; exit 9;;
            *) touch {tmp_path}/$filename; sleep 1000;;
        esac"""
    failed = s4raw("map", "s4://b/in/", "s4://b/out/", command, code=1)
    assert re.fullmatch(
        r"s4raw: the command exited with 9 \(key s4://b/in/00000, server .*\)\n", failed.stderr.decode()
    )
    assert below(client, "out") == {}
    assert len(os.listdir(tmp_path)) < 30


def test_a_command_that_takes_too_long_is_named(s4raw, client):
    put(client, ["1"])
    command = "echo working on it >&2; sleep 1000"
    for options, env in ((["--timeout", "0.3"], {}), ([], {"S4_TIMEOUT": "0.3"})):
        failed = s4raw("map", *options, "s4://b/in/", "s4://b/out/", command, code=1, env=env).stderr.decode()
        assert failed.startswith("working on it\n")
        assert "longer than 0.3 s" in failed
        assert f"(key s4://b/in/1, server {client.stat('s4://b/in/1').server}, call " in failed
    assert below(client, "out") == {}


@pytest.mark.parametrize("verb", ["map", "map-to-n", "map-from-n"])
def test_an_output_that_exists_is_kept_and_named(s4raw, client, verb):
    put(client, ["00001"])
    output = "out/00001/00001" if verb == "map-to-n" else "out/00001"
    client.put(f"s4://b/{output}", b"old")
    failed = s4raw(verb, "s4://b/in/", "s4://b/out/", "echo new > 00001; echo 00001", code=1).stderr.decode()
    assert f"key already exists (key s4://b/{output}, server {client.stat(f's4://b/{output}').server}, call " in failed
    assert client.get(f"s4://b/{output}") == b"old"


def test_a_path_too_long_for_a_key_is_named(s4raw, client):
    put(client, ["long-name"])
    failed = s4raw("map", "s4://b/in/", f"s4://b/{'x' * 1020}", "cat", code=2)
    assert b"1024" in failed.stderr
    assert below(client, "in") == {"long-name": b"x"}
