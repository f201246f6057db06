"""What is remembered of objects: never more than what the disk says now."""

import os
import time

import pytest
from conftest import wait_for

from s4raw.blocks import Record
from s4raw.digest import Digest
from s4raw.errors import Corrupt
from s4raw.keys import Key
from s4raw.objects import publishing
from s4raw.objects.attributes import ATTRIBUTE
from s4raw.objects.base import Attributes, Info, Part
from s4raw.objects.local import open_local
from s4raw.objects.remembered import MAX_PARTS, Remembered
from s4raw.store import RECORD_ATTRIBUTE

KEY = Key("bucket", "dir/key")
SECOND_NS = 1_000_000_000
RECORD = Record.of(Digest())


@pytest.fixture
def backend(tmp_path):
    found = open_local(str(tmp_path / "data"))
    found.create_bucket(KEY.bucket)
    yield found
    found.close()


def put(backend, etag, key=KEY):
    with backend.store.draft() as fd:
        publishing.publish(backend.store, fd, key, RECORD, Attributes(etag))


def remembered(backend, key=KEY):
    """Get a key until what is given comes from memory, the file's time being old enough; its ETag."""

    def ask():
        found = backend._find(key)
        os.close(found.fd)
        status = os.stat(backend.store.path(key))
        return publishing._remembered.get(status) is not None

    wait_for(ask)
    return backend.head(key).attributes.etag


def test_it_is_read_once(backend, monkeypatch):
    put(backend, "1" * 32)
    assert remembered(backend) == "1" * 32
    monkeypatch.setattr(os, "getxattr", lambda *_: pytest.fail("read again"))
    assert backend.head(KEY).attributes.etag == "1" * 32
    with backend.get(KEY) as reading:
        assert b"".join(reading.pieces()) == b""


def test_every_change_is_seen(backend):
    put(backend, "1" * 32)
    remembered(backend)
    backend.tag(KEY, {"name": "value"})
    assert backend.head(KEY).attributes.tags == {"name": "value"}
    remembered(backend)
    backend.tag(KEY, {"name": "another"})
    backend.tag(KEY, {"name": "a third"})  # likely within the same tick
    assert backend.head(KEY).attributes.tags == {"name": "a third"}
    remembered(backend)
    put(backend, "2" * 32)
    assert backend.head(KEY).attributes.etag == "2" * 32
    remembered(backend)
    backend.delete(KEY)
    put(backend, "3" * 32)  # maybe with the same inode
    assert backend.head(KEY).attributes.etag == "3" * 32


def test_what_others_do_to_a_file_is_seen(backend):
    put(backend, "1" * 32)
    path = backend.store.path(KEY)
    remembered(backend)
    os.chmod(path, 0o644)
    sealed = os.getxattr(path, ATTRIBUTE)
    os.setxattr(path, ATTRIBUTE, sealed.replace(b"1" * 32, b"4" * 32))
    assert backend.head(KEY).attributes.etag == "4" * 32
    remembered(backend)
    with open(path, "wb") as file:
        file.write(b"longer")
    with pytest.raises(Corrupt):
        backend.head(KEY)
    with open(path, "wb"):
        pass
    remembered(backend)
    os.setxattr(path, RECORD_ATTRIBUTE, b"damaged")
    with pytest.raises(Corrupt):
        backend.head(KEY)


def test_a_file_that_may_change_within_the_tick_is_not_remembered(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    memory, found = Remembered(), os.stat(path)
    info = Info(0, found.st_mtime_ns, Attributes("1" * 32))
    memory.keep(found, found.st_ctime_ns + SECOND_NS // 1000, RECORD, info)
    assert memory.get(found) is None
    memory.keep(found, time.time_ns() + 3 * SECOND_NS, RECORD, info)
    assert memory.get(found) == (RECORD, info)


def test_memory_is_bounded(tmp_path):
    memory, later = Remembered(max_files=3), time.time_ns() + 10 * SECOND_NS
    parts = [Part(number, 5 << 20) for number in range(1, MAX_PARTS + 2)]
    found = []
    for number in range(5):
        path = tmp_path / str(number)
        path.write_bytes(b"")
        found.append(os.stat(path))
        memory.keep(found[-1], later, RECORD, Info(0, 0, Attributes(str(number))))
    assert len(memory) == 3
    assert [memory.get(one) is not None for one in found] == [False, False, True, True, True]
    memory.keep(found[0], later, RECORD, Info(0, 0, Attributes("many parts", parts=parts)))
    assert memory.get(found[0]) is None
