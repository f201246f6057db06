"""``eval``: a command at the key, its output, its exit code, its surroundings, its end."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from conftest import CLI, wait_for

LIMIT = "for i in {1..6000}; do [[ -e %s ]] && break; sleep 0.01; done"  # a wait that ends, whatever happens


def run_eval(ring, command, *options, key="s4://b/key"):
    """Run eval without a look at how it ends."""
    arguments = [*CLI, "eval", *options, "-c", ring.conf, key, command]
    return subprocess.run(arguments, capture_output=True, timeout=100, check=False)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(autouse=True)
def key(client):
    client.put("s4://b/key", b"123\n")


def test_the_key_is_stdin_and_the_output_comes_back(ring):
    done = run_eval(ring, "cat; echo error >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"123\n", b"error\n")


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("false", 1), ("kill -9 $$", 137), ("nosuchcommand 2>&-", 127)],
)
def test_the_exit_code_comes_back(ring, command, code):
    done = run_eval(ring, command)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


@pytest.mark.parametrize("command", ["false; echo on", "echo $nosuch; echo on", "false | true; echo on"])
def test_commands_are_strict(ring, command):
    done = run_eval(ring, command)
    assert done.returncode != 0
    assert b"on" not in done.stdout


def test_binary_output_is_exact(ring, client):
    content = bytes(range(256)) * 5000
    client.put("s4://b/binary", content)
    done = run_eval(ring, "tee /dev/stderr", key="s4://b/binary")
    assert (done.stdout, done.stderr) == (content, content)


def test_large_output_is_exact_on_both_streams(ring):
    size = 32 << 20
    done = run_eval(ring, f"yes out | head -c {size} & yes err | head -c {size} >&2; wait")
    for stream, line in ((done.stdout, b"out\n"), (done.stderr, b"err\n")):
        assert hashlib.sha256(stream).digest() == hashlib.sha256(line * (size // 4)).digest()


def test_output_comes_while_the_command_runs(ring, tmp_path):
    command = f"echo out; {LIMIT % (tmp_path / 'one')}; echo err >&2; {LIMIT % (tmp_path / 'two')}; echo end"
    arguments = [*CLI, "eval", "-c", ring.conf, "s4://b/key", command]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"out\n"
        (tmp_path / "one").touch()
        assert process.stderr.readline() == b"err\n"
        assert process.poll() is None
        (tmp_path / "two").touch()
        assert process.stdout.read() == b"end\n"
    assert process.returncode == 0


def test_a_command_has_an_empty_directory_of_its_own(ring):
    done = run_eval(ring, "ls -A; echo 1 > file; mkdir dir; pwd")
    path = Path(done.stdout.decode().strip())
    assert path.is_absolute()
    assert not path.exists()


def test_a_command_knows_its_key_and_its_ring(ring, client):
    client.put("s4://b/dir/00001_name.txt", b"")
    done = run_eval(ring, 'echo "$filename $LC_ALL $S4_CONF_PATH"', key="s4://b//dir//00001_name.txt")
    assert done.stdout.decode() == f"00001_name.txt C {ring.conf}\n"


def test_a_command_need_not_read_its_key(ring, client):
    client.put("s4://b/large", bytes(4 << 20))
    assert run_eval(ring, "echo done", key="s4://b/large").stdout == b"done\n"
    assert run_eval(ring, "head -c 1 | wc -c", key="s4://b/large").stdout.strip() == b"1"


def test_a_command_cannot_change_its_key_through_stdin(ring, client):
    assert run_eval(ring, "echo more >&0").returncode != 0
    assert client.get("s4://b/key") == b"123\n"


def test_a_missing_key_is_named_and_nothing_runs(ring, client, tmp_path):
    done = run_eval(ring, f"touch {tmp_path}/ran", key="s4://b/missing")
    server = client.topology.place_basename("missing")
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"no such key (key s4://b/missing, server {server})" in done.stderr.decode()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_command_that_takes_too_long_is_killed_with_its_children(s4raw, client, tmp_path, how):
    command = f"sleep 1000 & echo $! > {tmp_path}/pid; echo begun; wait"
    options, env = (["--timeout", "0.5"], {}) if how == "option" else ([], {"S4_TIMEOUT": "0.5"})
    done = s4raw("eval", *options, "s4://b/key", command, code=1, env=env)
    assert done.stdout == b"begun\n"
    assert "longer than 0.5 s" in done.stderr.decode()
    assert f"(key s4://b/key, server {client.stat('s4://b/key').server})" in done.stderr.decode()
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not alive(pid), "the child to end")


@pytest.mark.parametrize("key", ["s4://b/", "s4://b", "key", "s4://b/white space", "s4://_b/key"])
def test_what_is_no_key_is_wrong_usage(ring, key):
    assert run_eval(ring, "cat", key=key).returncode == 2
