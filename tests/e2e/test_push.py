"""The uploader over real processes: old clients and new ones, what they are told, and what arrives at the remote."""

import hashlib
import json
import os
import select
import signal
import socket
import stat
import struct
import time
from contextlib import closing

import pytest
from conftest import descriptors, wait_for
from push_daemon import PushDaemon, RemoteS3, push_daemon, remote_s3, stored_in

NASTY = ["a//b", "trail/", "/lead", ".", "a b", "x\ny", "\U0001f600é", "+%25?#&", "Success"]


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


def test_the_old_client_is_told_success_once_the_object_is_stored(uploader: PushDaemon, remote: RemoteS3, file):
    assert uploader.old(file, "archive/bucket/old/file.fits") == "Success"
    assert remote.get("bucket", "old/file.fits") == file.read_bytes()


def test_the_old_client_is_told_the_error_and_nothing_stays_queued(uploader: PushDaemon, file):
    assert "No such file" in uploader.old(file.with_name("missing"), "a/bucket/k")
    assert "ucket" in uploader.old(file, "a/nowhere/k")
    assert "ALIAS/BUCKET/KEY" in uploader.old(file, "bucket")
    assert uploader.entries() == []


def test_a_connection_takes_one_old_line_after_the_other(uploader: PushDaemon, file):
    with uploader.connect() as client:
        for _ in range(3):
            client.write(f"{file} a/bucket/again\n".encode())
            assert client.sock.recv(4096) == b"Success"
        client.write(b"nonsense\n")
        assert b"FILENAME" in client.sock.recv(4096)
        client.write(f"{file} a/bucket/again\n".encode())
        assert client.sock.recv(4096) == b"Success"


def test_a_relative_name_of_an_old_client_is_below_the_daemons_directory(uploader: PushDaemon, remote: RemoteS3):
    (uploader.directory / "here").write_bytes(b"relative")
    assert uploader.old("here", "a/bucket/relative") == "Success"
    assert remote.get("bucket", "relative") == b"relative"


def test_an_old_client_that_leaves_early_costs_nothing_and_its_file_is_stored(
    uploader: PushDaemon, remote: RemoteS3, file
):
    threads = len(os.listdir(f"/proc/{uploader.pid}/task"))
    for number in range(5):
        with uploader.connect() as client:
            client.write(f"{file} a/bucket/early{number}\n".encode())
        with uploader.connect() as client:
            client.write(f"{file} a/bucket/cut-off-{number}".encode())  # no end of line: no request
    uploader.wait_empty()
    wait_for(lambda: all(remote.get("bucket", f"early{number}") for number in range(5)))
    assert remote.get("bucket", "cut-off-0") is None
    wait_for(lambda: len(os.listdir(f"/proc/{uploader.pid}/task")) <= threads + 16, "its threads to end")


def test_a_client_whose_connection_breaks_is_let_go_at_once_and_its_file_is_stored(
    uploader: PushDaemon, remote: RemoteS3, file
):
    remote.pause()
    try:
        with uploader.connect() as witness:
            before = descriptors(uploader.pid)
            for number in range(5):
                with uploader.connect() as client:
                    client.say(file=str(file), to=f"a/bucket/broken{number}")
                    wait_for(lambda number=number: len(uploader.entries()) == number + 1)
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wait_for(
                lambda: (
                    not [fd for fd, what in descriptors(uploader.pid).items() if "eventfd" in what and fd not in before]
                )
            )
            assert witness.ask(do="status")["entries"] == 5
    finally:
        remote.resume()
    uploader.wait_empty()
    assert remote.get("bucket", "broken4") == file.read_bytes()
    uploader.check_no_traceback()


def test_a_client_that_sends_its_end_with_its_line_is_answered(uploader: PushDaemon, file):
    with uploader.connect() as client:
        client.write(f"{file} a/bucket/piped\n".encode())
        client.sock.shutdown(socket.SHUT_WR)
        assert client.rest() == b"Success"


@pytest.mark.parametrize("ack", ["stored", "queued"])
def test_any_name_and_any_key_arrive(uploader: PushDaemon, remote: RemoteS3, tmp_path, ack):
    with uploader.connect() as client:
        for number, key in enumerate(NASTY):
            path = os.path.join(os.fsencode(tmp_path), b"a b\n\xff%d" % number)
            with open(path, "wb") as file:
                file.write(key.encode())
            said = client.ask(file=os.fsdecode(path), to=f"x/bucket/{ack}{key}", ack=ack)
            assert (said["ok"], said["state"]) == (True, ack), said
    uploader.wait_empty()
    assert [remote.get("bucket", f"{ack}{key}") for key in NASTY] == [key.encode() for key in NASTY]


def test_type_and_metadata_go_with_the_object(uploader: PushDaemon, remote: RemoteS3, file):
    assert uploader.push(file, "a/bucket/typed", type="text/x-test", metadata={"Run": "12 é"})["ok"]
    _, headers, _ = remote.request("HEAD", "/bucket/typed")
    assert headers["content-type"] == "text/x-test"
    assert "x-amz-meta-run" in headers


def test_many_requests_on_a_connection_are_answered_in_their_order(uploader: PushDaemon, remote: RemoteS3, file):
    with uploader.connect() as client:
        for number in range(200):
            client.say(file=str(file), to=f"a/bucket/many{number}", ack="stored" if number % 3 else "queued")
            if number % 50 == 0:
                client.say(file=str(file.with_name("missing")), to="a/bucket/never")
        said = [client.heard() for _ in range(204)]
    ids = [each["id"] for each in said if each["ok"]]
    assert len(ids) == 200
    assert ids == sorted(ids)
    assert [number for number, each in enumerate(said) if not each["ok"]] == [1, 52, 103, 154]
    uploader.wait_empty()
    assert remote.get("bucket", "many199") == file.read_bytes()


def test_what_is_sent_together_for_one_key_arrives_in_its_order_and_an_error_is_that_of_its_line(
    uploader: PushDaemon, remote: RemoteS3, tmp_path
):
    lines = []
    for number in range(100):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
        asked = {
            "file": str(tmp_path / str(number)),
            "to": "a/bucket/one",
            "ack": "queued",
            "snapshot": number % 2 == 0,
        }
        lines.append(json.dumps(asked).encode() + b"\n")
    lines[10:10] = [b'{"file": 1}\n', lines[0].replace(b'/0"', b'/none"'), b'{"do": "status"}\n']
    with uploader.connect() as client:
        client.write(b"".join(lines))
        said = [client.heard() for _ in range(103)]
    assert [number for number, each in enumerate(said) if not each["ok"]] == [10, 11]
    assert "entries" in said[12]
    ids = [each["id"] for each in said if "id" in each]
    assert ids == sorted(ids)
    uploader.wait_empty()
    assert remote.get("bucket", "one") == b"99"


def test_a_flood_of_small_requests_is_answered_whole_also_behind_one_that_waits(
    uploader: PushDaemon, remote: RemoteS3, file
):
    with uploader.connect() as client:
        client.write(b'{"do":"list"}\n' * 3000)
        assert all(client.heard()["ok"] for _ in range(3000))
        remote.pause()
        try:
            client.say(file=str(file), to="a/bucket/first")
            client.write(b'{"do":"list"}\n' * 3000)
            wait_for(lambda: uploader.status()["in_flight"] == 1)
        finally:
            remote.resume()
        assert client.heard()["state"] == "stored"
        assert all(client.heard()["ok"] for _ in range(3000))


def test_a_request_byte_by_byte_and_one_that_never_ends_cost_others_nothing(uploader: PushDaemon, file):
    with uploader.connect() as slow, uploader.connect() as endless:
        endless.write(b"x" * 1000)
        for byte in f"{file} a/bucket/slow\n".encode():
            slow.write(bytes([byte]))
            if byte == ord("/"):
                assert uploader.old(file, "a/bucket/fast") == "Success"
        assert slow.sock.recv(4096) == b"Success"


def test_a_line_that_is_too_long_is_refused_and_the_connection_ends(uploader: PushDaemon):
    with uploader.connect() as client:
        client.write(b"x" * 100_000)
        assert b"at most 65536 bytes" in client.rest()
    with uploader.connect() as client:
        client.write(b'{"file":"' + b"x" * 100_000)
        assert client.heard()["ok"] is False
        assert client.rest() == b""


def test_a_web_page_cannot_make_a_browser_ask_for_files(uploader: PushDaemon, remote: RemoteS3, file):
    with uploader.connect() as client:
        client.write(f"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n{file} a/bucket/smuggled\n".encode())
        assert b"HTTP" in client.rest()
    uploader.wait_empty()
    assert remote.get("bucket", "smuggled") is None


def test_a_snapshot_is_stored_though_its_file_is_gone(remote: RemoteS3, tmp_path):
    with push_daemon(tmp_path / "push", endpoint=remote.endpoint) as uploader:
        file = tmp_path / "file"
        file.write_bytes(b"as it was")
        remote.pause()
        try:
            assert uploader.push(file, "a/bucket/snap", ack="queued", snapshot=True)["state"] == "queued"
            file.unlink()
        finally:
            remote.resume()
        uploader.wait_empty()
        assert remote.get("bucket", "snap") == b"as it was"
        wait_for(lambda: not list((uploader.queue / "spool").iterdir()))


def test_what_is_no_file_is_refused_at_once(uploader: PushDaemon, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(str(tmp_path / "socket"))
    for name in ("fifo", "socket", "."):
        said = uploader.push(tmp_path / name, "a/bucket/no", ack="queued")
        assert said["ok"] is False, said
    assert uploader.entries() == []


def test_a_wait_that_runs_out_says_that_the_file_is_queued_and_it_arrives(uploader: PushDaemon, remote: RemoteS3, file):
    remote.pause()
    try:
        said = uploader.push(file, "a/bucket/late", wait=0.3)
        assert (said["ok"], said["state"]) == (False, "queued")
        entries = uploader.entries()
        assert [(each["id"], each["to"], each["file"]) for each in entries] == [
            (said["id"], "default/bucket/late", str(file))
        ]
        assert entries[0]["size"] == len(file.read_bytes())
    finally:
        remote.resume()
    uploader.wait_empty()
    assert remote.get("bucket", "late") == file.read_bytes()


def test_a_restart_delivers_what_was_accepted_and_is_at_once_there(remote: RemoteS3, tmp_path, file):
    daemon = PushDaemon(tmp_path / "push", "--grace", "1", endpoint=remote.endpoint)
    try:
        remote.pause()
        daemon.start()
        with daemon.connect() as client:
            ids = [client.ask(file=str(file), to=f"a/bucket/r{n}", ack="queued")["id"] for n in range(100)]
            client.say(file=str(file), to="a/bucket/waits")
            wait_for(lambda: daemon.status()["entries"] == 101)
            assert daemon.stop() == 0
            said = client.heard()
            assert (said["ok"], said["state"]) == (False, "queued"), said
        daemon.start()
        assert [each["id"] for each in daemon.entries()] == [*ids, said["id"]]
        assert daemon.push(file, "a/bucket/after", ack="queued")["ok"]
        remote.resume()
        daemon.wait_empty()
        assert all(remote.get("bucket", name) for name in [*(f"r{n}" for n in range(100)), "waits", "after"])
        assert daemon.stop() == 0
        daemon.check_no_traceback()
    finally:
        remote.resume()
        daemon.close()


def test_two_uploaders_on_one_queue_are_refused(uploader: PushDaemon, remote: RemoteS3, tmp_path):
    other = PushDaemon(tmp_path, queue=uploader.queue, endpoint=remote.endpoint)
    try:
        assert str(uploader.pid) in other.fails()
    finally:
        other.close()


def test_sigterm_lets_what_is_in_flight_arrive_and_its_client_hear_of_it(remote: RemoteS3, tmp_path, file):
    daemon = PushDaemon(tmp_path / "push", "--limit-files", "2", endpoint=remote.endpoint)
    try:
        daemon.start()
        remote.pause()
        with daemon.connect() as waiting, daemon.connect() as idle, daemon.connect() as outside:
            waiting.write(f"{file} a/bucket/in-flight\n".encode())
            wait_for(lambda: daemon.status()["in_flight"] == 1)
            lines = [
                json.dumps({"file": str(file), "to": f"a/bucket/{name}", "ack": "queued"}) for name in ("in", "out")
            ]
            outside.write("\n".join([*lines, f"{file} a/bucket/out", ""]).encode())
            wait_for(lambda: daemon.status()["entries"] == 2)  # and the other two wait for room
            daemon.signal(signal.SIGTERM)
            assert idle.rest() == b""
            assert outside.heard()["state"] == "queued"
            assert outside.heard() == {"ok": False, "error": "the uploader is stopping"}
            assert outside.rest() == b"the uploader is stopping"
            remote.resume()  # what is in flight has not been given up by then
            assert waiting.rest() == b"Success"
        assert daemon.stop() == 0
        assert remote.get("bucket", "in-flight") == file.read_bytes()
        assert remote.get("bucket", "out") is None
    finally:
        remote.resume()
        daemon.close()


def test_a_remote_that_is_away_is_told_to_who_waits_and_survived_by_who_does_not(tmp_path, file):
    with (
        remote_s3(tmp_path / "remote", "bucket") as remote,
        push_daemon(tmp_path / "push", endpoint=remote.endpoint) as daemon,
    ):
        remote.kill()
        assert not daemon.old(file, "a/bucket/told").startswith("Success")
        assert daemon.push(file, "a/bucket/told")["ok"] is False
        assert daemon.entries() == []
        assert daemon.push(file, "a/bucket/kept", ack="queued")["ok"]
        with daemon.connect() as client:
            client.write(f"{file} a/bucket/left\n".encode())  # and leaves
        wait_for(lambda: len(daemon.entries()) == 2 and all(each["error"] for each in daemon.entries()))
        remote.start()
        daemon.wait_empty()
        assert remote.get("bucket", "told") is None
        assert remote.get("bucket", "kept") == remote.get("bucket", "left") == file.read_bytes()


def test_who_waits_for_a_time_is_not_given_up_at_a_failure_and_hears_the_etag(tmp_path, file):
    with (
        remote_s3(tmp_path / "remote", "bucket") as remote,
        push_daemon(tmp_path / "push", endpoint=remote.endpoint) as daemon,
        daemon.connect() as patient,
        daemon.connect() as unlucky,
    ):
        remote.kill()
        said = daemon.push(file, "a/bucket/late", wait=0.5)
        assert (said["ok"], said["state"]) == (False, "queued")
        assert "not stored in time: " in said["error"]
        patient.say(file=str(file), to="a/bucket/patient", wait=60)
        gone = file.with_name("gone")
        gone.write_bytes(b"gone soon")
        unlucky.say(file=str(gone), to="a/bucket/gone", wait=60)
        wait_for(lambda: len(daemon.entries()) == 3 and all(each["error"] for each in daemon.entries()))
        gone.unlink()
        [entry] = [each for each in daemon.entries() if each["to"].endswith("/gone")]
        wait_for(lambda: daemon.ask(do="retry", ids=[entry["id"]]) and select.select([unlucky.sock], [], [], 0.1)[0])
        said = unlucky.heard()
        assert (said["ok"], "state" in said) == (False, False)
        assert "gone: No such file" in said["error"]
        remote.start()
        said = patient.heard()
        assert (said["state"], said["etag"]) == ("stored", hashlib.md5(file.read_bytes()).hexdigest())
        daemon.wait_empty()
        assert remote.get("bucket", "late") == remote.get("bucket", "patient") == file.read_bytes()


def test_the_log_is_that_of_s3daemon_and_is_opened_again_at_a_hangup(remote: RemoteS3, tmp_path, file):
    with push_daemon(tmp_path / "push", endpoint=remote.endpoint) as daemon:
        before = time.time()
        assert daemon.old(file, "a/bucket/dir/logged") == "Success"
        assert daemon.push(file, "a/bucket/two\nlines")["ok"]
        assert daemon.push(file, "a/nowhere/fails")["ok"] is False
        wait_for(lambda: len(daemon.transfers()) == 4)
        first, *lines = daemon.transfers()
        assert first.startswith("INFO ")
        assert first.endswith(" __main__ - Starting server")
        [(start, seconds, key), other] = stored_in(lines)
        assert key == "dir/logged"
        assert other[2] == r"two\nlines"
        assert before <= start <= start + seconds <= time.time()
        assert lines[2].startswith("ERROR ")
        moved = daemon.transfers_path.rename(tmp_path / "moved")
        daemon.signal(signal.SIGHUP)
        wait_for(daemon.transfers_path.exists)
        assert daemon.old(file, "a/bucket/later") == "Success"
        wait_for(lambda: stored_in(daemon.transfers()))
        assert len(moved.read_text().splitlines()) == 4
        assert stat.S_IMODE(daemon.transfers_path.stat().st_mode) & 0o022 == 0
