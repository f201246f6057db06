"""A flipped bit is detected on read, wherever it flipped, and never delivered as success."""

import random
from collections import deque
from contextlib import suppress

import pytest
from conftest import cli_runner
from fault_ring import conversation, emptied, fault_ring, hello_size
from proxy import DOWN, UP, End, Flip

from s4raw.client import ATTEMPTS
from s4raw.errors import S4Error
from s4raw.keys import Key

BODY = random.Random(1).randbytes(100_000)
LARGE = BODY * 12  # streamed, not sent in one frame
INSIDE = 50_000  # an offset in the middle of a body, whatever was said before it


@pytest.fixture(scope="module")
def _proxied(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("flipped"), proxied=True) as ring:
        yield ring


@pytest.fixture
def ring(_proxied):
    """One server behind a proxy, empty; at rest again at the end."""
    with emptied(_proxied) as ring:
        yield ring


@pytest.fixture
def run(ring, tmp_path):
    return cli_runner(ring, tmp_path)


def names(error: bytes, ring, key: str = "") -> None:
    """The message names the server, and the key."""
    assert ring.servers[0].encode() in error, error
    assert key.encode() in error, error


def flip_always(ring, direction: str, offset: int = INSIDE) -> None:
    ring.proxies[0].always = [Flip(direction, offset)]


def only_files(path, *expected: str) -> None:
    found = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and "ring" not in file.parts}
    assert found == set(expected)


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
def test_flipped_in_a_download_leaves_no_file(ring, run, tmp_path, body):
    run("cp", "-", "s4://b/k", input=body)
    flip_always(ring, DOWN)
    names(run("cp", "s4://b/k", "here", code=1).stderr, ring, "s4://b/k")
    only_files(tmp_path)
    run("cp", "s4://b/k", "-", code=1)
    ring.proxies[0].always = ()
    assert run("cp", "s4://b/k", "-").stdout == body


def test_flipped_in_a_download_keeps_the_file_that_was_there(ring, run, tmp_path):
    run("cp", "-", "s4://b/k", input=BODY)
    (tmp_path / "here").write_bytes(b"before")
    flip_always(ring, DOWN)
    run("cp", "s4://b/k", "here", code=1)
    assert (tmp_path / "here").read_bytes() == b"before"
    only_files(tmp_path, "here")


def test_flipped_in_a_recursive_download_names_the_key_and_leaves_no_part_of_it(ring, run, tmp_path):
    for name in "123":
        run("cp", "-", f"s4://b/d/{name}", input=BODY)
    flip_always(ring, DOWN, len(BODY) + INSIDE)
    names(run("cp", "-r", "s4://b/d/", "out/", code=1).stderr, ring, "s4://b/d/2")
    only_files(tmp_path, "out/1")
    assert (tmp_path / "out/1").read_bytes() == BODY


@pytest.mark.parametrize("body", [BODY, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("source", ["file", "-"])
def test_flipped_in_an_upload_publishes_nothing(ring, run, tmp_path, body, source):
    (tmp_path / "file").write_bytes(body)
    flip_always(ring, UP)
    names(run("cp", source, "s4://b/k", input=body, code=1).stderr, ring, "s4://b/k")
    assert ring.published() == []
    ring.proxies[0].always = ()
    run("cp", source, "s4://b/k", input=body)
    assert run("cp", "s4://b/k", "-").stdout == body


def test_flipped_in_a_recursive_upload_publishes_no_damaged_key(ring, run, tmp_path):
    (tmp_path / "d").mkdir()
    for name in "123":
        (tmp_path / "d" / name).write_bytes(BODY)
    flip_always(ring, UP, len(BODY) + INSIDE)
    names(run("cp", "-r", "d", "s4://b/d", code=1).stderr, ring, "s4://b/d/2")
    with ring.client() as client:
        ring.proxies[0].always = ()
        assert "b/d/2" not in ring.published()
        assert all(client.get(f"s4://{path}") == BODY for path in ring.published())


def test_flipped_in_the_output_of_eval_fails_although_the_command_succeeded(ring, run):
    run("cp", "-", "s4://b/k", input=BODY)
    flip_always(ring, DOWN)
    names(run("eval", "s4://b/k", "cat", code=1).stderr, ring, "s4://b/k")


@pytest.mark.parametrize("offset", [700, 1500, 2500])
def test_flipped_in_a_listing_fails(ring, run, offset):
    with ring.client() as client:
        for number in range(40):
            client.put(f"s4://b/{'x' * 100}{number:02}", b"1")
    flip_always(ring, DOWN, offset)
    done = run("ls", "-r", "s4://b/", code=1)
    assert done.stderr, "an empty listing and a failed one look the same"
    names(done.stderr, ring)


def every_flip(ring, direction: str, action):
    """A flipped bit at each offset of a conversation: yields the flip and what ``action(client)`` returned, if it did.

    A length that grew makes its receiver wait for bytes that nobody sends: it is told the end after the hello, or after
    the last byte of the conversation.
    """
    hello = hello_size(ring)[direction]
    with ring.client() as client:
        action(client)
    total = conversation(ring)[direction]
    assert hello < total
    for offset in range(total):
        flip = Flip(direction, offset, offset % 8)
        faults = [flip, End(direction, hello if offset < hello else total)]
        ring.proxies[0].plan = deque([faults] * ATTEMPTS)
        with ring.client() as client, suppress(S4Error):
            yield flip, action(client)
    ring.proxies[0].plan.clear()


def test_no_flipped_bit_in_an_answer_makes_a_get_return_other_bytes(ring):
    with ring.client() as client:
        client.put("s4://b/k", b"hello")
    assert not [flip for flip, got in every_flip(ring, DOWN, lambda client: client.get("s4://b/k")) if got != b"hello"]


def test_no_flipped_bit_in_an_answer_makes_a_listing_another(ring):
    def listing(client):
        return list(client.list("s4://b/", recursive=True))

    with ring.client() as client:
        client.put("s4://b/k", b"hello")
        expected = listing(client)
    assert not [flip for flip, got in every_flip(ring, DOWN, listing) if got != expected]


def neighbours(name: str) -> list[str]:
    """The names that differ from a name of one character in one bit."""
    return [other for bit in range(7) if (other := chr(ord(name) ^ 1 << bit)).isprintable()]


def test_no_flipped_bit_in_a_request_makes_a_get_return_another_key(ring):
    with ring.client() as client:
        client.put("s4://b/k", b"hello")
        for name in neighbours("k"):
            client.put(Key("b", name), b"other")
    assert not [flip for flip, got in every_flip(ring, UP, lambda client: client.get("s4://b/k")) if got != b"hello"]


def test_no_flipped_bit_in_a_request_publishes_another_key(ring):
    def put(client):
        (ring.directory(0) / "b/k").unlink(missing_ok=True)
        client.put("s4://b/k", b"hello")

    list(every_flip(ring, UP, put))
    assert set(ring.published()) <= {"b/k"}


def test_no_flipped_bit_in_a_request_deletes_another_key(ring):
    with ring.client() as client:
        for name in ("k", *neighbours("k")):
            client.put(Key("b", name), b"hello")
    list(every_flip(ring, UP, lambda client: client.remove("s4://b/k")))
    assert ring.published() == sorted(f"b/{name}" for name in neighbours("k"))
