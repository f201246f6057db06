"""What ``cp`` copies where."""

import os
from pathlib import Path

import pytest

from s4raw.copying import download_path, is_remote, plan_download, plan_upload, upload_key
from s4raw.errors import BadKey, LocalFileError, NoSuchKey, UsageError
from s4raw.keys import Key


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_files(top: Path, *names: str) -> None:
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def uploads(source: str, target: str) -> dict[str, str]:
    """The planned keys and the paths they come from; the size must be the file's."""
    planned = {}
    for item, size in plan_upload(source, target):
        assert os.path.getsize(item.file) == size
        planned[str(item.key)] = str(item.file)
    return planned


def test_a_path_is_remote_by_its_scheme():
    assert is_remote("s4://b/k")
    assert not any(map(is_remote, ["b/k", "/s4://b/k", "s4:/b/k", "-", ""]))


@pytest.mark.parametrize(
    ("source", "target", "key"),
    [
        ("f", "s4://b/k", Key("b", "k")),
        ("dir/f", "s4://b/k/l", Key("b", "k/l")),
        ("dir/f", "s4://b/k/", Key("b", "k/f")),
        ("dir/f", "s4://b/", Key("b", "f")),
        ("dir/f", "s4://b", Key("b", "f")),
        ("-", "s4://b/k", Key("b", "k")),
    ],
)
def test_an_upload_takes_the_files_name_where_the_target_is_a_directory(source, target, key):
    assert upload_key(source, target) == key


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        *(("-", "s4://b/", UsageError), ("-", "s4://b", UsageError), ("dir/", "s4://b/", UsageError)),
        *(("f", "s4://", BadKey), ("f", "s4://_b/k", BadKey), ("f", "s4://b/../k", BadKey), ("a b", "s4://b/", BadKey)),
    ],
)
def test_an_upload_without_a_good_key_is_refused(source, target, error):
    with pytest.raises(error):
        upload_key(source, target)


@pytest.mark.parametrize(
    ("target", "path"),
    [(".", "k"), ("./", "./k"), ("out", "out"), ("new/", "new/k"), ("new/deep/f", "new/deep/f"), ("there", "there/k")],
)
def test_a_download_takes_the_keys_name_where_the_target_is_a_directory(here, target, path):
    (here / "there").mkdir()
    assert download_path(Key("b", "dir/k"), target) == path


# Trees up


@pytest.mark.parametrize(("source", "target"), [("foo", "s4://b/x"), ("foo/", "s4://b/x/"), ("./foo", "s4://b/x/")])
def test_a_tree_goes_below_the_target_without_its_own_name(here, source, target):
    make_files(here / "foo", "a", "dir/b", "dir/deep/c")
    assert {key: os.path.normpath(path) for key, path in uploads(source, target).items()} == {
        "s4://b/x/a": "foo/a",
        "s4://b/x/dir/b": "foo/dir/b",
        "s4://b/x/dir/deep/c": "foo/dir/deep/c",
    }


def test_a_tree_can_fill_a_bucket_and_an_empty_one_is_fine(here):
    make_files(here / "foo", "a")
    (here / "empty" / "dir").mkdir(parents=True)
    assert list(uploads("foo", "s4://b")) == ["s4://b/a"]
    assert uploads("empty", "s4://b") == {}


def test_symlinks_are_followed_and_loops_end(here):
    make_files(here, "real/a", "file")
    (here / "foo").mkdir()
    (here / "foo" / "one").symlink_to(here / "real")
    (here / "foo" / "file").symlink_to(here / "file")
    (here / "foo" / "loop").symlink_to(here / "foo")
    assert set(uploads("foo", "s4://b")) >= {"s4://b/one/a", "s4://b/file"}


def test_a_directory_that_is_linked_twice_is_copied_twice(here):
    make_files(here, "foo/real/a")
    (here / "foo" / "link").symlink_to("real")
    assert set(uploads("foo", "s4://b")) == {"s4://b/link/a", "s4://b/real/a"}


def test_a_name_that_cannot_be_a_key_is_named(here):
    for name in (b"a b", b"a\n", b"\xff"):
        directory = os.path.join(os.fsencode(here), b"foo")
        os.makedirs(directory, exist_ok=True)
        os.close(os.open(os.path.join(directory, name), os.O_CREAT))
        with pytest.raises(BadKey, match=r"(?s)foo/.* cannot be stored"):
            uploads("foo", "s4://b")
        os.unlink(os.path.join(directory, name))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/no/such/file", path)])
def test_what_cannot_be_read_is_named(here, make):
    make_files(here, "foo/a")
    make(here / "foo" / "thing")
    with pytest.raises(LocalFileError, match="foo/thing"):
        uploads("foo", "s4://b")
    with pytest.raises(LocalFileError, match="missing"):
        uploads("missing", "s4://b")


# Trees down


@pytest.mark.parametrize(
    ("source", "target", "paths"),
    [
        ("s4://b/dir/", ".", ["./dir/a", "./dir/deep/c"]),
        ("s4://b/dir", ".", ["./dir/a", "./dir/deep/c"]),
        ("s4://b/dir/", "out/", ["out/a", "out/deep/c"]),
        ("s4://b/dir", "out", ["out/a", "out/deep/c"]),
        ("s4://b/dir/deep", ".", ["./deep/c"]),
        ("s4://b/dir/deep/", "out", ["out/c"]),
        ("s4://b", "out", ["out/dir/a", "out/dir/deep/c", "out/directory"]),
    ],
)
def test_a_tree_comes_down_below_the_target(client, source, target, paths):
    for name in ("dir/a", "dir/deep/c", "directory"):
        client.put(f"s4://b/{name}", name.encode())
    planned = list(plan_download(client, source, target))
    assert sorted(str(item.file) for item, _ in planned) == paths
    for item, size in planned:
        assert client.get(item.key) == item.key.name.encode()
        assert size == len(item.key.name)


def test_a_tree_without_keys_is_told(client):
    client.put("s4://b/directory", b"")
    for source in ("s4://b/dir", "s4://b/dir/", "s4://c"):
        with pytest.raises(NoSuchKey, match="no keys below"):
            list(plan_download(client, source, "."))


@pytest.mark.parametrize("name", ["d/../../etc/x", "d/..", "d//x", "d/x/", "d/./x"])
def test_a_key_that_would_lead_elsewhere_has_no_local_path(client, name):
    client.put(Key("b", name), b"")
    with pytest.raises(BadKey, match="no local path") as caught:
        list(plan_download(client, "s4://b/d", "out"))
    assert caught.value.key == f"s4://b/{name}"
