"""What clients of the uploader say: lines however their bytes come, both dialects, and all that is refused."""

import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s4raw.errors import BadKey
from s4raw.keys import Key
from s4raw.push import protocol
from s4raw.push.protocol import MAX_LINE, Lines, List, Malformed, Push, Status, parse
from s4raw.queue.asking import Drop, Flush, Retry

OLD = b"/data/file.fits archive/bucket/dir/file.fits"
NEW = b'{"file":"/data/a b.fits","to":"archive/bucket/a b","ack":"queued"}'
VECTORS = [
    (OLD, Push(b"/data/file.fits", "archive", Key("bucket", "dir/file.fits"), plain=True)),
    (OLD + b" \r", Push(b"/data/file.fits", "archive", Key("bucket", "dir/file.fits"), plain=True)),
    (b"relative.fits a/b/k", Push(b"relative.fits", "a", Key("b", "k"), plain=True)),
    (b"/d/\xff\xfe a/b/k", Push(b"/d/\xff\xfe", "a", Key("b", "k"), plain=True)),
    (b"/f /b//lead", Push(b"/f", "", Key("b", "/lead"), plain=True)),
    (b"/f a/b/x//y/", Push(b"/f", "a", Key("b", "x//y/"), plain=True)),
    (NEW, Push(b"/data/a b.fits", "archive", Key("bucket", "a b"), "queued")),
    (b'{"file":"/a\\nb","to":"a/b/k\\n"}', Push(b"/a\nb", "a", Key("b", "k\n"))),
    (b'{"file":"/\\udcff\\u00e9","to":"a/b/\\u00e9"}', Push(b"/\xff\xc3\xa9", "a", Key("b", "é"))),
    (b'{"file":"/\xff","to":"a/b/k"}', Push(b"/\xff", "a", Key("b", "k"))),
    (
        b'{"file":"/f","to":"a/b/k","snapshot":true,"wait":1.5,"type":"text/plain","metadata":{"Run":"12"},"ack":"stored"}',
        Push(b"/f", "a", Key("b", "k"), "stored", True, 1.5, {"content-type": "text/plain"}, {"run": "12"}),
    ),
    (b'{"file":"/f","to":"a/b/k","wait":null,"type":null,"metadata":null}', Push(b"/f", "a", Key("b", "k"))),
    (b'{"do":"status"}', Status()),
    (b'{"do":"list"}', List(0, 1000, None)),
    (b'{"do":"list","after":7,"limit":2,"parked":true}', List(7, 2, True)),
    (b'{"do":"retry"}', Retry(None)),
    (b'{"do":"retry","ids":null}', Retry(None)),
    (b'{"do":"retry","ids":[1,2]}', Retry([1, 2])),
    (b'{"do":"drop","ids":[3]}', Drop([3])),
    (b'{"do":"drop","all":true}', Drop(None)),
    (b'{"do":"drop","failed":true}', Drop(None, (), True)),
    (b'{"do":"drop","places":["a/b/k"]}', Drop([], ("a/b/k",))),
    (b'{"do":"retry","ids":[1],"places":["a/b/k"]}', Retry([1], ("a/b/k",))),
    (b'{"do":"flush"}', Flush(None)),
    (b'{"do":"flush","wait":0}', Flush(0)),
    (b'{"do":"flush","hurry":false}', Flush(None, False)),
]
GARBAGE = [
    b"",
    b" ",
    b"/f",
    b"/a b a/b/k",
    b" a/b/k",
    b"/f  a/b/k",
    b"/f a/b",
    b"/f a/b/",
    b"/f a//k",
    b"/f\0g a/b/k",
    b"/f a/b/\xff",
    b"/f a/_b/k",
    b"{}",
    b'{"',
    b'{"do":"status"',
    b'{"do":"status"} x',
    b'{"do":"dance"}',
    b'{"do":["status"]}',
    b'{"do":null}',
    b'{"to":"a/b/k"}',
    b'{"file":"relative","to":"a/b/k"}',
    b'{"file":"/a\\u0000","to":"a/b/k"}',
    b'{"file":"/a\\ud800","to":"a/b/k"}',
    b'{"file":7,"to":"a/b/k"}',
    b'{"file":"/f"}',
    b'{"file":"/f","to":"a/b"}',
    b'{"file":"/f","to":"a/b/\\ud800"}',
    b'{"file":"/f","to":["a/b/k"]}',
    b'{"file":"/f","to":"a/b/k","ack":"maybe"}',
    b'{"file":"/f","to":"a/b/k","ack":null}',
    b'{"file":"/f","to":"a/b/k","snapshot":1}',
    b'{"file":"/f","to":"a/b/k","wait":"1"}',
    b'{"file":"/f","to":"a/b/k","wait":-1}',
    b'{"file":"/f","to":"a/b/k","wait":true}',
    b'{"file":"/f","to":"a/b/k","wait":NaN}',
    b'{"file":"/f","to":"a/b/k","wait":Infinity}',
    b'{"file":"/f","to":"a/b/k","type":"text/plain\\r\\nx-evil: 1"}',
    b'{"file":"/f","to":"a/b/k","metadata":{"a\\nb":"c"}}',
    b'{"file":"/f","to":"a/b/k","metadata":{"a":1}}',
    b'{"file":"/f","to":"a/b/k","metadata":["a"]}',
    b'{"file":"/f","to":"a/b/k","snapshoot":true}',
    b'{"do":"list","after":-1}',
    b'{"do":"list","limit":0}',
    b'{"do":"list","limit":1000000}',
    b'{"do":"list","limit":true}',
    b'{"do":"list","parked":1}',
    b'{"do":"drop"}',
    b'{"do":"drop","ids":[1],"all":true}',
    b'{"do":"drop","ids":["1"]}',
    b'{"do":"drop","places":[1]}',
    b'{"do":"drop","places":["a/b/k"],"all":true}',
    b'{"do":"drop","failed":true,"all":true}',
    b'{"do":"drop"}',
    b'{"do":"drop","ids":[true]}',
    b'{"do":"drop","ids":[99999999999999999999999]}',
    b'{"do":"flush","wait":"long"}',
    b'{"file":"/f","to":"a/b/k","metadata":{"a b":"v"}}',
    b'{"file":"/f","to":"a/b/k","metadata":{"a:b":"v"}}',
    b'{"file":"/f","to":"a/b/k","metadata":{"":"v"}}',
    b'{"a":' * 10_000,
    b'{"a":' + b"[" * 60_000,
    b'{"do":"retry","ids":' + b"[" * 400 + b"]" * 400 + b"}",
]


def cut(data, sizes):
    """Data in pieces of these sizes, the last of which takes what is left."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def lines_of(pieces):
    """The lines that come out of pieces of bytes."""
    lines, found = Lines(), []
    for piece in pieces:
        lines.feed(piece)
        while (line := lines.next()) is not None:
            found.append(line)
    return found, lines.size


@pytest.mark.parametrize(("line", "asked"), VECTORS)
def test_a_line_asks_for_this(line, asked):
    assert parse(line) == asked


@pytest.mark.parametrize("line", GARBAGE, ids=lambda line: repr(line[:40]))
def test_garbage_is_refused_in_words(line):
    with pytest.raises((Malformed, BadKey)) as refused:
        parse(line)
    assert 10 < len(refused.value.message) < 2000


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r", b"OPTIONS /a b HTTP/1.1\r", b"\x16\x03\x01\x02\0\x01 a/b/k"])
def test_after_what_a_browser_begins_with_no_line_is_believed(line):
    with pytest.raises(Malformed) as refused:
        parse(line)
    assert refused.value.fatal


def test_lines_are_the_same_however_their_bytes_come():
    wanted = [line for line, _ in VECTORS]
    data = b"".join(line + b"\n" for line in wanted) + b"the rest"
    rng = random.Random(5)
    for pieces in ([data], cut(data, [1] * len(data)), *(cut(data, rng.choices(range(90), k=40)) for _ in range(50))):
        assert lines_of(pieces) == (wanted, len(b"the rest"))


@settings(max_examples=50)
@given(st.binary(max_size=300), st.lists(st.integers(0, 40), max_size=30))
def test_any_bytes_are_lines(data, sizes):
    *wanted, rest = data.split(b"\n")
    assert lines_of(cut(data, sizes)) == (wanted, len(rest))


@settings(max_examples=50)
@given(st.one_of(st.binary(max_size=100), st.binary(max_size=100).map(lambda data: b'{"' + data)))
def test_any_line_is_understood_or_refused(line):
    try:
        parse(line)
    except (Malformed, BadKey):
        pass


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(["file", "to", "ack", "snapshot", "wait", "type", "metadata", "do", "ids", "all", "after"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("a/b/c")),
        min_size=1,
    )
)
def test_any_object_is_understood_or_refused(fields):
    try:
        parse(json.dumps(fields).encode())
    except (Malformed, BadKey):
        pass


@pytest.mark.parametrize("start", [b"/f", b'{"file":"'])
def test_a_line_is_at_most_so_long_whether_it_ends_or_not(start):
    longest = start + b"x" * (MAX_LINE - len(start))
    assert lines_of([longest + b"\n"]) == ([longest], 0)
    for data in (longest + b"x", longest + b"x\n"):
        for pieces in ([data], cut(data, [1000] * 100)):
            with pytest.raises(Malformed) as refused:
                lines_of(pieces)
            assert refused.value.plain is (start == b"/f")


def test_the_old_client_gets_a_text_it_can_read_at_once_and_never_a_false_success():
    assert len(protocol.refusal("x" * 9000, True)) <= 4096
    assert not protocol.refusal("Success, but not quite", True).startswith(b"Success")
    assert protocol.refusal("", True)
    assert b"\\udcff" in protocol.refusal("the file \udcff", True)


def test_an_answer_is_one_line_of_ascii():
    line = protocol.answer(ok=True, file="a\nb\udcff\u00e9")
    assert re.fullmatch(rb"[ -~]+\n", line)
    assert json.loads(line)["file"].encode(errors="surrogateescape") == b"a\nb\xff\xc3\xa9"
