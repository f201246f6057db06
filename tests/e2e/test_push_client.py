"""The uploader's own clients, ``send.py`` and the verbs, with a real daemon and a real remote."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import CLI, wait_for
from push_daemon import PushDaemon, push_daemon, remote_s3

from s4raw import send

SCRIPT = [sys.executable, send.__file__]
NASTY = ["a//b", "a b", "x\ny", "\U0001f600é", "+%25?#&", "trail/"]


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    with remote_s3(tmp_path_factory.mktemp("remote"), "bucket") as remote:
        yield remote


@pytest.fixture(scope="module")
def uploader(remote, tmp_path_factory):
    with push_daemon(tmp_path_factory.mktemp("push"), endpoint=remote.endpoint) as daemon:
        yield daemon


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.fits"
    path.write_bytes(b"data of " + str(path).encode())
    return path


def environment_of(daemon):
    return {**os.environ, "S3DAEMON_SOCKET": "", "S3DAEMON_HOST": "127.0.0.1", "S3DAEMON_PORT": str(daemon.port)}


@pytest.fixture
def call(uploader):
    """Runs a command against the daemon; its stdout, or its stderr when it is to fail."""

    def run(*words, code=0, input=b"", daemon=uploader):
        words = [str(word) for word in words]
        command = [*SCRIPT, *words[1:]] if words[0] == "send.py" else [*CLI, *words]
        done = subprocess.run(
            command, input=input, capture_output=True, env=environment_of(daemon), timeout=60, check=False
        )
        assert done.returncode == code, done
        assert b"Traceback" not in done.stderr
        return (done.stderr if code else done.stdout).decode()

    return run


@pytest.mark.parametrize("command", ["send.py", "send"])
def test_a_file_is_stored_when_the_command_returns(call, remote, file, command):
    assert call(command, file, "a/bucket/sent") == ""
    assert remote.get("bucket", "sent") == file.read_bytes()
    assert call(command, "--type", "a/b", "--metadata", "run=12", file, "a/bucket/typed") == ""
    headers = remote.request("HEAD", "/bucket/typed")[1]
    assert (headers["content-type"], headers["x-amz-meta-run"]) == ("a/b", "12")


def test_what_the_daemon_cannot_do_is_said(call, file):
    assert "No such file" in call("send.py", file.with_name("missing"), "a/bucket/k", code=1)
    assert "No such file" in call("send.py", "--queued", file.with_name("missing"), "a/bucket/k", code=1)
    assert "ALIAS/BUCKET/KEY" in call("send.py", file, "bucket", code=1)
    assert "No such file" in call("send.py", "--wait", "30", file.with_name("missing"), "a/bucket/k", code=1)
    assert "ucket" in call("send.py", "--type", "a/b", file, "a/nowhere/k", code=1)


def test_many_pairs_with_any_names_are_stored_and_the_one_that_fails_is_named(call, remote, tmp_path):
    pairs = []
    for number, name in enumerate(NASTY):
        path = os.path.join(os.fsencode(tmp_path), b"a b\n\xff%d" % number)
        if name != "a b":
            with open(path, "wb") as out:
                out.write(name.encode())
        pairs += [path, f"a/bucket/many/{name}".encode()]
    shown = call("send.py", "-0", "-", input=b"\0".join([*pairs, b""]), code=1)
    assert len(shown.splitlines()) == 1
    assert shown.startswith("s4raw-send: '")
    assert " a/bucket/many/a b: " in shown
    for name in NASTY:
        assert remote.get("bucket", f"many/{name}") == (None if name == "a b" else name.encode())


def test_a_snapshot_may_be_deleted_at_once(call, remote, file):
    data = file.read_bytes()
    remote.pause()
    try:
        call("send.py", "--queued", "--snapshot", file, "a/bucket/snapshot")
        file.unlink()
    finally:
        remote.resume()
    assert call("push", "flush", "--wait", "60") == ""
    assert remote.get("bucket", "snapshot") == data


def test_a_file_whose_wait_is_over_is_listed_and_delivered(call, remote, file):
    remote.pause()
    try:
        shown = call("send.py", "--wait", "0.5", file, "a/bucket/late", code=1)
        assert "and will be delivered" in shown
        [entry] = [json.loads(line) for line in call("push", "list", "--json").splitlines()]
        assert f"(as {entry['id']}, " in shown
        assert (entry["to"], entry["file"], entry["size"]) == ("default/bucket/late", str(file), len(file.read_bytes()))
        assert json.loads(call("push", "status", "--json"))["entries"] == 1
        assert "is not empty" in call("push", "flush", "--wait", "0.2", code=1)
    finally:
        remote.resume()
    assert call("push", "flush") == call("push", "list") == ""
    assert remote.get("bucket", "late") == file.read_bytes()


def test_a_parked_file_is_listed_tried_again_and_dropped(call, remote, tmp_path):
    files = [tmp_path / name for name in ("before", "one", "two")]
    with push_daemon(tmp_path / "push", "--clients", "1", "--connections", "1", endpoint=remote.endpoint) as daemon:

        def run(*words, **options):
            return call(*words, daemon=daemon, **options)

        remote.pause()
        try:
            for path in files:
                path.write_bytes(b"to vanish")
                run("send.py", "--queued", path, f"a/bucket/parked/{path.name}")
                wait_for(lambda: daemon.status()["in_flight"] == 1)
            for path in files[1:]:
                path.rename(path.with_suffix(".away"))
        finally:
            remote.resume()
        run("push", "flush", "--wait", "60")
        first, second = (line.split() for line in run("push", "list", "--parked").splitlines())
        assert first[1] == second[1] == "parked"
        assert "default/bucket/parked/one" in first
        assert str(files[1]) in first
        files[1].with_suffix(".away").rename(files[1])
        assert run("push", "retry", first[0]) == "1\n"
        run("push", "flush", "--wait", "60")
        assert remote.get("bucket", "parked/one") == b"to vanish"
        assert run("push", "drop", second[0]) == "1\n"
        said = f"s4raw: drop: entry {second[0]}: it is not in the queue\n"
        assert run("push", "drop", second[0], code=1) == said
        assert run("push", "retry", second[0], code=1) == said.replace("drop", "retry")
        assert run("push", "list") == ""
        assert json.loads(run("push", "drop", "--all", "--json")) == {"verb": "drop", "count": 0}


def test_status_says_how_much_was_done(call, uploader, file):
    call("send.py", file, "a/bucket/counted")
    lines = dict(line.split(None, 1) for line in call("push", "status").splitlines())
    assert lines["address:"] == f"127.0.0.1:{uploader.port}"
    assert lines["pid:"] == str(uploader.pid)
    assert int(lines["delivered:"]) >= 1
    assert re.fullmatch(r"[-0-9]{10} [:0-9]{8}Z, [.0-9]+[sm] ago", lines["since:"]), "a time, and no number"
    assert isinstance(json.loads(call("push", "status", "--json"))["since"], float)


@pytest.mark.parametrize(
    "words",
    [
        *(["drop"], ["drop", "--all", "1"], ["drop", "--all", "--failed"], ["drop", "x"], ["drop", "1", "a/b"]),
        *(["retry", "-1"], ["flush", "--wait", "x"]),
    ],
)
def test_wrong_usage_is_exit_code_2(call, words):
    call("push", *words, code=2)


@pytest.mark.parametrize("words", [["status"], ["list"], ["retry"], ["drop", "1"], ["flush"]])
def test_a_daemon_that_is_not_there_is_named(call, tmp_path, words):
    path = tmp_path / "nobody"
    shown = call("push", *words, "--socket", path, code=1)
    assert shown.startswith(f"s4raw: cannot reach the push daemon at {path}: No such file or directory; is it running?")


def test_a_client_that_waits_survives_the_daemons_death(remote, file, tmp_path):
    daemon = PushDaemon(tmp_path / "push", "--socket", str(tmp_path / "socket"), endpoint=remote.endpoint)
    environment = {**os.environ, "S3DAEMON_SOCKET": str(tmp_path / "socket")}
    try:
        daemon.start()
        remote.pause()
        client = subprocess.Popen(
            [*SCRIPT, "--wait", "60", str(file), "a/bucket/survived"], env=environment, stderr=subprocess.PIPE
        )
        wait_for(lambda: daemon.status()["entries"] == 1)
        daemon.kill()
        daemon.start()
        remote.resume()
        assert client.communicate(timeout=60) == (None, b"")
        assert client.returncode == 0
        assert remote.get("bucket", "survived") == file.read_bytes()
        assert daemon.stop() == 0
    finally:
        remote.resume()
        daemon.close()


def test_the_report_reads_what_the_daemon_logs(call, uploader, file):
    for number in range(3):
        call("send.py", file, f"a/bucket/logged/{number} 1.0 2.0 sec - ")
    log = uploader.directory / "node1-transfers.log"
    log.write_text("\n".join(uploader.transfers()) + "\n")
    shown = [json.loads(line) for line in call("push", "report", "--json", log).splitlines()]
    assert [line["host"] for line in shown] == ["node1", "all"]
    assert shown[0]["count"] == sum(line.startswith("INFO") and " sec - " in line for line in uploader.transfers()) >= 3
    assert shown[0]["failures"] == sum(line.startswith("ERROR") for line in uploader.transfers())
    assert shown[0]["unreadable"] == 0
