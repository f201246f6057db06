"""The spool: files that the queue owns, whatever becomes of those they were made from."""

import errno
import os

import pytest
from objects_support import Body
from queue_support import Target, key, opened, pushing

from s4raw.errors import Corrupt, DiskFull, LocalFileError, StoreError
from s4raw.objects.base import Attributes
from s4raw.objects.sources import Identity
from s4raw.queue.entries import Order


@pytest.fixture
def queue(tmp_path):
    with opened(tmp_path / "q") as queue:
        yield queue


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def snapshot(queue, path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return queue.spool.snapshot(fd, os.fsencode(path))
    finally:
        os.close(fd)


def read(queue, path):
    with open(queue.spool.open(path), "rb") as file:
        return file.read()


def no_links(monkeypatch, number=errno.EXDEV):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.parametrize("linked", [True, False])
def test_a_snapshot_is_delivered_although_its_writer_deleted_the_file(queue, file, monkeypatch, linked):
    if not linked:
        no_links(monkeypatch)
    path, identity = snapshot(queue, file)
    assert (identity.inode == file.stat().st_ino) == linked
    file.unlink()
    file.write_bytes(b"another file under its name")
    queue.add(Order("", key("k"), path=path, spooled=True, identity=identity))
    target = Target()
    with pushing(queue, target):
        assert queue.flush(20)
    assert target.content("k") == b"content"
    assert not queue.spool.names()


def test_two_snapshots_of_one_file_are_two(queue, file):
    first, second = snapshot(queue, file), snapshot(queue, file)
    assert first[0] != second[0]
    queue.spool.discard(first[0])
    assert read(queue, second[0]) == b"content"
    assert first[1].same(second[1])


def test_who_writes_into_a_linked_file_is_found_out(queue, file):
    path, identity = snapshot(queue, file)
    queue.add(Order("", key("k"), path=path, spooled=True, identity=identity))
    with open(file, "r+b") as writer:
        writer.write(b"C")
    os.utime(file, ns=(1, 1))
    with pushing(queue, Target()):
        assert queue.flush(20)
    (entry,) = queue.entries()
    assert entry.parked
    assert "has changed since it was queued" in entry.error


def test_who_writes_into_a_copied_file_changes_nothing(queue, file, monkeypatch):
    no_links(monkeypatch, errno.EPERM)
    path, identity = snapshot(queue, file)
    queue.add(Order("", key("k"), path=path, spooled=True, identity=identity))
    file.write_bytes(b"changed")
    target = Target()
    with pushing(queue, target):
        assert queue.flush(20)
    assert target.content("k") == b"content"


@pytest.mark.parametrize("grow", [b"x", b"longer than before"])
def test_a_file_that_changes_while_it_is_copied_is_refused(queue, file, monkeypatch, grow):
    no_links(monkeypatch)
    real = os.copy_file_range

    def copy(*arguments):
        file.write_bytes(grow)
        return real(*arguments)

    monkeypatch.setattr(os, "copy_file_range", copy)
    monkeypatch.setattr("fcntl.ioctl", lambda *arguments: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "")))
    with pytest.raises(LocalFileError, match="changed while it was queued"):
        snapshot(queue, file)
    assert not queue.spool.names()


def test_a_body_is_stored_with_what_its_source_sealed(queue):
    known = Attributes("e", {"content-type": "a/b"})
    path, identity, attributes = queue.spool.store(Body(b"x" * 1_000_000, known))
    assert (attributes, identity.size, read(queue, path)) == (known, 1_000_000, b"x" * 1_000_000)
    fd = queue.spool.open(path)
    assert Identity.of(fd) == identity
    os.close(fd)


@pytest.mark.parametrize(
    ("source", "most", "raised"),
    [
        (Body(b"x" * 10, breaks=StoreError("broke off")), None, StoreError),
        (Body(b"x" * 10, denies=Corrupt("bad digest")), None, Corrupt),
        (Body(b"x" * 10), 9, Corrupt),
        (Body(b"x" * 10, breaks=OSError(errno.ENOSPC, "full")), None, DiskFull),
    ],
)
def test_a_body_that_breaks_off_leaves_nothing(queue, source, most, raised):
    with pytest.raises(raised):
        queue.spool.store(source, most)
    assert not queue.spool.names()


def test_a_file_without_a_name_is_adopted_as_it_is(queue, tmp_path):
    fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
    try:
        os.write(fd, b"parts")
        path, identity = queue.spool.adopt(fd)
        assert (identity, read(queue, path)) == (Identity.of(fd), b"parts")
    finally:
        os.close(fd)


def test_a_disk_error_of_a_link_is_told_and_leaves_nothing(queue, file, monkeypatch):
    no_links(monkeypatch, errno.ENOSPC)
    with pytest.raises(DiskFull):
        snapshot(queue, file)
    assert not queue.spool.names()


def test_no_name_leads_out_of_the_spool(queue, file):
    with pytest.raises(FileNotFoundError):
        queue.spool.open(os.fsencode(file))
    queue.spool.discard(os.fsencode(file))
    assert file.exists()
