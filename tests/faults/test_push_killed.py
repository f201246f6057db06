"""kill -9 of the uploader: what was accepted arrives whole at its key, and nothing half is ever to be seen."""

import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import wait_for
from proxy import DOWN, UP, Fault, Stall
from push_daemon import Client, PushDaemon, RemoteS3, old_send, push_daemon, remote_s3
from push_faults import (
    Watcher,
    ended,
    endpoint_of,
    heal,
    killable,
    listed,
    proxy_to,
    remote_options,
    spool_empty,
    tuned,
)

FIRST, SECOND, OTHER = (random.Random(seed).randbytes(300_000 + seed) for seed in (1, 2, 3))
LONG = random.Random(4).randbytes((11 << 20) + 5)

LINK = """
from s4raw.queue.spool import Spool
adopt = Spool.adopt
def adopt_and_die(self, fd):
    found = adopt(self, fd)
    die()
    return found
Spool.adopt = adopt_and_die
"""
DISCARD = """
from s4raw.queue.spool import Spool
discard = Spool.discard
def discard_and_die(self, path):
    die()
    discard(self, path)
Spool.discard = discard_and_die
"""
COMMIT = """
import time
from s4raw.queue.journal import Journal
commit = Journal._commit
def die_in(text):
    if text == "COMMIT":
        time.sleep(0.2)  # who does not wait for the commit goes on
        die()
def commit_and_die(self, rows, ids, states):
    if {what} and {inside}:
        self._database.set_trace_callback(die_in)
    commit(self, rows, ids, states)
    if {what}:
        die()
Journal._commit = commit_and_die
"""
PARTS = (
    remote_options("multipart_threshold=6 << 20, part_size=5 << 20")
    + """
import s4raw.remote.parts as parts
send, complete = parts._send, parts.complete
def send_and_die(remote, key, upload, number, *more):
    if {point} == number:
        die()
    return send(remote, key, upload, number, *more)
def complete_and_die(*given):
    if {point} == "before":
        die()
    found = complete(*given)
    if {point} == "after":
        die()
    return found
parts._send, parts.complete = send_and_die, complete_and_die
"""
)


@pytest.fixture(scope="module")
def remote(tmp_path_factory) -> Iterator[RemoteS3]:
    with remote_s3(tmp_path_factory.mktemp("remote"), "bucket", "sizes") as found:
        yield found


@pytest.fixture(scope="module")
def sizes(remote: RemoteS3, tmp_path_factory) -> dict[str, int]:
    """The bytes of the request that stores FIRST, and of its answer."""
    directory = tmp_path_factory.mktemp("sizes")
    (directory / "file").write_bytes(FIRST)
    with proxy_to(remote.port) as proxy, push_daemon(directory, endpoint=endpoint_of(proxy)) as daemon:
        assert daemon.old(directory / "file", "a/sizes/key") == "Success"
        return {way: sum(passage.passed[way] for passage in proxy.passages) for way in (UP, DOWN)}


# -- at a point where it kills itself


class Point(NamedTuple):
    """Where it dies, whether its client was told that the file is queued, and whether it must arrive."""

    statements: str
    told: bool = True
    arrives: bool = True
    content: bytes = FIRST


POINTS = {
    "between the link in the spool and the commit": Point(LINK, False, False),
    "in the transaction that accepts": Point(COMMIT.format(what="rows", inside=True), False, False),
    "accepted, before the client is told": Point(COMMIT.format(what="rows", inside=False), False),
    "stored, in the transaction that deletes": Point(COMMIT.format(what="ids", inside=True)),
    "stored and deleted, before that is known": Point(COMMIT.format(what="ids", inside=False)),
    "before the spooled file is deleted": Point(DISCARD),
    "before the second of three parts": Point(PARTS.format(point=2), content=LONG),
    "before the parts are made an object": Point(PARTS.format(point="'before'"), content=LONG),
    "after the parts were made an object": Point(PARTS.format(point="'after'"), content=LONG),
}


@pytest.mark.parametrize("name", POINTS)
def test_killed_at_a_point_it_has_everything_or_nothing(remote: RemoteS3, tmp_path, name):
    point, bucket = POINTS[name], f"point-{list(POINTS).index(name)}"
    remote.make_bucket(bucket)
    (tmp_path / "file").write_bytes(point.content)
    directory = tmp_path / "push"
    with (
        killable(directory, endpoint=remote.endpoint, command=tuned(point.statements)) as daemon,
        Watcher(remote, bucket, {"key": [point.content]}),
    ):
        daemon.start()
        with daemon.connect() as client:
            client.say(file=str(tmp_path / "file"), to=f"a/{bucket}/key", ack="queued", snapshot=True)
            with suppress(ConnectionError):
                assert client.heard()["ok"]
                assert point.told
                (tmp_path / "file").unlink()
        ended(daemon)
        assert (directory / "died").exists()
        daemon.start()
        daemon.wait_empty(60)
        assert daemon.entries() == []
        assert listed(remote, bucket) == (["key"] if point.arrives else [])
        assert remote.get(bucket, "key") == (point.content if point.arrives else None)
        spool_empty(daemon)


# -- while bytes are on their way


class Held(NamedTuple):
    """The byte of a request, or of an answer, at which it dies; counted from the end if negative."""

    way: str
    offset: int


HELD = {
    "before a byte of the request": Held(UP, 0),
    "in its head": Held(UP, 200),
    "in its body": Held(UP, 150_000),
    "before its last byte": Held(UP, -1),
    "before the answer": Held(DOWN, 0),
    "in the answer": Held(DOWN, 30),
    "before the last byte of the answer": Held(DOWN, -1),
}


@pytest.mark.parametrize("name", HELD)
def test_killed_on_the_way_all_that_was_accepted_arrives_in_order(remote: RemoteS3, sizes, tmp_path, name):
    held, bucket = HELD[name], f"held{list(HELD).index(name)}"
    assert len(bucket) == len("sizes")
    remote.make_bucket(bucket)
    contents = {"key": (FIRST, SECOND), "any": (OTHER,)}
    faults: list[Fault] = [Stall(held.way, held.offset % sizes[held.way])]
    with (
        proxy_to(remote.port, *faults) as proxy,
        killable(tmp_path / "push", endpoint=endpoint_of(proxy)) as daemon,
        Watcher(remote, bucket, contents),
    ):
        daemon.start()
        for key, each in contents.items():
            for number, content in enumerate(each):
                path = tmp_path / f"{key}{number}"
                path.write_bytes(content)
                assert daemon.push(path, f"a/{bucket}/{key}", ack="queued", snapshot=not number)["ok"]
                if not number:
                    path.unlink()
        assert proxy.stalled.wait(60)
        daemon.kill()
        heal(proxy)
        daemon.start()
        daemon.wait_empty(60)
        assert daemon.entries() == []
        assert listed(remote, bucket) == ["any", "key"]
        assert remote.get(bucket, "key") == SECOND
        assert remote.get(bucket, "any") == OTHER
        spool_empty(daemon)


def test_an_old_client_whose_daemon_dies_is_not_told_success_and_its_file_arrives(remote: RemoteS3, tmp_path):
    (tmp_path / "file").write_bytes(FIRST)
    with (
        proxy_to(remote.port, Stall(UP, 150_000)) as proxy,
        killable(tmp_path / "push", endpoint=endpoint_of(proxy)) as daemon,
    ):
        daemon.start()
        said: list[str] = []

        def send() -> None:
            with suppress(ConnectionError):
                said.append(old_send(daemon.port, str(tmp_path / "file"), "a/bucket/old"))

        thread = threading.Thread(target=send)
        thread.start()
        assert proxy.stalled.wait(60)
        daemon.kill()
        thread.join()
        assert said in ([], [""])
        assert remote.get("bucket", "old") is None
        heal(proxy)
        daemon.start()
        daemon.wait_empty(60)
        assert remote.get("bucket", "old") == FIRST


# -- at random

KILLS, SENDERS, KEYS = 50, 4, 5


def content_of(key: str, version: int) -> bytes:
    """What a version of a key is; none is like another."""
    size = random.Random(f"{key} {version}").choice((1, 20, 3_000, 8_000))
    return f"{key} {version}\n".encode() * size


class Sender(threading.Thread):
    """Stores new versions of its keys, one after the other, over a connection that it opens again when it is lost.

    ``acknowledged`` are the last versions it was told of, ``sent`` those that it has asked for.
    """

    def __init__(self, number: int, directory: Path, where: str, remote: RemoteS3) -> None:
        super().__init__()
        self.stopped = threading.Event()
        self.acknowledged: dict[str, int] = {}
        self.sent: defaultdict[str, int] = defaultdict(int)
        self.count = 0
        self.errors: list[object] = []
        self._number = number
        self._directory = directory
        self._where = where
        self._remote = remote
        self._random = random.Random(number)

    def run(self) -> None:
        while not self.stopped.is_set():
            if not os.path.exists(self._where):
                self.stopped.wait(0.01)
                continue
            try:
                with suppress(OSError), Client(self._where) as client:
                    while not self.stopped.is_set():
                        self._batch(client)
            except Exception as error:
                self.errors.append(error)
                return
            self.stopped.wait(0.01)

    def _batch(self, client: Client) -> None:
        """Several requests at once, and then their answers."""
        asked = []
        for _ in range(self._random.randint(1, 4)):
            often = self._random.random() < 0.6
            key = f"{self._number}/{self._random.randrange(KEYS) if often else f'once-{self.count}-{len(asked)}'}"
            self.sent[key] += 1
            path = self._directory / f"{key}-{self.sent[key]}".replace("/", "-")
            path.write_bytes(content_of(key, self.sent[key]))
            snapshot, ack = self._random.random() < 0.5, self._random.choice(("queued", "queued", "stored"))
            asked.append((key, self.sent[key], path, snapshot, ack))
            client.say(file=str(path), to=f"a/bucket/{key}", ack=ack, snapshot=snapshot)
        for key, version, path, snapshot, ack in asked:
            answer = client.heard()
            assert answer["ok"], answer
            self.acknowledged[key] = version
            self.count += 1
            if snapshot or ack == "stored":
                path.unlink()
            if ack == "stored" and self._random.random() < 0.1:
                self.check(key)

    def check(self, key: str) -> None:
        """What is there is a version that was asked for, whole, and none older than the last acknowledged one."""
        least = self.acknowledged.get(key, 0)
        found = self._remote.get("bucket", key)
        if found is None:
            assert not least, f"version {least} of {key} is lost"
            return
        name, _, version = found.partition(b"\n")[0].decode().rpartition(" ")
        assert name == key, f"{key} has what belongs to {name}"
        assert found == content_of(key, int(version)), f"{key} is not whole"
        assert least <= int(version) <= self.sent[key], f"{key} has version {version} of {least} to {self.sent[key]}"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_killed_50_times_at_random_under_load_nothing_acknowledged_is_lost_or_goes_back(tmp_path, capsys):
    began = time.monotonic()
    moments = random.Random(50)
    where = str(tmp_path / "s")
    files = tmp_path / "files"
    files.mkdir()
    with (
        remote_s3(tmp_path / "remote", "bucket") as remote,
        killable(tmp_path / "push", "--socket", where, endpoint=remote.endpoint) as daemon,
    ):
        senders = [Sender(number, files, where, remote) for number in range(SENDERS)]

        def total() -> int:
            return sum(sender.count for sender in senders)

        for sender in senders:
            sender.start()
        try:
            for number in range(KILLS):
                daemon.spawn()
                if number % 5:  # under load
                    goal = total() + moments.randrange(1, 40)
                    wait_for(
                        lambda goal=goal: total() >= goal or any(each.errors for each in senders),
                        f"load after {number} kills: {daemon.log()[-3000:]}",
                        60,
                    )
                else:  # while it starts, and delivers what is left
                    time.sleep(moments.uniform(0.1, 0.5))
                daemon.kill()
            daemon.start()
        finally:
            for sender in senders:
                sender.stopped.set()
            for sender in senders:
                sender.join()
        daemon.wait_empty(60)
        assert not [sender.errors for sender in senders if sender.errors]
        for sender in senders:
            for key in sender.sent:
                sender.check(key)
        assert set(listed(remote, "bucket")) <= {key for sender in senders for key in sender.sent}
        assert daemon.entries() == []
        spool_empty(daemon)
    with capsys.disabled():
        print(f"\n{KILLS} kills, {total()} files acknowledged, in {time.monotonic() - began:.0f} s")


def test_a_second_daemon_on_the_spool_is_refused_while_the_first_lives_and_takes_over_when_it_is_killed(
    remote: RemoteS3, tmp_path
):
    (tmp_path / "file").write_bytes(FIRST)
    with (
        proxy_to(remote.port, Stall(UP, 150_000)) as proxy,
        killable(tmp_path / "push", endpoint=endpoint_of(proxy)) as first,
    ):
        first.start()
        assert first.push(tmp_path / "file", "a/bucket/two", ack="queued")["ok"]
        assert proxy.stalled.wait(60)
        second = PushDaemon(tmp_path / "second", endpoint=endpoint_of(proxy), queue=first.queue)
        try:
            said = second.fails()
            assert f"pid {first.pid}" in said and str(first.queue) in said
            assert first.status()["in_flight"] == 1
            first.kill()
            heal(proxy)
            second.start()
            second.wait_empty(60)
            assert remote.get("bucket", "two") == FIRST
            assert str(second.pid) in first.fails()
            assert second.stop() == 0
        finally:
            second.close()
