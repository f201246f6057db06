"""TLS: garbage instead of a handshake, and handshakes that stall or break off, cost one connection each."""

import random
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest
from conftest import thread_count
from s3_daemon import IMPATIENT, Daemon, Raw, request, s3_daemon

BODY = random.Random(3).randbytes(3_000_000)


class TlsDaemon(Daemon):
    """Its health is asked through TLS."""

    def raw(self, timeout: float = 30.0) -> Raw:
        raw = Raw(self.port, timeout)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        raw.sock = context.wrap_socket(raw.sock, suppress_ragged_eofs=True)
        return raw

    def raw_health(self) -> int:
        with self.raw() as raw:
            return raw.ask("GET", "/healthz", Connection="close").status


@pytest.fixture(scope="module", name="daemon")
def _daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    top = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -days 2"
    subprocess.run(
        [*command.split(), "-keyout", top / "key.pem", "-out", top / "cert.pem"], check=True, capture_output=True
    )
    options = ("--tls-cert", str(top / "cert.pem"), "--tls-key", str(top / "key.pem"))
    with s3_daemon(top, *options, tuning=IMPATIENT, kind=TlsDaemon) as daemon:
        with closing(daemon.raw()) as raw:
            assert raw.ask("PUT", "/bucket").status == 200
            assert raw.ask("PUT", "/bucket/key", BODY).status == 200
        yield daemon


@contextmanager
def goes_on(daemon: Daemon) -> Iterator[None]:
    with closing(daemon.raw()) as raw:
        yield
        assert raw.ask("GET", "/bucket/key").body == BODY
    with closing(daemon.raw()) as raw:
        assert raw.ask("GET", "/bucket/key").body == BODY
    daemon.check_leaks()
    daemon.check_no_traceback()


def client_hello() -> bytes:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def end_of(raw: Raw) -> bytes:
    """What comes until the end, which comes."""
    data = b""
    with suppress(ConnectionError):
        while more := raw.sock.recv(1 << 16):
            data += more
    return data


def test_garbage_is_not_answered_as_http(daemon):
    source = random.Random(4)
    hello = client_hello()
    damaged = [bytearray(hello) for _ in range(100)]
    for data in damaged:
        for _ in range(3):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    with goes_on(daemon):
        for data in (request("GET", "/bucket/key"), b"\0" * 1000, source.randbytes(100_000), b"\x16", *damaged):
            with closing(Raw(daemon.port)) as raw, suppress(ConnectionError):
                raw.send(bytes(data))
                with suppress(OSError):  # the daemon may have closed by now
                    raw.sock.shutdown(1)
                assert b"HTTP/" not in end_of(raw)


def test_handshakes_that_stall_are_given_up(daemon):
    hello = client_hello()
    with goes_on(daemon), ExitStack() as stack:
        raws = [stack.enter_context(closing(Raw(daemon.port))) for _ in range(60)]
        for number, raw in enumerate(raws):
            raw.send(hello[: (0, 3, 100, len(hello))[number % 4]])
        with closing(daemon.raw()) as raw:
            assert thread_count(daemon.pid) > 60
            assert raw.ask("GET", "/healthz").status == 200
        for raw in raws:
            end_of(raw)


def test_clients_that_leave_at_any_byte_cost_nothing(daemon):
    hello = client_hello()
    with goes_on(daemon):
        for end in range(0, len(hello), 23):
            with closing(Raw(daemon.port)) as raw:
                raw.send(hello[:end])
        for head in (b"GET /bucket/key HTTP/1.1\r\nHost: h\r\n\r\n", b"PUT /bucket/x HTTP/1.1\r\nHost: h\r\n", b"GET"):
            with closing(daemon.raw()) as raw:
                raw.send(head)


def test_damage_behind_the_handshake_breaks_the_connection_off(daemon):
    with goes_on(daemon):
        for data in (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"\x17\x03\x03\x00\x20" + b"x" * 32, b"\0" * 50_000):
            with closing(daemon.raw()) as raw:
                assert raw.ask("GET", "/healthz").status == 200
                with closing(Raw.over(socket.socket(fileno=raw.sock.detach()))) as bare, suppress(ConnectionError):
                    bare.send(data)
                    assert b"HTTP/" not in end_of(bare)
