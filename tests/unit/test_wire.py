"""Frames to bytes and back, however the bytes come."""

import random

import pytest
from golden import FRAMES
from hypothesis import given
from hypothesis import strategies as st
from support import timeless

from s4raw import wire
from s4raw.errors import BY_CODE, ProtocolError, S4Error, UsageError
from s4raw.keys import Entry
from s4raw.wire import Decoder, Frame, decode_entries, decode_error, encode, encode_entry, encode_error

GARBAGE = b"\0garbage that begins no frame"
SCALAR = st.characters(exclude_categories=["Cs"])


def encoded(frame: Frame) -> bytes:
    return encode(frame.opcode, frame.request, frame.flags, frame.body_length, **frame.fields)


def decoded(raw: bytes, sizes: list[int]) -> list[tuple[Frame, bytes]]:
    """The frames in ``raw`` with their bodies, decoded from pieces of these sizes, again and again."""
    decoder, found, at, turn = Decoder(), [], 0, 0
    while at < len(raw):
        room = decoder.space()
        piece = raw[at : at + min(len(room), sizes[turn % len(sizes)])]
        room[: len(piece)] = piece
        decoder.received(len(piece))
        at, turn = at + len(piece), turn + 1
        while True:
            if found and decoder.body_left:
                found[-1] = (found[-1][0], found[-1][1] + bytes(decoder.take(decoder.body_left)))
                if decoder.body_left:
                    break
            if (frame := decoder.next_frame()) is None:
                break
            found.append((frame, b""))
    assert not decoder.buffered
    return found


def with_bodies() -> tuple[bytes, list[tuple[Frame, bytes]]]:
    """All golden frames in a row, each with a body of its length (a short one where that is too long for a test)."""
    raw, frames = b"", []
    for frame, _ in FRAMES:
        body = random.Random(1).randbytes(min(frame.body_length, 70000))
        frame = frame._replace(body_length=len(body))
        frames.append((frame, body))
        raw += encoded(frame) + body
    return raw, frames


RAW, WITH_BODIES = with_bodies()


def test_there_is_a_golden_frame_of_every_kind():
    assert set(wire._NAMES) == {frame.opcode for frame, _ in FRAMES}
    assert set(wire._FIELDS) == {name for frame, _ in FRAMES for name in frame.fields}


@pytest.mark.parametrize(("frame", "golden"), FRAMES)
def test_a_frame_has_the_bytes_it_always_had(frame, golden):
    assert encoded(frame).hex() == golden


@pytest.mark.parametrize(("frame", "golden"), FRAMES)
@pytest.mark.parametrize("tail", [b"", GARBAGE, b"s4rw", b"\0"], ids=["alone", "garbage", "magic", "a byte"])
def test_a_frame_is_read_whole_whatever_follows(frame, golden, tail):
    decoder = Decoder()
    decoder.feed(bytes.fromhex(golden) + tail)
    assert decoder.next_frame() == frame
    assert decoder.body_left == frame.body_length
    assert bytes(decoder.take(1 << 40)) == tail[: frame.body_length]


@pytest.mark.parametrize(("frame", "golden"), FRAMES)
def test_a_frame_is_read_a_byte_at_a_time(frame, golden):
    decoder, raw = Decoder(), bytes.fromhex(golden)
    for byte in raw[:-1]:
        decoder.feed(bytes([byte]))
        assert decoder.next_frame() is None
    decoder.feed(raw[-1:])
    assert decoder.next_frame() == frame


@pytest.mark.parametrize("size", [1, 23, 24, 25, 4096, 16 << 10, 1 << 20])
def test_a_row_of_frames_and_bodies_is_read_in_pieces_of_any_one_size(size):
    assert decoded(RAW, [size]) == WITH_BODIES


@timeless
@given(st.lists(st.integers(1, 20000), min_size=1, max_size=20))
def test_a_row_of_frames_and_bodies_is_read_in_random_pieces(sizes):
    assert decoded(RAW, sizes) == WITH_BODIES


def test_garbage_after_a_frame_is_refused_when_its_turn_comes():
    decoder = Decoder()
    decoder.feed(encode(wire.PING, 1) + GARBAGE)
    assert decoder.next_frame() == Frame(wire.PING, 0, 1, {}, 0)
    with pytest.raises(ProtocolError, match="not the s4raw protocol"):
        decoder.next_frame()


def test_a_body_must_be_consumed_before_the_next_frame():
    decoder = Decoder()
    decoder.feed(encode(wire.DATA, 1, 0, 3) + b"abc" + encode(wire.PING, 2))
    assert decoder.next_frame() == Frame(wire.DATA, 0, 1, {}, 3)
    with pytest.raises(ValueError, match="3 bytes"):
        decoder.next_frame()
    assert bytes(decoder.take(2)) == b"ab"
    with pytest.raises(ValueError, match="1 bytes"):
        decoder.next_frame()
    assert bytes(decoder.take(2)) == b"c"
    assert decoder.next_frame() == Frame(wire.PING, 0, 2, {}, 0)


def test_body_bytes_may_bypass_the_decoder():
    decoder = Decoder()
    decoder.feed(encode(wire.DATA, 1, 0, 10) + b"abc")
    assert decoder.next_frame() is not None
    assert bytes(decoder.take(10)) == b"abc"
    decoder.passed(7)
    decoder.feed(encode(wire.PING, 2))
    assert decoder.next_frame() == Frame(wire.PING, 0, 2, {}, 0)


@timeless
@given(st.data())
def test_any_fields_make_the_round_trip(data):
    kinds = {
        "text": st.text(SCALAR, max_size=50),
        "bytes": st.binary(max_size=50),
        "unsigned integer": st.integers(0, 2**64 - 1),
    }
    fields = data.draw(
        st.fixed_dictionaries({}, optional={name: kinds[kind] for name, (_, kind) in wire._FIELDS.items()})
    )
    frame = Frame(
        wire.OK, data.draw(st.integers(0, wire.STREAM | wire.STDERR)), data.draw(st.integers(0, 2**32 - 1)), fields, 0
    )
    assert decoded(encoded(frame), [data.draw(st.integers(1, 100))]) == [(frame, b"")]


@pytest.mark.parametrize("number", [0, 1, 4096, (1 << 32) - 1])
def test_the_answer_to_a_small_get_is_a_frame_like_any_other(number):
    fields = {"digest": bytes(range(16)), "mtime": number << 31}
    assert wire.encode_small(number, number, **fields) == wire.encode(wire.OK, number, 0, number, **fields)


@pytest.mark.parametrize("name", ["text", "blob", "uint"])
def test_a_field_that_is_missing_or_of_another_kind_is_named(name):
    frame = Frame(wire.PUT, 0, 1, {"bucket": "b", "digest": b"x", "size": 1}, 0)
    read = getattr(frame, name)
    wrong = {"text": "size", "blob": "bucket", "uint": "digest"}[name]
    for field in ("status", wrong):
        with pytest.raises(ProtocolError, match=f"PUT frame needs the field '{field}'"):
            read(field)
    assert (frame.text("key", "?"), frame.blob("proof", b"?"), frame.uint("count", 7)) == ("?", b"?", 7)


# Errors


@pytest.mark.parametrize("code", sorted(BY_CODE))
def test_an_error_of_every_class_makes_the_round_trip(code):
    error = BY_CODE[code]("it\nfailed: é", server="10.0.0.1:80", key="s4://b/é", detail=b"\xff\0", status=137)
    ((frame, _),) = decoded(encode_error(7, error), [1000])
    found = decode_error(frame)
    assert frame.request == 7
    assert type(found) is type(error)
    assert vars(found) == vars(error)


def test_an_error_with_too_much_to_say_is_cut_to_fit():
    error = S4Error(
        "é" * 100_000, server="s" * 100, key="s4://" + "b" * 255 + "/" + "k" * 1024, detail=b"x" * 99 + b"y" * (1 << 20)
    )
    ((frame, _),) = decoded(encode_error(7, error), [1 << 20])
    found = decode_error(frame)
    assert error.message.startswith(found.message)
    assert found.message
    assert found.detail == b"y" * (64 << 10)


def test_a_text_that_is_no_utf8_cannot_be_sent():
    with pytest.raises(UsageError, match="the command is not UTF-8"):
        encode(wire.EVAL, 1, command="\udcff")


def test_an_error_about_a_name_that_is_no_utf8_can_be_sent():
    ((frame, _),) = decoded(encode_error(7, S4Error("no file: \udcff", key="s4://b/\udcff")), [1000])
    assert decode_error(frame).message.startswith("no file: ")


# Listings


ENTRIES = [
    (Entry("a", 0, 0), "0100 00 0000000000000000 0000000000000000 61"),
    (Entry("dir/é", 5, 1700000000123456789), "0600 00 0500000000000000 15cd853dfe9c9717 6469722fc3a9"),
    (Entry("dir/", 0, 0, True), "0400 01 0000000000000000 0000000000000000 6469722f"),
    (Entry("k" * 1024, 1 << 40, 1), "0004 00 0000000000010000 0100000000000000" + "6b" * 1024),
]


@pytest.mark.parametrize(("entry", "golden"), ENTRIES)
def test_an_entry_of_a_listing_has_the_bytes_it_always_had(entry, golden):
    raw = bytes.fromhex(golden)
    assert encode_entry(entry) == raw
    assert list(decode_entries(memoryview(raw))) == [entry]


def test_a_page_of_entries_is_read_in_order():
    page = b"".join(encode_entry(entry) for entry, _ in ENTRIES)
    assert list(decode_entries(memoryview(page))) == [entry for entry, _ in ENTRIES]


def test_a_key_from_before_1970_can_be_listed():
    assert next(decode_entries(memoryview(encode_entry(Entry("old", 1, -1))))).name == "old"


@pytest.mark.parametrize("cut", [1, 18, 19, 20, -1])
def test_a_page_that_ends_inside_an_entry_is_refused(cut):
    raw = encode_entry(Entry("name", 1, 2))
    with pytest.raises(ProtocolError, match="ends inside"):
        list(decode_entries(memoryview(raw + raw[:cut])))


def test_a_page_with_a_name_that_is_no_utf8_is_refused():
    with pytest.raises(ProtocolError, match="UTF-8"):
        list(decode_entries(memoryview(encode_entry(Entry("??", 1, 2)).replace(b"??", b"\xff\xff"))))


@timeless
@given(st.binary(max_size=200))
def test_random_bytes_for_a_page_are_read_or_refused(raw):
    try:
        found = list(decode_entries(memoryview(raw)))
    except ProtocolError:
        return
    assert len(found) <= len(raw)
