"""``cp -r``: trees in both directions, over all servers."""

import os
import socket
import subprocess

import pytest
from conftest import CLI, cli_runner

from s4raw.files import PART, part_name
from s4raw.keys import Key

FOO = {"1.txt": b"123\n", "2.txt": b"234\n", "3/4.txt": b"456\n"}


def make(top, files):
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)


def tree(top):
    """The files below a directory, by their relative path."""
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def ring_tree(client, prefix="s4://b"):
    return {e.name: client.get(Key(prefix[5:], e.name)) for e in client.list(prefix, recursive=True)}


def below(directory, files=None):
    return {f"{directory}/{name}": content for name, content in (files or FOO).items()}


# Naming


@pytest.mark.parametrize("target", ["s4://b/x", "s4://b/x/", "s4://b//x//"])
@pytest.mark.parametrize("source", ["foo", "foo/", "./foo", "foo/."])
def test_an_upload_takes_the_paths_below_the_directory(s4raw, client, tmp_path, source, target):
    make(tmp_path / "foo", FOO)
    s4raw("cp", "-r", source, target)
    assert ring_tree(client) == below("x")


@pytest.mark.parametrize("target", ["s4://b", "s4://b/"])
def test_an_upload_to_a_bucket(s4raw, client, tmp_path, target):
    make(tmp_path, FOO)
    s4raw("cp", "-r", ".", target)
    assert ring_tree(client) == FOO


@pytest.mark.parametrize(
    ("source", "target", "directory"),
    [
        ("s4://b/up/dir/", ".", "dir"),
        ("s4://b/up/dir", ".", "dir"),
        ("s4://b//up//dir//", ".", "dir"),
        ("s4://b/up/dir/", "out/", "out"),
        ("s4://b/up/dir", "out", "out"),
        ("s4://b/up/dir/", "new/deep/out", "new/deep/out"),
        ("s4://b/up/", ".", "up/dir"),
        ("s4://b/up/", "out", "out/dir"),
        ("s4://b", ".", "up/dir"),
        ("s4://b/", "out", "out/up/dir"),
        ("s4://b/up/dir/", "existing", "existing"),
    ],
)
def test_a_download_makes_the_directory_that_its_arguments_name(s4raw, client, tmp_path, source, target, directory):
    (tmp_path / "existing").mkdir()
    for name, content in below("up/dir").items():
        client.put(f"s4://b/{name}", content)
    client.put("s4://b/up/dir2", b"begins with the same letters")
    client.remove("s4://b/up/dir2")
    s4raw("cp", "-r", source, target)
    assert tree(tmp_path) == below(directory)


def test_a_download_takes_no_key_that_only_begins_like_the_directory(s4raw, client, tmp_path):
    client.put("s4://b/dir/1", b"1")
    client.put("s4://b/dir2/2", b"2")
    client.put("s4://b/dir", b"3")
    s4raw("cp", "-r", "s4://b/dir", "out")
    assert tree(tmp_path) == {"out/1": b"1"}


def test_a_file_goes_as_without_r(s4raw, client, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    s4raw("cp", "-r", "file", "s4://b/dir/")
    s4raw("cp", "-r", "file", "s4://b/key")
    assert ring_tree(client) == {"dir/file": b"x", "key": b"x"}


def test_a_directory_without_files_is_nothing(s4raw, client, tmp_path):
    (tmp_path / "foo/bar").mkdir(parents=True)
    s4raw("cp", "-r", "foo", "s4://b/x")
    assert ring_tree(client) == {}


# Content


def test_a_large_tree_goes_to_all_servers_and_comes_back(s4raw, client, tmp_path):
    sizes = [0, 1, 4096, 256 << 10, (256 << 10) + 1, 3 << 20]
    files = {f"{i % 7}/{i:05}_x": os.urandom(sizes[i % 6] if i < 12 else i) for i in range(300)}
    make(tmp_path / "in", files)
    s4raw("cp", "-r", "in", "s4://b/tree")
    assert ring_tree(client) == below("tree", files)
    assert len({client.stat(f"s4://b/tree/{name}").server for name in files}) == 3
    s4raw("cp", "-r", "s4://b/tree/", "out/")
    assert tree(tmp_path / "out") == files


def test_symlinks_are_followed(s4raw, client, tmp_path):
    make(tmp_path / "elsewhere", {"file": b"1", "deep/file": b"2"})
    (tmp_path / "foo").mkdir()
    (tmp_path / "foo/file").symlink_to(tmp_path / "elsewhere/file")
    (tmp_path / "foo/dir").symlink_to(tmp_path / "elsewhere/deep")
    s4raw("cp", "-r", "foo", "s4://b/x")
    assert ring_tree(client) == {"x/file": b"1", "x/dir/file": b"2"}


def test_a_symlink_to_a_neighbour_hides_nothing(s4raw, client, tmp_path):
    make(tmp_path / "foo", {"real/file": b"1"})
    (tmp_path / "foo/link").symlink_to("real")
    s4raw("cp", "-r", "foo", "s4://b/x")
    assert ring_tree(client) == {"x/link/file": b"1", "x/real/file": b"1"}


def test_a_symlink_to_a_parent_ends(s4raw, client, tmp_path):
    make(tmp_path / "foo", {"file": b"1"})
    (tmp_path / "foo/loop").symlink_to("..")
    s4raw("cp", "-r", "foo/", "s4://b/x")
    assert "x/file" in ring_tree(client)


# Refusals


@pytest.mark.parametrize(
    ("source", "target"),
    [("s4://b/x", "s4://b/y"), ("foo", "bar"), ("-", "s4://b/x"), ("s4://b/x", "-"), ("foo", "s4://_b/x"), ("foo", "s4://")],
)  # fmt: skip
def test_what_cannot_be_meant_is_wrong_usage(s4raw, client, tmp_path, source, target):
    make(tmp_path / "foo", FOO)
    s4raw("cp", "-r", source, target, code=2)
    assert ring_tree(client) == {}
    assert tree(tmp_path) == below("foo")


@pytest.mark.parametrize("name", ["white space", "line\n", os.fsdecode(b"latin\xe9")])
def test_a_name_that_cannot_be_a_key_is_found_before_anything_is_copied(s4raw, client, tmp_path, name):
    make(tmp_path / "foo", {"a": b"1", f"dir/{name}": b"2", "z": b"3"})
    failed = s4raw("cp", "-r", "foo", "s4://b/x", code=2)
    assert b"foo/dir/" in failed.stderr
    assert ring_tree(client) == {}


@pytest.mark.parametrize("kind", ["fifo", "socket", "dangling"])
def test_what_is_no_file_is_named_and_nothing_is_copied(s4raw, client, tmp_path, kind):
    make(tmp_path / "foo", FOO)
    path = tmp_path / "foo" / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    else:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(path))
    assert f"foo/{kind}" in s4raw("cp", "-r", "foo", "s4://b/x", code=1).stderr.decode()
    assert ring_tree(client) == {}


@pytest.mark.parametrize("verb", [["cp", "-r"], ["sync"]])
def test_what_is_left_out_cannot_fail_the_rest(s4raw, client, tmp_path, verb):
    make(tmp_path / "foo", FOO)
    (tmp_path / "foo/run").mkdir()
    (tmp_path / "foo/run/dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "foo/run/fifo")
    s4raw(*verb, "--exclude", "run/*", "foo", "s4://b/x")
    assert ring_tree(client) == below("x")
    s4raw("cp", "foo/*.txt", "s4://b/y")
    assert ring_tree(client) == below("x") | below("y")
    assert b"missing" in s4raw(*verb, "--exclude", "*", "missing", "s4://b/x", code=1).stderr


@pytest.mark.parametrize("verb", [["cp", "-r"], ["sync"], ["mv", "-r"]])
def test_the_beginning_of_a_download_does_not_go_up(s4raw, client, tmp_path, verb):
    make(tmp_path / "foo", FOO | {part_name("3/4.txt"): b"4"})
    s4raw(*verb, "foo", "s4://b/x")
    assert ring_tree(client) == below("x")
    assert (tmp_path / "foo" / part_name("3/4.txt")).read_bytes() == b"4"


def test_a_directory_that_is_not_there(s4raw, client, tmp_path):
    assert b"missing" in s4raw("cp", "-r", "missing", "s4://b/x", code=1).stderr
    assert b"s4://b/missing/" in s4raw("cp", "-r", "s4://b/missing", ".", code=1).stderr
    assert tree(tmp_path) == {}


def test_an_existing_key_is_kept_and_named(s4raw, client, tmp_path):
    make(tmp_path / "foo", FOO)
    client.put("s4://b/x/3/4.txt", b"old")
    failed = s4raw("cp", "-r", "foo", "s4://b/x", code=1).stderr.decode()
    assert "key already exists" in failed
    assert f"(key s4://b/x/3/4.txt, server {client.topology.place_basename('4.txt')})" in failed
    assert client.get("s4://b/x/3/4.txt") == b"old"


@pytest.mark.parametrize("name", ["dir/a//b", "dir/trail/", "dir//lead", "dir/../../up", "dir/./here", "dir/.."])
def test_keys_that_cannot_be_local_paths_are_refused_before_anything_is_copied(s4raw, client, tmp_path, name):
    client.put(Key("b", "dir/1"), b"1")
    client.put(Key("b", name), b"2")
    failed = s4raw("cp", "-r", "s4://b/dir/", "out/", code=2).stderr.decode()
    assert f"key s4://b/{name}" in failed
    assert tree(tmp_path) == {}


def test_a_key_that_is_also_a_directory_cannot_be_a_file(s4raw, client, tmp_path):
    client.put("s4://b/dir/a", b"1")
    client.put("s4://b/dir/a/b", b"2")
    failed = s4raw("cp", "-r", "s4://b/dir/", "out/", code=1)
    assert b"out/a" in failed.stderr
    assert not list(tmp_path.rglob("*.part"))


def test_keys_that_end_in_part_come_out_whole(s4raw, client, tmp_path):
    names = [f"{number:05}{end}" for number in range(20) for end in ("", ".part")]
    for name in names:
        client.put(f"s4://b/dir/{name}", name.encode())
    s4raw("cp", "-r", "s4://b/dir/", "out/")
    assert tree(tmp_path / "out") == {name: name.encode() for name in names}


def test_a_key_that_is_named_like_an_unfinished_copy_is_refused(ring, client, tmp_path):
    name = part_name("key")
    client.put(Key("b", f"dir/{name}"), b"")
    command = [*CLI, "cp", "-r", "-c", ring.conf, "s4://b/dir/", "out/"]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, timeout=100, check=False)
    assert done.returncode == 2
    assert PART.encode() in done.stderr


def test_a_missing_server_ends_a_tree_with_its_name(new_ring, tmp_path):
    ring = new_ring(2)
    make(tmp_path / "foo", {f"{number}": b"x" for number in range(10)})
    dead = ring.processes.pop(1)
    dead.kill()
    dead.wait()
    run = cli_runner(ring, tmp_path)
    for arguments in (("foo", "s4://b/x"), ("s4://b/x", "out")):
        assert ring.servers[1].encode() in run("cp", "-r", *arguments, code=1).stderr
    assert not (tmp_path / "out").exists()


# Globs and filters

LEAVES = {"a_1": b"a", "b_2": b"b", "deep/c_1": b"c", "deep/er/d_2": b"d"}
CHOICES = [
    (["{}/*_1"], ["a_1", "deep/c_1"]),
    (["-r", "{}/*/*_?"], ["deep/c_1", "deep/er/d_2"]),
    (["-r", "{}", "--include", "*_1"], ["a_1", "deep/c_1"]),
    (["-r", "{}/", "--exclude", "deep/er/*", "--include", "deep/*", "--include", "a_1"], ["a_1", "deep/c_1"]),
    (["{}/*", "--exclude", "*c_1"], ["a_1", "b_2", "deep/er/d_2"]),
]


def chosen(names):
    return {name: LEAVES[name] for name in names}


@pytest.mark.parametrize(("arguments", "expected"), CHOICES)
def test_globs_and_filters_choose_what_goes_up(s4raw, client, tmp_path, arguments, expected):
    make(tmp_path / "in", LEAVES)
    s4raw("cp", *(word.format("in") for word in arguments), "s4://b/x")
    assert ring_tree(client) == below("x", chosen(expected))


@pytest.mark.parametrize(("arguments", "expected"), CHOICES)
@pytest.mark.parametrize("target", ["out", "."])
def test_globs_and_filters_choose_what_comes_down(s4raw, client, tmp_path, arguments, expected, target):
    for name, content in LEAVES.items():
        client.put(f"s4://b/in/{name}", content)
    s4raw("cp", *(word.format("s4://b/in") for word in arguments), target)
    directory = "in" if target == "." and not any("*" in word for word in arguments[:2]) else target
    assert tree(tmp_path / directory) == chosen(expected)


def test_what_is_named_like_a_glob_is_meant_before_what_matches(s4raw, client, tmp_path):
    make(tmp_path, {"a*": b"1", "ab": b"2"})
    s4raw("cp", "a*", "s4://b/x/")
    assert ring_tree(client) == {"x/a*": b"1"}
    client.put("s4://b/x/ab", b"2")
    s4raw("cp", "s4://b/x/a*", "one")
    assert (tmp_path / "one").read_bytes() == b"1"
    s4raw("cp", "s4://b/x/a?", "many")
    assert tree(tmp_path / "many") == {"a*": b"1", "ab": b"2"}


def test_a_glob_that_nothing_matches_is_an_error(s4raw, client, tmp_path):
    make(tmp_path / "in", LEAVES)
    assert b"no file matches in/*_3" in s4raw("cp", "in/*_3", "s4://b/x", code=1).stderr
    assert b"no keys below s4://b/in/*_3" in s4raw("cp", "s4://b/in/*_3", "out", code=1).stderr
    assert ring_tree(client) == {}
