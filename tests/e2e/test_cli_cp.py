"""``cp`` of one file: where it goes, what it takes its name from, what it refuses, and what it leaves alone."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from s4raw.files import part_name


def keys(client, prefix="s4://b"):
    return [entry.name for entry in client.list(prefix, recursive=True)]


def stored(ring, name, bucket="b"):
    """The files of the servers that keep a key, with the number of the server."""
    paths = ((index, Path(ring.data, str(index), bucket, name)) for index in range(ring.count))
    return [(index, path) for index, path in paths if path.is_file()]


# Names


def test_a_file_is_stored_and_comes_back(s4raw, tmp_path):
    (tmp_path / "file").write_bytes(b"123\n")
    s4raw("cp", "file", "s4://b/dir/key.txt")
    s4raw("cp", "s4://b/dir/key.txt", "copy")
    assert (tmp_path / "copy").read_bytes() == b"123\n"
    assert sorted(os.listdir(tmp_path)) == ["copy", "file"]


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("s4://b/dir/", "dir/file.txt"),
        ("s4://b/", "file.txt"),
        ("s4://b", "file.txt"),
        ("s4://b/dir", "dir"),
        ("s4://b//dir///deep//", "dir/deep/file.txt"),
        ("s4://b//dir//key", "dir/key"),
    ],
)
def test_an_upload_takes_its_name_from_the_target_or_the_file(s4raw, client, tmp_path, target, key):
    (tmp_path / "file.txt").write_bytes(b"x")
    s4raw("cp", "file.txt", target)
    assert keys(client) == [key]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (".", "key.txt"),
        ("./", "key.txt"),
        ("new/", "new/key.txt"),
        ("new/deep/other", "new/deep/other"),
        ("existing", "existing/key.txt"),
        ("existing/", "existing/key.txt"),
        ("existing/..", "key.txt"),
        ("white space", "white space"),
        (255 * "x", 255 * "x"),
    ],
)
def test_a_download_takes_its_name_from_the_target_or_the_key(s4raw, client, tmp_path, target, path):
    (tmp_path / "existing").mkdir()
    client.put("s4://b/dir/key.txt", b"content")
    s4raw("cp", "s4://b//dir//key.txt", target)
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()] == [Path(path)]
    assert (tmp_path / path).read_bytes() == b"content"


def test_stdin_and_stdout_are_a_dash(s4raw):
    s4raw("cp", "-", "s4://b/key", input=b"foo\n")
    assert s4raw("cp", "s4://b/key", "-").stdout == b"foo\n"


def test_nothing_at_all_is_a_key_too(s4raw, tmp_path):
    (tmp_path / "empty").touch()
    s4raw("cp", "empty", "s4://b/file")
    s4raw("cp", "-", "s4://b/stdin")
    s4raw("cp", "s4://b/file", "copy")
    assert (tmp_path / "copy").read_bytes() == b""
    assert s4raw("cp", "s4://b/stdin", "-").stdout == b""


def test_names_are_utf8(s4raw, client, tmp_path):
    (tmp_path / "naïve—€.txt").write_bytes(b"x")
    s4raw("cp", "naïve—€.txt", "s4://b/dír/")
    assert keys(client) == ["dír/naïve—€.txt"]
    s4raw("cp", "s4://b/dír/naïve—€.txt", "s/")
    assert (tmp_path / "s" / "naïve—€.txt").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "server"),
    [("a.txt", 0), ("d.txt", 2), ("f.txt", 1), ("00004", 1), ("00005_name.csv", 2), ("007", 1)],
)
def test_a_key_lies_on_the_server_that_s4_places_it_on(s4raw, ring, name, server):
    s4raw("cp", "-", f"s4://b/any/dir/{name}", input=b"x")
    [(index, path)] = stored(ring, f"any/dir/{name}")
    assert index == server
    assert path.read_bytes() == b"x"


# Refusals


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("s4://b/old", "s4://b/new"),
        ("file", "copy"),
        ("-", "-"),
        ("directory", "s4://b/new"),
        ("-", "s4://b/"),
        ("-", "s4://b/dir/"),
        ("-", "s4://b"),
        ("-", "s4://"),
        ("file", "s4://b/white space"),
        ("file", "s4://b/tab\t"),
        ("file", "s4://b/line\n"),
        ("white space", "s4://b/"),
        ("file", "s4://_b/key"),
        ("file", "s4://b/../key"),
        ("file", "s4://b/./key"),
        ("file", "s4://b/" + 1025 * "x"),
        ("s4://b/", "copy"),
        ("s4://b/dir/", "copy"),
        ("s4://_b/key", "copy"),
    ],
)
def test_what_cp_cannot_mean_is_wrong_usage_and_changes_nothing(s4raw, client, tmp_path, source, target):
    client.put("s4://b/old", b"x")
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "white space").write_bytes(b"x")
    s4raw("cp", source, target, input=b"x", code=2)
    assert [bucket.name for bucket in client.list("s4://")] == ["b"]
    assert keys(client) == ["old"]
    assert sorted(os.listdir(tmp_path)) == ["directory", "file", "white space"]


def test_cp_from_key_to_key_points_to_mv(s4raw):
    assert b"mv moves from key to key" in s4raw("cp", "s4://b/old", "s4://b/new", code=2).stderr


@pytest.mark.parametrize("source", ["file", "-", "large"])
def test_a_key_that_exists_is_refused_and_nothing_changes(s4raw, client, tmp_path, source):
    (tmp_path / "file").write_bytes(b"new")
    (tmp_path / "large").write_bytes(bytes(3 << 20))
    client.put("s4://b/key", b"old")
    before = client.stat("s4://b/key")
    failed = s4raw("cp", source, "s4://b/key", input=b"new", code=1)
    assert b"key already exists" in failed.stderr
    assert b"key s4://b/key" in failed.stderr
    assert before.server.encode() in failed.stderr
    assert client.get("s4://b/key") == b"old"
    assert client.stat("s4://b/key") == before


def test_a_deleted_key_can_be_put_again(s4raw, client):
    s4raw("cp", "-", "s4://b/dir/key", input=b"1")
    s4raw("rm", "s4://b/dir/key")
    s4raw("cp", "-", "s4://b/dir/key", input=b"2")
    assert client.get("s4://b/dir/key") == b"2"


def test_nobody_can_write_to_a_stored_file(s4raw, ring):
    s4raw("cp", "-", "s4://b/key", input=b"x")
    [(_, path)] = stored(ring, "key")
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_key_that_is_not_there_leaves_no_file(s4raw, client, tmp_path):
    server = client.topology.place_basename("missing")
    for target in ("copy", "-"):
        failed = s4raw("cp", "s4://b/missing", target, code=1)
        assert f"no such key (key s4://b/missing, server {server})" in failed.stderr.decode()
        assert failed.stdout == b""
    assert os.listdir(tmp_path) == []


def test_a_local_file_that_is_not_there_is_named(s4raw, client):
    assert b"missing" in s4raw("cp", "missing", "s4://b/key", code=1).stderr
    assert keys(client) == []


def test_a_target_that_cannot_be_written_is_named(s4raw, client, tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    client.put("s4://b/key", b"x")
    assert b"file/copy" in s4raw("cp", "s4://b/key", "file/copy", code=1).stderr
    assert (tmp_path / "file").read_bytes() == b"mine"


# Local files that are no files, and the .part name


def test_a_target_that_is_no_file_is_written_to_as_it_is(s4raw, client, tmp_path, device):
    client.put("s4://b/key", b"content")
    s4raw("cp", "s4://b/key", str(device))
    assert device.is_char_device()
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    s4raw("cp", "s4://b/key", "pipe")
    reader.join()
    assert got == [b"content"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_pipe_can_be_the_source(s4raw, client, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    content = os.urandom(300_000)
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(content))
    writer.start()
    s4raw("cp", "pipe", "s4://b/dir/")
    writer.join()
    assert client.get("s4://b/dir/pipe") == content


def test_symlinks_are_followed_both_ways(s4raw, client, tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    s4raw("cp", "link", "s4://b/key")
    assert client.get("s4://b/key") == b"content"
    (tmp_path / "file").write_bytes(b"old")
    s4raw("cp", "s4://b/key", "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_local_file_is_replaced_only_by_the_whole_key(s4raw, client, ring, tmp_path):
    client.put("s4://b/key", 1000 * b"good")
    [(_, path)] = stored(ring, "key")
    path.chmod(0o644)
    path.write_bytes(1000 * b"evil")
    (tmp_path / "copy").write_bytes(b"old")
    failed = s4raw("cp", "s4://b/key", "copy", code=1)
    assert b"digest mismatch" in failed.stderr
    assert f"(key s4://b/key, server {client.topology.place_basename('key')})" in failed.stderr.decode()
    assert (tmp_path / "copy").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["copy"]


def test_what_an_interrupted_copy_left_behind_is_replaced(s4raw, client, tmp_path):
    client.put("s4://b/key", b"content")
    Path(part_name(str(tmp_path / "copy"))).write_bytes(b"left over, and longer than the key")
    s4raw("cp", "s4://b/key", "copy")
    assert (tmp_path / "copy").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["copy"]


def test_two_copies_to_one_path_do_not_mix(s4raw, client, tmp_path):
    client.put("s4://b/key", b"content")
    with open(part_name(str(tmp_path / "copy")), "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert b"another copy" in s4raw("cp", "s4://b/key", "copy", code=1).stderr
    assert not (tmp_path / "copy").exists()


def test_a_key_that_ends_in_part_is_not_taken_for_a_left_over(s4raw, client, tmp_path):
    client.put("s4://b/key", b"whole")
    client.put("s4://b/key.part", b"a key of its own")
    s4raw("cp", "s4://b/key.part", ".")
    s4raw("cp", "s4://b/key", ".")
    assert (tmp_path / "key").read_bytes() == b"whole"
    assert (tmp_path / "key.part").read_bytes() == b"a key of its own"
