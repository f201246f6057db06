"""Uploads on disk: parts in any order and from any process, and what cannot become a key."""

import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import wait_for
from support import get, opened, put, record_of, run_task

from s4raw.digest import DIGEST_SIZE, LEAF, digest, root
from s4raw.errors import BadRange, Corrupt, DiskFull, KeyExists, NoSuchUpload, ProtocolError
from s4raw.keys import Key
from s4raw.store import Store
from s4raw.uploads import KEEP_PASSING_SECONDS, KEEP_SECONDS, Uploads

KEY = Key("b", "dir/k")
SIZE = 2 * LEAF + 5
CONTENT = b"".join(bytes([index]) * LEAF for index in range(1, 4))[:SIZE]
ID = bytes(range(16))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "data") as found:
        yield found


@pytest.fixture
def uploads(store: Store) -> Uploads:
    return Uploads(store)


def begin(uploads: Uploads, upload: bytes = ID, size: int = SIZE) -> bytes:
    """What is recorded of an upload, which is made if need be."""
    with uploads.open(upload, size, make=True) as found:
        return found.recorded()


def send(uploads: Uploads, *indexes: int, content: bytes = CONTENT) -> None:
    """Put some leaves of the content."""
    for index in indexes:
        leaf = content[index * LEAF : (index + 1) * LEAF]
        with uploads.open(ID, SIZE) as found:
            found.write(index * LEAF)(memoryview(leaf))
            found.record(index * LEAF, digest(leaf))


def directories(store: Store) -> list[str]:
    """The uploads on disk."""
    return sorted(os.listdir(os.path.join(store.data.path, "_uploads")))


def data_file(store: Store) -> Path:
    return Path(store.data.path, "_uploads", f"{ID.hex()}-{SIZE}", "data")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 2, 0, 0)])
def test_parts_in_any_order_become_the_key(store, uploads, order):
    assert begin(uploads) == bytes(3 * DIGEST_SIZE)
    send(uploads, *order)
    assert begin(uploads) == record_of(CONTENT).blocks
    uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    assert get(store, KEY) == CONTENT
    status = os.stat(store.path(KEY))
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o444, 1)
    assert directories(store) == []


@pytest.mark.parametrize("sent", [(), (0,), (0, 2), (1, 2), (0, 1)])
def test_an_upload_that_lacks_a_leaf_is_no_key_whatever_digest_is_claimed(store, uploads, sent):
    begin(uploads)
    send(uploads, *sent)
    recorded = begin(uploads)
    for claimed in (digest(CONTENT), root(recorded)):
        with pytest.raises(NoSuchUpload, match=f"{3 - len(sent)} of the upload's 3 leaves are not there") as caught:
            uploads.commit(ID, SIZE, KEY, claimed)
        assert caught.value.key == str(KEY)
    assert not store.exists(KEY)
    send(uploads, *{0, 1, 2} - set(sent))
    uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    assert get(store, KEY) == CONTENT


def test_an_upload_of_another_content_is_refused(store, uploads):
    begin(uploads)
    send(uploads, 0, 1, 2)
    with pytest.raises(Corrupt, match="digest mismatch"):
        uploads.commit(ID, SIZE, KEY, digest(b"other"))
    assert not store.exists(KEY)


def test_a_leaf_that_comes_again_and_breaks_is_not_there_any_more(store, uploads):
    """Its bytes are not what its digest says by then: to trust that would make a damaged key."""
    begin(uploads)
    send(uploads, 0, 1, 2)
    with uploads.open(ID, SIZE) as found:
        found.write(LEAF)(memoryview(b"damaged on its way"))  # and the END that came with it was refused
        recorded = found.recorded()
    assert recorded[DIGEST_SIZE : 2 * DIGEST_SIZE] == bytes(DIGEST_SIZE)
    with pytest.raises(NoSuchUpload):
        uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    send(uploads, 1)
    uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    assert get(store, KEY) == CONTENT


def test_a_key_that_is_there_stays_as_it_is_and_so_does_the_upload(store, uploads):
    put(store, KEY, b"first")
    begin(uploads)
    send(uploads, 0, 1, 2)
    with pytest.raises(KeyExists):
        uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    assert get(store, KEY) == b"first"
    store.remove(KEY)
    uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    assert get(store, KEY) == CONTENT


def test_a_part_cannot_reach_beyond_the_end(uploads):
    begin(uploads)
    with uploads.open(ID, SIZE) as found:
        with pytest.raises(BadRange, match=f"reaches to {2 * LEAF + 6}, the upload has {SIZE} bytes"):
            found.write(2 * LEAF)(memoryview(b"123456"))
        write = found.write(2 * LEAF)
        write(memoryview(b"12345"))
        with pytest.raises(BadRange):
            write(memoryview(b"6"))
        assert os.fstat(found.data).st_size == SIZE


@pytest.mark.parametrize("use", ["open", "commit"])
def test_what_was_not_begun_is_told(store, uploads, use):
    with pytest.raises(NoSuchUpload, match=ID.hex()):
        uploads.commit(ID, SIZE, KEY, digest(CONTENT)) if use == "commit" else send(uploads, 0)
    uploads.remove(ID, SIZE)
    begin(uploads)
    with pytest.raises(NoSuchUpload):  # of another size, it is another one
        uploads.commit(ID, SIZE + 1, KEY, digest(CONTENT))
    uploads.remove(ID, SIZE)
    assert directories(store) == []


@pytest.mark.parametrize("upload", [b"", ID[:-1], ID + b"0", b"../../../../etc/"[:15]])
def test_an_id_of_another_length_is_refused(uploads, upload):
    for use in (
        lambda: begin(uploads, upload),
        lambda: uploads.remove(upload, SIZE),
        lambda: uploads.commit(upload, SIZE, KEY, digest(CONTENT)),
    ):
        with pytest.raises(ProtocolError, match=f"an upload's id has 16 bytes, got {len(upload)}"):
            use()


@pytest.mark.parametrize("size", [1 << 60, (1 << 63) - 1, (1 << 64) - 1])
def test_what_no_disk_has_room_for_is_refused_before_anything_is_made(store, uploads, size):
    with pytest.raises(DiskFull, match=f"the key has {size}"):
        begin(uploads, size=size)
    assert not os.path.exists(os.path.join(store.data.path, "_uploads"))


def test_processes_share_an_upload(tmp_path):
    run_task("share_an_upload", tmp_path / "data")


def test_nobody_writes_into_what_has_become_a_key(store, uploads):
    begin(uploads)
    send(uploads, 0, 1, 2)
    committed = threading.Event()

    def commit():
        uploads.commit(ID, SIZE, KEY, digest(CONTENT))
        committed.set()

    with uploads.open(ID, SIZE) as late:  # a part whose sender is slow, or gone
        thread = threading.Thread(target=commit)
        thread.start()
        wait_for(lambda: "-> FLOCK" in locks(store), "the commit to wait")
        assert not store.exists(KEY)
        late.write(0)(memoryview(CONTENT[:LEAF]))
        late.record(0, digest(CONTENT[:LEAF]))
    thread.join()
    assert committed.is_set()
    with pytest.raises(NoSuchUpload):
        send(uploads, 0, content=b"x" * SIZE)
    assert get(store, KEY) == CONTENT


def test_a_part_that_waited_for_a_commit_is_told_that_there_is_no_upload_any_more(store, uploads):
    begin(uploads)
    told: list[NoSuchUpload] = []

    def send_late():
        try:
            send(uploads, 0)
        except NoSuchUpload as error:
            told.append(error)

    with uploads.open(ID, SIZE, alone=True):
        thread = threading.Thread(target=send_late)
        thread.start()
        wait_for(lambda: "-> FLOCK" in locks(store), "the part to wait")
        shutil.rmtree(data_file(store).parent)  # as a commit does, at its end
        begin(uploads)  # another one of the same name
    thread.join()
    assert told
    assert begin(uploads) == bytes(3 * DIGEST_SIZE)


def locks(store: Store) -> str:
    """The locks on the upload that the kernel knows, and with an arrow who waits for them."""
    inode = os.stat(data_file(store).with_name("leaves")).st_ino
    return "\n".join(line for line in Path("/proc/locks").read_text().splitlines() if f":{inode} " in line)


# What a server that was killed has left


def test_a_commit_that_was_cut_before_the_key_was_there_can_be_done_again(store, uploads):
    begin(uploads)
    send(uploads, 0, 1, 2)
    data_file(store).chmod(0o444)
    begin(uploads)
    assert data_file(store).stat().st_mode & 0o200  # or a server that is not root's could not open it
    uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    assert get(store, KEY) == CONTENT


def test_a_commit_that_was_cut_after_the_key_was_there_does_not_touch_it(store, uploads):
    begin(uploads)
    send(uploads, 0, 1, 2)
    with uploads.open(ID, SIZE) as found:
        store.publish(found.data, KEY, record_of(CONTENT))
    assert begin(uploads) == bytes(3 * DIGEST_SIZE)
    send(uploads, 0, 1, 2, content=b"x" * SIZE)
    assert get(store, KEY) == CONTENT
    uploads.remove(ID, SIZE)
    assert get(store, KEY) == CONTENT


@pytest.mark.parametrize("name", ["data", "leaves"])
def test_half_of_a_removal_is_a_new_beginning(store, uploads, name):
    begin(uploads)
    send(uploads, 0, 1, 2)
    data_file(store).with_name(name).unlink()
    with pytest.raises((NoSuchUpload, Corrupt)):
        uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    assert begin(uploads) == bytes(3 * DIGEST_SIZE)
    send(uploads, 0, 1, 2)
    uploads.commit(ID, SIZE, KEY, digest(CONTENT))
    assert get(store, KEY) == CONTENT


@pytest.mark.parametrize("lost", [None, "data", "leaves"])
def test_what_nobody_has_touched_for_a_day_is_swept(store, uploads, lost):
    begin(uploads)
    send(uploads, 0)
    begin(uploads, upload=bytes(16))
    old = time.time() - KEEP_SECONDS - 1
    if lost:
        data_file(store).with_name(lost).unlink()
    for path in (data_file(store).with_name("leaves"), data_file(store).parent):
        if path.exists():
            os.utime(path, (old, old))
    uploads.sweep()
    assert directories(store) == [f"{bytes(16).hex()}-{SIZE}"]


def test_what_was_touched_today_is_kept(store, uploads):
    begin(uploads)
    old = time.time() - KEEP_SECONDS - 1
    os.utime(data_file(store).parent, (old, old))
    os.utime(data_file(store), (old, old))
    uploads.sweep()
    assert directories(store) == [f"{ID.hex()}-{SIZE}"]


@pytest.mark.parametrize(("first", "kept"), [(0, False), (1, True)])
def test_what_nobody_resumes_is_swept_after_ten_minutes(store, uploads, first, kept):
    upload = bytes([first, *range(1, 16)])
    begin(uploads, upload=upload)
    directory = Path(store.data.path, "_uploads", f"{upload.hex()}-{SIZE}")
    old = time.time() - KEEP_PASSING_SECONDS - 1
    for path in (directory / "leaves", directory):
        os.utime(path, (old, old))
    uploads.sweep()
    assert directory.exists() == kept
