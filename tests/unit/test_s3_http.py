"""HTTP over real connections: requests and bodies in every shape, refusals, limits, and what is left afterwards."""

import http.client
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_peer import GET, SECONDS, Client, Server, serve

from s4raw.errors import ConfError
from s4raw.s3.head import LIMITS
from s4raw.s3.http import http_date
from s4raw.s3.tls import server_context

PUT = b"PUT /echo HTTP/1.1\r\nHost: h\r\n"
CHUNKED = PUT + b"Transfer-Encoding: chunked\r\n\r\n"
QUICK = LIMITS._replace(idle_seconds=1.0, head_seconds=1.0, stall_seconds=0.5, linger_seconds=0.1)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as server:
        yield server


def put(body: bytes, path: str = "/echo", more: str = "") -> bytes:
    return f"PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


def test_request_is_seen_as_it_was_sent(server: Server) -> None:
    with Client(server) as client:
        head = (
            b"GET /b/%6Bey//x?list-type=2&prefix=%20 HTTP/1.1\r\nHOST: h:1\r\nX-A:  1 \r\nx-a:\t2\r\nX-Empty:\r\n\r\n"
        )
        answer = client.ask(head)
        assert answer.headers["x-path"] == "/b/%6Bey//x"
        assert answer.headers["seen-x-a"] == "1,2"
        assert answer.headers["seen-x-empty"] == ""
        assert answer.headers["seen-host"] == "h:1"
        assert answer.headers["server"] == "s4raw"
        assert not answer.closes
        assert client.ask(b"GET /file?0-0 HTTP/1.1\r\nHost: h\r\n\r\n").headers["x-query"] == "0-0"


def test_values_beyond_ascii_come_back_as_they_were(server: Server) -> None:
    with Client(server) as client:
        answer = client.ask(b"GET /\xe2\x82\xac HTTP/1.1\r\nHost: h\r\nx-amz-meta-a: \xe2\x82\xac\r\n\r\n")
        assert answer.headers["x-path"] == "/%E2%82%AC"
        assert answer.headers["seen-x-amz-meta-a"].encode("latin-1") == b"\xe2\x82\xac"


def test_a_connection_is_used_again(server: Server) -> None:
    with Client(server) as client:
        for size in (0, 1, 5000, 70_000, 3 << 20):
            body = server.content[:size]
            assert client.ask(put(body)).body == body
            assert client.ask(GET).status == 200


def test_requests_may_be_sent_before_their_answers(server: Server) -> None:
    with Client(server) as client:
        count = 500
        sender = threading.Thread(target=client.send, args=(b"".join(put(b"%d" % n) for n in range(count)),))
        sender.start()
        answers = [client.answer().body for _ in range(count)]
        sender.join()
        assert answers == [b"%d" % n for n in range(count)]


def test_pipelined_answers_do_not_wait_for_a_request_that_is_not_whole(server: Server) -> None:
    with Client(server) as client:
        assert client.ask(GET + GET[:-1]).status == 200
        assert client.ask(GET[-1:]).status == 200
        assert client.ask(GET + put(b"x" * 70_000)[:-1]).status == 200
        assert client.ask(b"x").body == b"x" * 70_000


@pytest.mark.parametrize(
    "connection, version, closes",
    [("close", 1, True), ("TE, Close", 1, True), ("keep-alive", 1, False), ("keep-alive", 0, False), ("x", 0, True)],
)
def test_a_client_says_whether_its_connection_stays(
    server: Server, connection: str, version: int, closes: bool
) -> None:
    with Client(server) as client:
        head = f"GET / HTTP/1.{version}\r\nHost: h\r\nConnection: {connection}\r\n\r\n".encode()
        assert client.ask(head).closes == closes
        if closes:
            assert client.at_end()
        else:
            assert client.ask(head).status == 200


def test_http_1_0_needs_no_host(server: Server) -> None:
    with Client(server) as client:
        answer = client.ask(b"OPTIONS * HTTP/1.0\r\nExpect: 100-continue\r\n\r\n")
        assert answer.status == 200 and answer.headers["seen-host"] == "" and answer.closes


def test_a_target_may_name_the_host(server: Server) -> None:
    with Client(server) as client:
        assert client.ask(b"GET http://h/b/k?x HTTP/1.1\r\nHost: H\r\n\r\n").headers["x-path"] == "/b/k"
        assert client.ask(b"GET https://h HTTP/1.1\r\nHost: h\r\n\r\n").headers["x-path"] == "/"


def test_empty_lines_before_a_request_are_skipped(server: Server) -> None:
    with Client(server) as client:
        assert client.ask(b"\r\n\r\n" + GET + b"\r\n" + GET).status == 200
        assert client.answer().status == 200


def test_chunks_become_one_body(server: Server) -> None:
    with Client(server) as client:
        body = b'3\r\nabc\r\n00A;x="y" ; z\r\n0123456789\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n'
        answer = client.ask(CHUNKED + body)
        assert (answer.body, answer.headers["trailer-x-sum"]) == (b"abc0123456789", "1,2")
        large = server.content[: (1 << 20) + 7]
        answer = client.ask(CHUNKED + b"%x\r\n" % len(large) + large + b"\r\n5\r\nabcde\r\n0\r\n\r\n")
        assert answer.body == large + b"abcde" and "trailer-x-sum" not in answer.headers


def test_any_split_of_a_stream_of_requests_means_the_same(server: Server) -> None:
    chunks = CHUNKED + b"3;e\r\nabc\r\na\r\n0123456789\r\n0\r\nT: 1\r\n\r\n"
    stream = put(b"first") + chunks + b"\r\n" + put(b"") + chunks + GET
    want = [b"first", b"abc0123456789", b"", b"abc0123456789", b""]
    for at in range(1, len(stream)):
        with Client(server) as client:
            client.send(stream[:at])
            client.send(stream[at:])
            assert [client.answer().body for _ in want] == want
    with Client(server) as client:
        for code in stream:
            client.send(bytes((code,)))
        assert [client.answer().body for _ in want] == want


def test_continue_is_said_when_the_body_is_wanted(server: Server) -> None:
    with Client(server) as client:
        head, body = put(b"x" * 10, more="Expect: 100-Continue\r\n")[:-10], b"x" * 10
        assert client.ask(head).status == 100
        assert client.ask(body).body == body
        assert client.ask(head + body).body == body  # who has sent it already need not be told
        chunked = CHUNKED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
        assert client.ask(chunked).status == 100
        assert client.ask(b"1\r\na\r\n0\r\n\r\n").body == b"a"
        assert client.ask(put(b"", more="Expect: 100-continue\r\n")).status == 100  # botocore hangs later, if not
        assert client.answer().status == 200


def test_an_answer_instead_of_continue_ends_the_connection(server: Server) -> None:
    with Client(server) as client:
        answer = client.ask(put(b"", "/early", "Expect: 100-continue\r\n").replace(b"Length: 0", b"Length: 9"))
        assert answer.status == 403 and answer.closes and client.at_end()


@pytest.mark.parametrize("path, status", [("/early", 403), ("/part", 409)])
def test_an_early_answer_leaves_the_connection_usable(server: Server, path: str, status: int) -> None:
    with Client(server) as client:
        body = server.content[: 1 << 20]
        for request in (put(body, path), CHUNKED.replace(b"/echo", path.encode()) + b"3\r\nabc\r\n0\r\n\r\n"):
            answer = client.ask(request)
            assert answer.status == status and not answer.closes
            assert client.ask(put(b"next")).body == b"next"


def test_an_early_answer_to_a_large_body_can_be_read(server: Server) -> None:
    with Client(server) as client:
        answer = client.ask(put(server.content, "/early"))
        assert answer.status == 403 and answer.closes and client.at_end()
    with Client(server) as client:
        client.send(CHUNKED.replace(b"/echo", b"/early") + b"%x\r\n" % len(server.content) + server.content)
        assert client.answer().status == 403 and client.at_end()


def test_head_and_empty_answers_have_no_body(server: Server) -> None:
    with Client(server) as client:
        client.send(GET.replace(b"GET", b"HEAD") + b"HEAD /file?5-25 HTTP/1.1\r\nHost: h\r\n\r\n")
        client.send(b"HEAD /pieces HTTP/1.1\r\nHost: h\r\n\r\n" + b"HEAD /unknown HTTP/1.1\r\nHost: h\r\n\r\n")
        assert client.answer("HEAD").headers["content-length"] == "0"
        assert client.answer("HEAD").headers["content-length"] == "20"
        assert client.answer("HEAD").headers["content-length"] == str(len(server.content))
        assert client.answer("HEAD").status == 200
        for path, status in ((b"/empty", 204), (b"/unchanged", 304)):
            answer = client.ask(GET.replace(b"/ ", path + b" "))
            assert answer.status == status and "content-length" not in answer.headers
        assert client.ask(GET).status == 200


@pytest.mark.parametrize("start, end", [(0, 0), (5, 5), (7, 4000), (0, 32768), (1, 32770), (0, 3 << 20)])
def test_a_part_of_a_file_is_sent(server: Server, start: int, end: int) -> None:
    with Client(server) as client:
        for _ in range(2):
            answer = client.ask(GET.replace(b"/ ", b"/file?%d-%d " % (start, end)))
            assert answer.body == server.content[start:end]


def test_pieces_are_sent_with_and_without_a_known_length(server: Server) -> None:
    with Client(server) as client:
        for path in (b"/pieces ", b"/unknown "):
            assert client.ask(GET.replace(b"/ ", path)).body == server.content
        client.send(b"GET /unknown HTTP/1.0\r\n\r\n")
        assert b"transfer-encoding" not in client.until(b"\r\n\r\n").lower()
        assert client.exactly(len(server.content)) == server.content and client.at_end()


@pytest.mark.parametrize("path", ["/half", "/short", "/file?3000000-9000000"])
def test_an_answer_that_broke_off_does_not_look_whole(server: Server, path: str) -> None:
    with Client(server) as client:
        client.send(GET.replace(b"/ ", path.encode() + b" "))
        with pytest.raises(AssertionError, match=r"ended|early"):
            client.answer()


def test_an_answer_without_a_length_that_broke_off_ends_with_a_reset(server: Server) -> None:
    with Client(server) as client:
        client.send(b"GET /half HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            while client.sock.recv(1 << 16):
                pass


def test_a_file_that_is_too_short_is_noticed_before_a_small_answer_begins(server: Server) -> None:
    size = len(server.content)
    with Client(server) as client:
        answer = client.ask(GET.replace(b"/ ", b"/file?%d-%d " % (size - 5, size + 10)))
        assert answer.status == 500 and answer.closes and client.at_end()


@pytest.mark.parametrize("path", ["/raise", "/nothing", "/inject?crlf", "/inject?lf", "/inject?nul"])
def test_a_defect_of_the_handler_is_logged_and_ends_its_connection_alone(server: Server, path: str) -> None:
    with Client(server) as other, Client(server) as client:
        assert other.ask(GET).status == 200
        answer = client.ask(GET.replace(b"/ ", path.encode() + b" "))
        assert answer.status == 500 and answer.closes and client.at_end() and "x-evil" not in answer.headers
        assert other.ask(GET).status == 200
        assert "Traceback" in server.log()


def test_a_connection_too_many_is_told_so() -> None:
    with serve(max_connections=1) as server, Client(server) as first, Client(server) as second:
        assert first.ask(GET).status == 200
        answer = second.answer()
        assert answer.status == 503 and answer.headers["retry-after"] and answer.closes
        assert first.ask(GET).status == 200


def test_a_thread_serves_one_connection_after_the_other(server: Server) -> None:
    threads = []
    for _ in range(100):  # the next connection may be there before the thread is free
        with Client(server) as client:
            client.send(b"GET /thread HTTP/1.1\r\nHost: h\r\n\r\n")
            threads.append(client.answer().headers["x-thread"])
        if threads[-1] in threads[:-1]:
            return
    pytest.fail(f"each of {len(threads)} connections had a thread of its own")


def test_connections_at_once_are_served_at_once(server: Server) -> None:
    clients = [Client(server) for _ in range(20)]
    try:
        for _ in range(2):  # the second time with spare threads, if fewer than connections
            for client in clients:
                client.send(b"GET /thread HTTP/1.1\r\nHost: h\r\n\r\n")
            assert len({client.answer().headers["x-thread"] for client in clients}) == len(clients)
            for client in clients[::2]:
                client.sock.close()
            clients[::2] = [Client(server) for _ in clients[::2]]
    finally:
        for client in clients:
            client.sock.close()


def test_a_drain_lets_a_request_finish_and_idle_connections_go(server: Server) -> None:
    with Client(server) as idle, Client(server) as busy:
        assert idle.ask(GET).status == busy.ask(GET).status == 200
        assert busy.ask(put(b"x" * 10, more="Expect: 100-continue\r\n")[:-10]).status == 100
        stopping: list[bool] = []
        thread = threading.Thread(target=lambda: stopping.append(server.stop(SECONDS)))
        thread.start()
        assert idle.at_end()
        assert busy.ask(b"y" * 10).body == b"y" * 10
        assert busy.at_end()
        thread.join()
        assert stopping == [True]


def test_a_drain_cuts_off_what_does_not_end(server: Server) -> None:
    with Client(server) as client:
        assert client.ask(put(b"x" * 10, more="Expect: 100-continue\r\n")[:-10]).status == 100
        assert not server.stop(0.1)
        assert client.at_end()


# What the clock ends


def test_an_idle_connection_is_closed_without_a_word() -> None:
    with serve(QUICK) as server, Client(server) as fresh, Client(server) as used, Client(server) as blank:
        blank.send(b"\r\n")
        assert used.ask(GET).status == 200
        assert fresh.at_end() and used.at_end() and blank.at_end()


def test_a_head_in_drops_is_not_waited_for() -> None:
    limits = QUICK._replace(idle_seconds=SECONDS)
    with serve(limits) as server, Client(server) as client:
        for code in GET[:-4] + b"\r\nX-A: " + b"a" * 10_000:
            try:
                client.send(bytes((code,)))
            except ConnectionError:
                break
            client.sock.settimeout(0.01)
            try:
                if client.more():
                    break
            except TimeoutError:
                continue
        client.sock.settimeout(SECONDS)
        answer = client.answer()
        assert answer.status == 408 and answer.closes


@pytest.mark.parametrize("request_", [put(b"x" * 100_000)[:-1], CHUNKED + b"5\r\nabc", CHUNKED + b"5"])
def test_a_body_that_stalls_is_not_waited_for(request_: bytes) -> None:
    with serve(QUICK._replace(idle_seconds=SECONDS)) as server, Client(server) as client:
        answer = client.ask(request_)
        assert answer.status == 408 and answer.closes and client.at_end()


@pytest.mark.parametrize(
    "part", [GET[:-2], GET[:5], put(b"abc")[:-1], CHUNKED, CHUNKED + b"3\r\nab", CHUNKED + b"0\r\n"]
)
def test_half_a_request_is_refused(server: Server, part: bytes) -> None:
    with Client(server) as client:
        client.send(part)
        client.sock.shutdown(1)
        answer = client.answer()
        assert answer.status == 400 and answer.closes and client.at_end()


# Real clients


def test_http_client_understands_us(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    for _ in range(3):
        connection.request("PUT", "/echo", body=server.content)
        assert connection.getresponse().read() == server.content
        connection.request("PUT", "/echo", body=iter([b"abc", server.content]), encode_chunked=True)
        assert connection.getresponse().read() == b"abc" + server.content
        connection.request("GET", "/unknown")
        assert connection.getresponse().read() == server.content
        connection.request("HEAD", "/pieces")
        assert connection.getresponse().read() == b""
    connection.close()


def test_curl_understands_us(server: Server, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(server.content)
    url = f"http://127.0.0.1:{server.port}"
    for more in ([], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"], ["--http1.0"]):
        command = ["curl", "-sSf", *more, "-T", "in", f"{url}/echo", "-o", "out", f"{url}/pieces", "-o", "out2"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=SECONDS)
        assert (tmp_path / "out").read_bytes() == (tmp_path / "out2").read_bytes() == server.content


def test_dates_are_those_of_http() -> None:
    assert http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(0.9) == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfError, match="no-such-file"):
        server_context(str(tmp_path / "no-such-file"))
