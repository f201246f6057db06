"""The client library: ``Ring``, alone and shared by threads, its connections, and servers that come and go."""

import io
import os
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
from conftest import CLI, descriptors, wait_for

import s4raw
from s4raw import bulk
from s4raw.bulk import Item
from s4raw.client import Ring
from s4raw.errors import (
    BadKey,
    CommandFailed,
    CommandTimeout,
    ConfError,
    Corrupt,
    KeyExists,
    LocalFileError,
    NoSuchKey,
    S4Error,
    Unreachable,
    UsageError,
)
from s4raw.keys import Key
from s4raw.net import listen

MIB = 1 << 20


def names(entries):
    return [entry.name for entry in entries]


# One client


def test_the_package_offers_its_public_names():
    assert s4raw.Ring is Ring
    assert s4raw.S4Error is S4Error
    assert {"Ring", "LocalRing", "S4Error"} <= set(s4raw.__all__)
    with pytest.raises(AttributeError):
        _ = s4raw.nosuch


def test_from_conf_takes_a_path_or_the_environment(ring, monkeypatch):
    monkeypatch.setenv("S4_CONF_PATH", ring.conf)
    for path in (ring.conf, None):
        with Ring.from_conf(path) as client:
            assert client.health() == [(server, None) for server in ring.servers]
    with pytest.raises(ConfError, match=r"missing\.conf"):
        Ring.from_conf("missing.conf")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 3 * MIB])
def test_put_and_get(client, kind, size):
    content = os.urandom(size)
    client.put("s4://b/dir/key", kind(content))
    assert client.get("s4://b/dir/key") == content
    assert client.get(Key("b", "dir/key")) == content
    assert client.stat("s4://b/dir/key").size == size


def test_a_key_is_immutable_until_it_is_removed(client):
    client.put("s4://b/key", b"1")
    with pytest.raises(KeyExists) as caught:
        client.put("s4://b/key", b"2")
    assert (caught.value.key, caught.value.server) == ("s4://b/key", client.topology.place_basename("key"))
    assert client.get("s4://b/key") == b"1"
    client.remove("s4://b/key")
    client.put("s4://b/key", b"2")
    assert client.get("s4://b/key") == b"2"


@pytest.mark.parametrize("verb", ["get", "stat", "remove", "open"])
def test_a_missing_key_is_named(client, verb):
    with pytest.raises(NoSuchKey) as caught:
        getattr(client, verb)("s4://b/missing")
    assert (caught.value.key, caught.value.server) == ("s4://b/missing", client.topology.place_basename("missing"))


def test_many_keys_come_in_the_order_they_were_asked_for(client, tmp_path):
    files = {f"{number:05}_x": b"%d" % number for number in range(2000)}
    large = {f"{number:05}_large": os.urandom(3 * MIB + number) for number in range(4)}
    bulk.transfer(client, _written(tmp_path, files | large), lambda *_: None, upload=True)
    order = sorted(files, key=lambda name: name[::-1])
    for at, name in enumerate(large):
        order.insert(500 * at, name)
    got = client.get_many(f"s4://b/{name}" for name in order)
    assert [(key.name, content) for key, content in got] == [(name, (files | large)[name]) for name in order]


def _written(top, files):
    for name, content in files.items():
        (top / name).write_bytes(content)
        yield Item(Key("b", name), str(top / name))


def test_of_many_keys_a_missing_one_is_named(client):
    for number in range(6):
        client.put(f"s4://b/{number}", b"%d" % number)
    got = client.get_many(["s4://b/1", "s4://b/2", "s4://b/missing", "s4://b/3"])
    assert [next(got), next(got)] == [(Key("b", "1"), b"1"), (Key("b", "2"), b"2")]
    with pytest.raises(NoSuchKey) as caught:
        next(got)
    assert (caught.value.key, caught.value.server) == ("s4://b/missing", client.topology.place_basename("missing"))
    assert client.get("s4://b/3") == b"3"


def test_many_keys_that_are_given_up_half_way_leak_nothing(ring):
    before = len(descriptors(os.getpid()))
    with ring.client() as client:
        for number in range(300):
            client.put(f"s4://b/{number}", bytes(number))
        got = client.get_many(f"s4://b/{number}" for number in range(300))
        assert [len(next(got)[1]) for _ in range(100)] == list(range(100))
        got.close()
        assert [len(content) for _, content in client.get_many(["s4://b/7", "s4://b/299"])] == [7, 299]
    assert len(descriptors(os.getpid())) == before


def test_a_key_that_is_none_is_refused(client):
    for key in ("s4://b/", "b/key", "s4://b/white space", "s4://_b/key", Key("b", ""), Key("_b", "x"), Key("b", "\0")):
        with pytest.raises(BadKey):
            client.put(key, b"")
    with pytest.raises(UsageError):
        client.remove_all("s4://")


def test_stat_tells_what_is_recorded(client):
    client.put("s4://b/1", b"123")
    client.put("s4://b/2", b"123")
    one, two = client.stat("s4://b/1"), client.stat("s4://b/2")
    assert (one.size, one.digest) == (3, two.digest)
    assert [one.server, two.server] == list(client.topology.servers[1:])
    [entry] = client.list("s4://b/1")
    assert (entry.size, entry.mtime_ns) == (3, one.mtime_ns)


def test_files_and_descriptors(client, tmp_path):
    content = os.urandom(2 * MIB)
    (tmp_path / "file").write_bytes(content)
    told = []
    assert client.put_file("s4://b/file", str(tmp_path / "file"), told.append) == 2 * MIB
    assert client.get_file("s4://b/file", str(tmp_path / "copy"), told.append) == 2 * MIB
    assert sum(told) == 4 * MIB
    assert (tmp_path / "copy").read_bytes() == content
    with open(tmp_path / "file", "rb") as file:
        assert client.put_stream("s4://b/stream", file.fileno()) == 2 * MIB
    got = io.BytesIO()
    assert client.get_stream("s4://b/stream", got.write) == 2 * MIB
    assert got.getvalue() == content
    with pytest.raises(LocalFileError, match="missing"):
        client.put_file("s4://b/missing", str(tmp_path / "missing"))


def test_open_gives_a_file(client, ring):
    lines = [b"%d\n" % number for number in range(200_000)]
    client.put("s4://b/key", b"".join(lines))
    with client.open("s4://b/key") as file:
        assert file.readable() and not file.writable()
        assert file.read(5) == b"0\n1\n2"
        assert file.readline() == b"\n"
        assert [*file] == lines[3:]
        assert file.read() == b""
    with client.open("s4://b/key") as file:
        assert file.readline() == b"0\n"  # what is left is not read
    client.put("s4://b/empty", b"")
    with client.open("s4://b/empty") as file:
        assert file.read() == b""


def test_open_raises_at_the_end_of_what_is_not_whole(client, ring):
    client.put("s4://b/00000", bytes(MIB))
    path = f"{ring.data}/0/b/00000"
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.write(b"\1")
    with client.open("s4://b/00000") as file, pytest.raises(Corrupt) as caught:
        file.read()
    assert (caught.value.key, caught.value.server) == ("s4://b/00000", ring.servers[0])


def test_list_goes_in_order_over_all_servers(client):
    order = [f"dir/{number:05}" for number in range(9)] + ["dir/a/b", "other"]
    for name in reversed(order):
        client.put(f"s4://b/{name}", b"")
    assert names(client.list("s4://b/", recursive=True)) == order
    assert [(entry.name, entry.is_prefix) for entry in client.list("s4://b/")] == [("dir/", True), ("other", False)]
    assert names(client.list("s4://b/dir/a")) == ["dir/a/"]
    assert names(client.list("s4://")) == ["b"]
    assert client.remove_all("s4://b/dir/") == 10
    assert names(client.list("s4://b", recursive=True)) == ["other"]


def test_a_listing_that_is_given_up_leaves_the_client_usable(client):
    for number in range(6):
        client.put(f"s4://b/{number}", b"")
    assert next(client.list("s4://b/")).name == "0"
    assert client.get("s4://b/3") == b""


def test_eval_passes_output_on_and_returns_the_exit_code(client):
    client.put("s4://b/key", b"123")
    out, err = io.BytesIO(), io.BytesIO()
    assert client.eval("s4://b/key", "cat; echo oops >&2; exit 3", out.write, err.write) == 3
    assert (out.getvalue(), err.getvalue()) == (b"123", b"oops\n")
    with pytest.raises(CommandTimeout) as caught:
        client.eval("s4://b/key", "sleep 1000", out.write, err.write, timeout=0.2)
    assert caught.value.key == "s4://b/key"


def test_maps_return_how_many_commands_ran_and_report_progress(client, tmp_path):
    for number in range(6):
        client.put(f"s4://b/in/{number}", b"%d\n" % number)
    go = tmp_path / "go"

    def progress(status):
        if (status.done, status.total) == (1, 6):
            go.touch()

    command = f"cat; until [[ $filename = 0 || -e {go} ]]; do sleep 0.01; done"
    assert client.map("s4://b/in/", "s4://b/map/", command, timeout=60, progress=progress) == 6
    assert client.map_to_n("s4://b/map/", "s4://b/to/", "cat > 0; cp 0 1; ls") == 6
    assert client.map_from_n("s4://b/to/", "s4://b/from/", "xargs cat") == 2
    assert client.get("s4://b/from/1") == b"0\n1\n2\n3\n4\n5\n"


def test_a_failed_command_brings_its_stderr_and_exit_code(client):
    client.put("s4://b/in/key", b"")
    with pytest.raises(CommandFailed) as caught:
        client.map("s4://b/in/", "s4://b/out/", "echo oops >&2; exit 3")
    error = caught.value
    assert (error.detail, error.status, error.key) == (b"oops\n", 3, "s4://b/in/key")
    assert error.server == client.topology.place_basename("key")


# Threads and connections


def test_threads_share_one_client(client):
    def work(thread):
        for number in range(30):
            key, content = f"s4://b/{thread}/{number}", os.urandom(number * 1000)
            client.put(key, content)
            assert client.get(key) == content
            assert client.stat(key).size == len(content)
            if number % 2:
                client.remove(key)
        assert len(names(client.list(f"s4://b/{thread}/"))) == 15

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(names(client.list("s4://b", recursive=True))) == 120


def test_connections_are_kept_and_used_again(new_ring):
    ring = new_ring(1, ["--access-log"])
    with ring.client() as client:
        for number in range(50):
            client.put(f"s4://b/{number}", b"x")
            assert client.get(f"s4://b/{number}") == b"x"
        wait_for(lambda: ring.log(0).count(" GET ") == 50, "the log to be written")
        assert len(set(re.findall(r" access (\S+) (?:PUT|GET) ", ring.log(0)))) == 1


def test_closing_gives_every_connection_back(ring):
    before = len(descriptors(os.getpid()))
    client = ring.client()
    for number in range(6):
        client.put(f"s4://b/{number}", b"x")
    assert len(descriptors(os.getpid())) > before
    client.close()
    client.close()
    assert len(descriptors(os.getpid())) == before


# Servers that come and go


@contextmanager
def served(conf, listener, data):
    """One server on a socket that outlives it, so that it can come back to the same address."""
    arguments = ["--conf", conf, "--data", data, "--listen-fd", str(listener.fileno()), "--idle-timeout", "60"]
    process = subprocess.Popen([*CLI, "server", *arguments], pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
    try:
        with Ring.from_conf(str(conf)) as client:
            wait_for(lambda: client.health() == [(client.topology.servers[0], None)], "the server to answer")
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_client_survives_the_restart_of_a_server(tmp_path, end):
    conf, data = tmp_path / "conf", tmp_path / "data"
    with closing(listen("127.0.0.1", 0)) as listener:
        conf.write_text(f"127.0.0.1:{listener.getsockname()[1]}\n")
        with Ring.from_conf(str(conf)) as client:
            with served(conf, listener, data) as process:
                client.put("s4://b/0", b"0")
                getattr(process, end)()
                process.wait(60)
            with served(conf, listener, data) as process:
                assert client.get("s4://b/0") == b"0"
                getattr(process, end)()
                process.wait(60)
            with served(conf, listener, data) as process:
                client.put("s4://b/1", b"1")
                getattr(process, end)()
                process.wait(60)
            with served(conf, listener, data):
                assert client.map("s4://b/", "s4://c/", "cat") == 2
                client.remove("s4://b/0")
                assert names(client.list("s4://b")) == ["1"]


def test_a_put_from_a_file_survives_a_restart_in_its_middle(tmp_path):
    conf, data = tmp_path / "conf", tmp_path / "data"
    (tmp_path / "file").write_bytes(bytes(64 * MIB))
    with closing(listen("127.0.0.1", 0)) as listener:
        conf.write_text(f"127.0.0.1:{listener.getsockname()[1]}\n")
        with Ring.from_conf(str(conf)) as client, ThreadPoolExecutor(1) as pool:
            begun, go = threading.Event(), threading.Event()

            def moved(_):
                begun.set()
                assert go.wait(60)

            with served(conf, listener, data) as process:
                put = pool.submit(client.put_file, "s4://b/key", str(tmp_path / "file"), moved)
                assert begun.wait(60)
                process.kill()
                process.wait()
            with served(conf, listener, data):
                go.set()
                assert put.result(60) == 64 * MIB
                assert client.stat("s4://b/key").size == 64 * MIB


def test_a_server_that_is_gone_is_named(new_ring):
    ring = new_ring(2)
    with ring.client() as client:
        client.put("s4://b/00000", b"x")
        dead = ring.processes.pop(1)
        dead.kill()
        dead.wait()
        for call in (client.get, client.stat, client.remove, client.open, lambda key: client.put(key, b"x")):
            with pytest.raises(Unreachable) as caught:
                call("s4://b/00001")
            assert (caught.value.key, caught.value.server) == ("s4://b/00001", ring.servers[1])
        assert client.get("s4://b/00000") == b"x"
        assert [error is None for _, error in client.health()] == [True, False]
        for verb in (client.map, client.map_to_n, client.map_from_n):
            with pytest.raises(Unreachable) as caught:
                verb("s4://b/", "s4://c/", "cat")
            assert caught.value.server == ring.servers[1]
