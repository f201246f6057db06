"""Slow, broken and hostile HTTP costs one connection each, never the daemon."""

import random
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest
from conftest import rss, thread_count, wait_for
from s3_daemon import IMPATIENT, Daemon, request, s3_daemon, serves

MIB = 1 << 20
SLOW = 60
PUT = b"PUT /bucket/broken HTTP/1.1\r\nHost: h\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n"
AWS = b"Content-Encoding: aws-chunked\r\nx-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n"
CRC32 = zlib.crc32(b"hello world").to_bytes(4, "big").hex()
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\nform\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\ncontent\r\n--b--\r\n'
)
AWS_BODY = b"b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:DUoRhQ==\r\n\r\n"
DELETES = b"<Delete><Object><Key>none</Key></Object></Delete>"
TAGS = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
SEEDS = {
    "head": b"GET /bucket/witness?versionId=null HTTP/1.1\r\nHost: h\r\nRange: bytes=0-3\r\nIf-Match: *\r\n\r\n",
    "listing": b"GET /bucket?list-type=2&prefix=a&max-keys=3&encoding-type=url HTTP/1.1\r\nHost: h\r\n\r\n",
    "signed": b"GET /bucket/witness HTTP/1.1\r\nHost: h\r\nx-amz-date: 20260101T000000Z\r\n"
    b"Authorization: AWS4-HMAC-SHA256 Credential=AKIDOFTHETESTSEXAMPLE/20260101/us-east-1/s3/aws4_request, "
    b"SignedHeaders=host;x-amz-date, Signature=" + b"0" * 64 + b"\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n\r\n",
    "presigned": b"GET /bucket/witness?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDOFTHETESTSEXAMPLE"
    b"%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-"
    b"Signature=00 HTTP/1.1\r\nHost: h\r\n\r\n",
    "put": PUT + b"Content-Length: 3\r\nContent-MD5: kAFQmDzST7DWlj99KOF/cg==\r\nx-amz-meta-a: b\r\n\r\nabc",
    "chunked": CHUNKED + b"\r\n3\r\nabc\r\n8;x=y\r\nabcdefgh\r\n0\r\na: b\r\n\r\n",
    "aws-chunked": PUT
    + AWS
    + b"x-amz-decoded-content-length: 11\r\nx-amz-trailer: x-amz-checksum-crc32\r\nContent-Length: %d\r\n\r\n"
    % len(AWS_BODY)
    + AWS_BODY,
    "both": CHUNKED
    + AWS
    + b"x-amz-decoded-content-length: 11\r\nx-amz-trailer: x-amz-checksum-crc32\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    % (len(AWS_BODY), AWS_BODY),
    "form": b"POST /bucket HTTP/1.1\r\nHost: h\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: %d\r\n\r\n" % len(FORM) + FORM,
    "delete": request("POST", "/bucket?delete", DELETES),
    "tags": request("PUT", "/bucket/witness-of-tags?tagging", TAGS),
    "copy": request("PUT", "/bucket/broken", b"", x_amz_copy_source="/bucket/witness", x_amz_metadata_directive="COPY"),
}


@pytest.fixture(scope="module", name="daemon")
def _daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that waits a second where it otherwise waits half a minute."""
    with s3_daemon(tmp_path_factory.mktemp("hostile"), tuning=IMPATIENT) as daemon:
        with closing(daemon.raw()) as raw:
            assert raw.ask("PUT", "/bucket").status == 200
        yield daemon


@pytest.fixture(autouse=True)
def _rest(daemon: Daemon) -> Iterator[None]:
    yield
    daemon.check_leaks()
    daemon.check_no_traceback()
    assert not daemon.inside("_tmp")


def send_slowly(daemon: Daemon, beginning: bytes, drip: bytes) -> list[bytes]:
    """Begin many requests that never get on but by a drip; what the daemon answered."""
    with ExitStack() as stack:
        raws = [stack.enter_context(daemon.raw()) for _ in range(SLOW)]
        for raw in raws:
            raw.send(beginning)
        with serves(daemon):
            assert thread_count(daemon.pid) > SLOW // 2
            answers = []
            for raw in raws:
                with suppress(ConnectionError):
                    raw.send(drip)
            for raw in raws:
                data = b""
                with suppress(ConnectionError):
                    while more := raw.sock.recv(4096):
                        data += more
                answers.append(data)
        return answers


@pytest.mark.parametrize(
    ("beginning", "drip"),
    [
        (b"GET", b" "),
        (b"GET /bucket HTTP/1.1\r\n", b"H"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX-A:", b"a"),
        (b"\r\n", b"\r\n"),
    ],
    ids=["method", "line", "header", "empty lines"],
)
def test_slow_heads_are_given_up(daemon, beginning, drip):
    assert all(b" 408 " in answer or not answer for answer in send_slowly(daemon, beginning, drip))


@pytest.mark.parametrize(
    "beginning",
    [
        PUT + b"Content-Length: 10000000\r\n\r\nabc",
        PUT + b"Content-Length: 10\r\n\r\nabc",
        CHUNKED + b"\r\n5\r\nab",
        CHUNKED + b"\r\n",
        CHUNKED + AWS + b"x-amz-decoded-content-length: 11\r\n\r\n5\r\nb\r\nhe",
        SEEDS["form"][:-50],
        SEEDS["delete"][:-9],
        PUT + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n",
    ],
    ids=["long", "short", "chunk", "no chunk", "aws-chunked", "form", "XML", "expected"],
)
def test_slow_bodies_are_given_up_and_leave_nothing(daemon, beginning):
    before = rss(daemon.pid)
    for answer in send_slowly(daemon, beginning, b""):
        assert b" 200 " not in answer and (b" 408 " in answer or b" 400 " in answer), answer
    assert rss(daemon.pid) - before < SLOW * MIB
    with closing(daemon.raw()) as raw:
        assert raw.ask("GET", "/bucket/broken").status == 404


def test_huge_heads_are_refused(daemon):
    with serves(daemon):
        for data, status in (
            (b"GET /" + b"a" * MIB, 414),
            (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * MIB, 431),
            (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * 100_000, 431),
            (b"A" * MIB, 400),
        ):
            with closing(daemon.raw()) as raw:
                with suppress(ConnectionError):
                    raw.send(data)
                with suppress(ConnectionError):
                    answer = raw.answer()
                    assert answer.status in (status, 414, 431), answer
                assert raw.at_end()


def test_half_requests_cost_nothing_but_their_connection(daemon):
    with serves(daemon):
        for seed in SEEDS.values():
            for end in range(0, len(seed), max(1, len(seed) // 12)):
                with closing(daemon.raw()) as raw:
                    raw.send(seed[:end])
                    if end % 2:
                        raw.sock.shutdown(socket.SHUT_WR)
                        while raw.sock.recv(4096):
                            pass
    with closing(daemon.raw()) as raw:
        assert raw.ask("GET", "/bucket/witness").body == b"witness"


def damaged(seed: bytes, source: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(source.randrange(1, 5)):
        at = source.randrange(len(data) + 1)
        kind = source.randrange(5)
        if kind == 0:
            data[at : at + source.randrange(4)] = source.randbytes(source.randrange(4))
        elif kind == 1:
            data[at : at + source.randrange(40)] = b""
        elif kind == 2:
            data[at:at] = data[max(0, at - source.randrange(40)) : at]
        elif kind == 3:
            data[at:at] = source.choice([b"\r\n", b"\0", b"%", b"\xff", b"-1", b"9" * 20, b";", b"&", b"<", b",", b"="])
        elif at < len(data):
            data[at] ^= 1 << source.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("what", SEEDS)
def test_random_damage_costs_one_connection(daemon, what):
    source = random.Random(what)
    with serves(daemon, "/bucket/witness-of-fuzz"):
        for number in range(150):
            with closing(daemon.raw()) as raw, suppress(ConnectionError):
                raw.send(damaged(SEEDS[what], source) if number else SEEDS[what])
                with suppress(OSError):  # the daemon may have closed by now
                    raw.sock.shutdown(socket.SHUT_WR)
                answers = b""
                while more := raw.sock.recv(1 << 16):
                    answers += more
                assert b"HTTP/1.1 500" not in answers, answers
    daemon.check_no_traceback()


def entities(count: int) -> bytes:
    lines = b'<!ENTITY e0 "lol">'
    for number in range(1, count):
        lines += b'<!ENTITY e%d "%s">' % (number, b"&e%d;" % (number - 1) * 10)
    return b"<!DOCTYPE d [" + lines + b"]><Delete><Object><Key>&e%d;</Key></Object></Delete>" % (count - 1)


XML = {
    "billion laughs": entities(12),
    "quadratic": b'<!DOCTYPE d [<!ENTITY a "' + b"a" * 50_000 + b'">]><Delete>' + b"&a;" * 50_000 + b"</Delete>",
    "external": b'<!DOCTYPE d [<!ENTITY a SYSTEM "file:///etc/passwd">]><Delete><Object><Key>&a;</Key></Object></Delete>',
    "external DTD": b'<!DOCTYPE d SYSTEM "file:///etc/passwd"><Delete/>',
    "deep": b"<Delete>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</Delete>",
    "deep without an end": b"<a>" * 100_000,
    "wide": b"<Delete>" + b"<a/>" * 900_000 + b"</Delete>",
    "attributes": b"<Delete " + b" ".join(b'a%d="b"' % number for number in range(100_000)) + b"/>",
    "namespaces": b"<Delete " + b" ".join(b'xmlns:a%d="b"' % number for number in range(100_000)) + b"/>",
    "a long name": b"<" + b"a" * 3_000_000 + b"/>",
    "too long": b"<Delete>" + b" " * (5 << 20) + b"</Delete>",
    "empty": b" ",
    "not text": bytes(range(256)) * 100,
    "UTF-16": "<Delete><Object><Key>none</Key></Object></Delete>".encode("utf-16"),
    "UTF-7": b'<?xml version="1.0" encoding="UTF-7"?><Delete/>',
    "unknown encoding": b'<?xml version="1.0" encoding="x"?><Delete/>',
    "processing": b'<?xml version="1.0"?><?xml-stylesheet href="file:///etc/passwd"?><Delete/>',
    "CDATA": b"<Delete><![CDATA[" + b"]" * 1_000_000,
    "comment": b"<Delete><!--" + b"-" * 1_000_000,
    "a million keys": b"<Delete>" + b"<Object><Key>none</Key></Object>" * 100_000 + b"</Delete>",
}


@pytest.mark.parametrize("what", XML)
def test_xml_that_is_a_bomb_is_refused(daemon, what):
    before = rss(daemon.pid)
    with serves(daemon, "/bucket/witness-of-xml"):
        for target in ("/bucket?delete", "/bucket/witness-of-xml?tagging", "/bucket"):
            with closing(daemon.raw()) as raw:
                method = "POST" if target.endswith("delete") else "PUT"
                with suppress(ConnectionError):
                    raw.send(request(method, target, XML[what]))
                answer = raw.answer()
                assert answer.status in (200, 400, 409, 413), answer
                assert b"root:" not in answer.body
                if method == "PUT":
                    assert answer.status != 200, answer
    assert rss(daemon.pid) - before < 300 * MIB


def test_many_hostile_clients_at_once_hinder_no_other(daemon):
    stop = threading.Event()
    counts: list[int] = []

    def attack(number: int) -> None:
        source = random.Random(number)
        count = 0
        while not stop.is_set() and count < 10_000:
            with closing(daemon.raw()) as raw, suppress(ConnectionError):
                raw.send(damaged(source.choice(list(SEEDS.values())), source))
                count += 1
        counts.append(count)

    threads = [threading.Thread(target=attack, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        with closing(daemon.raw()) as raw:
            for number in range(300):
                content = b"%d" % number * 100
                assert raw.ask("PUT", "/bucket/good", content).status == 200
                assert raw.ask("GET", "/bucket/good").body == content
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert min(counts) > 0
    wait_for(lambda: not daemon.leaks(), "the attackers to be gone")


def test_memory_comes_back_from_many_slow_uploads(daemon):
    def attack() -> None:
        with ExitStack() as stack:
            for _ in range(150):
                raw = stack.enter_context(daemon.raw())
                raw.send(PUT + b"Content-Length: 3000000\r\n\r\n" + bytes(1_500_000))

    attack()
    daemon.check_leaks()
    before = rss(daemon.pid)
    for _ in range(3):
        attack()
        daemon.check_leaks()
    assert rss(daemon.pid) - before < 200 * MIB
