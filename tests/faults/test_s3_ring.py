"""The S3 daemon before a ring: servers that die and come back, secrets and confs that differ, damaged files."""

import os
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest
from conftest import cli_runner, wait_for
from fault_ring import FaultRing, fault_ring
from s3_daemon import Daemon, Raw, s3_daemon

from s4raw.handshake import SECRET_VARIABLE
from s4raw.net import listen
from s4raw.ring import split_address

BODY = random.Random(1).randbytes(3 << 20)
KEYS = ("0_k", "1_k", "2_k")  # each on the server of its number


def fill(ring: FaultRing) -> None:
    with ring.client() as client:
        for key in KEYS:
            client.put(f"s4://bucket/{key}", BODY)


@pytest.fixture
def ring(tmp_path) -> Iterator[FaultRing]:
    """Three servers that may be killed, and a bucket with a key on each."""
    with fault_ring(tmp_path, count=3) as ring:
        fill(ring)
        yield ring


@pytest.fixture(scope="module", name="lasting")
def _lasting(tmp_path_factory) -> Iterator[FaultRing]:
    """The same, for tests that kill none."""
    with fault_ring(tmp_path_factory.mktemp("s3ring"), count=3) as ring:
        fill(ring)
        yield ring


@pytest.fixture
def daemon(ring: FaultRing, tmp_path: Path) -> Iterator[Daemon]:
    with s3_daemon(tmp_path / "daemon", "--ring", "--conf", ring.conf) as daemon:
        yield daemon


def restart(ring: FaultRing, index: int) -> None:
    """Start a server again that the daemon may ask at once, so that it is never without a connection."""
    with closing(listen(*split_address(ring.servers[index]))) as listener:
        ring.processes[index] = ring._spawn(index, listener, ring._lifeline_reader)
    ring._wait()


def pools(daemon: Daemon) -> None:
    """Let the daemon have several kept connections to each server."""
    with ExitStack() as stack:
        raws = [stack.enter_context(closing(daemon.raw())) for _ in range(6)]
        threads = [threading.Thread(target=lambda raw: [check(raw, key) for key in KEYS], args=(raw,)) for raw in raws]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def check(raw: Raw, key: str, body: bytes = BODY) -> None:
    answer = raw.ask("GET", f"/bucket/{key}")
    assert answer.status == 200 and answer.body == body, answer.status


def test_a_server_that_is_killed_takes_its_keys_with_it_until_it_is_back(daemon, ring):
    pools(daemon)
    with closing(daemon.raw()) as raw:
        check(raw, "1_k")
        ring.kill(1)
        for method, target, body in (
            ("GET", "/bucket/1_k", b""),
            ("PUT", "/bucket/1_new", b"new"),
            ("DELETE", "/bucket/1_k", b""),
            ("GET", "/bucket/1_none", b""),
            ("POST", "/bucket/1_k?uploads", b""),
            ("GET", "/bucket?list-type=2", b""),
            ("GET", "/", b""),
        ):
            answer = raw.ask(method, target, body)
            assert (answer.status, answer.code) == (503, "ServiceUnavailable"), (method, target, answer)
            assert ring.servers[1].encode() in answer.body
        assert raw.ask("HEAD", "/bucket/1_k").status == 503
        for key in ("0_k", "2_k"):
            check(raw, key)
            assert raw.ask("PUT", f"/bucket/{key}", b"new").status == 200
            check(raw, key, b"new")
        assert raw.ask("GET", "/healthz").status == 200
        restart(ring, 1)
        for _ in range(10):
            check(raw, "1_k")
        assert raw.ask("PUT", "/bucket/1_new", b"new").status == 200
        check(raw, "1_new", b"new")
        assert b"<KeyCount>4<" in raw.ask("GET", "/bucket?list-type=2").body


def test_no_request_meets_a_connection_of_the_server_that_was(daemon, ring):
    for _ in range(2):
        pools(daemon)
        ring.kill(1)
        restart(ring, 1)
        with closing(daemon.raw()) as raw:
            for number in range(10):
                assert raw.ask("PUT", "/bucket/1_k", b"%d" % number).status == 200
                check(raw, "1_k", b"%d" % number)
            assert raw.ask("PUT", "/bucket/1_k", BODY).status == 200


def test_a_server_killed_in_the_middle_of_a_get_breaks_it_off_and_of_a_put_leaves_the_old_object(daemon, ring):
    large = BODY * 8
    with closing(daemon.raw()) as raw:
        assert raw.ask("PUT", "/bucket/1_large", large).status == 200
    with closing(daemon.raw(60)) as get, closing(daemon.raw(60)) as put:
        get.send(b"GET /bucket/1_large HTTP/1.1\r\nHost: h\r\n\r\n")
        begun = get.sock.recv(1000)
        put.send(b"PUT /bucket/1_k HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY[:1_500_000])
        ring.kill(1)
        with pytest.raises(ConnectionError):  # never a body that looks whole
            get._buffer = begun
            get.answer()
        with suppress(ConnectionError):
            put.send(BODY[1_500_000:])
        with suppress(ConnectionError):
            answer = put.answer()
            assert answer.status == 503, answer
    restart(ring, 1)
    with closing(daemon.raw()) as raw:
        check(raw, "1_k")
        check(raw, "1_large", large)
    daemon.check_no_traceback()


def all_above(now: list[int], before: list[int]) -> bool:
    return all(new > old for new, old in zip(now, before, strict=True))


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
def test_requests_while_servers_die_and_come_back_are_right_or_say_503(ring, tmp_path, options):
    stop = threading.Event()
    wrong: list[object] = []
    good = [0] * 6

    def ask(daemon: Daemon, number: int) -> None:
        mine, expected = f"/bucket/{number % 3}_mine{number}", b""
        raw = daemon.raw()
        while not stop.is_set():
            try:
                new = b"%d" % good[number] * 1000
                put = raw.ask("PUT", mine, new)
                get = raw.ask("GET", mine)
            except ConnectionError:
                raw.close()
                raw, expected = daemon.raw(), b""
                continue
            if put.status == 200 and get.status == 200:
                good[number] += 1
            if get.status == 200 and put.status == 200 and get.body != new:
                wrong.append((put, get))
            if get.status == 200 and put.status == 503 and get.body not in (new, expected) and expected:
                wrong.append((put, get))
            if not {put.status, get.status} <= {200, 503, 404}:
                wrong.append((put, get))
            expected = get.body if get.status == 200 else b""
        raw.close()

    with s3_daemon(tmp_path / "daemon", "--ring", "--conf", ring.conf, *options) as daemon:
        threads = [threading.Thread(target=ask, args=(daemon, number)) for number in range(6)]
        for thread in threads:
            thread.start()
        try:
            for index in (1, 2):
                before = list(good)
                ring.kill(index)
                restart(ring, index)
                wait_for(partial(all_above, good, before), "all to get on")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not wrong, wrong[:3]


def test_a_wrong_secret_is_a_clear_error(tmp_path, monkeypatch):
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_bytes(b"correct horse battery staple")
    wrong.write_bytes(b"another horse battery staple")
    monkeypatch.setenv(SECRET_VARIABLE, str(right))
    with fault_ring(tmp_path, count=2) as ring:
        for secret in (str(wrong), ""):
            monkeypatch.setenv(SECRET_VARIABLE, secret)
            check_is_told(ring, tmp_path / f"daemon{len(secret)}", ring.conf, SECRET_VARIABLE)
        monkeypatch.setenv(SECRET_VARIABLE, str(right))


def test_another_conf_is_a_clear_error(lasting, tmp_path):
    other = tmp_path / "other.conf"
    other.write_text("\n".join(lasting.servers[:2]) + "\n")
    check_is_told(lasting, tmp_path / "daemon", str(other), "ring")
    daemon = Daemon(tmp_path / "none", "--ring", "--conf", str(tmp_path / "none.conf"))
    with pytest.raises(AssertionError, match=r"none\.conf"):
        daemon.start()
    assert daemon.process.wait(10) == 2
    daemon._cut_lifeline()


def check_is_told(ring: FaultRing, directory: Path, conf: str, word: str) -> None:
    """The daemon does not serve, or answers everything with an error that has this word in it, and in its log."""
    with s3_daemon(directory, "--ring", "--conf", conf) as daemon, closing(daemon.raw()) as raw:
        for method, target in (("GET", "/"), ("GET", "/bucket/0_k"), ("PUT", "/bucket/0_k"), ("PUT", "/bucket")):
            answer = raw.ask(method, target)
            assert answer.status >= 500 and word.encode() in answer.body, answer
        assert word in daemon.log()


def damage(path: Path) -> None:
    """Turn a bit of a stored file."""
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-500, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_a_damaged_object_of_a_ring_is_never_given_whole_and_scrub_names_it(lasting, tmp_path):
    with s3_daemon(tmp_path / "daemon", "--ring", "--conf", lasting.conf) as daemon:
        with closing(daemon.raw()) as raw:
            for key, body in (("1_hurt", BODY), ("1_small", BODY[:1000])):
                assert raw.ask("PUT", f"/bucket/{key}", body).status == 200
                damage(lasting.directory(1) / "bucket" / key)
            answer = raw.ask("GET", "/bucket/1_small")  # nothing of it was sent, so there is an answer
            assert answer.status == 500 and answer.code == "InternalError"
            answer = raw.ask("GET", "/bucket/1_hurt", Range="bytes=0-999")  # blocks that are as they were can be read
            assert (answer.status, answer.body) == (206, BODY[:1000])
            with pytest.raises(ConnectionError):
                raw.ask("GET", "/bucket/1_hurt")
        with closing(daemon.raw()) as raw:
            check(raw, "1_k")
    found = cli_runner(lasting, tmp_path)("scrub", code=1)
    for key in (b"bucket/1_hurt", b"bucket/1_small"):
        assert key in found.stdout + found.stderr


def test_a_damaged_object_of_a_directory_is_given_as_it_is_and_scrub_names_it(tmp_path):
    with s3_daemon(tmp_path / "local") as daemon, closing(daemon.raw()) as raw:
        assert raw.ask("PUT", "/bucket").status == 200
        assert raw.ask("PUT", "/bucket/hurt", BODY).status == 200
        damage(daemon.data / "bucket/hurt")
        answer = raw.ask("GET", "/bucket/hurt")  # sendfile does not look at what it sends
        assert answer.status == 200 and answer.body != BODY and len(answer.body) == len(BODY)
    (tmp_path / "ring").mkdir()
    daemon.data.rename(tmp_path / "ring/0")
    with fault_ring(tmp_path, count=1) as ring:
        found = cli_runner(ring, tmp_path)("scrub", code=1)
        assert b"bucket/hurt" in found.stdout + found.stderr
