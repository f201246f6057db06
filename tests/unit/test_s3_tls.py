"""HTTP through TLS: the same answers, and handshakes that go wrong in every way."""

import http.client
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from http_peer import GET, SECONDS, Client, Server, serve
from test_s3_http import CHUNKED, QUICK, put

from s4raw.s3.tls import server_context


@cache
def certificate(directory: Path) -> Path:
    """A certificate for localhost with its key, made by the openssl command."""
    path = directory / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-nodes",
        *curve,
        "-days",
        "2",
        *subject,
        "-keyout",
        "key.pem",
        "-out",
        path.name,
    ]
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=SECONDS)
    path.write_bytes(path.read_bytes() + (directory / "key.pem").read_bytes())
    return path


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def trust(pem: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pem))


@pytest.fixture
def server(pem: Path) -> Iterator[Server]:
    with serve(tls=server_context(str(pem))) as server:
        yield server


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_everything_works_through_tls(server: Server, trust: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    trust.maximum_version = version
    with Client(server, trust) as client:
        for size in (0, 10, 16384, 70_000, 3 << 20):
            assert client.ask(put(server.content[:size])).body == server.content[:size]
        large = CHUNKED + b"%x\r\n" % len(server.content) + server.content + b"\r\n0\r\nT: 1\r\n\r\n"
        answer = client.ask(large)
        assert answer.body == server.content and answer.headers["trailer-t"] == "1"
        assert client.ask(GET.replace(b"/ ", b"/file?1-3000000 ")).body == server.content[1:3_000_000]
        assert client.ask(GET.replace(b"/ ", b"/unknown ")).body == server.content
        client.send(put(b"a") + put(b"b") + GET)
        assert [client.answer().body for _ in range(3)] == [b"a", b"b", b""]
        assert client.ask(put(b"x" * 10, more="Expect: 100-continue\r\n")[:-10]).status == 100
        assert client.ask(b"x" * 10).body == b"x" * 10
        closing = client.ask(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert closing.closes and client.at_end()


def test_the_end_is_said_in_tls(server: Server, trust: ssl.SSLContext) -> None:
    with Client(server, trust) as client:
        assert client.ask(GET.replace(b"1.1", b"1.0")).closes
        assert client.sock.recv(1) == b""  # and not an SSLEOFError
        unwrapped = client.sock.unwrap()  # type: ignore[attr-defined]
        assert unwrapped.recv(1) == b""
        unwrapped.close()


def test_an_early_answer_can_be_read_through_tls(server: Server, trust: ssl.SSLContext) -> None:
    with Client(server, trust) as client:
        answer = client.ask(put(server.content, "/early"))
        assert answer.status == 403 and answer.closes and client.at_end()
    with Client(server, trust) as client:
        assert client.ask(put(server.content[:100_000], "/early")).status == 403
        assert client.ask(GET).status == 200


def test_https_of_the_standard_library_and_curl_understand_us(
    server: Server, trust: ssl.SSLContext, pem: Path, tmp_path: Path
) -> None:
    connection = http.client.HTTPSConnection("localhost", server.port, timeout=SECONDS, context=trust)
    for _ in range(2):
        connection.request("PUT", "/echo", body=server.content)
        assert connection.getresponse().read() == server.content
    connection.close()
    url = f"https://localhost:{server.port}/file?0-3000000"
    subprocess.run(["curl", "-sSf", "--cacert", pem, url, "-o", "out"], cwd=tmp_path, check=True, timeout=SECONDS)
    assert (tmp_path / "out").read_bytes() == server.content[:3_000_000]


def test_what_is_not_tls_is_let_go(server: Server, trust: ssl.SSLContext) -> None:
    for data in (GET, b"\0" * 100, b"\x16\x03\x01\x00\x05abcde", b""):
        with Client(server) as client:
            client.send(data)
            client.sock.shutdown(socket.SHUT_WR)
            while client.more():
                pass
    with Client(server, trust) as client:
        assert client.ask(GET).status == 200
    assert "Traceback" not in server.log()


def test_damaged_records_end_their_connection(server: Server, trust: ssl.SSLContext) -> None:
    with Client(server, trust) as client:
        assert client.ask(GET).status == 200
        raw = socket.socket(fileno=client.sock.detach())
        raw.settimeout(SECONDS)
        raw.sendall(struct.pack(">BHH", 23, 0x0303, 50) + b"x" * 50)
        try:
            while raw.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        raw.close()
    assert "Traceback" not in server.log()


def test_a_silent_handshake_blocks_nobody_and_ends(pem: Path, trust: ssl.SSLContext) -> None:
    limits = QUICK._replace(idle_seconds=SECONDS, head_seconds=2.0)
    with serve(limits, server_context(str(pem))) as server, Client(server) as silent, Client(server) as slow:
        slow.send(b"\x16\x03\x01")
        with Client(server, trust) as client:
            assert client.ask(GET).status == 200
        assert silent.at_end() and slow.at_end()


def test_a_connection_too_many_is_closed(pem: Path, trust: ssl.SSLContext) -> None:
    with serve(tls=server_context(str(pem)), max_connections=1) as server, Client(server, trust) as first:
        assert first.ask(GET).status == 200
        with Client(server) as second:
            assert second.at_end()
        assert first.ask(GET).status == 200


def test_a_drain_lets_idle_connections_go(server: Server, trust: ssl.SSLContext) -> None:
    with Client(server, trust) as client:
        assert client.ask(GET).status == 200
        assert server.stop(SECONDS)
        assert client.at_end()
