"""Objects in a data directory: what the disk adds to the promises of all backends."""

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from objects_support import KEY, Body, etag_of, put, read
from support import at_once, get, left_over, names, run_task, run_task_on, start_task
from support import put as put_key

from s4raw.errors import BadKey, BucketNotEmpty, ConfError, Corrupt, NoSuchBucket, NoSuchKey, PreconditionFailed
from s4raw.keys import Key
from s4raw.objects import attributes as codec
from s4raw.objects import locks, publishing
from s4raw.objects.base import Attributes, Conditions, Part, Query
from s4raw.objects.local import LocalBackend, open_local

ABSENT = Conditions(if_none_match=["*"])
LONG = {"long": "x" * 3000}


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[LocalBackend]:
    found = open_local(str(tmp_path / "data"))
    found.create_bucket(KEY.bucket)
    yield found
    found.close()
    assert not left_over(tmp_path / "data")


def sidecars(backend: LocalBackend) -> list[str]:
    return os.listdir(Path(backend.store.data.path, "_s3", "attributes"))


@contextmanager
def reopened(backend: LocalBackend) -> Iterator[LocalBackend]:
    """The backend as the next server finds it."""
    backend.close()
    found = open_local(backend.store.data.path)
    try:
        yield found
    finally:
        found.close()


# What is on disk


def test_attributes_are_written_as_they_always_were():
    attributes = Attributes(
        "0123-2",
        {"content-type": "text/é"},
        {"a": "\ud800"},
        {"t": ""},
        {"CRC32": "AAAA"},
        "FULL_OBJECT",
        [Part(1, 5), Part(3, 2, checksums={"CRC32": "BBBB"})],
    )
    raw = (
        b'{"e":"0123-2","h":{"content-type":"text/\\u00e9"},"m":{"a":"\\ud800"},"t":{"t":""},'
        b'"c":{"CRC32":"AAAA"},"k":"FULL_OBJECT","p":[[1,5,{}],[3,2,{"CRC32":"BBBB"}]]}'
    )
    assert codec.encode(attributes) == raw
    assert codec.decode(raw) == attributes
    assert codec.encode(Attributes("x")) == b'{"e":"x"}'
    assert codec.decode(b'{"e":"x"}') == Attributes("x")


def test_no_two_files_have_the_same_attributes_on_disk_but_what_is_read_of_them_is_the_same(backend):
    raw, found = set(), []
    for name in ("a", "b"):
        put(backend, Key(KEY.bucket, name), b"content")
        path = backend.store.path(Key(KEY.bucket, name))
        raw.add(os.getxattr(path, codec.ATTRIBUTE))
        assert os.getxattr(path, codec.ATTRIBUTE).endswith(b',"i":%d}' % os.stat(path).st_ino)
        found.append(backend.head(Key(KEY.bucket, name)).attributes)
    assert len(raw) == 2
    assert found[0] == found[1]


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b'{"p":[1]}', b'{"p":[[1]]}', b'{"p":7}'])
def test_damaged_attributes_are_told(raw):
    with pytest.raises(Corrupt, match="damaged"):
        codec.decode(raw)


def test_attributes_of_another_version_are_told(backend):
    put(backend, KEY, b"x")
    os.setxattr(backend.store.path(KEY), codec.ATTRIBUTE, b"\2whatever")
    with pytest.raises(Corrupt, match="version 2"):
        backend.head(KEY)
    put(backend, KEY, b"y")  # may be replaced, all the same
    assert read(backend, KEY) == b"y"
    os.setxattr(backend.store.path(KEY), codec.ATTRIBUTE, b"\2whatever")
    assert backend.delete(KEY)


def test_a_data_directory_without_s3_is_taken_as_it_is(tmp_path):
    backend = open_local(str(tmp_path / "data"))
    backend.close()
    for path in sorted((tmp_path / "data" / "_s3").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "data" / "_s3").rmdir()
    backend = open_local(str(tmp_path / "data"))
    put_key(backend.store, KEY, b"old")
    put(backend, KEY, b"new", metadata=LONG)
    assert [bucket.name for bucket in backend.buckets()] == [KEY.bucket]
    backend.close()


def test_a_data_directory_has_one_server(backend):
    with pytest.raises(ConfError, match="in use"):
        open_local(backend.store.data.path)


# Beside the ring's verbs


def test_a_key_of_the_ring_is_an_object(backend):
    put_key(backend.store, KEY, b"from the ring")
    info = backend.head(KEY)
    digest = backend.store.open(KEY)
    os.close(digest.fd)
    assert info.attributes == Attributes(f"{digest.record.digest.hex()}-1")
    assert read(backend, KEY) == b"from the ring"
    assert [entry.etag for entry in backend.list(KEY.bucket, Query()).entries] == [info.attributes.etag]
    backend.tag(KEY, {"a": "b"})
    assert backend.head(KEY) == info._replace(attributes=info.attributes._replace(tags={"a": "b"}))


def test_an_object_is_a_key_of_the_ring(backend):
    put(backend, KEY, b"first")
    put(backend, KEY, b"second", metadata=LONG)
    assert get(backend.store, KEY) == b"second"
    assert names(backend.store, KEY.bucket) == [KEY.name]
    backend.store.remove(KEY)
    with pytest.raises(NoSuchKey):
        backend.head(KEY)
    assert backend.delete(KEY) is False


@pytest.mark.parametrize("metadata", [{"a": "b"}, LONG])
def test_attributes_stay_with_a_key_that_the_ring_moves(backend, metadata):
    put(backend, KEY, b"content", metadata=metadata)
    before, target = backend.head(KEY), Key("elsewhere", "a/b")
    backend.store.move(KEY, target)
    assert backend.head(target) == before
    with reopened(backend) as again:
        assert again.head(target) == before
        again.delete(target)
        assert not sidecars(again)


def test_attributes_count_for_the_content_that_they_were_made_for(backend, tmp_path):
    """A command may copy a file with its extended attributes, and change it."""
    put(backend, KEY, b"content", metadata=LONG)
    stolen = os.getxattr(backend.store.path(KEY), codec.ATTRIBUTE)
    for name, content in (("same", b"content"), ("other", b"changed")):
        put_key(backend.store, Key("b", name), content)
        os.setxattr(backend.store.path(Key("b", name)), codec.ATTRIBUTE, stolen)
    assert backend.head(Key("b", "same")).attributes == Attributes(etag_of(b"content"))
    assert backend.head(Key("b", "other")).attributes.etag.endswith("-1")
    backend.delete(Key("b", "same"))
    assert backend.head(KEY).attributes.metadata == LONG


def test_a_put_that_must_be_the_first_sees_a_put_of_the_ring(backend):
    body = Body(b"late", between=lambda: backend.store.exists(KEY) or put_key(backend.store, KEY, b"ring"))
    with pytest.raises(PreconditionFailed):
        backend.put(KEY, body, ABSENT)
    assert read(backend, KEY) == b"ring"


def test_a_key_of_the_ring_that_comes_between_is_replaced(backend):
    publish, calls = backend.store.publish, []

    def publish_late(*arguments: object) -> None:
        if not calls:
            calls.append(put_key(backend.store, KEY, b"ring", publish))
        publish(*arguments)

    backend.store.publish = publish_late
    put(backend, KEY, b"S3")
    assert calls
    assert read(backend, KEY) == b"S3"


# Attributes that are too long for an extended attribute


def test_long_attributes_are_kept_replaced_and_removed(backend):
    for number in range(3):
        put(backend, KEY, b"%d" % number, metadata={"n": f"{number}" * 3000}, headers={"content-type": "x"})
        assert backend.head(KEY).attributes.metadata == {"n": f"{number}" * 3000}
        assert len(sidecars(backend)) == 1
    backend.copy(KEY, Key(KEY.bucket, "copy"))
    backend.tag(KEY, {"t": "u"})
    assert backend.head(KEY).attributes.tags == {"t": "u"}
    assert backend.head(Key(KEY.bucket, "copy")).attributes.metadata == {"n": "2" * 3000}
    assert len(sidecars(backend)) == 2
    with reopened(backend) as again:
        assert again.head(KEY).attributes.metadata == {"n": "2" * 3000}
        put(again, KEY, b"short")
        again.delete(Key(KEY.bucket, "copy"))
        assert not sidecars(again)


def test_any_number_of_parts_is_kept(backend):
    parts = [Part(number, 5 << 20, checksums={"SHA256": "A" * 44}) for number in range(1, 10_001)]
    put(backend, KEY, b"", parts=parts, checksums={"SHA256": "B-10000"}, checksum_type="COMPOSITE")
    assert backend.head(KEY).attributes.parts == parts
    [entry] = backend.list(KEY.bucket, Query()).entries
    assert (entry.etag, list(entry.checksums), entry.checksum_type) == (etag_of(b""), ["SHA256"], "COMPOSITE")


def test_the_record_of_a_large_object_leaves_room_for_attributes(backend):
    content = bytes(129 << 20)
    put(backend, KEY, content, metadata={"a": "x" * (codec.INLINE_BYTES - 60)})
    assert not sidecars(backend)
    assert backend.head(KEY).size == len(content)


@pytest.mark.parametrize("conditions", [ABSENT, Conditions(if_match=["none"])])
def test_a_put_that_fails_leaves_no_sidecar_and_changes_nothing(backend, conditions):
    put(backend, KEY, b"there", metadata=LONG)
    before, found = backend.head(KEY), sidecars(backend)
    with backend.store.draft() as fd, pytest.raises(PreconditionFailed):
        record = backend.store.publish_file(fd, Key("b", "draft"))
        publishing.publish(backend.store, fd, KEY, record, Attributes("x", metadata=LONG), conditions)
    assert (backend.head(KEY), sidecars(backend)) == (before, found)
    with pytest.raises(BadKey):
        put(backend, Key(KEY.bucket, "x" * 1025), b"", metadata=LONG)
    with pytest.raises(NoSuchBucket):
        put(backend, Key("none", "x"), b"", metadata=LONG)
    assert sidecars(backend) == found


def test_what_a_crash_or_the_ring_left_behind_is_swept_at_the_start(backend):
    put(backend, KEY, b"stays", metadata=LONG)
    put(backend, Key("bucket", "gone"), b"goes", metadata=LONG)
    backend.store.remove(Key("bucket", "gone"))
    place = Path(backend.store.data.path, "_s3", "attributes")
    (place / "nonsense").write_bytes(b"?")
    (place / "12-34").write_bytes(b'{"bucket": "bucket", "name": "dir/key"}\n{}')
    with reopened(backend) as again:
        assert len(sidecars(again)) == 1
        assert again.head(KEY).attributes.metadata == LONG


def test_a_killed_server_leaves_every_object_with_its_attributes_and_nothing_else(tmp_path):
    for run in range(8):
        with start_task("put_objects_forever", tmp_path) as child:
            try:
                for _ in range(4 + 9 * run):
                    child.stdout.readline()
            finally:
                child.kill()
            child.stdout.read()
        backend = open_local(str(tmp_path))
        assert not left_over(tmp_path)
        infos = [backend.head(Key("b", entry.name)) for entry in backend.list("b", Query()).entries]
        for info, entry in zip(infos, backend.list("b", Query()).entries, strict=True):
            content = read(backend, Key("b", entry.name))
            assert info.attributes.etag == etag_of(content) == info.attributes.metadata["etag"] == entry.etag
        long = [info for info in infos if len(codec.encode(info.attributes)) > codec.INLINE_BYTES]
        assert len(sidecars(backend)) == len(long)
        backend.close()


def test_of_a_lost_sidecar_the_etag_is_left(backend):
    put(backend, KEY, b"content", metadata=LONG)
    os.unlink(Path(backend.store.data.path, "_s3", "attributes", *sidecars(backend)))
    assert backend.head(KEY).attributes == Attributes(etag_of(b"content"))
    put(backend, KEY, b"content", metadata=LONG)
    assert backend.head(KEY).attributes.metadata == LONG


def test_a_reader_never_misses_the_attributes_of_what_is_replaced_or_tagged(backend):
    put(backend, KEY, b"0", metadata=LONG)
    done = threading.Event()

    def change() -> None:
        try:
            for number in range(200):
                put(backend, KEY, b"%d" % number, metadata=LONG)
                backend.tag(KEY, {"n": f"{number}"})
        finally:
            done.set()

    def look() -> None:
        while not done.is_set():
            with backend.get(KEY) as reading:
                content = b"".join(map(bytes, reading.pieces()))
                assert reading.info.attributes.metadata == LONG
                assert reading.info.attributes.etag == etag_of(content)

    at_once(change, look, look)
    assert len(sidecars(backend)) == 1


# Many at once


def test_of_many_puts_that_must_be_the_first_one_is(backend):
    for number in range(30):
        key, won = Key(KEY.bucket, f"{number}/k"), []

        def compete(content: bytes, key: Key = key, won: list[bytes] = won) -> None:
            try:
                put(backend, key, content, ABSENT)
            except PreconditionFailed:
                return
            won.append(content)

        at_once(*[lambda seed=seed: compete(b"%d" % seed) for seed in range(4)])
        assert [read(backend, key)] == won


def test_of_many_deletes_of_one_object_one_deletes_it(backend):
    for _ in range(30):
        put(backend, KEY, b"")
        deleted: list[bool] = []
        at_once(*[lambda deleted=deleted: deleted.append(backend.delete(KEY))] * 4)
        assert sorted(deleted) == [False, False, False, True]


@pytest.mark.parametrize("lock", [lambda store: locks.of_key(store, KEY), lambda store: locks.of_bucket(store, KEY[0])])
def test_a_put_and_a_delete_wait_for_the_lock_on_their_key_and_its_bucket(backend, lock):
    waiting = [
        threading.Thread(target=backend.delete, args=[KEY]),
        threading.Thread(target=put, args=[backend, KEY, b"late"]),
    ]
    with lock(backend.store):
        for thread in waiting:
            thread.start()
            thread.join(0.1)
            assert thread.is_alive()
    for thread in waiting:
        thread.join()


def test_a_bucket_is_deleted_once_nobody_is_about_to_put_into_it(backend):
    other = threading.Thread(target=backend.delete_bucket, args=[KEY.bucket])
    with locks.of_key(backend.store, KEY):
        other.start()
        other.join(0.1)
        assert other.is_alive()
    other.join()
    assert backend.buckets() == []


def test_a_put_does_not_wait_for_another_key(backend):
    with locks.of_key(backend.store, KEY):
        put(backend, Key(KEY.bucket, "another"), b"at once")
        backend.create_bucket("other")
        put(backend, Key("other", KEY.name), b"at once")
        backend.delete(Key("other", KEY.name))
        backend.delete_bucket("other")


def test_processes_that_count_with_conditions_lose_nothing(tmp_path):
    run_task("count_together", tmp_path / "data", 4, 40)


def test_no_put_lands_in_a_deleted_bucket(tmp_path):
    run_task("delete_bucket_and_put", tmp_path / "data", 60)


# Buckets


def test_a_bucket_of_the_ring_is_one_and_stays_once_it_is_used(backend):
    put_key(backend.store, Key("ring", "k"), b"")
    assert [bucket.name for bucket in backend.buckets()] == ["bucket", "ring"]
    assert backend.bucket("ring").created_ns == os.stat(Path(backend.store.data.path, "ring")).st_mtime_ns
    assert backend.create_bucket("ring") is False
    with pytest.raises(BucketNotEmpty):
        backend.delete_bucket("ring")
    assert backend.delete(Key("ring", "k"))
    assert backend.list("ring", Query()).entries == []
    backend.delete_bucket("ring")
    with pytest.raises(NoSuchBucket):
        backend.bucket("ring")


def test_a_bucket_of_the_ring_without_a_key_is_none(backend):
    Path(backend.store.data.path, "ring/empty/dir").mkdir(parents=True)
    with pytest.raises(NoSuchBucket):
        backend.bucket("ring")
    backend.create_bucket("ring")
    backend.delete_bucket("ring")
    assert [bucket.name for bucket in backend.buckets()] == ["bucket"]


@pytest.mark.parametrize("name", ["", ".", "..", "_s3", "_tmp", "a/b", "a\0b", "x" * 256, "\ud800"])
def test_no_name_of_a_bucket_reaches_outside(backend, name):
    for action in (backend.bucket, backend.delete_bucket, lambda name: backend.tag_bucket(name, {})):
        with pytest.raises(NoSuchBucket):
            action(name)
    for action in (
        backend.create_bucket,
        lambda name: put(backend, Key(name, "k")),
        lambda name: backend.delete(Key(name, "k")),
    ):
        with pytest.raises(BadKey):
            action(name)


def test_what_is_known_of_a_bucket_survives(backend):
    backend.tag_bucket(KEY.bucket, {"a": "é"})
    before = backend.bucket(KEY.bucket)
    with reopened(backend) as again:
        assert again.bucket(KEY.bucket) == before
        Path(again.store.data.path, "_s3", "buckets", KEY.bucket).write_bytes(b"damaged")
        assert again.bucket(KEY.bucket).name == KEY.bucket


# Files and users


def test_a_reading_gives_its_file_and_closes_it(backend):
    put(backend, KEY, b"0123456789")
    with backend.get(KEY) as reading:
        fd = reading.file()
        assert os.pread(fd, 100, reading.start) == b"0123456789"
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)


def test_a_truncated_file_is_never_called_whole(backend):
    put(backend, KEY, bytes(5000))
    path = backend.store.path(KEY)
    with backend.get(KEY) as reading:
        os.chmod(path, 0o600)
        os.truncate(path, 100)
        with pytest.raises(Corrupt, match="early"):
            list(reading.pieces())
    with pytest.raises(Corrupt):
        backend.get(KEY)


@pytest.mark.parametrize("size", [0, 1, 5000, (2 << 20) + 1])
@pytest.mark.parametrize("kernel", [True, False])
def test_a_copy_has_the_bytes_and_a_file_of_its_own(backend, monkeypatch, size, kernel):
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EXDEV, "no")

    if not kernel:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    content, target = os.urandom(size), Key(KEY.bucket, "copy")
    put(backend, KEY, content, metadata={"a": "b"})
    assert backend.copy(KEY, target).attributes == backend.head(KEY).attributes
    assert get(backend.store, target) == content
    backend.copy(KEY, KEY, Attributes("other"))
    assert (read(backend, KEY), backend.head(KEY).attributes) == (content, Attributes("other"))
    assert os.stat(backend.store.path(KEY)).st_ino != os.stat(backend.store.path(target)).st_ino


def test_an_ordinary_user_may_do_it_all():
    with tempfile.TemporaryDirectory() as top:  # not in tmp_path, which an ordinary user cannot reach
        os.chmod(top, 0o777)
        run_task("do_it_all_as_nobody", top)


def test_a_full_disk_is_told_and_changes_nothing(tmp_path):
    run_task_on("tmpfs", "size=2m", "fill_with_objects", tmp_path / "mount")


def test_attributes_that_the_file_system_has_no_room_for_are_kept_beside(backend, monkeypatch):
    """As on ext4 with blocks of 1 KiB, which have to do for all extended attributes of a file."""
    real = os.setxattr

    def cramped(file, name, value, *flags):
        if name == codec.ATTRIBUTE and len(value) > 900:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, name, value, *flags)

    monkeypatch.setattr(os, "setxattr", cramped)
    metadata = {"a": "v" * 1000}
    put(backend, KEY, b"content", metadata=metadata)
    assert backend.head(KEY).attributes.metadata == metadata
    backend.tag(KEY, {"t": "1"})
    found = backend.head(KEY).attributes
    assert (found.metadata, found.tags, len(sidecars(backend))) == (metadata, {"t": "1"}, 1)
    backend.delete(KEY)
    assert not sidecars(backend)


def test_deleting_a_bucket_leaves_the_uploads_of_its_successor(backend, monkeypatch):
    old = backend.create_upload(KEY, Attributes())
    uploads = []
    real = backend._uploads.abort_all

    def in_between(*arguments):
        backend.create_bucket(KEY.bucket)
        uploads.append(backend.create_upload(KEY, Attributes()))
        real(*arguments)

    monkeypatch.setattr(backend._uploads, "abort_all", in_between)
    backend.delete_bucket(KEY.bucket)
    assert [found.id for found in backend.uploads(KEY.bucket, Query()).uploads] == uploads
    assert old not in uploads
