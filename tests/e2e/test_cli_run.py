"""``run``: many verbs, one a line, in one process."""

import json
import signal
import subprocess

import pytest
from conftest import CLI, socket_inodes, wait_for


def names(client):
    return [entry.name for entry in client.list("s4://b", recursive=True)]


@pytest.fixture
def script(tmp_path):
    """Writes lines to a file."""

    def write(*lines):
        (tmp_path / "lines").write_text("\n".join(lines) + "\n")
        return "lines"

    return write


def test_lines_are_verbs_in_their_order(s4raw, client, tmp_path, script):
    (tmp_path / "file name").write_bytes(b"content")
    lines = script(
        "# a comment",
        "",
        "cp 'file name' s4://b/1",
        '   cp "file name" s4://b/2#3',
        r"cp file\ name s4://b/x/4_a",
        "ls s4://b/",
        "cat s4://b/1 s4://b/2#3",
        "mv s4://b/1 s4://b/x/",
        "find s4://b/x/*_a",
        "eval s4://b/x/1 'tr a-z A-Z'",
        "rm -r s4://b/2",
        "cp s4://b/x/1 out",
        "ls -r s4://b",
    )
    said = s4raw("run", lines).stdout.decode()
    assert [line.split()[-1] for line in said.splitlines()] == [
        *("1", "2#3", "x/"),
        "contentcontents4://b/x/4_a",
        "x/1",
        "x/4_a",
    ]
    assert "\nCONTENT2" in said
    assert names(client) == ["x/1", "x/4_a"]
    assert (tmp_path / "out").read_bytes() == b"content"


def test_lines_come_from_stdin_and_are_done_as_they_come(ring, client):
    with subprocess.Popen([*CLI, "run", "-", "-c", ring.conf], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        for number in range(3):
            client.put(f"s4://b/{number}", b"%d\n" % number)
            child.stdin.write(b"cat s4://b/%d\n" % number)
            child.stdin.flush()
            assert child.stdout.readline() == b"%d\n" % number
        child.stdin.close()
        assert child.wait() == 0


def test_a_line_that_fails_is_named_and_the_others_go_on(s4raw, client, script):
    client.put("s4://b/1", b"one\n")
    script(
        "cat s4://b/none",
        "cat s4://b/1",
        "nosuch s4://b/1",
        "cat",
        "ls s4://none",
        "cat 's4://b/1",
        "eval s4://b/1 'exit 7'",
        "server",
        "run -",
        "ls -q s4://b/",
        "s3 run --anonymous",
        "cat --help",
        "cat s4://b/1",
    )
    done = s4raw("run", "lines", code=1)
    assert done.stdout.startswith(b"one\nWrite keys to stdout")
    assert done.stdout.endswith(b"\none\n")
    errors = done.stderr.decode()
    for line in (
        "s4raw: lines:1: no such key (key s4://b/none",
        "s4raw: lines:3: no such verb: 'nosuch'",
        "s4raw: lines:4: wrong arguments for cat",
        "s4raw: lines:5: ls: exit code 1",
        "s4raw: lines:6: no closing quotation",
        "s4raw: lines:7: eval: exit code 7",
        "s4raw: lines:8: not in run: 'server'",
        "s4raw: lines:9: not in run: 'run'",
        "s4raw: lines:10: wrong arguments for ls",
        "s4raw: lines:11: not in run: 's3 run'",
    ):
        assert line in errors
    assert errors.count("s4raw: lines:") == 10


@pytest.mark.parametrize(("line", "code"), [("eval s4://b/1 'exit 7'", 7), ("cp a b", 2), ("rm s4://b/none", 1)])
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_fail_fast_ends_it_with_the_exit_code_of_the_line(s4raw, client, script, line, code, jobs):
    client.put("s4://b/1", b"")
    script(line, *(["ls"] * (jobs == "2")), *["rm s4://b/1"] * (jobs == "1"))
    assert b"lines:1:" in s4raw("run", "--fail-fast", "-j", jobs, "lines", code=code).stderr
    assert names(client) == ["1"]


def test_lines_may_run_side_by_side(s4raw, client, tmp_path, script):
    (tmp_path / "file").write_bytes(b"content")
    script(*(f"cp file s4://b/{number:03}" for number in range(200)), "cat s4://b/none")
    assert b"lines:201: no such key" in s4raw("run", "-j", "4", "lines", code=1).stderr
    assert names(client) == [f"{number:03}" for number in range(200)]
    script(*(f"stat --json s4://b/{number:03}" for number in range(200)))
    found = [json.loads(line)["key"] for line in s4raw("run", "--jobs=4", "lines").stdout.splitlines()]
    assert sorted(found) == [f"s4://b/{number:03}" for number in range(200)]


def test_sync_says_what_it_does_beside_others_too(s4raw, client, tmp_path, script):
    (tmp_path / "foo").mkdir()
    (tmp_path / "foo/file").write_bytes(b"content")
    script("sync foo s4://b/x", "sync -q foo s4://b/y")
    assert s4raw("run", "-j", "2", "lines").stdout == b"upload: foo/file to s4://b/x/file\n"


def test_all_lines_share_one_connection_to_a_server(ring, client, tmp_path):
    key, peers = "s4://b/00000", set()
    client.put(key, b"")
    client.close()
    with subprocess.Popen([*CLI, "run", "-", "-c", ring.conf], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        for _ in range(5):
            child.stdin.write(b"stat " + key.encode() + b"\n")
            child.stdin.flush()
            assert all(child.stdout.readline() for _ in range(6))
            peers.add(frozenset(socket_inodes(child.pid)))
        child.stdin.close()
    assert len(peers) == 1


def test_what_cannot_be_run(s4raw, client, tmp_path):
    assert b"none: No such file" in s4raw("run", "none", code=1).stderr
    assert b"Is a directory" in s4raw("run", ".", code=1).stderr
    failed = s4raw("run", "-", input=b"cp - s4://b/1\n", code=1)
    assert b"-:1: stdin holds the lines of run" in failed.stderr
    assert names(client) == []


def test_a_line_may_name_another_conf(s4raw, client, tmp_path, script):
    (tmp_path / "dead.conf").write_text("127.0.0.1:1\n")
    client.put("s4://b/1", b"one")
    script("cat -c dead.conf s4://b/1", "cat s4://b/1")
    done = s4raw("run", "lines", code=1)
    assert b"lines:1: cannot connect" in done.stderr
    assert done.stdout == b"one"


def test_an_interrupt_ends_it(ring, client, script, tmp_path):
    client.put("s4://b/1", b"")
    script("eval s4://b/1 'echo up; sleep 100'", "rm s4://b/1")
    command = [*CLI, "run", "lines", "-c", ring.conf]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"up\n"
        child.send_signal(signal.SIGINT)
        assert child.wait() == 130
    assert names(client) == ["1"]


def test_map_calls_may_be_lines_that_run_side_by_side(s4raw, client, script):
    for number in range(3):
        client.put(f"s4://b/in{number}/k", b"x")
    lines = script(*(f"map s4://b/in{number}/ s4://b/out{number}/ cat" for number in range(3)), "ls s4://b/in0/")
    said = s4raw("run", "-j", "2", lines)
    assert said.stdout.split()[-1] == b"k"
    assert [name for name in names(client) if name.startswith("out")] == ["out0/k", "out1/k", "out2/k"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_interrupts_a_map_call_means_the_lines_after_it_too(ring, client, tmp_path, script, number, code):
    client.put("s4://b/in/k", b"x")
    lines = script(f"map s4://b/in/ s4://b/out/ 'touch {tmp_path}/begun; sleep 60'", "rm s4://b/in/k")
    process = subprocess.Popen([*CLI, "run", lines, "-c", ring.conf], cwd=tmp_path, stderr=subprocess.PIPE)
    wait_for((tmp_path / "begun").exists)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code, said
    assert b"interrupted" in said
    assert names(client) == ["in/k"]
