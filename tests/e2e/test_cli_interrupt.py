"""Ctrl-C: exit code 130, nothing half done under a final name, and nothing left running."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import CLI, wait_for

MIB = 1 << 20
LARGE = 512 * MIB


def start(ring, *arguments, **options):
    """Start a verb that a test will interrupt."""
    command = [*CLI, *arguments, "-c", ring.conf]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def interrupt(process, said=rb"s4raw: interrupted\n"):
    """Press Ctrl-C, and check how the verb ends."""
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(said, error)


def keys(client, prefix):
    return [entry.name for entry in client.list(prefix, recursive=True)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_interrupted_upload_stores_nothing(ring, client):
    with start(ring, "cp", "-", "s4://b/key") as process:
        process.stdin.write(bytes(4 * MIB))  # more than the pipe holds: the upload has begun
        process.stdin.flush()
        interrupt(process)
    assert keys(client, "s4://b") == []


@pytest.mark.parametrize(
    ("arguments", "names"),
    [(["s4://b/large/0", "copy"], ["0"]), (["-r", "s4://b/large/", "out"], ["0", "1", "2"])],
    ids=["file", "tree"],
)
def test_an_interrupted_download_leaves_only_whole_files(ring, client, tmp_path, arguments, names):
    for name in names:
        client.put(f"s4://b/seed/{name}", b"")
    client.map("s4://b/seed/", "s4://b/large/", f"truncate -s {LARGE} /proc/self/fd/1")  # holes: quickly made

    def files():
        return {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}

    interrupted = 0
    for _ in range(4):  # a copy may be over before we get to interrupt it
        with start(ring, "cp", *arguments, cwd=tmp_path) as process:
            wait_for(lambda: len([size for size in files().values() if size]) == len(names), "the copies to begin")
            if process.poll() is None:
                interrupt(process)
                interrupted += 1
        assert {(path.suffix, size) for path, size in files().items()} <= {("", LARGE)}
        for path in files():
            path.unlink()
    assert interrupted


@pytest.mark.parametrize("verb", ["map", "map-to-n", "map-from-n"])
def test_an_interrupted_map_kills_its_commands_and_keeps_what_was_done(ring, client, tmp_path, verb):
    for number in range(6):
        client.put(f"s4://b/in/{number}", b"")
    command = f"""
        name=$(basename "$filename")
        echo done > 0
        if [[ $name = 0 && {verb} = map-to-n ]]; then echo 0; exit; fi
        if [[ $name = 0 ]]; then cat 0; exit; fi
        sleep 1000 & echo $BASHPID $! > {tmp_path}/$name.new; mv {tmp_path}/$name.new {tmp_path}/$name.pids; wait"""
    with start(ring, verb, "s4://b/in/", "s4://b/out/", command) as process:
        wait_for(lambda: keys(client, "s4://b/out/") and len(list(tmp_path.glob("*.pids"))) == 5, "the commands to run")
        interrupt(process, rb"s4raw: interrupted: [01] of 6 keys were done \(call [0-9a-z]{9}\)\n")
    pids = [pid for path in tmp_path.glob("*.pids") for pid in path.read_text().split()]
    wait_for(lambda: not any(map(alive, pids)), "the commands to end")
    [done] = keys(client, "s4://b/out/")
    assert client.get(f"s4://b/{done}") == b"done\n"


def test_an_interrupted_eval_kills_its_command(ring, client):
    client.put("s4://b/key", b"")
    with start(ring, "eval", "s4://b/key", "echo $BASHPID; sleep 1000") as process:
        pid = int(process.stdout.readline())
        assert alive(pid)
        interrupt(process)
    wait_for(lambda: not alive(pid), "the command to end")


@pytest.mark.parametrize("arguments", [["ls"], ["cp", "s4://b/key", "copy"]])
def test_a_verb_that_waits_for_a_server_can_be_interrupted(ring, client, tmp_path, arguments):
    stopped = ring.processes[client.topology.servers.index(client.topology.place_basename("key"))]
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        with start(ring, *arguments, cwd=tmp_path) as process:
            wait_for(lambda: "socket:" in str(_sockets(process.pid)), "the verb to connect")
            interrupt(process)
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    assert os.listdir(tmp_path) == []


def _sockets(pid):
    try:
        return [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):  # closed in between
        return []
