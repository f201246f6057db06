"""The objects of a ring of three servers keep the promises of all backends, and are keys of its own verbs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from conftest import TestRing
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from objects_conformance import Conformance
from objects_model import Differential
from objects_support import KEY, Body, begin, put, read, whole
from support import timeless

from s4raw.errors import BucketNotEmpty, KeyExists, NoSuchBucket, NoSuchKey, S4Error
from s4raw.keys import Key
from s4raw.objects.base import Query, Range
from s4raw.objects.ring import RingBackend
from s4raw.ring import Topology


def cleared(backend: RingBackend) -> None:
    """Delete all that there is."""
    for bucket in backend.buckets():
        while entries := backend.list(bucket.name, Query()).entries:
            for entry in entries:
                backend.delete(Key(bucket.name, entry.name))
        with suppress(NoSuchBucket):
            backend.delete_bucket(bucket.name)


@pytest.fixture
def backend(ring: TestRing) -> Iterator[RingBackend]:
    found = RingBackend(Topology.read(ring.conf), b"")
    cleared(found)
    yield found
    found.close()


class TestRingBackend(Conformance):
    pass


def test_a_ring_does_what_one_memory_does(ring):
    class Machine(Differential):
        """Three servers beside memory; the daemon is what restarts."""

        @staticmethod
        @contextmanager
        def place():
            topology = Topology.read(ring.conf)
            yield lambda: RingBackend(topology, b"")
            last = RingBackend(topology, b"")
            cleared(last)
            last.close()

    first = RingBackend(Topology.read(ring.conf), b"")
    cleared(first)
    first.close()
    run_state_machine_as_test(Machine, settings=settings(timeless, max_examples=60, phases=[Phase.generate]))


def test_objects_are_keys_and_keys_are_objects(backend, client):
    content = os.urandom(3_000_000)
    backend.create_bucket("bucket")
    for name in ("a.txt", "d.txt", "f.txt"):  # one on each server
        put(backend, Key("bucket", name), content)
        assert client.get(f"s4://bucket/{name}") == content
        with pytest.raises(KeyExists):
            client.put(f"s4://bucket/{name}", b"another")
    client.put("s4://bucket/from-ring", content)
    assert read(backend, Key("bucket", "from-ring")) == content
    assert read(backend, Key("bucket", "from-ring"), Range(1_500_000, 2_000_000)) == content[1_500_000:2_000_001]
    assert backend.head(Key("bucket", "from-ring")).attributes.etag.endswith("-1")
    client.map("s4://bucket/", "s4://out/", "wc -c")
    names = [entry.name for entry in backend.list("out", Query()).entries]
    assert names == ["a.txt", "d.txt", "f.txt", "from-ring"]
    assert {read(backend, Key("out", name)) for name in names} == {b"3000000\n"}


def test_a_bucket_that_one_server_has_is_everywhere(backend, client):
    client.put("s4://rings/a.txt", b"on one server")
    assert [bucket.name for bucket in backend.buckets()] == ["rings"]
    with pytest.raises(NoSuchKey):
        backend.head(Key("rings", "d.txt"))
    assert not backend.delete(Key("rings", "f.txt"))
    client.put("s4://others/a.txt", b"on one server")
    put(backend, Key("others", "d.txt"), b"on another")
    assert [entry.name for entry in backend.list("others", Query()).entries] == ["a.txt", "d.txt"]


def test_a_bucket_that_another_daemon_deleted_is_looked_for_again(ring, backend, client):
    backend.create_bucket("bucket")
    put(backend, Key("bucket", "d.txt"), b"gone")
    backend.delete(Key("bucket", "d.txt"))
    other = RingBackend(Topology.read(ring.conf), b"")
    other.delete_bucket("bucket")
    other.close()
    client.put("s4://bucket/a.txt", b"on one server")
    with pytest.raises(NoSuchBucket):
        put(backend, Key("bucket", "d.txt"), b"on another")
    put(backend, Key("bucket", "d.txt"), b"on another")
    assert [entry.name for entry in backend.list("bucket", Query()).entries] == ["a.txt", "d.txt"]


def test_an_upload_ends_on_the_server_of_its_key(backend, client):
    backend.create_bucket("bucket")
    contents = [os.urandom(5 << 20), os.urandom(5 << 20), b"last"]
    upload, parts = begin(backend, KEY, contents)
    backend.complete(KEY, upload, parts, whole(parts))
    assert client.get(str(KEY)) == b"".join(contents)
    assert read(backend, KEY, Range(part=3)) == b"last"


def test_a_copy_to_another_server_keeps_what_belongs_to_it(backend):
    backend.create_bucket("bucket")
    source, target = Key("bucket", "a.txt"), Key("bucket", "d.txt")
    upload, parts = begin(backend, source, [b"x" * (5 << 20), b"y"], metadata={"kept": "yes"})
    backend.complete(source, upload, parts, whole(parts, metadata={"kept": "yes"}))
    backend.copy(source, target)
    assert read(backend, target) == read(backend, source)
    assert backend.head(target).attributes == backend.head(source).attributes


def test_a_bucket_that_is_not_deleted_keeps_its_uploads_on_every_server(backend):
    backend.create_bucket("bucket")
    names = ("a.txt", "d.txt", "f.txt")  # one on each server
    put(backend, Key("bucket", names[2]), b"in the way")
    begun = {name: begin(backend, Key("bucket", name), [b"part"])[0] for name in names}
    with pytest.raises(BucketNotEmpty):
        backend.delete_bucket("bucket")
    for name, upload in begun.items():
        assert [part.size for part in backend.parts(Key("bucket", name), upload)] == [4]


def test_a_put_that_breaks_off_leaves_a_connection_that_works(backend):
    backend.create_bucket("bucket")
    put(backend, KEY, b"before")
    with pytest.raises(S4Error):
        backend.put(KEY, Body(b"z" * 1_000_000, breaks=S4Error("broken"), breaks_at=300_000))
    assert read(backend, KEY) == b"before"


def test_a_call_that_is_none_is_refused_and_the_server_lives(backend, client):
    for call in (["close"], ["no-such"], ["head", 1], [], "text", ["head", ["b"], []], {"a": 1}):
        with pytest.raises(S4Error):
            _raw(client, call)
    assert backend.buckets() == []


def _raw(client, call):
    from s4raw import wire
    from s4raw.digest import digest
    from s4raw.objects import codec

    with client.pool.lease(client.topology.servers[0]) as connection:
        raw = codec.dumps(call)
        request = connection.next_request()
        connection.channel.send(wire.encode(wire.OBJECT, request, 0, len(raw), digest=digest(raw)), raw)
        connection.receive_ok(request)
