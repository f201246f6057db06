"""Files that cannot be read, vanish, change or grow, before and while they are sent: told, and never stored mixed."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import wait_for
from proxy import UP, Cut, Proxy, Stall
from push_daemon import PushDaemon, RemoteS3, push_daemon, remote_s3
from push_faults import Watcher, endpoint_of, heal, killable, let_go, proxy_to, remote_options, spool_empty, tuned

BODY = random.Random(1).randbytes(24 << 20)  # more than fits into the buffers on the way
OTHER = random.Random(2).randbytes(24 << 20)


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


@pytest.fixture(scope="module")
def _unsigned(_proxy: Proxy, tmp_path_factory) -> Iterator[PushDaemon]:
    """As behind TLS: what is signed of a body does not tell the remote whether it is the right one."""
    command = tuned(remote_options("signed_payload=False"))
    with killable(tmp_path_factory.mktemp("unsigned"), endpoint=endpoint_of(_proxy), command=command) as found:
        yield found.start()


@pytest.fixture
def proxy(_proxy: Proxy) -> Iterator[Proxy]:
    _proxy.resume.clear()
    _proxy.stalled.clear()
    yield _proxy
    heal(_proxy)
    wait_for(_proxy.idle, "connections to end")


@pytest.fixture
def daemon(_daemon: PushDaemon, proxy: Proxy, tmp_path) -> Iterator[PushDaemon]:
    yield _daemon
    clean(_daemon, proxy, tmp_path)


@pytest.fixture
def unsigned(_unsigned: PushDaemon, proxy: Proxy, tmp_path) -> Iterator[PushDaemon]:
    yield _unsigned
    clean(_unsigned, proxy, tmp_path)


def clean(daemon: PushDaemon, proxy: Proxy, directory: Path) -> None:
    """Nothing stays but what was set aside, and that is thrown away."""
    heal(proxy)
    daemon.ask(do="drop", all=True)
    daemon.wait_empty(60)
    spool_empty(daemon)
    let_go(daemon, directory)
    daemon.check_no_traceback()


def overwrite(path: Path) -> None:
    """In place, as long as before."""
    with open(path, "r+b") as file:
        file.write(OTHER)


def touch_the_end(path: Path) -> None:
    """A few of its last bytes, in place."""
    with open(path, "r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"0123456789")


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(OTHER)


def shrink(path: Path) -> None:
    os.truncate(path, 1 << 20)


def replace(path: Path) -> None:
    """Another file gets its name."""
    path.with_name("new").write_bytes(OTHER)
    os.replace(path.with_name("new"), path)


class Change(NamedTuple):
    """What happens to a file, what is said of it then, and whether it is no harm once it was opened, or linked."""

    change: Callable[[Path], None]
    said: str
    harmless: bool = False


CHANGES = {
    "overwritten": Change(overwrite, "changed"),
    "touched": Change(touch_the_end, "changed"),
    "grown": Change(grow, "changed"),
    "shrunk": Change(shrink, "changed"),
    "replaced": Change(replace, "changed", True),
    "vanished": Change(os.unlink, "No such file", True),
}
changes = pytest.mark.parametrize("what", CHANGES)
kept_as = pytest.mark.parametrize("snapshot", [False, True], ids=["by reference", "snapshot"])


def fail_anew(daemon: PushDaemon) -> None:
    """Wait until an attempt that began after this has failed."""
    count = daemon.status()["failures"]
    wait_for(lambda: daemon.entries()[0]["state"] == "parked" or daemon.status()["failures"] >= count + 2, "attempts")


def parked(daemon: PushDaemon) -> list[dict]:
    """Wait until nothing moves any more; what was set aside."""
    daemon.wait_empty(60)
    found = daemon.entries()
    assert all(each["state"] == "parked" for each in found)
    return found


@kept_as
@changes
def test_what_becomes_of_a_file_before_it_is_sent_is_told_and_only_what_was_accepted_arrives(
    daemon: PushDaemon, proxy: Proxy, remote: RemoteS3, tmp_path, what, snapshot
):
    change, path, key = CHANGES[what], tmp_path / "file", f"before-{what}-{snapshot}"
    path.write_bytes(BODY)
    with Watcher(remote, "bucket", {key: [BODY]}):
        heal(proxy, [Cut(UP, 0)])
        assert daemon.push(path, f"a/bucket/{key}", ack="queued", snapshot=snapshot)["ok"]
        wait_for(lambda: daemon.entries()[0]["attempts"], "an attempt")
        change.change(path)
        fail_anew(daemon)
        heal(proxy)
        found = parked(daemon)
        if change.harmless and snapshot:
            assert found == [] and remote.get("bucket", key) == BODY
        else:
            assert [each["to"] for each in found] == [f"default/bucket/{key}"]
            assert change.said in found[0]["error"] or "shorter" in found[0]["error"]
            assert remote.get("bucket", key) is None
    assert daemon.old(__file__, "a/bucket/after") == "Success"


@kept_as
@changes
def test_a_file_that_changes_while_it_is_sent_is_never_stored_mixed(
    unsigned: PushDaemon, proxy: Proxy, remote: RemoteS3, tmp_path, what, snapshot
):
    change, path, key = CHANGES[what], tmp_path / "file", f"while-{what}-{snapshot}"
    path.write_bytes(BODY)
    with Watcher(remote, "bucket", {key: [BODY]}):
        heal(proxy, [Stall(UP, 150_000)])
        assert unsigned.push(path, f"a/bucket/{key}", ack="queued", snapshot=snapshot)["ok"]
        assert proxy.stalled.wait(60)
        change.change(path)
        proxy.always = ()
        proxy.resume.set()  # and it goes on where it was
        found = parked(unsigned)
        if change.harmless:
            assert found == [] and remote.get("bucket", key) == BODY
        else:
            assert [each["to"] for each in found] == [f"default/bucket/{key}"]
            assert change.said in found[0]["error"] or "shorter" in found[0]["error"]
            assert remote.get("bucket", key) is None


@pytest.mark.parametrize("what", ["overwritten", "grown", "shrunk"])
def test_who_waits_is_told_that_the_file_changed_and_nothing_stays_queued(
    daemon: PushDaemon, proxy: Proxy, remote: RemoteS3, tmp_path, what
):
    path, key = tmp_path / "file", f"told-{what}"
    path.write_bytes(BODY)
    heal(proxy, [Stall(UP, 150_000)])
    with Watcher(remote, "bucket", {key: [BODY]}), daemon.connect() as client:
        client.write(f"{path} a/bucket/{key}\n".encode())
        assert proxy.stalled.wait(60)
        CHANGES[what].change(path)
        proxy.always = ()
        proxy.resume.set()
        said = client.sock.recv(4096)
        assert b"changed" in said or b"shorter" in said
        assert daemon.entries() == []
        assert remote.get("bucket", key) is None


def test_bytes_that_change_in_the_buffers_of_the_kernel_are_not_stored(daemon: PushDaemon, remote: RemoteS3, tmp_path):
    """A file is sent from the pages that the kernel has of it: who writes to them changes what is still on its way."""
    path, size = tmp_path / "file", 1 << 19
    path.write_bytes(BODY[:size])
    with Watcher(remote, "bucket", {"buffers": [BODY[:size]]}) as watcher:
        remote.pause()
        try:
            assert daemon.push(path, "a/bucket/buffers", ack="queued")["ok"]
            wait_for(lambda: daemon.status()["in_flight"] == 1)
            wait_for(lambda: unread(remote.port) >= size, "all to be sent")
            with open(path, "r+b") as file:
                file.seek(size // 4)
                file.write(OTHER[: size // 2])
        finally:
            remote.resume()
        found = parked(daemon)
        assert len(found) == 1 and "changed" in found[0]["error"]
        watcher.look()


def unread(port: int) -> int:
    """The bytes that wait in sockets on both ends of the connections to a port."""
    total = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if int(words[1].split(":")[1], 16) == port or int(words[2].split(":")[1], 16) == port:
            total += sum(int(each, 16) for each in words[4].split(":"))
    return total


def test_a_file_that_may_not_be_read_is_refused_and_one_that_may_no_longer_is_set_aside_until_it_may(
    remote: RemoteS3, tmp_path
):
    """Root is let through by what it can override, so the daemon runs without that."""
    path = tmp_path / "file"
    path.write_bytes(BODY)
    without = "-dac_override,-dac_read_search"
    command = ["setpriv", "--inh-caps", without, "--bounding-set", without] if not os.geteuid() else []
    with (
        proxy_to(remote.port, Cut(UP, 0)) as proxy,
        killable(
            tmp_path / "push", endpoint=endpoint_of(proxy), command=[*command, sys.executable, "-m", "s4raw"]
        ) as daemon,
    ):
        daemon.start()
        path.chmod(0)
        assert "Permission denied" in daemon.old(path, "a/bucket/unreadable")
        assert daemon.entries() == []
        path.chmod(0o600)
        assert daemon.push(path, "a/bucket/unreadable", ack="queued")["ok"]
        wait_for(lambda: daemon.entries()[0]["attempts"], "an attempt")
        path.chmod(0)
        fail_anew(daemon)
        heal(proxy)
        found = parked(daemon)
        assert "Permission denied" in found[0]["error"]
        path.chmod(0o600)
        assert daemon.ask(do="retry", ids=[found[0]["id"]]) == {"ok": True, "count": 1, "left": []}
        daemon.wait_empty(60)
        assert remote.get("bucket", "unreadable") == BODY


def test_a_file_is_stored_although_an_older_one_of_its_key_was_set_aside(daemon: PushDaemon, proxy, remote, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    heal(proxy, [Cut(UP, 0)])
    assert daemon.push(path, "a/bucket/behind", ack="queued")["ok"]
    path.write_bytes(b"new")
    (entry,) = parked(daemon)
    heal(proxy)
    assert "changed" in entry["error"]
    dropped = daemon.status()["dropped"]
    assert daemon.old(path, "a/bucket/behind") == "Success"
    assert remote.get("bucket", "behind") == b"new"
    assert daemon.entries() == []
    assert daemon.ask(do="retry", ids=[entry["id"]])["count"] == 0
    assert daemon.status()["dropped"] == dropped + 1


def test_a_growing_file_is_stored_once_it_is_whole_and_never_in_part(daemon: PushDaemon, remote: RemoteS3, tmp_path):
    """Whoever hands it over early is told so, or gets what was there at that moment: no other length."""
    path, lengths = tmp_path / "file", []
    step = 1 << 18
    contents = [BODY[: step * count] for count in range(41)]
    with Watcher(remote, "bucket", {"growing": contents}), open(path, "wb", buffering=0) as file:
        for number in range(40):
            file.write(BODY[step * number : step * (number + 1)])
            answer = daemon.push(path, "a/bucket/growing", ack="queued", snapshot=bool(number % 2))
            if answer["ok"]:
                lengths.append(step * (number + 1))
    assert daemon.push(path, "a/bucket/growing", ack="queued")["ok"]
    daemon.wait_empty(60)
    assert daemon.entries() == [], "those that grew before they were sent have gone with the last one"
    assert remote.get("bucket", "growing") == contents[40]
