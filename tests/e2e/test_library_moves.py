"""Moves between servers through the library: a copy, and a delete of what was copied, not of what came after it."""

import pytest

from s4raw.errors import KeyChanged, NoSuchKey, UsageError
from s4raw.keys import Key
from s4raw.moving import move
from s4raw.wire import encode

SOURCE, TARGET = Key("b", "0_source"), Key("b", "1_target")


def test_a_key_moves_to_another_server(client):
    client.put(SOURCE, b"content")
    move(client, SOURCE, TARGET)
    assert client.get(TARGET) == b"content"
    with pytest.raises(NoSuchKey):
        client.get(SOURCE)


def test_a_key_that_is_put_again_while_it_is_copied_stays(client):
    client.put(SOURCE, b"old")

    def put_again(_count):
        client.remove(SOURCE)
        client.put(SOURCE, b"new")

    with pytest.raises(KeyChanged) as caught:
        move(client, SOURCE, TARGET, put_again)
    assert str(SOURCE) in str(caught.value)
    assert (client.get(SOURCE), client.get(TARGET)) == (b"new", b"old")


def test_a_key_is_removed_only_with_the_digest_that_is_meant(client):
    client.put(SOURCE, b"content")
    with pytest.raises(KeyChanged):
        client.remove(SOURCE, bytes(16))
    client.remove(SOURCE, client.stat(SOURCE).digest)
    with pytest.raises(NoSuchKey):
        client.remove(SOURCE, bytes(16))


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_a_number_that_does_not_fit_is_refused_before_it_is_sent(number):
    with pytest.raises(UsageError, match="64 bits"):
        encode(18, offset=number)
