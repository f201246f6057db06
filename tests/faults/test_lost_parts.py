"""Large keys over connections that are lost, clients and servers that are killed: what was done is not done again."""

import random
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import wait_for
from fault_ring import conversation, emptied, fault_ring, hello_size, kill, settle
from proxy import DOWN, UP, Cut, Flip, Stall

from s4raw import download, upload, wire
from s4raw.digest import LEAF
from s4raw.errors import ConnectionLost, Corrupt, KeyChanged, KeyExists, NoSuchKey

KEY = "s4://b/k"
SIZE = 5 * LEAF + 7
BODY = random.Random(8).randbytes(SIZE)
OTHER = BODY[::-1]
SLACK = 200_000  # bytes: heads, records and hellos of all connections of a test


@pytest.fixture(scope="module")
def _proxied(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("parts"), proxied=True) as ring:
        yield ring


@pytest.fixture
def ring(_proxied):
    """One server behind a proxy, empty; at rest again at the end."""
    with emptied(_proxied) as ring:
        yield ring
    for path in uploads(_proxied):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()


@pytest.fixture
def own_ring(tmp_path):
    """A ring for one test alone, which may kill its server."""
    with fault_ring(tmp_path, proxied=True) as ring:
        settle(ring)
        yield ring


@pytest.fixture
def proxy(ring):
    return ring.proxies[0]


@pytest.fixture
def client(ring):
    with ring.client() as client:
        yield client


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of one leaf, so that a few MiB are several."""
    monkeypatch.setattr(download, "PART", LEAF)
    monkeypatch.setattr(upload, "PART", LEAF)


@pytest.fixture
def file(tmp_path) -> str:
    (tmp_path / "file").write_bytes(BODY)
    return str(tmp_path / "file")


def put(client, content: bytes = BODY) -> None:
    """Put the key, and leave no connection open."""
    client.put(KEY, content)
    client.close()


def passed(ring, direction: str) -> int:
    """How many bytes went one way through the proxy since the last ``settle``."""
    wait_for(ring.proxies[0].idle, "connections through the proxy to end")
    return sum(passage.passed[direction] for passage in ring.proxies[0].passages)


def uploads(ring) -> list[Path]:
    """The uploads that lie on the servers' disks."""
    return [path for index in range(ring.count) for path in ring.directory(index).glob("_uploads/*")]


SCRIPT = """
import sys
from s4raw import download, upload, wire
from s4raw.client import Ring
download.PART = upload.PART = 1 << 20
verb, conf, path, connections = sys.argv[1:]
with Ring.from_conf(conf) as ring:
    getattr(ring, verb)("s4://b/k", path, connections=int(connections), resume=True)
"""


def start_client(ring, verb: str, path: Path | str, connections: int = 1) -> "subprocess.Popen[bytes]":
    """A client in a process of its own, that copies with resume; it ends with the ring at the latest."""
    command = [sys.executable, "-c", SCRIPT, verb, ring.conf, str(path), str(connections)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes)
    ring.clients.append(process)
    return process


# Downloads


@pytest.mark.parametrize("resume", [False, True])
def test_a_download_that_is_cut_goes_on_from_the_block_where_it_broke(ring, proxy, client, tmp_path, resume):
    put(client)
    settle(ring)
    proxy.plan.extend([[Cut(DOWN, 5 * LEAF // 2)], [Cut(DOWN, 3 * LEAF // 2)]])
    assert client.get_file(KEY, str(tmp_path / "here"), connections=1, resume=resume) == SIZE
    client.close()
    assert (tmp_path / "here").read_bytes() == BODY
    assert not proxy.plan and len(proxy.passages) == 3
    assert SIZE < passed(ring, DOWN) < SIZE + 2 * LEAF + SLACK


def test_a_download_may_be_cut_any_number_of_times_as_long_as_a_block_comes(ring, proxy, client, tmp_path):
    put(client)
    settle(ring)
    proxy.plan.extend([[Cut(DOWN, LEAF + SLACK)]] * 5)
    client.get_file(KEY, str(tmp_path / "here"), connections=1)
    assert (tmp_path / "here").read_bytes() == BODY
    assert not proxy.plan


def test_a_download_that_gets_no_further_fails_after_three_attempts(ring, proxy, client, tmp_path):
    put(client)
    settle(ring)
    proxy.always = [Cut(DOWN, LEAF // 2)]
    for _ in range(20):
        client.stat(KEY)  # the connection that is lost first has answered much already
    with pytest.raises(ConnectionLost) as caught:
        client.get_file(KEY, str(tmp_path / "here"), connections=1)
    assert (caught.value.key, caught.value.server) == (KEY, ring.servers[0])
    assert len(proxy.passages) == 3
    assert not [path for path in tmp_path.iterdir() if "here" in path.name]


def test_a_download_over_several_connections_survives_the_loss_of_each(ring, proxy, client, tmp_path, small_parts):
    put(client)
    settle(ring)
    cuts = [LEAF + LEAF // 2, LEAF // 2, LEAF // 3]
    proxy.plan.extend([Cut(DOWN, offset)] for offset in cuts)
    assert client.get_file(KEY, str(tmp_path / "here"), connections=3) == SIZE
    client.close()
    assert (tmp_path / "here").read_bytes() == BODY
    assert proxy.passages[0].passed[DOWN] == cuts[0]
    assert passed(ring, DOWN) < SIZE + 4 * LEAF + SLACK


@pytest.mark.parametrize("connections", [1, 2])
def test_a_download_goes_on_after_its_client_was_killed(ring, proxy, client, tmp_path, connections):
    put(client)
    settle(ring)
    proxy.always = [Stall(DOWN, (7 if connections == 1 else 5) * LEAF // 2)]
    get = start_client(ring, "get_file", tmp_path / "here", connections)
    part = tmp_path / "here .part"
    wait_for(lambda: there(part) >= 3 * LEAF, "three blocks to be written")
    kill(get)
    settle(ring)
    missing = SIZE - there(part)
    client.get_file(KEY, str(tmp_path / "here"), resume=True)
    client.close()
    assert (tmp_path / "here").read_bytes() == BODY and not part.exists()
    assert passed(ring, DOWN) < missing + SLACK


def there(part: Path) -> int:
    """How many bytes of whole blocks of the key a file has."""
    found = part.read_bytes() if part.exists() else b""
    blocks = [BODY[at : at + LEAF] for at in range(0, SIZE, LEAF)]
    return sum(len(block) for at, block in enumerate(blocks) if found[at * LEAF : (at + 1) * LEAF] == block)


@pytest.mark.parametrize("resume", [False, True])
def test_two_contents_are_never_mixed(ring, proxy, client, tmp_path, resume):
    put(client)
    settle(ring)
    proxy.plan.append([Stall(DOWN, 3 * LEAF + LEAF // 2)])
    caught: list[BaseException] = []

    def get() -> None:
        try:
            with ring.client() as own:
                own.get_file(KEY, str(tmp_path / "here"), connections=1, resume=resume)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    wait_for(proxy.stalled.is_set, "some blocks to come")
    client.remove(KEY)
    put(client, OTHER)
    for passage in [*proxy.passages]:
        passage.cut()  # not those that come in place of them
    thread.join()
    assert [type(error) for error in caught] == [KeyChanged]
    assert (caught[0].key, caught[0].server) == (KEY, ring.servers[0])
    assert not (tmp_path / "here").exists() and (tmp_path / "here .part").exists() == resume
    client.get_file(KEY, str(tmp_path / "here"), resume=True)
    assert (tmp_path / "here").read_bytes() == OTHER


def test_a_key_that_was_deleted_meanwhile_is_missing(ring, proxy, client, tmp_path):
    put(client)
    settle(ring)
    (tmp_path / "here .part").write_bytes(BODY[: 2 * LEAF])
    client.remove(KEY)
    with pytest.raises(NoSuchKey):
        client.get_file(KEY, str(tmp_path / "here"), resume=True)
    assert (tmp_path / "here .part").read_bytes() == BODY[: 2 * LEAF]


def test_a_flipped_bit_costs_one_block(ring, proxy, client, tmp_path):
    put(client)
    settle(ring)
    proxy.plan.append([Flip(DOWN, 3 * LEAF + LEAF // 2)])
    with pytest.raises(Corrupt):
        client.get_file(KEY, str(tmp_path / "here"), resume=True, connections=1)
    assert not (tmp_path / "here").exists()
    client.close()
    settle(ring)
    client.get_file(KEY, str(tmp_path / "here"), resume=True, connections=1)
    client.close()
    assert (tmp_path / "here").read_bytes() == BODY
    assert passed(ring, DOWN) < SIZE - 3 * LEAF + SLACK


# Uploads


@pytest.mark.parametrize("connections", [1, 3])
def test_an_upload_that_is_cut_sends_only_the_part_that_broke_again(
    ring, proxy, client, file, small_parts, connections
):
    proxy.plan.extend([[Cut(UP, LEAF + LEAF // 2)], [Cut(UP, LEAF // 2)]])
    assert client.put_file(KEY, file, connections=connections, resume=True) == SIZE
    client.close()
    assert not proxy.plan
    assert passed(ring, UP) < SIZE + 3 * LEAF + SLACK
    assert client.get(KEY) == BODY
    assert uploads(ring) == []


OK = len(wire.encode(wire.OK, 1))
COMMIT = len(wire.encode(wire.COMMIT, 1, bucket="b", key="k", size=SIZE, upload=bytes(16), digest=bytes(16)))


def whole_upload(ring, file: str) -> dict[str, int]:
    """How many bytes go each way for an upload over one connection, whose last request is the COMMIT."""
    with ring.client() as own:
        own.put_file(KEY, file, connections=1, resume=True)
    found = dict(conversation(ring))
    with ring.client() as own:
        own.remove(KEY)
    settle(ring)
    return found


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("before", [0, 1], ids=["PARTS", "PUT_PART"])  # the second connection is for parts alone
def test_an_upload_whose_first_answer_was_lost_is_done(ring, proxy, client, file, small_parts, before, resume):
    first = hello_size(ring)[DOWN]
    settle(ring)
    proxy.plan.extend([[]] * before + [[Cut(DOWN, first)]])
    assert client.put_file(KEY, file, connections=2, resume=resume) == SIZE
    assert not proxy.plan
    assert client.get(KEY) == BODY
    assert uploads(ring) == []


@pytest.mark.parametrize("answers", [1, 2], ids=["COMMIT", "PUT_PART"])
def test_an_upload_whose_last_answer_was_lost_is_done(ring, proxy, client, file, small_parts, answers):
    proxy.plan.append([Cut(DOWN, whole_upload(ring, file)[DOWN] - answers * OK)])
    assert client.put_file(KEY, file, connections=1, resume=True) == SIZE
    client.close()
    assert not proxy.plan and passed(ring, UP) < SIZE + (answers - 1) * LEAF + SLACK
    assert client.get(KEY) == BODY
    assert uploads(ring) == []


def test_a_commit_that_never_arrived_is_sent_again(ring, proxy, client, file, small_parts):
    proxy.plan.append([Cut(UP, whole_upload(ring, file)[UP] - COMMIT)])
    assert client.put_file(KEY, file, connections=1, resume=True) == SIZE
    client.close()
    assert not proxy.plan and passed(ring, UP) < SIZE + SLACK
    assert client.get(KEY) == BODY
    assert uploads(ring) == []


@pytest.mark.parametrize("killed", [False, True], ids=["the server stays", "the server is killed too"])
def test_an_upload_goes_on_after_its_client_was_killed(own_ring, file, killed):
    ring, proxy = own_ring, own_ring.proxies[0]
    proxy.plan.append([Stall(UP, 3 * LEAF + LEAF // 2)])
    process = start_client(ring, "put_file", file)
    wait_for(proxy.stalled.is_set, "some parts to come")
    wait_for(lambda: leaves_there(ring) == 3, "three parts to be recorded")
    kill(process)
    settle(ring)
    if killed:
        ring.kill(0)
        ring.restart(0)
        settle(ring)
    check_sends_the_rest(ring, file)


def check_sends_the_rest(ring, file: str) -> None:
    """The key is not there; three of its leaves are, and are not sent again."""
    with ring.client() as client:
        with pytest.raises(NoSuchKey):
            client.stat(KEY)
        client.close()
        client.put_file(KEY, file, resume=True)
        client.close()
        assert passed(ring, UP) < SIZE - 3 * LEAF + SLACK
        assert client.get(KEY) == BODY
    assert uploads(ring) == []


def leaves_there(ring) -> int:
    """How many leaves of the upload are recorded."""
    [found] = uploads(ring) or [None]
    recorded = (found / "leaves").read_bytes() if found and (found / "leaves").exists() else b""
    return sum(recorded[at : at + 16] != bytes(16) for at in range(0, len(recorded), 16))


def test_an_upload_goes_on_over_the_restart_of_its_server(own_ring, file):
    ring, proxy = own_ring, own_ring.proxies[0]
    proxy.plan.append([Stall(UP, 3 * LEAF + LEAF // 2)])
    process = start_client(ring, "put_file", file)
    wait_for(proxy.stalled.is_set, "some parts to come")
    wait_for(lambda: leaves_there(ring) == 3, "three parts to be recorded")
    ring.kill(0)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1 and re.search(rb"(Unreachable|ConnectionLost)", stderr), stderr
    proxy.resume.set()
    ring.restart(0)
    settle(ring)
    check_sends_the_rest(ring, file)


def test_an_upload_of_a_file_that_has_changed_begins_anew(ring, client, file, small_parts, monkeypatch):
    def fail(_count: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        client.put_file(KEY, file, fail, connections=1, resume=True)
    Path(file).write_bytes(OTHER)
    client.put_file(KEY, file, resume=True)
    assert client.get(KEY) == OTHER


def test_an_upload_in_parts_that_fails_leaves_nothing(ring, proxy, client, file, small_parts):
    proxy.always = [Flip(UP, LEAF // 2)]
    with pytest.raises(Corrupt) as caught:
        client.put_file(KEY, file, connections=2)
    assert (caught.value.key, caught.value.server) == (KEY, ring.servers[0])
    assert ring.published() == []
    assert uploads(ring) == []


def test_a_flipped_bit_in_a_part_is_refused_and_the_part_is_sent_again(ring, proxy, client, file, small_parts):
    proxy.plan.append([Flip(UP, 2 * LEAF + LEAF // 2)])
    with pytest.raises(Corrupt) as caught:
        client.put_file(KEY, file, connections=1, resume=True)
    assert (caught.value.key, caught.value.server) == (KEY, ring.servers[0])
    assert not proxy.plan and leaves_there(ring) == 2 and ring.published() == []
    client.close()
    settle(ring)
    client.put_file(KEY, file, resume=True)
    client.close()
    assert passed(ring, UP) < SIZE - 2 * LEAF + SLACK
    assert client.get(KEY) == BODY


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("other", [BODY, OTHER], ids=["the same content", "another content"])
def test_of_two_uploads_of_one_key_one_wins_whole(ring, tmp_path, small_parts, other, resume):
    ended: list[BaseException | None] = [None, None]

    def put_it(index: int, content: bytes) -> None:
        path = tmp_path / str(index)
        path.write_bytes(content)
        try:
            with ring.client() as own:
                own.put_file(KEY, str(path), connections=2, resume=resume)
        except BaseException as error:
            ended[index] = error

    threads = [threading.Thread(target=put_it, args=pair) for pair in enumerate((BODY, other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ring.client() as client:
        winner = client.get(KEY)
    assert winner in (BODY, other)
    for error, content in zip(ended, (BODY, other), strict=True):
        if error is None:
            assert content == winner
        else:
            assert isinstance(error, KeyExists), repr(error)
    assert None in ended
    assert resume or uploads(ring) == []
