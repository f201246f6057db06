"""Multipart uploads on the disk: whatever comes in whatever order, however it breaks off, the object is its parts."""

import errno
import os
import random
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from objects_support import Body, begin, read, whole
from support import at_once, start_task, timeless
from tasks import part_of

from s4raw.digest import LEAF, digest
from s4raw.errors import Busy, ConnectionLost, DiskFull, InvalidPart, NoSuchUpload, PreconditionFailed
from s4raw.keys import Key
from s4raw.objects import local_parts, publishing
from s4raw.objects.base import Attributes, Conditions, Query
from s4raw.objects.local import open_local
from s4raw.objects.local_parts import LocalUploads

KEY = Key("bucket", "key")
UNIT = 2 * LEAF


@pytest.fixture
def backend(tmp_path):
    found = open_local(str(tmp_path / "data"))
    found.create_bucket(KEY.bucket)
    yield found
    found.close()


def uploads_of(backend):
    return os.listdir(os.path.join(backend.store.data.path, "_s3", "uploads"))


def files_of(backend, upload):
    return os.path.join(backend.store.data.path, "_s3", "uploads", upload)


def content_of(number, size):
    return random.Random(number).randbytes(size)


def complete(backend, upload, parts, conditions=None):
    return backend.complete(KEY, upload, parts, whole(parts), *([conditions] if conditions else []))


def check(backend, content):
    """The object is this, by its bytes and by its digest."""
    assert read(backend, KEY) == content
    stored = backend.store.open_verified(KEY)
    os.close(stored.fd)
    assert stored.record.digest == digest(content)


@pytest.mark.parametrize("order", [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3], [1, 3], [2], [2, 3, 4]])
@pytest.mark.parametrize("sizes", [[UNIT] * 4, [UNIT, UNIT, UNIT, 5], [UNIT + 7] * 4, [UNIT, 3, UNIT, 0], [9, 1, 8, 2]])
@pytest.mark.parametrize("sized", [True, False])
def test_parts_of_any_sizes_come_in_any_order(backend, order, sizes, sized):
    upload = backend.create_upload(KEY, Attributes())
    parts = {n: backend.put_part(KEY, upload, n, Body(content_of(n, sizes[n - 1]), sized=sized)) for n in order}
    complete(backend, upload, [parts[n] for n in sorted(parts)])
    check(backend, b"".join(content_of(n, sizes[n - 1]) for n in sorted(parts)))
    assert not uploads_of(backend)


def test_parts_of_one_size_are_not_written_twice(backend):
    upload, parts = begin(backend, KEY, [content_of(n, UNIT if n < 5 else 77) for n in range(1, 6)])
    inode = os.stat(f"{files_of(backend, upload)}/data").st_ino
    assert sorted(os.listdir(files_of(backend, upload))) == ["data", "parts", "slots", "upload.json"]
    complete(backend, upload, parts)
    with backend.get(KEY) as reading:
        assert os.fstat(reading.file()).st_ino == inode and os.fstat(reading.file()).st_nlink == 1


@settings(timeless, max_examples=40)
@given(st.data())
def test_any_history_gives_the_parts_that_were_put_last(tmp_path_factory, data):
    backend = open_local(str(tmp_path_factory.mktemp("data")))
    try:
        backend.create_bucket(KEY.bucket)
        upload = backend.create_upload(KEY, Attributes())
        there, parts = {}, {}
        for step in range(data.draw(st.integers(1, 12))):
            number, size = data.draw(st.integers(1, 5)), data.draw(st.sampled_from([0, 5, LEAF, UNIT, UNIT + 3]))
            kind = data.draw(st.sampled_from(["put", "put", "unsized", "break", "complete"]))
            content = content_of(step, size)
            if kind == "break":
                with pytest.raises(ConnectionLost):
                    body = Body(content, breaks=ConnectionLost("gone"), breaks_at=size // 2)
                    backend.put_part(KEY, upload, number, body)
            elif kind == "complete" and parts:
                chosen = data.draw(st.sets(st.sampled_from(sorted(parts)), min_size=1))
                with pytest.raises(PreconditionFailed):
                    backend._uploads.complete(
                        KEY, upload, [parts[n] for n in sorted(chosen)], Attributes(), Conditions(if_none_match=["*"])
                    ) if backend.put(KEY, Body(b"old")) else None
            else:
                parts[number] = backend.put_part(KEY, upload, number, Body(content, sized=kind == "put"))
                there[number] = content
        assert [*backend.parts(KEY, upload)] == [parts[n] for n in sorted(parts)]
        if chosen := data.draw(st.sets(st.sampled_from(sorted(parts)), min_size=1)) if parts else None:
            complete(backend, upload, [parts[n] for n in sorted(chosen)])
            check(backend, b"".join(there[n] for n in sorted(chosen)))
            assert not uploads_of(backend)
    finally:
        backend.close()


def test_a_part_that_breaks_off_leaves_its_slot_to_the_next(backend):
    upload = backend.create_upload(KEY, Attributes())
    with pytest.raises(ConnectionLost):
        backend.put_part(KEY, upload, 1, Body(content_of(9, UNIT), breaks=ConnectionLost("gone"), breaks_at=LEAF))
    assert not backend.parts(KEY, upload)
    with pytest.raises(InvalidPart):
        complete(backend, upload, [backend.put_part(KEY, upload, 2, Body(b"2"))._replace(number=1)])
    part = backend.put_part(KEY, upload, 1, Body(content_of(1, UNIT)))
    assert not [name for name in os.listdir(files_of(backend, upload)) if name.startswith("part-1-")]
    complete(backend, upload, [part])
    check(backend, content_of(1, UNIT))


def test_completing_while_a_part_is_put_again_takes_either_whole(backend):
    for step in range(15):
        upload, parts = begin(backend, KEY, [content_of(n, UNIT) for n in (1, 2, 3)])
        outcomes = []

        def again(upload=upload, step=step, outcomes=outcomes):
            try:
                outcomes.append(backend.put_part(KEY, upload, 2, Body(content_of(step + 10, UNIT))))
            except (NoSuchUpload, Busy) as error:
                outcomes.append(error)

        def end(upload=upload, parts=parts, outcomes=outcomes):
            try:
                complete(backend, upload, parts)
                outcomes.append("done")
            except InvalidPart:
                outcomes.append("changed")

        at_once(again, end)
        if "done" in outcomes:
            check(backend, b"".join(content_of(n, UNIT) for n in (1, 2, 3)))
        else:
            named = [*backend.parts(KEY, upload)]
            complete(backend, upload, named)
            check(backend, content_of(1, UNIT) + content_of(step + 10, UNIT) + content_of(3, UNIT))
        assert not uploads_of(backend)


@pytest.mark.parametrize("number", [2, 4])
def test_a_part_that_is_coming_in_while_the_rest_is_completed_is_too_late(backend, monkeypatch, number):
    """It writes to its slot before and after: that must not be in the object, nor hold it up for ever."""
    monkeypatch.setattr(local_parts, "_WAIT_SECONDS", 0.05)
    upload = backend.create_upload(KEY, Attributes())
    parts = [backend.put_part(KEY, upload, n, Body(content_of(n, UNIT))) for n in (1, 2, 3) if n != number]
    begun, go, errors = threading.Event(), threading.Event(), []

    def wait():
        begun.set()
        assert go.wait(20)

    def late():
        try:
            backend.put_part(KEY, upload, number, Body(b"\xee" * UNIT, between=wait))
        except NoSuchUpload as error:
            errors.append(error)

    thread = threading.Thread(target=late)
    thread.start()
    assert begun.wait(20)
    complete(backend, upload, parts)
    go.set()
    thread.join()
    assert errors
    check(backend, b"".join(content_of(part.number, UNIT) for part in parts))


def blind(monkeypatch):
    """Let completing find out last that its conditions do not hold, as when the object comes in between."""
    monkeypatch.setattr(publishing, "look", lambda *_: None)


def test_a_part_that_had_come_in_when_completing_failed_is_no_hole(backend, monkeypatch):
    """Its bytes are cut off by completing the others; recording it afterwards would make zeros of it."""
    blind(monkeypatch)
    backend.put(KEY, Body(b"old"))
    upload = backend.create_upload(KEY, Attributes())
    first = backend.put_part(KEY, upload, 1, Body(content_of(1, UNIT)))

    class Late(Body):
        def seal(self):
            with pytest.raises(PreconditionFailed):
                files = Conditions(if_none_match=["*"])
                backend._uploads.complete(KEY, upload, [first], Attributes(), files)
            return super().seal()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_parts, "_WAIT_SECONDS", 0.0)
        late = backend.put_part(KEY, upload, 2, Late(content_of(2, UNIT)))
    complete(backend, upload, [first, late])
    check(backend, content_of(1, UNIT) + content_of(2, UNIT))


def test_what_completing_has_cut_off_is_not_recorded(backend, monkeypatch):
    blind(monkeypatch)
    upload = backend.create_upload(KEY, Attributes())
    first = backend.put_part(KEY, upload, 1, Body(content_of(1, UNIT)))
    with local_parts.UploadFiles(files_of(backend, upload)) as files:
        with files.locked():
            assert files.take_slot(2, UNIT, True) == UNIT
        files.release_data()  # all of it was written
        backend.put(KEY, Body(b"old"))
        with pytest.raises(PreconditionFailed):
            backend._uploads.complete(KEY, upload, [first], Attributes(), Conditions(if_none_match=["*"]))
        assert files.is_lost(2)


def test_a_disk_that_fails_does_not_end_an_upload(backend, monkeypatch):
    upload = backend.create_upload(KEY, Attributes())
    first = backend.put_part(KEY, upload, 1, Body(b"kept"))

    def fail(*_args, **_options):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        assert backend._uploads.sweep() == 0
    assert backend.parts(KEY, upload) == [first]


@pytest.mark.parametrize(("call", "fails_at"), [("pwrite", 1), ("pwrite", 3), ("pread", 1)])
def test_a_disk_that_fails_is_an_error_of_ours(backend, monkeypatch, call, fails_at):
    upload = backend.create_upload(KEY, Attributes())
    real, calls = getattr(os, call), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == fails_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(DiskFull):
            backend.put_part(KEY, upload, 1, Body(b"content"))
    assert backend.parts(KEY, upload) == []
    complete(backend, upload, [backend.put_part(KEY, upload, 1, Body(b"content"))])
    check(backend, b"content")


def test_killed_at_any_moment_an_upload_goes_on_or_is_the_object(tmp_path):
    dice = random.Random()
    for _ in range(10):
        with start_task("upload_forever", tmp_path / "data", dice.choice([0, 0.002])) as child:
            try:
                lines = [child.stdout.readline() for _ in range(dice.randrange(1, 25))]
                time.sleep(dice.random() * 0.02)
            finally:
                child.kill()
            lines += child.stdout.readlines()
        report = [line.decode().split() for line in lines if line.endswith(b"\n")]
        backend = open_local(str(tmp_path / "data"))
        try:
            check_after(backend, report)
        finally:
            backend.close()


def check_after(backend, report):
    begun = [word for verb, word in report if verb == "begun"]
    done = [word for verb, word in report if verb == "done"]
    put = (
        {int(word) for verb, word in report[[verb for verb, _ in report].index("begun") :] if verb == "part"}
        if begun
        else set()
    )
    last = max((at for at, (verb, _) in enumerate(report) if verb == "begun"), default=0)
    last = max((at for at, (verb, _) in enumerate(report) if verb == "begun"), default=0)
    put = {int(word) for verb, word in report[last:] if verb == "part"}
    under_way = [found.id for found in backend.uploads(KEY.bucket, Query()).uploads] if begun else []
    objects = [entry.etag for entry in backend.list(KEY.bucket, Query()).entries] if begun else []
    if done:
        assert objects
    if objects:
        check(backend, b"".join(part_of(objects[0], number) for number in range(1, 6)))
    if begun and begun[-1] not in done and begun[-1] not in objects:
        assert begun[-1] in under_way
        found = [part.number for part in backend.parts(KEY, begun[-1])]
        assert put <= set(found)
        for number in {1, 2, 3, 4, 5} - put:
            backend.put_part(KEY, begun[-1], number, Body(part_of(begun[-1], number)))
        parts = [*backend.parts(KEY, begun[-1])]
        backend.complete(KEY, begun[-1], parts, Attributes(begun[-1]))
        check(backend, b"".join(part_of(begun[-1], number) for number in range(1, 6)))
    for upload in under_way[:]:
        if upload not in begun[-1:]:
            backend.abort(KEY, upload)
    assert not uploads_of(backend)


def test_ten_thousand_parts(backend):
    upload = backend.create_upload(KEY, Attributes())
    parts = [backend.put_part(KEY, upload, n, Body(b"%07d" % n, Attributes("0" * 32))) for n in range(1, 10_001)]
    assert [part.number for part in backend.parts(KEY, upload, after=9_000, limit=3)] == [9001, 9002, 9003]
    backend.complete(KEY, upload, parts, Attributes("0" * 32 + "-10000"))
    check(backend, b"".join(b"%07d" % n for n in range(1, 10_001)))


def test_an_id_never_leads_outside(backend):
    for upload in [
        "",
        ".",
        "..",
        "../..",
        "../attributes",
        "/",
        "a" * 47,
        "A" * 48,
        "a" * 48 + "\n",
        "\0" * 48,
        "0" * 48,
    ]:
        with pytest.raises(NoSuchUpload):
            backend.upload(KEY, upload)
        with pytest.raises(NoSuchUpload):
            backend.abort(KEY, upload)


def test_abandoned_uploads_are_swept(backend):
    upload, _ = begin(backend, KEY, [b"1"])
    ended, _ = begin(backend, KEY, [b"1"])
    os.unlink(f"{files_of(backend, ended)}/upload.json")
    LocalUploads(backend.store)
    assert uploads_of(backend) == [upload]
    long_ago = time.time() - 8 * 24 * 3600
    for name in os.listdir(files_of(backend, upload)):
        os.utime(f"{files_of(backend, upload)}/{name}", (long_ago, long_ago))
    LocalUploads(backend.store, keep_seconds=9 * 24 * 3600)
    assert uploads_of(backend) == [upload]
    LocalUploads(backend.store)
    assert uploads_of(backend) == []


def test_a_torn_line_is_no_part_and_hides_none(backend):
    upload, parts = begin(backend, KEY, [content_of(1, 10), content_of(2, 10)])
    with open(f"{files_of(backend, upload)}/parts", "ab") as file:
        file.write(b'[3,10,"abc",{},0,"","00')
    assert [*backend.parts(KEY, upload)] == parts
    parts.append(backend.put_part(KEY, upload, 3, Body(content_of(3, 10))))
    assert [*backend.parts(KEY, upload)] == parts
    complete(backend, upload, parts)
    check(backend, b"".join(content_of(n, 10) for n in (1, 2, 3)))
