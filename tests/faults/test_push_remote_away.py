"""A remote that is gone, refuses, breaks off, stalls or is full: nobody is told a lie, and what was accepted arrives.

An outage is as long here as it takes to fail some times: what counts is the number of attempts, not the seconds.
"""

import random
import resource
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from conftest import thread_count, wait_for
from proxy import DOWN, UP, Cut, Proxy, Stall
from push_daemon import PushDaemon, RemoteS3, push_daemon, remote_s3
from push_faults import (
    Watcher,
    endpoint_of,
    eventually,
    heal,
    killable,
    let_go,
    listed,
    proxy_to,
    remote_options,
    spool_empty,
    tuned,
)
from scripted import Act, Scripted, Visit, head_of

SMALL = random.Random(1).randbytes(20_000)  # goes out with its head
BODY = random.Random(2).randbytes(300_000)
LARGE = random.Random(3).randbytes(24 << 20)  # more than fits into the buffers on the way
LIMIT = 1 << 20  # bytes of a file on a disk that is full beyond


@pytest.fixture(scope="module")
def remote(tmp_path_factory) -> Iterator[RemoteS3]:
    with remote_s3(tmp_path_factory.mktemp("remote"), "bucket") as found:
        yield found


@pytest.fixture(scope="module")
def _proxy(remote: RemoteS3) -> Iterator[Proxy]:
    with proxy_to(remote.port) as found:
        yield found


@pytest.fixture(scope="module")
def _daemon(_proxy: Proxy, tmp_path_factory) -> Iterator[PushDaemon]:
    with push_daemon(tmp_path_factory.mktemp("push"), endpoint=endpoint_of(_proxy)) as found:
        yield found


@pytest.fixture
def proxy(_proxy: Proxy) -> Iterator[Proxy]:
    _proxy.resume.clear()
    _proxy.stalled.clear()
    yield _proxy
    heal(_proxy)


@pytest.fixture
def daemon(_daemon: PushDaemon, proxy: Proxy, tmp_path) -> Iterator[PushDaemon]:
    yield _daemon
    heal(proxy)
    _daemon.wait_empty(60)
    assert _daemon.entries() == []
    spool_empty(_daemon)
    let_go(_daemon, tmp_path)
    _daemon.check_no_traceback()
    heal(proxy)
    wait_for(proxy.idle, "connections to end")


@pytest.fixture
def file(tmp_path) -> Path:
    (tmp_path / "file").write_bytes(BODY)
    return tmp_path / "file"


def failures(daemon: PushDaemon) -> int:
    found: int = daemon.status()["failures"]
    return found


# -- gone


def test_a_remote_that_is_gone_is_waited_for_over_a_restart_and_holds_up_no_other(remote: RemoteS3, tmp_path, file):
    with (
        remote_s3(tmp_path / "gone", "bucket") as gone,
        killable(tmp_path / "push", "--alias", f"other={remote.endpoint}", endpoint=gone.endpoint) as daemon,
    ):
        daemon.start()
        gone.kill()
        for number in range(8):
            (tmp_path / f"{number}").write_bytes(BODY + b"%d" % number)
            assert daemon.push(tmp_path / f"{number}", f"a/bucket/{number % 4}", ack="queued")["ok"]
        assert daemon.old(file, "other/bucket/other") == "Success"
        assert remote.get("bucket", "other") == BODY
        wait_for(lambda: failures(daemon) >= 8, "some failures", 60)
        daemon.kill()
        daemon.start()
        assert len(daemon.entries()) == 8
        wait_for(lambda: failures(daemon) >= 3, "some failures", 60)
        gone.start()
        for number in range(4):  # by itself
            eventually(gone, "bucket", f"{number}", BODY + b"%d" % (number + 4))
        daemon.wait_empty(60)
        assert listed(gone, "bucket") == ["0", "1", "2", "3"]


def test_who_waits_is_told_that_the_remote_is_gone_although_many_files_wait_for_it(daemon: PushDaemon, proxy, file):
    heal(proxy, [Cut(UP, 0)])
    for number in range(100):
        assert daemon.push(file, f"a/bucket/many{number}", ack="queued")["ok"]
    wait_for(lambda: failures(daemon) >= 10, "some failures", 60)
    before = failures(daemon)
    assert daemon.old(file, "a/bucket/told") not in ("", "Success")
    assert failures(daemon) < before + 50
    assert len(daemon.entries()) == 100


# -- answers

ERROR = b"<Error><Code>%s</Code><Message>no</Message></Error>"


def refuse(status: int, body: bytes = b"") -> Act:
    """Takes the body, and says no."""

    def act(visit: Visit) -> bool:
        visit.read()
        visit.sock.sendall(head_of(status, len(body)) + body)
        return True

    return act


def break_off(answer: bytes, reading: bool = True) -> Act:
    """Takes the body or not, answers so, and closes the connection; hard, if it has not read all."""

    def act(visit: Visit) -> bool:
        if reading:
            visit.read()
        with suppress(OSError):
            visit.sock.sendall(answer)
        if not reading:
            visit.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return act


ACTS: dict[str, tuple[Act, str]] = {
    "500": (refuse(500, ERROR % b"InternalError"), "InternalError"),
    "503": (refuse(503, ERROR % b"SlowDown"), "SlowDown"),
    "503 without a word": (refuse(503), "503"),
    "403": (refuse(403, ERROR % b"AccessDenied"), "AccessDenied"),
    "half a head": (break_off(b"HTTP/1.1 200 OK\r\nContent-Le"), ""),
    "half a body": (break_off(head_of(200, 100, {"ETag": '"0"'}) + b"half"), ""),
    "no HTTP": (break_off(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), ""),
    "no answer": (break_off(b""), ""),
    "200 to a body that was not read": (break_off(head_of(200, 0, {"ETag": '"0"'}), reading=False), ""),
}


@pytest.mark.parametrize("what", ACTS)
def test_an_answer_that_is_no_success_is_told_and_what_is_queued_arrives_later(
    daemon: PushDaemon, proxy: Proxy, remote: RemoteS3, tmp_path, what
):
    act, said = ACTS[what]
    (tmp_path / "file").write_bytes(LARGE)
    key = what.replace(" ", "-")
    before = proxy.target
    try:
        with Scripted(act) as server:
            proxy.target = ("127.0.0.1", int(server.endpoint.rpartition(":")[2]))
            heal(proxy)
            told = daemon.old(tmp_path / "file", f"a/bucket/told-{key}")
            assert told not in ("", "Success") and said in told
            assert daemon.entries() == []
            count = failures(daemon)
            assert daemon.push(tmp_path / "file", f"a/bucket/kept-{key}", ack="queued")["ok"]
            wait_for(lambda: failures(daemon) >= count + 2, "some failures", 60)
            assert said in daemon.entries()[0]["error"]
            proxy.target = before
            heal(proxy)
    finally:
        proxy.target = before
        heal(proxy)
    eventually(remote, "bucket", f"kept-{key}", LARGE)
    assert remote.get("bucket", f"told-{key}") is None


@pytest.mark.parametrize(
    "fault", [Cut(UP, 150_000), Cut(UP, 300), Cut(DOWN, 30)], ids=["in its body", "in its head", "in the answer"]
)
def test_a_connection_that_is_cut_leaves_nothing_half_and_the_file_arrives(
    daemon: PushDaemon, proxy: Proxy, remote: RemoteS3, file, fault
):
    key = f"cut-{fault.direction}-{fault.offset}"
    with Watcher(remote, "bucket", {key: [BODY], f"{key}-told": [BODY]}):
        heal(proxy, [fault])
        assert daemon.old(file, f"a/bucket/{key}-told") not in ("", "Success")
        count = failures(daemon)
        assert daemon.push(file, f"a/bucket/{key}", ack="queued", snapshot=True)["ok"]
        file.unlink()
        wait_for(lambda: failures(daemon) >= count + 2, "some failures", 60)
        heal(proxy)
        eventually(remote, "bucket", key, BODY)


def test_a_remote_that_stalls_is_given_up_and_tried_again_and_then_holds_up_no_other(remote: RemoteS3, tmp_path, file):
    """A silence of 60 s is 1 s here."""
    options = ("--alias", f"other={remote.endpoint}", "--clients", "4")
    with (
        proxy_to(remote.port, Stall(DOWN, 0)) as proxy,
        killable(
            tmp_path / "push",
            *options,
            endpoint=endpoint_of(proxy),
            command=tuned(remote_options("read_timeout=1.0")),
        ) as daemon,
    ):
        daemon.start()
        for number in range(8):
            assert daemon.push(file, f"a/bucket/stalled{number}", ack="queued")["ok"]
        wait_for(lambda: failures(daemon) >= 5, "some failures", 60)
        assert daemon.old(file, "other/bucket/not-stalled") == "Success"
        assert all("no answer for 1 s" in each["error"] for each in daemon.entries() if each["attempts"])
        heal(proxy)
        daemon.wait_empty(60)
        assert all(remote.get("bucket", f"stalled{number}") == BODY for number in range(8))


def test_a_remote_that_is_silent_holds_up_no_other_before_it_is_given_up(remote: RemoteS3, tmp_path, file):
    """It takes two minutes to give it up, and clients wait for half of one."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as silent,
        killable(
            tmp_path / "push",
            *("--alias", "silent=http://127.0.0.1:{}".format(*silent.getsockname()[1:]), "--clients", "4"),
            *("--grace", "0.2"),
            endpoint=remote.endpoint,
        ) as daemon,
    ):
        daemon.start()
        with daemon.connect() as waiting:
            waiting.say(file=str(file), to="silent/bucket/waited-for")
            for number in range(12):
                assert daemon.push(file, f"silent/bucket/{number}", ack="queued")["ok"]
            wait_for(lambda: daemon.status()["in_flight"] == 4)
            for number in range(8):
                assert daemon.push(file, f"a/bucket/other{number}", ack="queued")["ok"]
            assert daemon.old(file, "a/bucket/last") == "Success"
            wait_for(lambda: daemon.status()["delivered"] == 9)
            assert (daemon.status()["in_flight"], failures(daemon)) == (4, 0)
        assert {each["to"].partition("/")[0] for each in daemon.entries()} == {"silent"}


# -- full disks


@contextmanager
def full_disk(pid: int, size: int) -> Iterator[None]:
    """A process cannot write beyond so many bytes of a file: that fails like a full disk, without needing one."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_remote_whose_disk_is_full_is_told_and_waited_for(daemon: PushDaemon, remote: RemoteS3, tmp_path, file):
    (tmp_path / "large").write_bytes(LARGE)
    assert remote.process is not None
    with full_disk(remote.process.pid, LIMIT):
        assert "full" in daemon.old(tmp_path / "large", "a/bucket/full-told")
        count = failures(daemon)
        assert daemon.push(tmp_path / "large", "a/bucket/full", ack="queued", snapshot=True)["ok"]
        wait_for(lambda: failures(daemon) >= count + 2, "some failures", 60)
        assert daemon.old(file, "a/bucket/small") == "Success"
        assert remote.get("bucket", "full") is None
    eventually(remote, "bucket", "full", LARGE)
    assert remote.get("bucket", "full-told") is None


def test_a_queue_without_space_accepts_nothing_loses_nothing_and_goes_on_later(
    daemon: PushDaemon, proxy: Proxy, remote: RemoteS3, file
):
    heal(proxy, [Cut(UP, 0)])
    assert daemon.push(file, "a/bucket/before", ack="queued", snapshot=True)["ok"]
    with full_disk(daemon.pid, 0):
        for snapshot in (False, True):
            answer = daemon.push(file, "a/bucket/no-space", ack="queued", snapshot=snapshot)
            assert answer["ok"] is False and answer["error"], answer
        assert daemon.old(file, "a/bucket/no-space") not in ("", "Success")
        assert [each["to"] for each in daemon.entries()] == ["default/bucket/before"]
        heal(proxy)
        eventually(remote, "bucket", "before", BODY)
    daemon.wait_empty(60)
    assert daemon.old(file, "a/bucket/after") == "Success"
    assert remote.get("bucket", "no-space") is None


def test_a_snapshot_that_does_not_fit_is_refused_and_leaves_nothing(daemon: PushDaemon, remote: RemoteS3):
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == daemon.queue.stat().st_dev:
        pytest.skip("needs a second file system, or the snapshot is a link")
    path = elsewhere / f"s4raw-test-{daemon.pid}"
    try:
        path.write_bytes(LARGE)
        with full_disk(daemon.pid, LIMIT):
            answer = daemon.push(path, "a/bucket/copied", ack="queued", snapshot=True)
            assert answer["ok"] is False, answer
            spool_empty(daemon)
        assert daemon.push(path, "a/bucket/copied", ack="queued", snapshot=True)["ok"]
    finally:
        path.unlink(missing_ok=True)
    daemon.wait_empty(60)
    assert remote.get("bucket", "copied") == LARGE


# -- told to stop meanwhile


def drained(daemon: PushDaemon, act: Callable[[], None]) -> None:
    """SIGTERM, what happens then, and the end of the process."""
    daemon.signal(signal.SIGTERM)
    act()
    assert daemon.stop() == 0, daemon.log()[-2000:]


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "in parts"])
def test_a_stalled_upload_is_left_at_the_deadline_and_done_after_the_next_start(remote: RemoteS3, tmp_path, parts):
    key, waiting = f"deadline-{parts}", f"deadline-waiting-{parts}"
    (tmp_path / "file").write_bytes(LARGE)
    small = remote_options("multipart_threshold=6 << 20, part_size=5 << 20") if parts else ""
    with (
        proxy_to(remote.port, Stall(UP, 150_000)) as proxy,
        killable(tmp_path / "push", "--grace", "1", endpoint=endpoint_of(proxy), command=tuned(small)) as daemon,
        Watcher(remote, "bucket", {key: [LARGE], waiting: [LARGE]}),
    ):
        daemon.start()
        assert daemon.push(tmp_path / "file", f"a/bucket/{key}", ack="queued")["ok"]
        with daemon.connect() as client, daemon.connect() as old:
            client.say(file=str(tmp_path / "file"), to=f"a/bucket/{waiting}")
            old.write(f"{tmp_path / 'file'} a/bucket/{waiting}\n".encode())
            wait_for(lambda: len(daemon.entries()) == 3 and daemon.status()["in_flight"] == 2)
            assert proxy.stalled.wait(60)
            answers: list[object] = []

            def hear() -> None:
                answers.append(client.heard())
                client.close()
                answers.append(old.rest())
                old.close()

            thread = threading.Thread(target=hear)
            thread.start()
            try:
                drained(daemon, lambda: None)
            finally:
                thread.join()
        assert answers[0]["ok"] is False and answers[0]["state"] == "queued", answers
        assert b"stays queued" in answers[1], answers
        heal(proxy)
        daemon.start()
        daemon.wait_empty(60)
        assert remote.get("bucket", key) == remote.get("bucket", waiting) == LARGE


def test_who_leaves_early_while_the_remote_stalls_costs_nothing(remote: RemoteS3, tmp_path, file):
    with (
        proxy_to(remote.port, Stall(UP, 150_000)) as proxy,
        killable(tmp_path / "push", endpoint=endpoint_of(proxy)) as daemon,
    ):
        daemon.start()
        before = thread_count(daemon.pid)
        for number in range(20):
            with daemon.connect() as client:
                client.write(f"{file} a/bucket/early{number}\n".encode())
                if number % 2:  # breaks the connection
                    wait_for(lambda number=number: len(daemon.entries()) == number + 1)
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_for(lambda: len(daemon.entries()) == 20 and daemon.status()["in_flight"] == 20)
        heal(proxy)
        daemon.wait_empty(60)
        assert all(remote.get("bucket", f"early{number}") == BODY for number in range(20))
        wait_for(lambda: thread_count(daemon.pid) <= before + 20 + 2, "its clients' threads to end")
