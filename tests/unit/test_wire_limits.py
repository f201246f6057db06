"""What the decoder refuses, before it allocates anything for it, and that nothing else ever comes out of it."""

import tracemalloc
from struct import pack

import pytest
from golden import FRAMES
from hypothesis import given
from hypothesis import strategies as st
from support import timeless
from xxhash import xxh3_64_intdigest

from s4raw import wire
from s4raw.errors import ProtocolError, UsageError, VersionMismatch
from s4raw.wire import HEAD_SIZE, MAX_HEADER, Decoder, Frame, decode_error, encode

HUGE = (1 << 64) - 1


def frame_bytes(
    header: bytes = b"",
    *,
    magic: bytes = b"s4rw",
    version: int = wire.VERSION,
    opcode: int = wire.PING,
    flags: int = 0,
    length: int | None = None,
    body: int = 0,
) -> bytes:
    """A frame's head, its checksum and its header, by an encoder that refuses nothing."""
    head = pack("<4sBBHIIQ", magic, version, opcode, flags, 1, len(header) if length is None else length, body)
    return head + pack("<I", xxh3_64_intdigest(head + header) & 0xFFFFFFFF) + header


def field(tag: int, value: bytes, length: int | None = None) -> bytes:
    return pack("<BI", tag, len(value) if length is None else length) + value


def read(raw: bytes, decoder: Decoder | None = None) -> Frame | None:
    decoder = decoder or Decoder()
    decoder.feed(raw)
    return decoder.next_frame()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (frame_bytes(magic=b"HTTP"), "not the s4raw protocol.*HTTP"),
        (frame_bytes(magic=b"S4RW"), "not the s4raw protocol"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not the s4raw protocol"),
        (frame_bytes(opcode=0), "unknown opcode 0"),
        (frame_bytes(opcode=3), "unknown opcode 3"),
        (frame_bytes(flags=4), "unknown flags 0x0004"),
        (frame_bytes(opcode=255), "unknown opcode 255"),
        (frame_bytes(length=MAX_HEADER + 1), f"a header of {MAX_HEADER + 1} bytes is over the limit of {MAX_HEADER}"),
        (frame_bytes(length=(1 << 32) - 1), "a header of 4294967295 bytes"),
        (frame_bytes(opcode=wire.PUT, body=wire.WHOLE_BODY + 1), f"a PUT body of {wire.WHOLE_BODY + 1} bytes"),
        (frame_bytes(opcode=wire.DATA, body=wire.MAX_DATA + 1), "a DATA body of"),
        (frame_bytes(opcode=wire.DATA, body=HUGE), "a DATA body of 18446744073709551615"),
        (frame_bytes(opcode=wire.OK, body=1 << 63), "an? OK body of"),
    ],
)
def test_a_bad_head_is_refused(raw, message):
    with pytest.raises(ProtocolError, match=message):
        read(raw)


@pytest.mark.parametrize("version", [0, wire.VERSION - 1, wire.VERSION + 1, 255])
def test_another_version_is_named(version):
    with pytest.raises(
        VersionMismatch, match=f"speaks version {wire.VERSION} of the protocol, the peer version {version}"
    ):
        read(frame_bytes(version=version))


@pytest.mark.parametrize("opcode", sorted(set(wire._NAMES) - {wire.PUT, wire.OK, wire.DATA, wire.OBJECT, wire.END}))
def test_only_these_have_a_body(opcode):
    assert read(frame_bytes(opcode=opcode)) == Frame(opcode, 0, 1, {}, 0)
    with pytest.raises(ProtocolError, match=f"{wire.name_of(opcode)} body of 1 bytes"):
        read(frame_bytes(opcode=opcode, body=1))


@pytest.mark.parametrize(
    ("opcode", "limit"),
    [
        *((wire.PUT, wire.WHOLE_BODY), (wire.DATA, wire.MAX_DATA), (wire.OK, (1 << 63) - 1)),
        *((wire.OBJECT, wire.MAX_CALL), (wire.END, wire.MAX_CALL)),
    ],
)
def test_a_body_may_be_as_long_as_its_limit(opcode, limit):
    assert read(frame_bytes(opcode=opcode, body=limit)) == Frame(opcode, 0, 1, {}, limit)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (field(0, b""), "unknown field 0"),
        (field(200, b"x"), "unknown field 200"),
        (field(1, b"b") + field(99, b""), "unknown field 99"),
        (field(1, b"b")[:-2], "ends inside a field"),
        (b"\1", "ends inside a field"),
        (field(2, b"k", length=2), "field 2 claims 2 bytes, the header has 1 left"),
        (field(2, b"", length=(1 << 32) - 1), "field 2 claims 4294967295 bytes"),
        (field(1, b"a") + field(1, b"a"), "'bucket' comes twice"),
        (field(3, b"1234567"), "'size' is an integer of 8 bytes, got 7"),
        (field(3, b""), "'size' is an integer of 8 bytes, got 0"),
        (field(2, b"\xff"), "'key' is not UTF-8"),
        (field(2, b"\xed\xb3\xbf"), "'key' is not UTF-8"),
    ],
)
def test_a_bad_header_is_refused(header, message):
    with pytest.raises(ProtocolError, match=message):
        read(frame_bytes(header))


def test_a_header_may_be_as_long_as_its_limit_and_no_longer():
    room = MAX_HEADER - 5
    frame = read(encode(wire.PING, 1, key="k" * room))
    assert frame is not None
    assert len(frame.text("key")) == room
    with pytest.raises(UsageError, match=f"{MAX_HEADER + 1} bytes, the limit is {MAX_HEADER}"):
        encode(wire.PING, 1, key="k" * (room + 1))


def test_a_stricter_limit_holds_as_long_as_it_is_set():
    decoder = Decoder(max_header=100)
    assert read(encode(wire.HELLO, key="k" * 95), decoder) is not None
    decoder.feed(encode(wire.HELLO, key="k" * 96))
    with pytest.raises(ProtocolError, match="over the limit of 100"):
        decoder.next_frame()
    decoder.max_header = MAX_HEADER
    assert decoder.next_frame() is not None


@pytest.mark.parametrize(
    "raw",
    [
        frame_bytes(length=(1 << 32) - 1),
        frame_bytes(length=MAX_HEADER + 1),
        frame_bytes(opcode=wire.PUT, body=HUGE),
        frame_bytes(opcode=wire.DATA, body=1 << 40),
        frame_bytes(field(2, b"", length=1 << 31)),
    ],
    ids=["header", "header just over", "put", "data", "field"],
)
def test_a_claim_is_refused_before_anything_is_allocated_for_it(raw):
    decoder = Decoder()
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            read(raw, decoder)
        assert tracemalloc.get_traced_memory()[1] < 64 << 10
    finally:
        tracemalloc.stop()


def test_a_long_header_that_is_allowed_takes_its_own_size_and_gives_it_back():
    decoder = Decoder(capacity=4096)
    raw = encode(wire.PING, 1, key="k" * 200_000)
    assert read(raw[:HEAD_SIZE], decoder) is None
    assert len(raw) - HEAD_SIZE <= len(decoder.space()) <= len(raw)
    assert read(raw[HEAD_SIZE:], decoder) is not None
    assert len(decoder.space()) == 4096


def test_a_body_of_any_length_takes_no_memory():
    decoder = Decoder(capacity=4096)
    assert read(frame_bytes(opcode=wire.OK, body=(1 << 63) - 1), decoder) is not None
    for _ in range(100):
        room = decoder.space()
        assert 0 < len(room) <= 4096
        decoder.received(len(room))
        assert len(decoder.take(1 << 62)) == len(room)


@pytest.mark.parametrize(("frame", "golden"), FRAMES)
def test_no_flipped_bit_of_a_frame_goes_unnoticed(frame, golden):
    raw = bytes.fromhex(golden)
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert read(bytes(flipped)) is None  # the header claims to be longer: no frame yet
        except ProtocolError:
            continue


@pytest.mark.parametrize("said", [b"G", b"GET / HTTP/1.1\r\n", b"s4rW", b"\0", b"\x16\x03\x01"])
def test_another_protocol_is_refused_at_its_first_bytes(said):
    with pytest.raises(ProtocolError, match="not the s4raw protocol"):
        read(said)


@pytest.mark.parametrize("said", [b"", b"s", b"s4rw", b"s4rw" + bytes([wire.VERSION])])
def test_the_beginning_of_a_frame_is_waited_for(said):
    assert read(said) is None


# Fuzz


def drain(raw: bytes, sizes: list[int]) -> None:
    """Decode to the end or to an error, as a connection would; every turn must make progress."""
    decoder, at, turns = Decoder(capacity=64, max_header=4096), 0, 0
    try:
        while at < len(raw):
            room = decoder.space()
            assert 0 < len(room) <= 8192
            piece = raw[at : at + min(len(room), sizes[turns % len(sizes)])]
            room[: len(piece)] = piece
            decoder.received(len(piece))
            at, turns = at + len(piece), turns + 1
            decoder.take(1 << 62)
            while not decoder.body_left and (frame := decoder.next_frame()) is not None:
                if frame.opcode == wire.ERROR:
                    decode_error(frame)
                decoder.take(1 << 62)
    except ProtocolError:
        return
    assert decoder.buffered < HEAD_SIZE + 4096


sizes = st.lists(st.integers(1, 500), min_size=1, max_size=8)
tag = st.sampled_from([0, *wire._BY_TAG, 255])
fields = st.lists(
    st.builds(field, tag, st.binary(max_size=20) | st.just(bytes(8)), st.none() | st.integers(0, 30)), max_size=5
)


@st.composite
def frames(draw):
    """A frame that is nearly right, so that the fuzz gets past the head."""
    header, body = b"".join(draw(fields)), draw(st.binary(max_size=50))
    found = frame_bytes(
        header,
        opcode=draw(st.sampled_from([*wire._NAMES, 0])),
        flags=draw(st.integers(0, 3)),
        length=draw(st.none() | st.integers(0, 50)),
        body=draw(st.sampled_from([0, len(body)]) | st.integers(0, 60)),
    )
    return found + body


@timeless
@given(st.binary(max_size=500), sizes)
def test_random_bytes_are_read_or_refused(raw, sizes):
    drain(raw, sizes)
    drain(b"s4rw" + bytes([wire.VERSION]) + raw, sizes)


@timeless
@given(st.lists(frames(), max_size=6), sizes)
def test_frames_that_are_nearly_right_are_read_or_refused(parts, sizes):
    drain(b"".join(parts), sizes)


@timeless
@given(st.sampled_from(FRAMES), st.lists(st.tuples(st.integers(0), st.integers(1, 255)), max_size=4), sizes)
def test_frames_with_flipped_bits_are_read_or_refused(golden, flips, sizes):
    raw = bytearray.fromhex(golden[1])
    for position, bits in flips:
        raw[position % len(raw)] ^= bits
    drain(bytes(raw), sizes)
