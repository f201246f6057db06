"""The uploader's options over real processes: roots, users, aliases, limits, how it is, systemd, and the verbs."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CLI, wait_for
from push_daemon import Client, PushDaemon, push_daemon, remote_s3

UNIT = Path(__file__).parents[2] / "packaging" / "s4raw-push.service"


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    with remote_s3(tmp_path_factory.mktemp("remote"), "bucket") as remote:
        yield remote


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.fits"
    path.write_bytes(b"data of " + str(path).encode())
    return path


def verb(daemon: PushDaemon, *words: str, code: int = 0) -> str:
    """What a verb prints that asks the uploader, and what it says on stderr."""
    environment = {**daemon.environment, "S3DAEMON_HOST": "127.0.0.1", "S3DAEMON_PORT": str(daemon.port)}
    done = subprocess.run([*CLI, *words], capture_output=True, env=environment, timeout=60, check=False)
    assert done.returncode == code, done
    return (done.stdout + done.stderr).decode()


def test_only_files_below_a_root_are_sent_also_when_the_way_to_them_is_changed_later(remote, tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (root / "way", outside):
        directory.mkdir(parents=True)
        (directory / "file").write_bytes(b"good" if directory != outside else b"evil")
    (root / "link").symlink_to(outside / "file")
    with push_daemon(tmp_path / "push", "--allow-root", str(root), endpoint=remote.endpoint) as daemon:
        for path in (outside / "file", root / "link", root / "../outside/file"):
            assert "--allow-root" in daemon.old(path, "a/bucket/evil")
            assert "--allow-root" in daemon.push(path, "a/bucket/evil", ack="queued", snapshot=True)["error"]
        assert daemon.old(root / "way/file", "a/bucket/good") == "Success"
        remote.pause()
        try:  # with the one worker busy, what is queued behind it is opened only later
            ids = [daemon.push(root / "way/file", "a/bucket/same", ack="queued")["id"] for _ in range(2)]
            wait_for(lambda: daemon.status()["in_flight"] == 1)
            os.utime(outside / "file", ns=(0, (root / "way/file").stat().st_mtime_ns))
            (root / "way").rename(tmp_path / "away")
            (root / "way").symlink_to(outside)
        finally:
            remote.resume()
        wait_for(lambda: [each["state"] for each in daemon.entries()] == ["parked"])
        assert [each["id"] for each in daemon.entries()] == ids[1:]
        assert "--allow-root" in daemon.entries()[0]["error"]
    assert remote.get("bucket", "evil") is None
    assert remote.get("bucket", "same") == b"good"


def test_a_unix_socket_is_for_its_user_alone(remote, tmp_path, file):
    path = str(tmp_path / "s")
    with push_daemon(tmp_path / "push", "--socket", path, endpoint=remote.endpoint) as daemon:
        assert (daemon.port, daemon.socket_path) == (0, path)
        assert os.stat(path).st_mode & 0o777 == 0o600
        assert daemon.push(file, "a/bucket/unix")["state"] == "stored"
        environment = {**daemon.environment, "S3DAEMON_SOCKET": path}
        subprocess.run([*CLI, "send", str(file), "a/bucket/sent"], env=environment, timeout=60, check=True)
        assert remote.get("bucket", "unix") == remote.get("bucket", "sent") == file.read_bytes()
    assert not os.path.exists(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_refused_on_a_unix_socket_unless_named(remote, tmp_path_factory, file):
    directory = Path("/tmp") / f"s4raw-test-{os.getpid()}"  # pytest's own are for one user alone
    directory.mkdir(mode=0o755)
    ask = (
        "import os, socket, sys; os.setuid(int(sys.argv[2])); s = socket.socket(socket.AF_UNIX); "
        's.settimeout(30); s.connect(sys.argv[1]); s.sendall(b\'{"do":"status"}\\n\'); print(s.recv(4096).decode())'
    )
    path = str(directory / "s")
    options = ("--socket", path, "--socket-mode", "666", "--allow-uid", "54321")
    try:
        with push_daemon(tmp_path_factory.mktemp("push"), *options, endpoint=remote.endpoint) as daemon:
            said = {}
            for uid in (0, 54321, 54322):
                done = subprocess.run(
                    [sys.executable, "-c", ask, path, str(uid)], capture_output=True, timeout=60, check=True
                )
                said[uid] = done.stdout.decode()
            assert '"ok":true' in said[0]
            assert '"ok":true' in said[54321]
            assert "--allow-uid" in said[54322]
            assert "uid 54322" in daemon.log()
    finally:
        shutil.rmtree(directory)


def test_an_alias_is_another_remote_or_a_ring_and_one_that_is_unknown_the_default(remote, ring, tmp_path, file):
    with remote_s3(tmp_path / "other", "bucket") as other:
        options = ("--alias", f"other={other.endpoint}", "--config", str(tmp_path / "push.toml"))
        (tmp_path / "push.toml").write_text(f'[alias.near]\nring = "{ring.conf}"\n')
        with push_daemon(tmp_path / "push", *options, endpoint=remote.endpoint) as daemon:
            for alias in ("other", "near", "unknown", "default"):
                for number in range(2):
                    assert daemon.old(file, f"{alias}/bucket/in/{alias}{number}") == "Success"
        assert other.get("bucket", "in/other1") == file.read_bytes()
        assert remote.get("bucket", "in/unknown1") == remote.get("bucket", "in/default1") == file.read_bytes()
        assert remote.get("bucket", "in/other1") is None
        with ring.client() as client:
            assert client.get("s4://bucket/in/near1") == file.read_bytes()
            client.remove_all("s4://bucket")


def test_at_its_limit_the_queue_refuses_or_lets_wait_and_never_drops(remote, tmp_path, file):
    options = ("--limit-files", "2")
    with push_daemon(tmp_path / "a", *options, "--full", "refuse", endpoint=remote.endpoint) as daemon:
        remote.pause()
        try:
            said = [daemon.push(file, f"a/bucket/full{n}", ack="queued") for n in range(3)]
        finally:
            remote.resume()
        assert [each["ok"] for each in said] == [True, True, False]
        daemon.wait_empty()
    with push_daemon(tmp_path / "b", *options, endpoint=remote.endpoint) as daemon:
        remote.pause()
        try:
            with daemon.connect() as client, daemon.connect() as impatient:
                asked = {"file": str(file), "ack": "queued", "snapshot": True}
                lines = [json.dumps({**asked, "to": f"a/bucket/waits{number}"}) for number in range(9)]
                client.write("\n".join([*lines, ""]).encode())
                assert [client.heard()["ok"] for _ in range(2)] == [True, True]
                assert impatient.ask(file=str(file), to="a/bucket/impatient", wait=0.1)["ok"] is False
                assert daemon.status()["entries"] == 2
                remote.resume()
                assert all(client.heard()["ok"] for _ in range(7))
        finally:
            remote.resume()
        daemon.wait_empty()
    assert remote.get("bucket", "waits2") == remote.get("bucket", "waits8") == file.read_bytes()
    assert remote.get("bucket", "impatient") is None


def test_how_it_is_over_http(remote, tmp_path, file):
    with push_daemon(tmp_path / "push", endpoint=remote.endpoint) as daemon:
        assert daemon.old(file, "a/bucket/counted") == "Success"
        wait_for(lambda: b'uploads_total{result="stored"} 1\n' in daemon.http("/metrics")[2])
        status, headers, body = daemon.http("/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r'[a-z][a-z0-9_]*(\{[a-z]+="[^"]*"\})? [0-9.e+-]+', line) for line in lines), lines
        assert f"s4raw_push_stored_bytes_total {len(file.read_bytes())}" in lines
        assert 's4raw_push_upload_seconds_bucket{le="+Inf"} 1' in lines
        assert daemon.http("/healthz")[0] == 200
        assert json.loads(daemon.http("/status")[2])["delivered"] == daemon.status()["delivered"] == 1
        assert daemon.http("/other")[0] == 404
        assert daemon.http("/healthz", "POST")[0] == 405


def test_the_verbs_show_and_change_the_queue(remote, tmp_path, file):
    with push_daemon(tmp_path / "push", "--max-attempts", "1", endpoint=remote.endpoint) as daemon:
        ids = [str(daemon.push(file, f"a/nowhere/k{n}", ack="queued")["id"]) for n in range(3)]
        wait_for(lambda: daemon.status()["parked"] == 3)
        assert json.loads(verb(daemon, "push", "status", "--json"))["parked"] == 3
        listed = [json.loads(line) for line in verb(daemon, "push", "list", "--parked", "--json").splitlines()]
        assert [str(each["id"]) for each in listed] == ids
        assert all(each["state"] == "parked" and each["attempts"] == 1 and each["error"] for each in listed)
        assert verb(daemon, "push", "drop", ids[0]) == "1\n"
        gone = f"entry {ids[0]}: it is not in the queue\n"
        assert verb(daemon, "push", "drop", ids[0], code=1) == f"0\ns4raw: drop: {gone}"
        remote.make_bucket("nowhere")
        assert verb(daemon, "push", "retry", ids[0], "a/nowhere/k1", code=1) == f"1\ns4raw: retry: {gone}"
        verb(daemon, "push", "flush", "--wait", "30")
        wait_for(lambda: [str(each["id"]) for each in daemon.entries()] == ids[2:])
        assert verb(daemon, "push", "retry") == "1\n"
        verb(daemon, "push", "flush")
        assert verb(daemon, "push", "list") == ""
    assert [remote.get("nowhere", f"k{n}") is not None for n in range(3)] == [False, True, True]


def test_who_waits_for_what_is_dropped_is_told(remote, tmp_path, file):
    with push_daemon(tmp_path / "push", "--connections", "1", endpoint=remote.endpoint) as daemon:
        remote.pause()
        try:
            with daemon.connect(timeout=15) as client:
                for number in range(2):
                    client.say(file=str(file), to=f"a/bucket/dropped{number}")
                wait_for(lambda: len(daemon.entries()) == 2 and daemon.status()["in_flight"] == 1)
                assert daemon.ask(do="drop", all=True) == {"ok": True, "count": 1, "left": []}
                remote.resume()
                first, second = client.heard(), client.heard()
        finally:
            remote.resume()
        assert (first["ok"], second["ok"]) == (True, False)
        assert "dropped" in second["error"]


def test_a_client_that_says_nothing_is_let_go_and_one_that_waits_is_kept(remote, tmp_path, file):
    with (
        push_daemon(tmp_path / "push", "--idle-timeout", "0.5", endpoint=remote.endpoint) as daemon,
        daemon.connect() as silent,
        daemon.connect() as endless,
        daemon.connect() as waiting,
    ):
        endless.write(b"/file a/b")
        remote.pause()
        try:
            waiting.say(file=str(file), to="a/bucket/patient")
            assert silent.rest() == endless.rest() == b""
            waiting.say(do="list")
        finally:
            remote.resume()
        assert waiting.heard()["state"] == "stored"
        assert waiting.heard()["ok"]


def test_connections_beyond_the_limit_are_told(remote, tmp_path):
    with (
        push_daemon(tmp_path / "push", "--max-connections", "2", endpoint=remote.endpoint) as daemon,
        daemon.connect() as first,
        daemon.connect() as second,
        daemon.connect() as third,
    ):
        assert b"too many connections" in third.rest()
        assert first.ask(do="status")["ok"]
        assert second.ask(do="status")["ok"]


def test_systemd_hears_when_it_serves_and_when_it_stops(remote, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with push_daemon(tmp_path / "push", endpoint=remote.endpoint, environment=environment) as daemon:
            assert [systemd.recv(100) for _ in range(2)] == [b"READY=1", b"WATCHDOG=1"]
            assert daemon.stop() == 0
        said = set()
        while b"STOPPING=1" not in said:
            said.add(systemd.recv(100))
        assert said <= {b"WATCHDOG=1", b"STOPPING=1"}


def test_the_environment_of_s3daemon_means_what_it_did(remote, tmp_path, file):
    environment = {
        "S3DAEMON_HOST": "127.0.0.1",
        "S3DAEMON_PORT": "0",
        "S3DAEMON_MAX_CONNECTIONS": "3",
        "S3DAEMON_MAX_CLIENTS": "2",
        "S3DAEMON_CONNECT_TIMEOUT": "2.5",
        "S3DAEMON_MAX_RETRIES": "1",
        "S3DAEMON_LOG": str(tmp_path / "its.log"),
    }
    with push_daemon(tmp_path / "push", endpoint=remote.endpoint, environment=environment) as daemon:
        assert " 3 connections" in daemon.log()
        remote.pause()
        try:  # more clients than it works for at once wait for their turn, and none is refused
            with daemon.connect() as client, daemon.connect() as other:
                for number in range(4):
                    client.say(file=str(file), to=f"a/bucket/turn{number}")
                other.write(f"{file} a/bucket/turn4\n".encode())
                wait_for(lambda: daemon.status()["in_flight"] == 2 and daemon.status()["entries"] == 5)
                remote.resume()
                assert [client.heard()["state"] for _ in range(4)] == ["stored"] * 4
                assert other.sock.recv(4096) == b"Success"
        finally:
            remote.resume()
        wait_for(lambda: "turn4" in (tmp_path / "its.log").read_text())


def test_a_daemon_that_cannot_start_says_why(tmp_path):
    for options, reason in (
        (("--allow-root", "/does/not/exist"), "no such directory"),
        (("--full", "maybe"), "--full"),
        (("--max-rate", "fast"), "--max-rate"),
        (("--alias", "x=nonsense"), "alias x"),
    ):
        daemon = PushDaemon(tmp_path, *options, endpoint="http://127.0.0.1:1")
        try:
            assert reason in daemon.fails()
        finally:
            daemon.close()
    daemon = PushDaemon(tmp_path, endpoint="http://127.0.0.1:1", environment={"S3D_WRITE_QUEUE_MAX_SIZE": "much"})
    try:
        assert "$S3D_WRITE_QUEUE_MAX_SIZE needs a size" in daemon.fails()
    finally:
        daemon.close()


def test_systemd_accepts_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/s4raw", "/bin/true"))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, timeout=60, check=False)
    said = [line for line in done.stderr.decode().splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, []), done.stderr.decode()


def test_a_client_speaks_while_its_line_is_in_pieces(remote, tmp_path, file):
    with push_daemon(tmp_path / "push", endpoint=remote.endpoint) as daemon, Client(daemon.port) as client:
        line = json.dumps({"file": str(file), "to": "a/bucket/pieces"}).encode() + b"\n"
        client.write(line + line[:10])
        assert client.heard()["state"] == "stored"
        client.write(line[10:])
        assert client.heard()["state"] == "stored"
