"""The data directory: what is refused at start, what is swept, and temporary directories."""

import errno
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import wait_for
from support import get, left_over, names, opened, put, run_task, run_task_on

from s4raw.disk import JOB_VARIABLE, DataDirectory, disk_errors, remove_tree
from s4raw.errors import BadKey, ConfError, DiskFull, StoreError
from s4raw.keys import Key

KEY = Key("b", "dir/k")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data directory that holds a key."""
    with opened(tmp_path / "data") as store:
        put(store, KEY, b"content")
    return tmp_path / "data"


def refused(root: Path) -> str:
    with pytest.raises(ConfError) as caught, opened(root):
        pass
    assert str(root) in caught.value.message
    return caught.value.message


# Starting


def test_a_data_directory_is_made_where_there_is_none_and_found_again(tmp_path):
    root = tmp_path / "new" / "data"
    for _ in range(2):
        with opened(root) as store:
            assert store.data.path == str(root)
            with suppress(FileNotFoundError):
                assert names(store) == []
    assert (root / "_format").read_text() == "s4raw 2\n"
    assert sorted(os.listdir(root)) == ["_drafts", "_format", "_lock", "_removals", "_tmp"]


def test_a_directory_in_use_is_refused_until_its_server_has_gone(root):
    with opened(root) as store:
        assert "in use by another server" in refused(root)
        assert "in use by another server" in run_task("open_unfit", root)
        assert get(store, KEY) == b"content"
    with opened(root) as store:
        assert get(store, KEY) == b"content"


def test_a_directory_in_use_is_refused_by_any_of_its_names(root, tmp_path):
    (tmp_path / "alias").symlink_to(root)
    with opened(root), pytest.raises(ConfError, match="in use"), opened(tmp_path / "alias"):
        pass


def test_a_refused_server_sweeps_nothing_of_the_one_that_runs(root):
    with opened(root) as store, store.data.scratch() as scratch:
        refused(root)
        assert os.path.isdir(scratch.path)


@pytest.mark.parametrize("text", ["s4raw 1\n", "s4raw 3\n", "something else", "s4raw 2", "s4raw 20\n", "\xff"])
def test_another_format_is_refused_by_name(root, text):
    (root / "_format").write_bytes(text.encode("latin-1"))
    message = refused(root)
    assert "need 's4raw 2'" in message
    assert text.encode("latin-1").decode(errors="replace").strip() in message
    assert (root / "_format").read_bytes() == text.encode("latin-1")


def test_a_first_start_that_was_cut_short_does_not_stop_the_next_one(tmp_path):
    (tmp_path / "_format").touch()
    with opened(tmp_path) as store:
        put(store, KEY, b"content")
    assert (tmp_path / "_format").read_text() == "s4raw 2\n"


@pytest.mark.parametrize("root", ["/proc/s4raw", "/sys/s4raw", "file", "file/data"])
def test_a_place_that_cannot_hold_a_directory_is_refused_by_name(tmp_path, root):
    (tmp_path / "file").touch()
    refused(tmp_path / root)


def test_a_file_system_without_extended_attributes_is_refused_by_name(tmp_path):
    message = run_task_on("ramfs", "mode=755", "open_unfit", tmp_path / "mount")
    assert f"the file system of {tmp_path / 'mount'} (ramfs) cannot do what the store needs" in message
    assert "extended attributes" in message


def test_a_start_on_a_full_disk_is_refused_by_name(tmp_path):
    message = run_task_on("tmpfs", "size=1m,nr_inodes=4", "open_unfit", tmp_path / "mount")
    assert str(tmp_path / "mount") in message
    assert "No space left" in message


def test_the_place_for_temporary_files_never_lies_elsewhere(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "directory").mkdir(parents=True)
    (elsewhere / "file").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "_tmp").symlink_to(elsewhere)
    with suppress(ConfError), opened(tmp_path / "data"):
        pass
    assert sorted(os.listdir(elsewhere)) == ["directory", "file"]


@pytest.mark.parametrize("name", ["_tmp", "_drafts", "_lock", "_removals"])
def test_a_directory_whose_parts_are_something_else_is_refused(tmp_path, name):
    if name in ("_tmp", "_drafts"):
        (tmp_path / name).touch()
    else:
        (tmp_path / name).mkdir()
    refused(tmp_path)


# Sweeping


def test_what_a_killed_server_left_is_swept(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("mine")
    job = root / "_tmp" / "job-1"
    (job / "unwritable").mkdir(parents=True)
    (job / "unwritable" / "file").touch()
    (job / "link").symlink_to(outside)
    (job / "loop").symlink_to(job)
    os.mkfifo(job / "fifo")
    (job / "unwritable").chmod(0o500)
    (root / "_tmp" / "file").touch()
    (root / "_tmp" / "link").symlink_to(outside)
    with opened(root) as store:
        assert not left_over(root)
        assert get(store, KEY) == b"content"
    assert (outside / "file").read_text() == "mine"


def test_orphaned_commands_are_killed_and_others_are_not(root, tmp_path):
    (root / "_tmp" / "job-1").mkdir()
    environments = [{JOB_VARIABLE: str(root)}, {JOB_VARIABLE: str(root) + "2"}, {JOB_VARIABLE: str(tmp_path)}, {}]
    commands = [
        subprocess.Popen(["cat"], env={**os.environ, **extra}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for extra in environments
    ]
    try:
        with opened(root):
            assert commands[0].wait(100) == -9
            assert [command.communicate(b"alive")[0] for command in commands[1:]] == [b"alive"] * 3
    finally:
        for command in commands:
            command.kill()
            command.communicate()


def test_a_job_that_still_writes_is_swept(root):
    job = root / "_tmp" / "job-1"
    (job / "a").mkdir(parents=True)
    script = "import os, sys\nfor number in range(10**9): open(f'a/{number}', 'w').close()"
    writer = subprocess.Popen(["python3", "-c", script], cwd=job, env={**os.environ, JOB_VARIABLE: str(root)})
    try:
        wait_for(lambda: len(os.listdir(job / "a")) > 100)
        with opened(root):
            assert not left_over(root)
    finally:
        writer.kill()
        writer.wait()


def test_what_cannot_be_removed_does_not_stop_the_start(root):
    job = root / "_tmp" / "job-1"
    job.mkdir()
    stuck = job / "stuck"
    stuck.touch()
    if subprocess.run(["chattr", "+i", stuck], check=False, capture_output=True).returncode:
        pytest.skip("cannot make a file immutable here")
    try:
        with opened(root) as store:
            assert get(store, KEY) == b"content"
    finally:
        subprocess.run(["chattr", "-i", stuck], check=True)


# Temporary directories


def fill(path: str) -> None:
    """Leave in a directory what a command might."""
    trap = Path(path, "unwritable")
    trap.mkdir()
    (trap / "file").touch()
    (trap / "link").symlink_to("/")
    trap.chmod(0)
    Path(path, "file").touch()
    os.mkfifo(Path(path, "fifo"))


def test_a_temporary_directory_is_its_owners_and_gone_at_the_end(root):
    with opened(root) as store:
        with store.data.scratch() as one, store.data.scratch() as other:
            assert one.path != other.path
            assert os.path.dirname(one.path) == str(root / "_tmp")
            assert os.listdir(one.path) == []
            fill(one.path)
        with pytest.raises(KeyError), store.data.scratch() as third:
            fill(third.path)
            raise KeyError
        with store.data.scratch() as fourth:
            os.rmdir(fourth.path)
        assert not left_over(root)


@pytest.mark.parametrize("deed", ["nothing", "fill", "remove", "lock", "file", "symlink"])
def test_a_temporary_directory_is_as_good_as_new_after_a_command(root, tmp_path, deed):
    with opened(root) as store, store.data.scratch() as scratch:
        if deed == "fill":
            fill(scratch.path)
        elif deed == "lock":
            os.chmod(scratch.path, 0)
        elif deed != "nothing":
            os.rmdir(scratch.path)
        if deed == "file":
            Path(scratch.path).touch()
        elif deed == "symlink":
            Path(scratch.path).symlink_to(tmp_path)
        scratch.clear()
        assert not os.path.islink(scratch.path)
        assert os.listdir(scratch.path) == []
        assert os.stat(scratch.path).st_mode & 0o777 == 0o700
        assert get(store, KEY) == b"content"


def test_removing_a_temporary_directory_touches_nothing_that_symlinks_lead_to():
    top = tempfile.mkdtemp()  # not in tmp_path, which an ordinary user cannot reach
    try:
        os.chmod(top, 0o777)
        run_task("leave_a_trap", top)
    finally:
        shutil.rmtree(top)


def test_a_tree_is_removed_whatever_it_is(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("link", "dangling", "nothing"):
        remove_tree(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["file"]


def test_a_deep_tree_is_removed(tmp_path):
    deep = tmp_path / "deep"
    subprocess.run(["mkdir", "-p", "x/" * 1500], cwd=tmp_path, check=True)
    os.rename(tmp_path / "x", deep)
    try:
        remove_tree(str(deep))
        assert not deep.exists()
    finally:
        subprocess.run(["rm", "-rf", deep], check=True)


# Errors of the disk


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.ENAMETOOLONG, BadKey),
        (errno.EIO, StoreError),
        (errno.EACCES, StoreError),
        (errno.EROFS, StoreError),
        (errno.EMFILE, StoreError),
    ],
)
def test_an_error_of_the_disk_becomes_one_of_ours_and_names_the_key(number, expected):
    with pytest.raises(expected) as caught, disk_errors(KEY):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is expected
    assert caught.value.key == str(KEY)
    assert expected is BadKey or os.strerror(number) in caught.value.message


def test_other_errors_pass_through_unchanged():
    for error in (FileNotFoundError(errno.ENOENT, "gone"), KeyError("x"), DiskFull("already ours")):
        with pytest.raises(type(error)) as caught, disk_errors(KEY):
            raise error
        assert caught.value is error


def test_a_data_directory_can_be_opened_by_a_relative_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = DataDirectory("data")
    monkeypatch.chdir("/")
    try:
        with data.scratch() as scratch:
            assert scratch.path.startswith(str(tmp_path / "data" / "_tmp"))
    finally:
        data.close()
