"""``mv``: the source is gone when the target is whole, and not before."""

import json
import os

import pytest

from s4raw.keys import Key

FOO = {"00000_a": b"1", "00001_b": b"22", "deep/name": b"333"}


def make(top, files):
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)


def put(client, files, directory="in"):
    for name, content in files.items():
        client.put(f"s4://b/{directory}/{name}", content)


def tree(top):
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def ring_tree(client):
    return {entry.name: client.get(Key("b", entry.name)) for entry in client.list("s4://b", recursive=True)}


def below(directory, files):
    return {f"{directory}/{name}": content for name, content in files.items()}


# From key to key


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("s4://b/out/00001_b", "out/00001_b"),
        ("s4://b/out/00004_x", "out/00004_x"),
        ("s4://b/out/00002", "out/00002"),
        ("s4://b/out/", "out/00001_k"),
        ("s4://b", "00001_k"),
        ("s4://b/in/00001_k/00001_k", "in/00001_k/00001_k"),
    ],
)
@pytest.mark.parametrize("size", [0, 10, 3_000_001])
def test_a_key_moves_to_its_new_place(s4raw, client, target, name, size):
    content = os.urandom(size)
    client.put("s4://b/in/00001_k", content)
    s4raw("mv", "s4://b/in/00001_k", target)
    assert ring_tree(client) == {name: content}


def test_on_one_server_it_is_a_rename(s4raw, client):
    client.put("s4://b/in/00001_k", b"content")
    before = client.stat("s4://b/in/00001_k")
    inode = os.stat(before.path).st_ino
    s4raw("mv", "s4://b/in/00001_k", "s4://b/out/00004")
    after = client.stat("s4://b/out/00004")
    assert os.stat(after.path).st_ino == inode
    assert after[:4] == before[:4]


@pytest.mark.parametrize("target", ["00001_x", "00002_x"])
def test_a_key_that_exists_is_not_replaced(s4raw, client, target):
    put(client, {"00001_k": b"1", target: b"2"})
    failed = s4raw("mv", "s4://b/in/00001_k", f"s4://b/in/{target}", code=1)
    assert b"key already exists" in failed.stderr
    assert ring_tree(client) == {"in/00001_k": b"1", f"in/{target}": b"2"}


@pytest.mark.parametrize("target", ["00001_x", "00002_x"])
def test_a_missing_key_is_named(s4raw, client, target):
    failed = s4raw("mv", "s4://b/in/00001_k", f"s4://b/out/{target}", code=1).stderr
    assert b"no such key" in failed
    assert b"s4://b/in/00001_k" in failed
    assert ring_tree(client) == {}


def test_a_damaged_key_is_not_copied_and_not_deleted(s4raw, client):
    client.put("s4://b/in/00001_k", b"content")
    path = client.stat("s4://b/in/00001_k").path
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.write(b"X")
    assert b"digest mismatch" in s4raw("mv", "s4://b/in/00001_k", "s4://b/in/00002_k", code=1).stderr
    assert [entry.name for entry in client.list("s4://b", recursive=True)] == ["in/00001_k"]


@pytest.mark.parametrize(
    ("arguments", "moved", "left"),
    [
        (["-r", "s4://b/in", "s4://b/out"], below("out", FOO), {}),
        (["-r", "s4://b/in/", "s4://b/in/deep"], below("in/deep", FOO), {}),
        (["s4://b/in/0*", "s4://b/out"], {"out/00000_a": b"1", "out/00001_b": b"22"}, {"in/deep/name": b"333"}),
        (["-r", "--exclude", "0*", "s4://b/in", "s4://b"], {"deep/name": b"333"}, below("in", FOO)),
    ],
)
def test_trees_and_globs_move(s4raw, client, arguments, moved, left):
    put(client, FOO)
    s4raw("mv", *arguments)
    left = {name: content for name, content in left.items() if name.rpartition("in/")[2] not in moved}
    assert ring_tree(client) == moved | left


# From files to keys, and back


def test_a_file_becomes_a_key_and_a_key_a_file(s4raw, client, tmp_path):
    make(tmp_path, {"file": b"content"})
    s4raw("mv", "file", "s4://b/dir/")
    assert (tree(tmp_path), ring_tree(client)) == ({}, {"dir/file": b"content"})
    s4raw("mv", "s4://b/dir/file", "other")
    assert (tree(tmp_path), ring_tree(client)) == ({"other": b"content"}, {})


def test_trees_go_both_ways(s4raw, client, tmp_path):
    make(tmp_path / "foo", FOO)
    s4raw("mv", "-r", "foo", "s4://b/x")
    assert (tree(tmp_path), ring_tree(client)) == ({}, below("x", FOO))
    s4raw("mv", "-r", "--include", "*_?", "s4://b/x/", "bar")
    assert tree(tmp_path / "bar") == {"00000_a": b"1", "00001_b": b"22"}
    assert ring_tree(client) == {"x/deep/name": b"333"}


@pytest.mark.parametrize("source", [["-r", "foo"], ["foo/*"]])
def test_nothing_is_deleted_through_a_symlink_to_a_directory(s4raw, client, tmp_path, source):
    make(tmp_path, {"elsewhere/precious": b"1", "foo/a": b"2", "one": b"3"})
    (tmp_path / "foo/link").symlink_to("../elsewhere")
    (tmp_path / "foo/file").symlink_to("../one")
    assert b"foo/link/precious" in s4raw("mv", *source, "s4://b/x", code=1).stderr
    assert (tree(tmp_path)["foo/a"], ring_tree(client)) == (b"2", {})
    s4raw("mv", "--exclude", "link/*", *source, "s4://b/x")
    assert ring_tree(client) == {"x/a": b"2", "x/file": b"3"}
    assert tree(tmp_path) == {"elsewhere/precious": b"1", "one": b"3"}


def test_a_file_moves_with_r_as_without(s4raw, client, tmp_path):
    make(tmp_path, {"file": b"1"})
    s4raw("mv", "-r", "file", "s4://b/dir/")
    assert (tree(tmp_path), ring_tree(client)) == ({}, {"dir/file": b"1"})


def test_what_could_not_go_up_stays(s4raw, client, tmp_path):
    make(tmp_path / "foo", FOO)
    client.put("s4://b/x/00001_b", b"old")
    assert b"key already exists" in s4raw("mv", "foo/00001_b", "s4://b/x/", code=1).stderr
    s4raw("mv", "-r", "foo", "s4://b/x", code=1)
    everywhere = {name: content for name, content in ring_tree(client).items() if name != "x/00001_b"}
    assert tree(tmp_path / "foo") | {name[2:]: content for name, content in everywhere.items()} == FOO
    assert (tmp_path / "foo/00001_b").read_bytes() == b"22"


def test_what_could_not_come_down_stays(s4raw, client, tmp_path):
    put(client, FOO)
    (tmp_path / "out/00001_b").mkdir(parents=True)
    s4raw("mv", "-r", "s4://b/in", "out", code=1)
    assert tree(tmp_path / "out") | {name[3:]: content for name, content in ring_tree(client).items()} == FOO
    assert client.get("s4://b/in/00001_b") == b"22"


def test_mv_has_json(s4raw, client, tmp_path):
    make(tmp_path, {"file": b"content"})
    for source, target in (("file", "s4://b/1"), ("s4://b/1", "s4://b/2"), ("s4://b/2", "back")):
        done = json.loads(s4raw("mv", "--json", source, target).stdout)
        assert done == {"verb": "mv", "source": source, "target": target}
