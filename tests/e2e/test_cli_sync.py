"""``sync``: what differs is copied, and nothing else; nothing is deleted that could not be made again."""

import json
import os
from pathlib import Path

import pytest

from s4raw.keys import Key

SAME, LARGE = b"same", bytes(2_000_000)
HERE = {"changed": b"new", "grown": b"longer", "new/1": b"1", "same": SAME, "large": LARGE}
THERE = {"changed": b"old", "grown": b"long", "gone/2": b"2", "same": SAME, "large": LARGE}


def make(top, files):
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)


def put(client, files, directory="x"):
    for name, content in files.items():
        client.put(f"s4://b/{directory}/{name}", content)


def tree(top):
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def ring_tree(client, directory="x"):
    entries = client.list(f"s4://b/{directory}/", recursive=True)
    return {entry.name[len(directory) + 1 :]: client.get(Key("b", entry.name)) for entry in entries}


def lines(done):
    return sorted(done.stdout.decode().splitlines())


UPLOADS = [f"upload: foo/{name} to s4://b/x/{name}" for name in ("changed", "grown", "new/1")]
DOWNLOADS = [f"download: s4://b/x/{name} to foo/{name}" for name in ("changed", "gone/2", "grown")]


@pytest.fixture
def both(client, tmp_path):
    """A directory and a prefix that differ."""
    make(tmp_path / "foo", HERE)
    put(client, THERE)
    put(client, {"2": b"not below x/"}, "x2")
    return tmp_path / "foo"


# Up


def test_keys_become_like_files(s4raw, client, both):
    kept = os.stat(client.stat("s4://b/x/same").path).st_ino
    assert lines(s4raw("sync", "foo", "s4://b/x")) == UPLOADS
    assert ring_tree(client) == HERE | {"gone/2": b"2"}
    assert os.stat(client.stat("s4://b/x/same").path).st_ino == kept
    assert tree(both) == HERE
    assert lines(s4raw("sync", "foo/", "s4://b/x/")) == []


def test_with_delete_keys_that_are_no_files_go(s4raw, client, both):
    assert lines(s4raw("sync", "--delete", "foo", "s4://b/x")) == ["delete: s4://b/x/gone/2", *UPLOADS]
    assert ring_tree(client) == HERE
    assert ring_tree(client, "x2") == {"2": b"not below x/"}


@pytest.mark.parametrize("direction", [["foo", "s4://b/x"], ["s4://b/x", "foo"]])
def test_a_dry_run_says_it_and_does_nothing(s4raw, client, both, direction):
    said = lines(s4raw("sync", "--dry-run", "--delete", *direction))
    assert all(line.startswith("(dryrun) ") for line in said)
    assert (ring_tree(client), tree(both)) == (THERE, HERE)
    assert lines(s4raw("sync", "--delete", *direction)) == [line.removeprefix("(dryrun) ") for line in said]
    assert ring_tree(client) == tree(both)


def test_filters_leave_the_rest_alone(s4raw, client, both):
    s4raw("sync", "-q", "--delete", "--exclude", "gone/*", "--include", "*n*", "foo", "s4://b/x")
    assert ring_tree(client) == THERE | {name: HERE[name] for name in ("changed", "grown", "new/1")}
    s4raw("sync", "-q", "--delete", "--include", "gone/*", "foo", "s4://b/x")
    assert "gone/2" not in ring_tree(client)


def test_a_changed_file_that_cannot_be_read_costs_no_key(s4raw, client, both):
    (both / "grown").unlink()
    (both / "grown").symlink_to("/sys/kernel/uevent_seqnum")  # says that it has 4096 bytes, gives less
    failed = s4raw("sync", "--delete", "foo", "s4://b/x", code=1)
    assert b"grown" in failed.stderr
    assert {"changed", "grown", "gone/2", "same"} <= set(ring_tree(client))
    assert client.get("s4://b/x/grown") == b"long"


def test_a_name_that_is_no_key_is_refused_before_anything_is_done(s4raw, client, both):
    (both / "white space").touch()
    assert b"white space" in s4raw("sync", "--delete", "foo", "s4://b/x", code=2).stderr
    assert ring_tree(client) == THERE


def test_an_empty_directory_empties_the_prefix_only_with_delete(s4raw, client, tmp_path):
    put(client, {"1": b"1"})
    (tmp_path / "foo").mkdir()
    s4raw("sync", "foo", "s4://b/x")
    assert ring_tree(client) == {"1": b"1"}
    s4raw("sync", "--delete", "foo", "s4://b/x")
    assert ring_tree(client) == {}


# Down


def test_files_become_like_keys(s4raw, client, both):
    kept = (both / "same").stat().st_ino
    assert lines(s4raw("sync", "s4://b/x", "foo")) == DOWNLOADS
    assert tree(both) == THERE | {"new/1": b"1"}
    assert (both / "same").stat().st_ino == kept
    assert ring_tree(client) == THERE
    assert lines(s4raw("sync", "s4://b/x/", "foo/")) == []


def test_with_delete_files_that_are_no_keys_go(s4raw, client, both):
    (both / "half .part").touch()
    assert lines(s4raw("sync", "--delete", "s4://b/x", "foo")) == ["delete: foo/new/1", *DOWNLOADS]
    assert tree(both) == THERE | {"half .part": b""}


def test_nothing_is_deleted_behind_a_symlink(s4raw, client, both, tmp_path):
    make(tmp_path / "elsewhere", {"precious": b"1"})
    (both / "link").symlink_to(tmp_path / "elsewhere")
    (both / "file").symlink_to(tmp_path / "elsewhere/precious")
    s4raw("sync", "--delete", "s4://b/x", "foo")
    assert tree(tmp_path / "elsewhere") == {"precious": b"1"}
    assert not (both / "file").is_symlink()


def test_a_directory_in_the_way_of_a_file_is_told_and_stays(s4raw, client, tmp_path):
    put(client, {"name": b"1"})
    make(tmp_path / "foo", {"name/file": b"2", "other": b"3"})
    assert b"foo/name" in s4raw("sync", "--delete", "s4://b/x", "foo", code=1).stderr
    assert tree(tmp_path / "foo") == {"name/file": b"2", "other": b"3"}


def test_a_directory_that_is_not_there_is_made(s4raw, client, tmp_path):
    put(client, THERE)
    s4raw("sync", "s4://b/x", "a/b")
    assert tree(tmp_path / "a/b") == THERE


@pytest.mark.parametrize("arguments", [["s4://b/none", "foo"], ["s4://b/x", "foo", "--include", "none"]])
def test_a_prefix_without_keys_deletes_nothing(s4raw, client, both, arguments):
    assert b"no keys below" in s4raw("sync", "--delete", *arguments, code=1).stderr
    assert tree(both) == HERE


def test_a_source_that_is_no_directory_is_an_error(s4raw, client, both):
    for source in ("none", "foo/same"):
        assert f"{source} is no directory" in s4raw("sync", "--delete", source, "s4://b/x", code=1).stderr.decode()
    assert ring_tree(client) == THERE


def test_every_step_has_its_line_of_json(s4raw, client, both):
    found = [json.loads(line) for line in lines(s4raw("sync", "--json", "--delete", "foo", "s4://b/x"))]
    assert {"verb": "sync", "action": "delete", "target": "s4://b/x/gone/2", "bytes": 0, "dryrun": False} in found
    upload = {"verb": "sync", "action": "upload", "source": "foo/new/1", "target": "s4://b/x/new/1", "bytes": 1}
    assert upload | {"dryrun": False} in found
    assert len(found) == 4


def test_what_is_damaged_on_a_server_is_told(s4raw, client, both):
    path = Path(client.stat("s4://b/x/changed").path)
    path.chmod(0o644)
    path.write_bytes(b"OLD")
    assert b"s4://b/x/changed" in s4raw("sync", "s4://b/x", "foo", code=1).stderr
    assert (both / "changed").read_bytes() == b"new"
