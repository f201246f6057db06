"""Forms as they come in: whole, byte by byte, broken, and larger than they may be."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s4raw.s3.errors import S3Error
from s4raw.s3.formdata import MAX_FIELDS, Field, Form, boundary_of

BOUNDARY = b"xYzZY"
FILE = b"bytes\r\n--xYzZ\r\n--\r\n\r\n\x00\xff"
BODY = (
    b"preamble\r\n"
    b'--xYzZY\r\nContent-Disposition: form-data; name="key"\r\n\r\nfoo.txt\r\n'
    b"--xYzZY \t\r\ncontent-type: text/plain\r\n"
    b'content-disposition: form-data; name=empty; filename="empty"\r\n\r\n\r\n'
    b'--xYzZY\r\nContent-Disposition: form-data; name="two"\r\n\r\nlines\r\nof \xe2\x82\xac\r\n'
    b'--xYzZY\r\nContent-Disposition: form-data; name="file"; filename="a \\"b\\".txt"\r\n\r\n' + FILE + b"\r\n"
    b'--xYzZY\r\nContent-Disposition: form-data; name="late"\r\n\r\nignored\r\n'
    b"--xYzZY--\r\nepilogue"
)
FIELDS = [Field("key", "foo.txt"), Field("empty", "", "empty"), Field("two", "lines\r\nof €")]


def pieces(body: bytes, size: int) -> Iterator[memoryview]:
    """A body in pieces of one buffer, which the next one overwrites."""
    buffer = bytearray(size)
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        buffer[: len(piece)] = piece
        yield memoryview(buffer)[: len(piece)]


def received(body: bytes, size: int) -> tuple[list[Field], str, bytes]:
    form = Form(pieces(body, size), BOUNDARY)
    fields = list(form.fields())
    content = b"".join(bytes(piece) for piece in form.file())
    form.drain()
    return fields, form.filename, content


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 64, 1000, len(BODY)])
def test_a_form_in_pieces_of_any_size(size: int) -> None:
    assert received(BODY, size) == (FIELDS, 'a "b".txt', FILE)


def test_a_file_of_any_size_needs_the_memory_of_a_piece() -> None:
    """Also where every piece ends like the beginning of a boundary."""
    head = b'--xYzZY\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    piece = memoryview(b"x" * 1000 + b"\r\n--xYz")
    form = Form(iter([memoryview(head), *([piece] * 1000), memoryview(b"\r\n--xYzZY--")]), BOUNDARY)
    assert not list(form.fields())
    sizes = [len(found) for found in form.file()]
    assert max(sizes) < 2 * len(piece) and sum(sizes) == 1000 * len(piece)


@given(content=st.binary(max_size=200), size=st.integers(1, 50))
def test_a_file_is_what_was_sent(content: bytes, size: int) -> None:
    if b"\r\n--xYzZY" in b"\r\n" + content:
        return
    head = b'--xYzZY\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    assert received(head + content + b"\r\n--xYzZY--\r\n", size) == ([], "", content)


@pytest.mark.parametrize("end", [5, 30, 80, BODY.index(FILE) + 3, BODY.index(FILE) + len(FILE) + 5])
def test_a_form_that_breaks_off_is_malformed(end: int) -> None:
    with pytest.raises(S3Error, match="MalformedPOSTRequest"):
        received(BODY[:end], 16)


@pytest.mark.parametrize(
    "body",
    [
        b"--xYzZYjunk\r\n\r\n",
        b"--xYzZY\r\n\r\nno head\r\n--xYzZY--",
        b"--xYzZY\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--xYzZY--",
        b'--xYzZY\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nnot UTF-8\r\n--xYzZY--',
        b'--xYzZY\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--xYzZY--',
        b"",
    ],
)
def test_a_form_that_is_none_is_malformed(body: bytes) -> None:
    with pytest.raises(S3Error, match="MalformedPOSTRequest"):
        received(body, 16)


def test_a_form_without_a_file_says_so() -> None:
    with pytest.raises(S3Error, match="IncorrectNumberOfFiles"):
        received(b'--xYzZY\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--xYzZY--', 16)


@pytest.mark.parametrize("size", [100, 1 << 20])
def test_fields_are_bounded(size: int) -> None:
    field = b'--xYzZY\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"b" * MAX_FIELDS + b"\r\n"
    with pytest.raises(S3Error, match="MaxPostPreDataLengthExceeded"):
        received(field + BODY, size)
    with pytest.raises(S3Error, match="MaxPostPreDataLengthExceeded"):
        received(b"no boundary" * MAX_FIELDS, size)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        (b'filename="plain.txt"', "plain.txt"),
        (b"filename=token.txt", "token.txt"),
        (b'filename="a%22b.txt"', 'a"b.txt'),
        (b'filename="C:\\dir\\file.txt"', "C:\\dir\\file.txt"),
        (b"filename=\"x\"; filename*=UTF-8''%e2%82%ac.txt", "€.txt"),
        (b'filename="\xe2\x82\xac.txt"', "€.txt"),
        (b'filename=""', ""),
    ],
)
def test_names_of_files(disposition: bytes, name: str) -> None:
    head = b'--xYzZY\r\nContent-Disposition: form-data; name="file"; ' + disposition + b"\r\n\r\n"
    assert received(head + b"x\r\n--xYzZY--", 16) == ([], name, b"x")


def test_the_boundary_of_a_content_type() -> None:
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of('Multipart/Form-Data; charset=utf-8; Boundary="a b;c"') == b"a b;c"
    for kind in ("", "text/plain; boundary=abc", "multipart/form-data", "multipart/mixed; boundary=abc"):
        with pytest.raises(S3Error) as raised:
            boundary_of(kind)
        assert raised.value.status == 412
