"""Events of map calls: what is encoded is decoded, and nothing else is."""

import pytest

from s4raw.errors import ProtocolError
from s4raw.events import Attempt, Planned, decode, encode

ATTEMPT = Attempt("s4://b/ö\n", "a:1", 2, True, 1.5, 0.25, 0.125, 1 << 20, None, 1, 2, "it failed", "\x1b[1m \udcff?")
PLANNED = Planned("a:1", ["s4://b/1", "s4://b/2"], "s4://b/out")


def test_what_is_encoded_is_decoded():
    safe = ATTEMPT._replace(stderr="\x1b[1m\\xff\u2028")
    assert list(decode(encode([safe, PLANNED]))) == [safe, PLANNED]
    assert list(decode(encode([]))) == []


@pytest.mark.parametrize("line", [b"{", b"1", b"null", b"{}", b'{"output": 1}', b'{"key": "k"}', b"\xff", b"[" * 9999])
def test_anything_else_is_refused(line):
    with pytest.raises(ProtocolError):
        list(decode(line + b"\n"))
