"""Local files: written under another name until they are whole."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import at_once

from s4raw.errors import Corrupt, LocalFileError, UsageError
from s4raw.files import part_name, reading, writing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


def write(path: Path, content: bytes) -> None:
    with writing(str(path)) as fd:
        os.write(fd, content)


def listed(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


@pytest.mark.parametrize("before", [None, b"what was there before, and longer"])
def test_a_file_appears_whole_at_the_end(path, before):
    if before is not None:
        path.write_bytes(before)
    with writing(str(path)) as fd:
        os.write(fd, b"con")
        assert (path.read_bytes() if path.exists() else None) == before
        assert Path(part_name(str(path))).read_bytes() == b"con"
        os.write(fd, b"tent")
    assert path.read_bytes() == b"content"
    assert listed(path) == ["file"]


@pytest.mark.parametrize("error", [Corrupt("digest mismatch"), KeyboardInterrupt(), OSError(28, "No space left")])
@pytest.mark.parametrize("before", [None, b"what was there before"])
def test_a_failure_leaves_what_was_there(path, before, error):
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(LocalFileError if isinstance(error, OSError) else type(error)), writing(str(path)) as fd:
        os.write(fd, b"half")
        raise error
    assert listed(path) == (["file"] if before else [])
    assert before is None or path.read_bytes() == before


def test_what_an_earlier_attempt_left_is_overwritten(path):
    Path(part_name(str(path))).write_bytes(b"left by a process that was killed")
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert listed(path) == ["file"]


def test_two_copies_of_one_file_do_not_mix(path):
    with writing(str(path)) as fd:
        os.write(fd, b"first")
        with pytest.raises(LocalFileError, match=r"another copy is writing to .*/file \.part$"):
            write(path, b"second")
        os.write(fd, b" and last")
    assert path.read_bytes() == b"first and last"
    write(path, b"third")
    assert path.read_bytes() == b"third"
    assert listed(path) == ["file"]


def test_of_copies_that_race_each_leaves_a_whole_file(path):
    whole, refused, damaged, done = [letter * 1000 for letter in (b"a", b"b", b"c", b"d")], set(), [], []

    def copy(content: bytes) -> None:
        for _ in range(500):
            try:
                write(path, content)
            except LocalFileError as error:
                refused.add(error.message)
        done.append(content)

    def read() -> None:
        while len(done) < len(whole):
            if path.exists() and path.read_bytes() not in whole:
                damaged.append(path.stat().st_size)

    at_once(read, *[lambda content=content: copy(content) for content in whole])
    assert damaged == []
    assert refused <= {f"another copy is writing to {part_name(str(path))}"}
    assert listed(path) == ["file"]


def test_the_umask_decides_who_may_read_a_new_file(path):
    before = os.umask(0o027)
    try:
        write(path, b"")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


# What is no regular file is written to as it is


def test_a_pipe_is_written_to_as_it_is(path):
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    write(path, b"content")
    reader.join()
    assert read == [b"content"]
    assert listed(path) == ["file"]
    assert path.is_fifo()


@pytest.fixture
def device(path: Path) -> Iterator[int]:
    """A terminal that ``path`` leads to; what reads from its other end. (No /dev/null: a defect would destroy it.)"""
    ours, theirs = os.openpty()
    path.symlink_to(os.ttyname(theirs))
    yield ours
    os.close(ours)
    os.close(theirs)


def test_a_device_is_written_to_as_it_is(path, device):
    write(path, b"content")
    assert os.read(device, 100) == b"content"
    assert path.is_symlink()
    assert path.is_char_device()
    assert listed(path) == ["file"]


@pytest.mark.parametrize("error", [Corrupt("mismatch"), FileNotFoundError(2, "gone"), OSError(32, "Broken pipe")])
def test_a_failure_while_a_device_is_written_to_leaves_nothing_else(path, device, error):
    with pytest.raises((Corrupt, LocalFileError)), writing(str(path)):
        raise error
    assert path.is_char_device()
    assert listed(path) == ["file"]


@pytest.mark.parametrize("there", [True, False])
def test_a_symlink_stays_and_what_it_leads_to_is_written(path, there):
    target = path.with_name("target")
    if there:
        target.write_bytes(b"before")
    path.symlink_to("target")
    write(path, b"content")
    assert path.is_symlink()
    assert target.read_bytes() == b"content"
    assert listed(path) == ["file", "target"]


@pytest.mark.parametrize("length", [244, 245, 255])
def test_a_name_may_be_as_long_as_the_file_system_takes(path, length):
    longest = path.with_name("n" * length)
    write(longest, b"content")
    assert longest.read_bytes() == b"content"
    assert listed(path) == [longest.name]


@pytest.mark.parametrize("name", ["", "plain/file"])
def test_a_file_that_cannot_be_written_is_named(path, name):
    (path.parent / "plain").touch()
    target = str(path.parent / name) if name else str(path.parent)
    with pytest.raises(LocalFileError, match="local file"), writing(target):
        raise AssertionError("it was opened")
    assert listed(path) == ["plain"]


# Reading


def test_a_file_is_read(path):
    path.write_bytes(b"content")
    with reading(str(path)) as fd:
        assert os.read(fd, 100) == b"content"


def test_a_directory_is_no_source(path):
    with pytest.raises(UsageError, match="-r"), reading(str(path.parent)):
        raise AssertionError("it was opened")


@pytest.mark.parametrize("name", ["missing", "plain/file"])
def test_a_file_that_cannot_be_read_is_named(path, name):
    (path.parent / "plain").touch()
    with pytest.raises(LocalFileError, match=f"local file .*{name}: "), reading(str(path.parent / name)):
        raise AssertionError("it was opened")


def test_a_failure_of_the_disk_while_reading_is_named(path):
    path.touch()
    with pytest.raises(LocalFileError, match=r"file: Input/output error"), reading(str(path)):
        raise OSError(5, os.strerror(5))
