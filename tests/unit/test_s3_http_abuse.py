"""Heads and chunks that HTTP does not allow, above all those that two readers could understand in two ways."""

import random
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from http_peer import GET, Client, Server, serve
from hypothesis import given, settings
from hypothesis import strategies as st

from s4raw.s3.head import LIMITS, HttpError, parse_head

HEAD = b"PUT /echo HTTP/1.1\r\nHost: h\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SECRET = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"  # what must never be taken for a request of its own

REFUSED: dict[str, tuple[int, bytes]] = {
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n"),
    "hosts in one": (400, b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    "host with a path": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "another host in the target": (400, b"GET http://a/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    "no host in the target": (400, b"GET http:/// HTTP/1.1\r\nHost: \r\n\r\n"),
    "length and chunks": (400, HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "chunks and length": (400, HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    "two lengths": (400, HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"),
    "twice a length": (400, HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde"),
    "lengths in one": (400, HEAD + b"Content-Length: 5,5\r\n\r\nabcde"),
    "length with a plus": (400, HEAD + b"Content-Length: +5\r\n\r\nabcde"),
    "length with a minus": (400, HEAD + b"Content-Length: -5\r\n\r\nabcde"),
    "length in hex": (400, HEAD + b"Content-Length: 0x5\r\n\r\nabcde"),
    "length with a line": (400, HEAD + b"Content-Length: 1_0\r\n\r\nabcde"),
    "length with a space": (400, HEAD + b"Content-Length: 1 0\r\n\r\nabcde"),
    "length of twenty digits": (400, HEAD + b"Content-Length: 10000000000000000000\r\n\r\nabcde"),
    "length that is empty": (400, HEAD + b"Content-Length:\r\n\r\n"),
    "length in other digits": (400, HEAD + b"Content-Length: \xb2\r\n\r\n"),
    "other coding": (501, HEAD + b"Transfer-Encoding: gzip\r\n\r\n"),
    "codings": (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "chunked not at the end": (501, HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n"),
    "almost chunked": (501, HEAD + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "quoted chunked": (501, HEAD + b'Transfer-Encoding: "chunked"\r\n\r\n'),
    "chunked behind a tab": (400, HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n"),
    "chunked twice": (400, HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "chunked in 1.0": (400, b"PUT / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "space before the colon": (400, HEAD + b"Content-Length : 5\r\n\r\nabcde"),
    "tab before the colon": (400, HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n"),
    "folded line": (400, HEAD + b"X-A: 1\r\n  2\r\n\r\n"),
    "folded first line": (400, b"GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
    "folded length": (400, HEAD + b"X-A: 1\r\n\tContent-Length: 5\r\n\r\n"),
    "bare LF": (400, b"GET / HTTP/1.1\nHost: h\n\n"),
    "a line with a bare LF": (400, HEAD + b"X-A: 1\nContent-Length: 5\r\n\r\n"),
    "an end with bare LFs": (400, HEAD + b"X-A: 1\n\n"),
    "a bare CR": (400, HEAD + b"X-A: 1\rContent-Length: 5\r\n\r\n"),
    "NUL in a value": (400, HEAD + b"X-A: 1\x002\r\n\r\n"),
    "NUL in a name": (400, HEAD + b"X\x00A: 1\r\n\r\n"),
    "control character": (400, HEAD + b"X-A: \x1b[1m\r\n\r\n"),
    "DEL": (400, HEAD + b"X-A: \x7f\r\n\r\n"),
    "no name": (400, HEAD + b": 1\r\n\r\n"),
    "no colon": (400, HEAD + b"Content-Length\r\n\r\n"),
    "name beyond ASCII": (400, HEAD + b"X-\xe4: 1\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n"),
    "HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/3.0": (505, b"GET / HTTP/3.0\r\nHost: h\r\n\r\n"),
    "version in lower case": (400, b"GET / http/1.1\r\nHost: h\r\n\r\n"),
    "version with more digits": (400, b"GET / HTTP/1.10\r\nHost: h\r\n\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
    "tab for a space": (400, b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    "tab in the target": (400, b"GET /\ta HTTP/1.1\r\nHost: h\r\n\r\n"),
    "space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
    "space at the end": (400, b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
    "fragment": (400, b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
    "no slash": (400, b"GET a HTTP/1.1\r\nHost: h\r\n\r\n"),
    "star": (400, b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
    "tunnel": (400, b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
    "method with a colon": (400, b"GE:T / HTTP/1.1\r\nHost: h\r\n\r\n"),
    "method that is long": (400, b"G" * 33 + b" / HTTP/1.1\r\nHost: h\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00"),
    "two expectations": (400, HEAD + b"Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n"),
    "long target": (414, b"GET /" + b"a" * (LIMITS.target + 40)),
    "long target that ends": (414, b"GET /" + b"a" * LIMITS.target + b" HTTP/1.1\r\nHost: h\r\n\r\n"),
    "long head": (431, HEAD + b"X-A: " + b"a" * LIMITS.head),
    "long head that ends": (431, HEAD + b"X-A: " + b"a" * LIMITS.head + b"\r\n\r\n"),
    "many headers": (431, HEAD + b"X: 1\r\n" * 128 + b"\r\n"),
    "chunk without a size": (400, CHUNKED + b"\r\nabc\r\n0\r\n\r\n"),
    "chunk with a sign": (400, CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n"),
    "chunk with 0x": (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk with a space before": (400, CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n"),
    "chunk with a space behind": (400, CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    "chunk with a line": (400, CHUNKED + b"1_0\r\nabc\r\n0\r\n\r\n"),
    "chunk of sixteen digits": (400, CHUNKED + b"0000000000000003\r\nabc\r\n0\r\n\r\n"),
    "chunk that is longer": (400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    "chunk that is shorter": (400, CHUNKED + b"3\r\nab\r\n0\r\n\r\n"),
    "chunk with a bare LF": (400, CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    "chunk that ends with a bare LF": (400, CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    "chunk that ends with a bare CR": (400, CHUNKED + b"3\r\nabc\rX0\r\n\r\n"),
    "extension with a bare LF": (400, CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "extension that is long": (400, CHUNKED + b"3;" + b"a" * 5000),
    "extensions": (400, CHUNKED + (b"1;" + b"a" * 4000 + b"\r\na\r\n") * 5),
    "trailer without a colon": (400, CHUNKED + b"0\r\nabc\r\n\r\n"),
    "trailer that is folded": (400, CHUNKED + b"0\r\na: b\r\n c\r\n\r\n"),
    "trailer with a control character": (400, CHUNKED + b"0\r\na: \x01\r\n\r\n"),
    "trailers": (400, CHUNKED + b"0\r\n" + b"a: b\r\n" * 2000),
}


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused_and_nothing_behind_it_is_a_request(server: Server, what: str) -> None:
    status, request = REFUSED[what]
    for data in (request, request + SECRET):
        with Client(server) as client:
            assert client.ask(GET + data).status == 200
            answer = client.answer()
            assert (answer.status, answer.closes) == (status, True), answer.body
            assert client.at_end()


@pytest.mark.parametrize("what", REFUSED)
def test_is_refused_byte_by_byte(server: Server, what: str) -> None:
    status, request = REFUSED[what]
    with Client(server) as client:
        try:
            for start in range(0, len(request), 1 if len(request) < 200 else 977):
                client.send(request[start : start + (1 if len(request) < 200 else 977)])
        except ConnectionError:
            pass  # it did not wait for the rest
        answer = client.answer()
        assert (answer.status, answer.closes) == (status, True), answer.body


def test_what_is_refused_stops_no_other_client(server: Server) -> None:
    with Client(server) as client:
        for _, request in REFUSED.values():
            with Client(server) as other:
                other.send(request)
            assert client.ask(GET).status == 200


def test_limits_are_what_they_say(server: Server) -> None:
    with Client(server) as client:
        assert client.ask(HEAD + b"X: 1\r\n" * 127 + b"\r\n").status == 200
        assert client.ask(b"GET /" + b"a" * (LIMITS.target - 1) + b" HTTP/1.1\r\nHost: h\r\n\r\n").status == 200
        assert client.ask(HEAD + b"X: " + b"a" * (LIMITS.head - len(HEAD) - 3) + b"\r\n\r\n").status == 200


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 3000), max_size=6),
    extension=st.sampled_from([b"", b";a", b' ;a="b"']),
    trailers=st.dictionaries(
        st.sampled_from(["x-a", "x-b", "x-amz-checksum-crc32"]), st.sampled_from(["", "1", "a b"])
    ),
    cuts=st.lists(st.integers(0, 20_000), max_size=8),
)
def test_chunks_in_any_cut_become_one_body(
    sizes: list[int], extension: bytes, trailers: dict[str, str], cuts: list[int]
) -> None:
    body = random.Random(0).randbytes(sum(sizes))
    data, at = CHUNKED, 0
    for size in sizes:
        data += b"%X%s\r\n%s\r\n" % (size, extension, body[at : at + size])
        at += size
    data += b"0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in trailers.items()).encode() + b"\r\n" + GET
    with Client(shared()) as client:
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        for start, end in pairwise(edges):
            client.send(data[start:end])
        answer = client.answer()
        assert answer.body == body
        assert {name: answer.headers[f"trailer-{name}"] for name in trailers} == trailers
        assert client.answer().status == 200


_shared: list[Server] = []


def shared() -> Server:
    return _shared[0]


@pytest.fixture(autouse=True)
def _one_server_for_all_examples(request: pytest.FixtureRequest) -> Iterator[None]:
    if "in_any_cut" not in request.node.name:
        yield
        return
    with serve() as server:
        _shared.append(server)
        yield
        _shared.clear()


def test_random_bytes_cost_one_connection_each(server: Server) -> None:
    source = random.Random(7)
    seeds = [CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", GET, HEAD + b"Content-Length: 3\r\n\r\nabc", b""]
    for _ in range(2000):
        data = bytearray(source.choice(seeds))
        for _ in range(source.randrange(1, 6)):
            at = source.randrange(len(data) + 1)
            data[at : at + source.randrange(3)] = source.randbytes(source.randrange(4))
        with Client(server) as client:
            client.send(data)
            client.sock.shutdown(1)
            while client.more():
                pass
    with Client(server) as client:
        assert client.ask(GET).status == 200
    assert "Traceback" not in server.log()


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=60), st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: h\r\n", HEAD + b"Content-Length: "]))
def test_any_head_is_a_request_or_an_error(tail: bytes, start: bytes) -> None:
    try:
        request = parse_head(start + tail, LIMITS)
    except HttpError as error:
        assert error.status in (400, 414, 431, 501, 505)
    else:
        assert request.path.isascii() and request.path.isprintable()
        assert all("\r" not in value and "\n" not in value for value in request.headers.values())


def test_a_hundred_hostile_clients_at_once_leave_the_others_alone(server: Server) -> None:
    hostile = [Client(server) for _ in range(50)]
    try:
        for number, client in enumerate(hostile):
            client.send([GET[:9], CHUNKED + b"5\r\na", HEAD + b"Content-Length: 100000\r\n\r\nabc"][number % 3])
        answers: list[int] = []

        def ask() -> None:
            with Client(server) as client:
                answers.extend(client.ask(GET).status for _ in range(20))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [200] * 160
    finally:
        for client in hostile:
            client.sock.close()
