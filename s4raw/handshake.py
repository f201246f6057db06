"""How two ends of a connection meet: the same protocol, the same ring, the same pre-shared key.

    client  HELLO  ring digest, ring in words, nonce
    server  HELLO  ring digest, ring in words, nonce, its own address [, proof]
    client  [PROOF proof]

A proof is HMAC-SHA256 over a role, both nonces and the ring's digest, so that neither end can replay the other's. With
a secret both ends demand the other's proof, and no verb is read before it. It keeps strangers out; it neither encrypts
nor protects an open connection against somebody who can write into it.
"""

from __future__ import annotations

import os

from s4raw import wire
from s4raw.channel import Channel
from s4raw.errors import AuthFailed, ConfError, ConnectionLost, ProtocolError, RingMismatch
from s4raw.ring import Topology

SECRET_VARIABLE = "S4RAW_SECRET_FILE"
MIN_SECRET_BYTES = 16
NONCE_SIZE = 32
HELLO_SECONDS = 10.0
FEATURES = 0  # bits for what a later version may add to this protocol
_CLIENT, _SERVER = b"s4raw client", b"s4raw server"


def read_secret() -> bytes:
    """The pre-shared key: the file that ``$S4RAW_SECRET_FILE`` names, less white space at its ends; empty if unset.

    Raises ConfError for a file that cannot be read or that holds under 16 bytes.
    """
    path = os.environ.get(SECRET_VARIABLE, "")
    if not path:
        return b""
    try:
        with open(path, "rb") as file:
            secret = file.read(64 << 10).strip()
    except OSError as error:
        raise ConfError(f"cannot read the secret {path} (${SECRET_VARIABLE}): {error.strerror}") from None
    if len(secret) < MIN_SECRET_BYTES:
        raise ConfError(f"the secret in {path} has {len(secret)} bytes, need at least {MIN_SECRET_BYTES}")
    return secret


def _proof(secret: bytes, role: bytes, client_nonce: bytes, server_nonce: bytes, topology: Topology) -> bytes:
    import hmac  # loads OpenSSL: 10 ms that only rings with a secret should pay

    return hmac.digest(secret, role + client_nonce + server_nonce + topology.digest, "sha256")


def _same(first: bytes, second: bytes) -> bool:
    import hmac

    return hmac.compare_digest(first, second)


def _mismatch(server_ring: str, client_ring: str, server: str) -> RingMismatch:
    return RingMismatch(
        f"ring mismatch: the server's conf has {server_ring}, the client's has {client_ring}; "
        "give every machine the same conf, line by line",
        server=server,
    )


def greet(channel: Channel, topology: Topology, secret: bytes, seconds: float = HELLO_SECONDS) -> None:
    """The client's part. Raises RingMismatch, AuthFailed, VersionMismatch, ProtocolError, or what the server sent."""
    nonce = os.urandom(NONCE_SIZE)
    channel.send(
        wire.encode(
            wire.HELLO, ring=topology.digest, servers=topology.describe()[:1024], nonce=nonce, features=FEATURES
        )
    )
    hello = channel.next_frame(seconds)
    if hello is None:
        raise ConnectionLost("the server hung up before it said hello", server=channel.peer)
    if hello.opcode == wire.ERROR:
        raise wire.decode_error(hello).at(server=channel.peer)
    if hello.opcode != wire.HELLO:
        raise ProtocolError(f"expected HELLO, got {wire.name_of(hello.opcode)}", server=channel.peer)
    if hello.blob("ring") != topology.digest:
        raise _mismatch(hello.text("servers"), topology.describe(), channel.peer)
    if hello.text("server") != channel.peer:
        raise RingMismatch(f"ring mismatch: {hello.text('server')} answers in its place", server=channel.peer)
    proof = hello.blob("proof", b"")
    if proof and not secret:
        raise AuthFailed(f"the server demands a pre-shared key; set ${SECRET_VARIABLE}", server=channel.peer)
    if secret:
        server_nonce = hello.blob("nonce")
        if not _same(proof, _proof(secret, _SERVER, nonce, server_nonce, topology)):
            raise AuthFailed(f"the server does not hold the key in ${SECRET_VARIABLE}", server=channel.peer)
        channel.send(wire.encode(wire.PROOF, proof=_proof(secret, _CLIENT, nonce, server_nonce, topology)))


def welcome(channel: Channel, topology: Topology, secret: bytes, me: str) -> bool:
    """The server's part. False when the peer left without a word. Raises RingMismatch, AuthFailed, ProtocolError."""
    channel.limit_headers(wire.MAX_HELLO_HEADER)
    hello = channel.next_frame(HELLO_SECONDS)
    if hello is None:
        return False
    if hello.opcode != wire.HELLO:
        raise ProtocolError(f"expected HELLO, got {wire.name_of(hello.opcode)}")
    client_nonce = hello.blob("nonce")
    if len(client_nonce) != NONCE_SIZE:
        raise ProtocolError(f"a nonce has {NONCE_SIZE} bytes, got {len(client_nonce)}")
    if hello.blob("ring") != topology.digest:
        raise _mismatch(topology.describe(), hello.text("servers"), me)
    nonce = os.urandom(NONCE_SIZE)
    proof = {"proof": _proof(secret, _SERVER, client_nonce, nonce, topology)} if secret else {}
    channel.send(
        wire.encode(
            wire.HELLO,
            ring=topology.digest,
            servers=topology.describe()[:1024],
            nonce=nonce,
            features=FEATURES,
            server=me,
            **proof,
        )
    )
    if secret:
        answer = channel.next_frame(HELLO_SECONDS)
        if answer is None:
            return False
        expected = _proof(secret, _CLIENT, client_nonce, nonce, topology)
        if answer.opcode != wire.PROOF or not _same(answer.blob("proof"), expected):
            raise AuthFailed(f"the client does not hold this server's pre-shared key (${SECRET_VARIABLE})", server=me)
    channel.limit_headers(wire.MAX_HEADER)
    return True
