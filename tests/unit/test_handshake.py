"""How two ends of a connection meet, over real sockets."""

import hmac
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import pack

import pytest

from s4raw import wire
from s4raw.channel import Channel, connect
from s4raw.errors import (
    AuthFailed,
    Busy,
    ConfError,
    ConnectionLost,
    ProtocolError,
    RingMismatch,
    S4Error,
    VersionMismatch,
)
from s4raw.handshake import MIN_SECRET_BYTES, SECRET_VARIABLE, greet, read_secret, welcome
from s4raw.net import accept, listen
from s4raw.ring import Topology
from s4raw.wire import Frame

SECRET, OTHER = b"a secret of this ring's users", b"somebody else's secret"
NONCE = bytes(range(32))


class Meeting:
    """The two ends of a connection, and how it went at the server's."""

    def __init__(self, client: Channel, server: Channel, ring: Topology) -> None:
        self.client, self.server, self.ring = client, server, ring
        self.welcomed: bool | S4Error | None = None
        self._thread: threading.Thread | None = None

    def welcome(self, secret: bytes = b"", ring: Topology | None = None, me: str = "") -> None:
        """Let the server's end shake hands in a thread; what it raises goes to the client, as from a real server."""

        def run() -> None:
            try:
                self.welcomed = welcome(self.server, ring or self.ring, secret, me or self.ring.servers[0])
            except S4Error as error:
                self.welcomed = error
                try:
                    self.server.send(wire.encode_error(0, error))
                    self.server.stop_writing()
                except (S4Error, OSError):
                    pass

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def answer(self, *frames: bytes) -> None:
        """Be a server that says just this."""
        self.server.send(b"".join(frames))

    def join(self) -> bool | S4Error | None:
        """How it went at the server's end."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self.welcomed


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    listener = listen("127.0.0.1", 0)
    try:
        address, port = listener.getsockname()
        client = connect(address, port)
        sock, peer = accept(listener)
    finally:
        listener.close()
    found = Meeting(client, Channel(sock, peer), Topology.parse(f"{address}:{port}\n10.0.0.2:80"))
    try:
        yield found
    finally:
        client.hang_up()
        found.join()
        client.close()
        found.server.close()


def other_ring() -> Topology:
    return Topology.parse("10.9.9.9:1")


def hello(ring: Topology, **fields: wire.Value) -> bytes:
    mine = {"ring": ring.digest, "servers": ring.describe(), "nonce": NONCE, "features": 0, **fields}
    return wire.encode(wire.HELLO, **mine)


@pytest.mark.parametrize("secret", [b"", SECRET], ids=["no secret", "a secret"])
def test_two_ends_of_one_ring_meet_and_talk_on(meeting, secret):
    meeting.welcome(secret)
    greet(meeting.client, meeting.ring, secret)
    assert meeting.join() is True
    meeting.client.send(wire.encode(wire.PING, 7, key="k" * (wire.MAX_HELLO_HEADER + 1)))
    frame = meeting.server.next_frame()
    assert frame is not None
    assert (frame.opcode, frame.request) == (wire.PING, 7)


# Which ring


@pytest.mark.parametrize("secret", [b"", SECRET], ids=["no secret", "a secret"])
def test_another_ring_is_told_at_both_ends_in_both_ends_words(meeting, secret):
    meeting.welcome(secret, other_ring())
    with pytest.raises(RingMismatch) as caught:
        greet(meeting.client, meeting.ring, secret)
    theirs = meeting.join()
    assert isinstance(theirs, RingMismatch)
    for message in (caught.value.message, theirs.message):
        assert "ring mismatch" in message
        assert f"server's conf has {other_ring().describe()}" in message
        assert f"client's has {meeting.ring.describe()}" in message


def test_a_client_notices_another_ring_itself(meeting):
    meeting.answer(hello(other_ring(), server=meeting.ring.servers[0]))
    with pytest.raises(RingMismatch, match=r"server's conf has 1 server \[10.9.9.9:1\], the client's has 2 servers"):
        greet(meeting.client, meeting.ring, b"")


def test_another_server_of_the_ring_at_this_address_is_told(meeting):
    meeting.welcome(me="10.0.0.2:80")
    with pytest.raises(RingMismatch, match=r"10\.0\.0\.2:80 answers in its place"):
        greet(meeting.client, meeting.ring, b"")


# Who


@pytest.mark.parametrize(
    ("client", "server", "message"),
    [
        (b"", SECRET, f"the server demands a pre-shared key.*{SECRET_VARIABLE}"),
        (SECRET, b"", "the server does not hold the key"),
        (OTHER, SECRET, "the server does not hold the key"),
        (SECRET, SECRET[:-1], "the server does not hold the key"),
    ],
    ids=["the client has none", "the server has none", "others", "nearly the same"],
)
def test_ends_that_do_not_share_the_secret_part(meeting, client, server, message):
    meeting.welcome(server)
    with pytest.raises(AuthFailed, match=message) as caught:
        greet(meeting.client, meeting.ring, client)
    assert caught.value.server == meeting.client.peer
    meeting.client.hang_up()
    assert meeting.join() is (not server)  # a server without a secret has let the client in; the client has left


def say_hello(meeting: Meeting, nonce: bytes = NONCE) -> Frame:
    """Be a client that has no secret; what the server says of itself."""
    meeting.client.send(hello(meeting.ring, nonce=nonce))
    frame = meeting.client.next_frame()
    assert frame is not None
    assert frame.opcode == wire.HELLO
    return frame


@pytest.mark.parametrize(
    "answer",
    [
        lambda server: wire.encode(wire.PROOF, proof=bytes(32)),
        lambda server: wire.encode(wire.PROOF, proof=b""),
        lambda server: wire.encode(wire.PROOF, proof=server.blob("proof")),
        lambda server: wire.encode(wire.PROOF, proof=server.blob("proof")[:31]),
        lambda server: wire.encode(wire.GET, 1, bucket="b", key="k"),
        lambda server: wire.encode(wire.PING, 1, proof=bytes(32)),
        lambda server: wire.encode(wire.HELLO, proof=bytes(32)),
    ],
    ids=["zeros", "empty", "the server's own", "cut short", "a verb", "a verb with a proof", "another hello"],
)
def test_nobody_gets_in_without_the_secret(meeting, answer):
    meeting.welcome(SECRET)
    meeting.client.send(answer(say_hello(meeting)))
    assert isinstance(meeting.join(), AuthFailed)
    frame = meeting.client.next_frame()
    assert frame is not None
    assert isinstance(wire.decode_error(frame), AuthFailed)


def test_a_proof_is_what_it_always_was(meeting):
    meeting.welcome(SECRET)
    server = say_hello(meeting)

    def proof(role: bytes) -> bytes:
        return hmac.digest(SECRET, role + NONCE + server.blob("nonce") + meeting.ring.digest, "sha256")

    assert server.blob("proof") == proof(b"s4raw server")
    meeting.client.send(wire.encode(wire.PROOF, proof=proof(b"s4raw client")))
    assert meeting.join() is True


def test_a_proof_is_of_no_use_on_another_connection(meeting):
    meeting.welcome(SECRET)
    first = say_hello(meeting)
    meeting.client.hang_up()
    meeting.join()
    assert first.blob("nonce") != NONCE
    assert len(first.blob("nonce")) == 32
    # the same client nonce again: the server's nonce and so its proof are new
    listener = listen("127.0.0.1", 0)
    client = connect(*listener.getsockname())
    sock, _ = accept(listener)
    listener.close()
    again = Meeting(client, Channel(sock, "client"), meeting.ring)
    try:
        again.welcome(SECRET)
        second = say_hello(again)
        assert second.blob("nonce") != first.blob("nonce")
        assert second.blob("proof") != first.blob("proof")
    finally:
        client.hang_up()
        again.join()
        client.close()
        again.server.close()


def test_a_reflected_hello_proves_nothing(meeting):
    """A server that has no secret sends the client's own words back to it."""

    def reflect() -> None:
        frame = meeting.server.next_frame()
        assert frame is not None
        mine = {**frame.fields, "server": meeting.ring.servers[0], "proof": frame.blob("nonce")}
        meeting.server.send(wire.encode(wire.HELLO, **mine))

    thread = threading.Thread(target=reflect)
    thread.start()
    with pytest.raises(AuthFailed):
        greet(meeting.client, meeting.ring, SECRET)
    thread.join()


# Other strangers


@contextmanager
def refused(meeting: Meeting, error: type[S4Error], match: str) -> Iterator[None]:
    """The server's end refuses what the client's end says in the block."""
    meeting.welcome(SECRET)
    yield
    found = meeting.join()
    assert type(found) is error
    assert match in found.message


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (lambda ring: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ProtocolError, "not the s4raw protocol"),
        (lambda ring: pack("<4sBBHIIQI", b"s4rw", 9, 1, 0, 0, 0, 0, 0), VersionMismatch, "the peer version 9"),
        (lambda ring: wire.encode(wire.GET, 1, bucket="b", key="k"), ProtocolError, "expected HELLO, got GET"),
        (lambda ring: wire.encode(wire.PROOF, proof=bytes(32)), ProtocolError, "expected HELLO, got PROOF"),
        (lambda ring: wire.encode(wire.HELLO), ProtocolError, "needs the field 'nonce'"),
        (lambda ring: hello(ring, nonce=b""), ProtocolError, "a nonce has 32 bytes, got 0"),
        (lambda ring: hello(ring, nonce=bytes(33)), ProtocolError, "a nonce has 32 bytes, got 33"),
        (lambda ring: hello(ring, servers="x" * wire.MAX_HELLO_HEADER), ProtocolError, "over the limit of 4096"),
    ],
    ids=["HTTP", "another version", "a verb", "a proof", "nothing", "no nonce", "a long nonce", "a long header"],
)
def test_a_server_refuses_a_stranger(meeting, said, error, match):
    with refused(meeting, error, match):
        meeting.client.send(said(meeting.ring))


@pytest.mark.parametrize("after", ["at once", "after its hello"])
def test_a_client_that_leaves_without_a_word_is_no_error(meeting, after):
    meeting.welcome(SECRET)
    if after != "at once":
        say_hello(meeting)
    meeting.client.close()
    assert meeting.join() is False


def test_a_client_that_leaves_in_mid_word_is_told(meeting):
    meeting.welcome()
    meeting.client.send(hello(meeting.ring)[:-1])
    meeting.client.close()
    assert isinstance(meeting.join(), ConnectionLost)


Answer = Callable[[Topology], bytes]


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (lambda ring: b"HTTP/1.1 400 Bad Request\r\n\r\n", ProtocolError, "not the s4raw protocol"),
        (lambda ring: pack("<4sBBHIIQI", b"s4rw", 9, 1, 0, 0, 0, 0, 0), VersionMismatch, "the peer version 9"),
        (lambda ring: wire.encode(wire.OK), ProtocolError, "expected HELLO, got OK"),
        (lambda ring: wire.encode(wire.HELLO), ProtocolError, "needs the field 'ring'"),
        (lambda ring: wire.encode_error(0, Busy("too many connections")), Busy, "too many connections"),
        (lambda ring: b"", ConnectionLost, "hung up before it said hello"),
        (lambda ring: hello(ring)[:-1], ConnectionLost, "inside a frame"),
    ],
    ids=["HTTP", "another version", "no hello", "an empty hello", "busy", "nothing", "half a hello"],
)
def test_a_client_refuses_a_stranger(meeting, answer, error, match):
    meeting.answer(answer(meeting.ring))
    meeting.server.stop_writing()
    with pytest.raises(error, match=match) as caught:
        greet(meeting.client, meeting.ring, SECRET)
    assert type(caught.value) is error


# The secret


def test_the_secret_is_the_content_of_the_file_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    assert read_secret() == b""
    monkeypatch.setenv(SECRET_VARIABLE, "")
    assert read_secret() == b""
    path = tmp_path / "secret"
    monkeypatch.setenv(SECRET_VARIABLE, str(path))
    for content in (SECRET, SECRET + b"\n", b" " + SECRET + b"\r\n"):
        path.write_bytes(content)
        assert read_secret() == SECRET


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"x" * (MIN_SECRET_BYTES - 1), b"x" * 15 + b"\n\n\n"])
def test_a_secret_that_cannot_be_used_is_refused_and_not_shown(tmp_path, monkeypatch, content):
    path = tmp_path / "secret"
    monkeypatch.setenv(SECRET_VARIABLE, str(path))
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfError, match=str(path)) as caught:
        read_secret()
    assert "xxx" not in caught.value.message
