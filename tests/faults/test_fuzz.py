"""100,000 random and mutated frames: no traceback, no leak, and the server serves on.

Most of them are well formed, with random fields, and are all answered. One in each connection is mutated byte by byte,
after which the server may close. ``S4RAW_FUZZ_SEED`` picks another sequence, ``S4RAW_FUZZ_FRAMES`` another number.
"""

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_ring import fault_ring
from peer import HEAD, Peer, hello, sealed

from s4raw import wire
from s4raw.digest import digest
from s4raw.errors import InternalError
from s4raw.ring import Topology

SEED = os.environ.get("S4RAW_FUZZ_SEED", "1")
FRAMES = int(os.environ.get("S4RAW_FUZZ_FRAMES", "100000"))
BATCH = 25  # frames of one connection
THREADS = 4

NAMES = ["", "0", "1", "2", "a/0", "a/1/2", "..", "%", "%%", "a//b", "/", "k" * 300, "é", "\0", "x" * 1025, "\n"]
BUCKETS = ["b", "b", "b", "c", "", "_tmp", "..", "a/b", "\0", "b" * 256]
COMMANDS = ["true", "cat", "exit 3", ""]
SMALL = [b"", b"x", b"hello", bytes(300)]


class Fuzzer:
    """Makes frames, from a random number generator of its own."""

    def __init__(self, seed: str, topology: Topology) -> None:
        self.random = random.Random(seed)
        self.topology = topology

    def key(self) -> dict[str, wire.Value]:
        return {"bucket": self.random.choice(BUCKETS), "key": self.random.choice(NAMES)}

    def put(self, request: int) -> bytes:
        body = self.random.choice(SMALL)
        found = self.random.choice([digest(body), digest(body), bytes(16), b""])
        return wire.encode(wire.PUT, request, 0, len(body), digest=found, **self.key()) + body

    def put_stream(self, request: int) -> bytes:
        chunks = [self.random.choice(SMALL) for _ in range(self.random.randrange(3))]
        body = b"".join(chunks)
        data = b"".join(wire.encode(wire.DATA, request, 0, len(chunk)) + chunk for chunk in chunks)
        size = len(body) + (not self.random.randrange(4))
        begin = wire.encode(wire.PUT, request, wire.STREAM, **self.key())
        return begin + data + wire.encode(wire.END, request, size=size, digest=digest(body))

    def simple(self, request: int) -> bytes:
        opcode = self.random.choice([wire.GET, wire.GET, wire.STAT, wire.REMOVE, wire.LIST, wire.REMOVE_PREFIX])
        return wire.encode(opcode, request, recursive=self.random.randrange(2), **self.key())

    def ping(self, request: int) -> bytes:
        return wire.encode(wire.PING, request, **self.key())

    def compute(self, request: int) -> bytes:
        """A call over keys that are hardly ever there: bash takes its time."""
        opcode = self.random.choice([wire.EVAL, wire.MAP, wire.MAP_TO_N, wire.MAP_FROM_N])
        fields = {"bucket": "none", "key": self.random.choice(["d/", ""]), "command": self.random.choice(COMMANDS)}
        fields |= {"out_bucket": "b", "out_key": "o/", "timeout": self.random.randrange(10_000)}
        if opcode != wire.EVAL:
            fields["id"] = f"{self.random.getrandbits(64):x}"
        call = wire.encode(opcode, request, glob=self.random.choice(["", "*", "[", "[!"]), **fields)
        return call + (b"" if opcode == wire.EVAL else wire.encode(wire.START, request))

    def frame(self, request: int) -> bytes:
        makers = [self.put, self.put, self.simple, self.simple, self.simple, self.put_stream, self.ping]
        return self.random.choice(makers if self.random.randrange(20) else [self.compute])(request)

    def mutated(self, request: int) -> bytes:
        """A frame with a few bytes changed, taken out, put in, or with its end cut off; or any bytes at all."""
        frame = bytearray(hello(self.topology) if not self.random.randrange(20) else self.frame(request))
        if not self.random.randrange(20):
            return self.random.randbytes(self.random.randrange(1, 200))
        for _ in range(self.random.randrange(1, 4)):
            at = self.random.randrange(len(frame) + 1)
            change = self.random.randrange(5)
            if change == 0:
                del frame[at:]
            elif change == 1:
                frame[at:at] = self.random.randbytes(self.random.randrange(1, 9))
            elif change == 2:
                del frame[at : at + self.random.randrange(1, 9)]
            else:
                frame[at : at + 1] = self.random.randbytes(1)
        return repaired(frame) if self.random.randrange(2) else bytes(frame)


def repaired(frame: bytearray) -> bytes:
    """The frame with the checksum that its head and header have now, so that it gets past the first check."""
    header_length = int.from_bytes(frame[HEAD.size - 12 : HEAD.size - 8], "little")
    rest = frame[HEAD.size + 4 :]
    return sealed(bytes(frame[: HEAD.size]), bytes(rest[:header_length])) + bytes(rest[header_length:])


def run_batch(server: str, fuzzer: Fuzzer) -> None:
    """One connection: frames that are all answered, then a mutated one."""
    with Peer.connect(server) as peer:
        peer.send(hello(fuzzer.topology), *(fuzzer.frame(number) for number in range(1, BATCH)), fuzzer.mutated(BATCH))
        answered = 0
        for frame in peer.frames():
            if frame.opcode == wire.ERROR:
                error = wire.decode_error(frame)
                assert not isinstance(error, InternalError), error
            if frame.opcode in (wire.OK, wire.END, wire.ERROR):
                answered = max(answered, frame.request)
            if answered == BATCH - 1:
                peer.end()
        assert answered >= BATCH - 1, f"{error} in place of an answer to request {answered + 1} of {BATCH}"


@pytest.mark.long
def test_no_frame_makes_the_server_fail_or_leak(tmp_path):
    with fault_ring(tmp_path, count=2) as ring:
        topology = Topology(tuple(ring.servers))
        batches = iter(range(FRAMES // BATCH))
        lock = threading.Lock()

        def run(number: int) -> None:
            fuzzer = Fuzzer(f"{SEED}-{number}", topology)
            while True:
                with lock:
                    if next(batches, None) is None:
                        return
                run_batch(fuzzer.random.choice(ring.servers), fuzzer)

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(run, range(THREADS)))
        with ring.client() as client:
            client.put("s4://after/2", b"served")
            assert client.get("s4://after/2") == b"served"
            assert all(error is None for _, error in client.health(20))


def test_no_frame_before_the_handshake_makes_the_server_fail_or_leak(tmp_path):
    with fault_ring(tmp_path) as ring:
        fuzzer = Fuzzer(SEED, Topology(tuple(ring.servers)))
        for number in range(FRAMES // 100):
            with Peer.connect(ring.servers[0]) as peer:
                peer.send(fuzzer.mutated(number))
                peer.end()
                assert not [frame for frame in peer.frames() if frame.opcode not in (wire.HELLO, wire.ERROR)]
