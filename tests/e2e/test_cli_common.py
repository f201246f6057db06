"""What all verbs have in common: help, wrong usage, the conf, errors, outputs that fail, JSON."""

import json
import os
import subprocess

import pytest
from conftest import CLI, cli_runner

from s4raw import __version__
from s4raw.usage import MAIN
from s4raw.verbs import MODULES as VERBS

MAPS = ("map", "map-to-n", "map-from-n")
S3 = ["s4://b/", "s4://c/", "cat"]
WRONG = {
    "cp": [
        [],
        ["one"],
        ["s4://b/a", "b", "c"],
        ["--nosuch", "s4://b/a", "b"],
        ["s4://b/a", "b", "-c"],
        ["--include", "*", "s4://b/a", "b"],
        ["s4://b/*", "-"],
        ["s4://*/a", "b"],
    ],
    "mv": [
        *([], ["a"], ["a", "b"], ["-", "s4://b/a"], ["s4://b/a", "-"], ["s4://b/a", "s4://b/a"], ["s4://b/", "x"]),
        *(["--include", "*", "s4://b/a", "x"], ["s4://*/a", "x"], ["-r", "s4://", "x"]),
    ],
    "sync": [[], ["a"], ["a", "b"], ["s4://b/", "s4://c/"], ["-", "s4://b/"], ["-r", ".", "s4://b/"], [".", "s4://"]],
    "get": [[], ["b/a"], ["s4://b/"], ["s4://b/a", "x", "y"], ["--range", "x", "s4://b/a"], ["-r", "s4://b/a"]],
    "cat": [[], ["b/a"], ["s4://b/"], ["-r", "s4://b/a"], ["s4://*/a"]],
    "ls": [["s4://b/", "s4://b/"], ["--nosuch"], ["-x"], ["--exclude", "*", "s4://b/"], ["s4://b*"]],
    "rm": [[], ["s4://b/a", "s4://b/b"], ["-x", "s4://b/a"], ["--include", "*", "s4://b/a"], ["s4://*/a"]],
    "stat": [[], ["b/a"], ["s4://b/"], ["s4://*/a"], ["-r", "s4://b/a"]],
    "find": [[], ["s4://b/a", "s4://b/b"], ["b/*"], ["s4://*/a"], ["s4://"]]
    + [["--size", size, "s4://b/"] for size in ("", "x", "++1", "1X", "1.5M")]
    + [["--newer", when, "s4://b/"] for when in ("", "soon", "1y", "2026-13-01")],
    "du": [["s4://b/", "s4://b/"], ["b/"], ["s4://b*"], ["-x"], ["--include"]],
    "eval": [[], ["s4://b/a"], ["s4://b/a", "cat", "more"], ["-r", "s4://b/a", "cat"], ["--timeout", *S3[:2]]],
    "map": [[], S3[:2], [*S3, "more"], ["-r", *S3], ["b/", *S3[1:]], ["s4://*/", *S3[1:]]]
    + [["--timeout", seconds, *S3] for seconds in ("0", "-1", "nan", "inf", "soon")],
    "map-to-n": [[], S3[:2], [*S3, "more"], ["s4://b/", "c/", "cat"]],
    "map-from-n": [[], S3[:2], [*S3, "more"], ["s4://b/", "s4://_c/", "cat"]],
    "run": [[], ["a", "b"], ["-j", "0", "/dev/null"], ["-j", "0.5", "/dev/null"], ["-x", "/dev/null"]],
    "scrub": [["s4://b/", "s4://c/"], ["b/"], ["-x"], ["--rate", "fast"], ["--rate"]],
    "jobs": [["one", "two"], ["-x"]],
    "cancel": [[], ["one", "two"], ["-x", "one"]],
    "health": [["more"], ["-x"]],
    "servers": [["more"], ["-x"]],
    "server": [["more"], ["--port", "x"], ["--port", "-1"], ["--grace"], ["--max-cpu-jobs", "0.5"]],
    "completion": [[], ["fish"], ["bash", "zsh"], ["-x"]],
    "push": [
        ["nosuch"],
        ["more"],
        ["run", "more"],
        ["--nosuch"],
        ["--address", "here"],
        ["--connections", "0"],
        ["--full", "maybe"],
        ["--limit-bytes", "much"],
        ["--socket-mode", "rw"],
        ["drop"],
        ["drop", "1", "--all"],
        ["retry", "x"],
        ["status", "more"],
        ["flush", "--wait", "long"],
        ["report"],
    ],
    "send": [[], ["file"], ["file", "a/b/c", "more"], ["--wait", "soon", "file", "a/b/c"], ["--nosuch", "-"]],
    "s3": [
        [],
        ["nosuch"],
        ["run", "more"],
        ["ls", "a", "b"],
        ["get"],
        ["put", "bucket"],
        ["set", "bucket"],
        ["mb", ""],
    ],
    "local": [["-n", count, "--", "true"] for count in ("0", "x", "0.5")] + [["-x"], ["--", "no-such-command"]],
}


def cli(arguments, **options):
    """Run the command line without a look at how it ends."""
    return subprocess.run([*CLI, *arguments], timeout=100, check=False, **options)


# Help and wrong usage


def test_help_names_every_verb(s4raw):
    for arguments in (["--help"], ["-h"], ["help"]):
        assert s4raw(*arguments).stdout.decode() == MAIN
    assert all(f"\n  {verb} " in MAIN for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_help(s4raw, verb):
    for option in ("--help", "-h"):
        done = s4raw(verb, option)
        assert f"Usage: s4raw {verb}" in done.stdout.decode()
        assert done.stderr == b""
    assert "Usage:" in s4raw(verb, "anything", "--help").stdout.decode()


def test_the_version(s4raw):
    assert s4raw("--version").stdout.decode() == f"s4raw {__version__}\n"


@pytest.mark.parametrize("arguments", [[], [""], ["nosuch"], ["LS"], ["--nosuch"]])
def test_no_verb_is_wrong_usage(arguments):
    done = cli(arguments, capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Usage: s4raw VERB" in done.stderr


@pytest.mark.parametrize(("verb", "arguments"), [(verb, wrong) for verb in VERBS for wrong in WRONG[verb]])
def test_wrong_usage_is_exit_code_2(s4raw, client, verb, arguments):
    assert s4raw(verb, *arguments, code=2).stdout == b""
    assert list(client.list("s4://")) == []


@pytest.mark.parametrize("verb", [*MAPS, "eval"])
def test_a_useless_timeout_variable_is_exit_code_2(s4raw, verb):
    places = ["s4://b/", "s4://c/"][: 1 + (verb != "eval")]
    for text in ("", "0", "soon"):
        assert b"S4_TIMEOUT" in s4raw(verb, *places, "cat", code=2, env={"S4_TIMEOUT": text}).stderr


# The conf


def test_the_conf_is_an_option_a_variable_or_in_the_home_directory(ring, tmp_path):
    (tmp_path / ".s4.conf").write_text("10.0.0.1:1\n")
    (tmp_path / "other.conf").write_text("10.0.0.2:2\n")
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("S4_CONF_PATH", None)
    run = cli_runner(ring, tmp_path)
    assert cli(["servers"], env=environment, capture_output=True).stdout == b"10.0.0.1:1\n"
    assert run("servers").stdout.decode().split() == ring.servers
    for option in (["-c", "other.conf"], ["-cother.conf"], ["--conf", "other.conf"], ["--conf=other.conf"]):
        assert run("servers", *option).stdout == b"10.0.0.2:2\n"


@pytest.mark.parametrize(
    "text", ["\n", "localhost:1\n", "1.2.3.4\n", "1.2.3.4:0\n", "1.2.3.4:1\n1.2.3.4:1\n", "1.2.3.256:1\n"]
)
def test_an_unusable_conf_is_exit_code_2_and_named(s4raw, tmp_path, text):
    (tmp_path / "bad.conf").write_text(text)
    for verb in (["ls"], ["servers"], ["health"], ["server"], ["cp", "-", "s4://b/key"]):
        assert b"bad.conf" in s4raw(*verb, "-c", "bad.conf", code=2).stderr
    assert b"missing.conf" in s4raw("ls", "-c", "missing.conf", code=2).stderr


def test_another_conf_is_a_ring_mismatch_that_names_both(s4raw, ring, tmp_path):
    (tmp_path / "other.conf").write_text("\n".join(reversed(ring.servers)))
    failed = s4raw("ls", "-c", "other.conf", code=2).stderr.decode()
    assert "ring mismatch" in failed
    assert ", ".join(ring.servers) in failed
    assert ", ".join(reversed(ring.servers)) in failed


# Errors


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["cp", "-", "s4://b/00000"], ["key s4://b/00000"]),
        (["cp", "s4://b/00000", "copy"], ["key s4://b/00000"]),
        (["cp", "-r", "s4://b/", "copy"], []),
        (["ls"], []),
        (["rm", "s4://b/00000"], ["key s4://b/00000"]),
        (["rm", "-r", "s4://b/"], []),
        (["mv", "s4://b/00000", "s4://b/1"], ["key s4://b/00000"]),
        (["sync", ".", "s4://b/"], []),
        (["sync", "s4://b/", "copy"], []),
        (["cat", "s4://b/00000"], ["key s4://b/00000"]),
        (["stat", "s4://b/00000"], []),
        (["find", "s4://b/*"], []),
        (["du", "s4://b/"], []),
        (["eval", "s4://b/00000", "cat"], ["key s4://b/00000"]),
        (["map", "s4://b/", "s4://c/", "cat"], []),
        (["map-to-n", "s4://b/", "s4://c/", "cat"], []),
        (["map-from-n", "s4://b/", "s4://c/", "cat"], []),
    ],
)
def test_a_server_that_is_gone_is_named_with_the_key(tmp_path, arguments, names):
    (tmp_path / "dead.conf").write_text("127.0.0.1:1\n")
    done = cli([*arguments, "-c", "dead.conf"], cwd=tmp_path, input=b"x", capture_output=True)
    assert done.returncode == 1
    for name in (*names, "server 127.0.0.1:1"):
        assert name in done.stderr.decode()
    assert os.listdir(tmp_path) == ["dead.conf"]


@pytest.mark.parametrize("arguments", [["ls"], ["servers"], ["cp", "s4://b/key", "-"], ["eval", "s4://b/key", "cat"]])
def test_an_output_that_is_full_is_an_error_like_any_other(ring, client, arguments):
    client.put("s4://b/key", b"content")
    with open("/dev/full", "wb") as full:
        done = cli([*arguments, "-c", ring.conf], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["ls"], ["cp", "s4://b/key", "-"], ["eval", "s4://b/key", "cat"]])
def test_a_reader_that_has_had_enough_ends_the_verb_quietly(ring, client, arguments):
    client.put("s4://b/key", bytes(1 << 20))
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        done = cli([*arguments, "-c", ring.conf], stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("closed", "arguments"), [(0, ["cp", "-", "s4://b/new"]), (1, ["cp", "s4://b/key", "-"]), (1, ["ls"])]
)
def test_a_closed_stdin_or_stdout_is_an_error(ring, client, closed, arguments):
    client.put("s4://b/key", b"content")
    script = f'exec "$@" {closed}<&-'
    command = ["bash", "-c", script, "bash", *CLI, *arguments, "-c", ring.conf]
    done = subprocess.run(command, capture_output=True, check=False, timeout=10)
    assert done.returncode == 1
    assert b"s4raw: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_names_that_a_terminal_cannot_show_do_not_stop_a_listing(s4raw, client):
    client.put("s4://b/é", b"")
    assert b" 0 " in s4raw("ls", "s4://b/", env={"PYTHONIOENCODING": "ascii"}).stdout


# JSON


def test_every_line_of_json_parses(s4raw, client, ring, tmp_path):
    def lines(*arguments):
        return [json.loads(line) for line in s4raw(*arguments, input=b"x").stdout.splitlines()]

    (tmp_path / "foo").mkdir()
    (tmp_path / "foo" / 'quote"é').write_bytes(b"12")
    assert lines("cp", "--json", "-", "s4://b/0") == [{"verb": "cp", "path": "-", "key": "s4://b/0", "bytes": 1}]
    uploaded = {"verb": "cp", "path": 'foo/quote"é', "key": 's4://b/x/quote"é', "bytes": 2}
    assert lines("cp", "--json", "-r", "foo", "s4://b/x") == [uploaded]
    assert lines("cp", "--json", "-r", "s4://b/x", "foo") == [uploaded]
    assert lines("cp", "--json", "s4://b/0", "copy") == [{"verb": "cp", "key": "s4://b/0", "path": "copy", "bytes": 1}]
    [key, prefix] = lines("ls", "--json", "s4://b/")
    assert (key.pop("time")[10], key) == ("T", {"key": "s4://b/0", "bytes": 1})
    assert prefix == {"prefix": "s4://b/x/"}
    assert [line["key"] for line in lines("ls", "--json", "-r", "s4://b")] == ["s4://b/0", 's4://b/x/quote"é']
    assert [line["bucket"] for line in lines("ls", "--json")] == ["b"]
    for verb in MAPS:
        [done] = lines(verb, "--json", "s4://b/", f"s4://{verb}/", "cat >&2")
        assert isinstance(done.pop("seconds"), float)
        assert len(done.pop("id")) == 9
        places = {"indir": "s4://b/", "outdir": f"s4://{verb}/"}
        assert done == {"verb": verb, **places, "commands": 2, "skipped": 0}
    assert lines("servers", "--json") == [{"server": server} for server in ring.servers]
    assert lines("health", "--json") == [{"server": server, "healthy": True, "error": None} for server in ring.servers]
    assert lines("rm", "--json", "s4://b/0") == [{"verb": "rm", "prefix": "s4://b/0", "count": 1}]
    assert lines("rm", "--json", "-r", "s4://b") == [{"verb": "rm", "prefix": "s4://b", "count": 1}]


def test_a_path_that_is_no_utf8_has_its_line_of_json(s4raw, tmp_path):
    name = os.fsdecode(b"latin\xe9")
    (tmp_path / name).write_bytes(b"x")
    done = s4raw("cp", "--json", name, "s4://b/key", env={"LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"})
    assert json.loads(done.stdout.decode(errors="surrogateescape"))["key"] == "s4://b/key"
