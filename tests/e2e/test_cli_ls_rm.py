"""``ls`` and ``rm``: which keys, in which order, in which words."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

LISTING = ["other-listing/key0.txt", "listing/dir1/key1.txt", "listing/dir1/dir2/key2.txt"]
NAME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ \d+ (.+)")


def put(client, names, bucket="b"):
    for name in names:
        client.put(f"s4://{bucket}/{name}", b"content")


def names(listing):
    """The names in the lines of a listing; a directory's with its ``  PRE ``."""
    lines = listing.stdout.decode().splitlines()
    return [line if line.startswith("  PRE ") else NAME.fullmatch(line)[1] for line in lines]


def left(client):
    return [entry.name for entry in client.list("s4://b", recursive=True)]


# ls


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["s4://b/listing/dir1/ke"], ["key1.txt"]),
        (["s4://b/listing/dir1/"], ["  PRE dir2/", "key1.txt"]),
        (["s4://b/listing/dir1"], ["  PRE dir1/"]),
        (["s4://b/listing/d"], ["  PRE dir1/"]),
        (["s4://b/listing/"], ["  PRE dir1/"]),
        (["s4://b//listing//"], ["  PRE dir1/"]),
        (["s4://b/listing"], ["  PRE listing/"]),
        (["s4://b/"], ["  PRE listing/", "  PRE other-listing/"]),
        (["s4://b/o"], ["  PRE other-listing/"]),
        (["s4://b/listing/dir1/key1.txt"], ["key1.txt"]),
        (["-r", "s4://b/listing/dir1/key1.txt"], ["listing/dir1/key1.txt"]),
        (["-r", "s4://b"], ["listing/dir1/dir2/key2.txt", "listing/dir1/key1.txt", "other-listing/key0.txt"]),
        (["-r", "s4://b/"], ["listing/dir1/dir2/key2.txt", "listing/dir1/key1.txt", "other-listing/key0.txt"]),
        (["-r", "s4://b/listing"], ["listing/dir1/dir2/key2.txt", "listing/dir1/key1.txt"]),
        (["s4://b/listing/d", "-r"], ["listing/dir1/dir2/key2.txt", "listing/dir1/key1.txt"]),
        (["--recursive", "s4://b/listing/dir1/k"], ["listing/dir1/key1.txt"]),
    ],
)
def test_a_prefix_says_what_is_listed(s4raw, client, arguments, expected):
    put(client, LISTING)
    assert names(s4raw("ls", *arguments)) == expected


@pytest.mark.parametrize("prefix", ["s4://b/fake/", "s4://b/fake", "s4://fake", "s4://fake/", "s4://b/o/key0.txt/"])
@pytest.mark.parametrize("recursive", [[], ["-r"]])
def test_nothing_found_is_exit_code_1_without_a_word(s4raw, client, prefix, recursive):
    put(client, LISTING)
    done = s4raw("ls", *recursive, prefix, code=1)
    assert done.stdout + done.stderr == b""


def test_an_empty_ring_has_no_buckets(s4raw, client):
    assert s4raw("ls", code=1).stdout == b""
    put(client, ["key"])
    client.remove("s4://b/key")
    assert s4raw("ls", code=1).stdout == b""


def test_without_a_prefix_the_buckets_are_listed_once_each(s4raw, client):
    for bucket in ("b", "a", "bucket"):
        put(client, ["00000", "00001", "00002"], bucket)
    assert names(s4raw("ls")) == ["a", "b", "bucket"]
    assert names(s4raw("ls", "s4://")) == ["a", "b", "bucket"]
    assert names(s4raw("ls", "s4://b")) == ["b", "bucket"]


def test_a_line_is_date_time_size_and_name(s4raw, client):
    for name, size in {"dir/five": 5, "dir/none": 0, "dir/many": 123456}.items():
        client.put(f"s4://b/{name}", bytes(size))
    lines = s4raw("ls", "s4://b/dir/", env={"TZ": "Asia/Tokyo"}).stdout.decode().splitlines()
    for line, (name, size) in zip(lines, [("five", 5), ("many", 123456), ("none", 0)], strict=True):
        seconds = client.stat(f"s4://b/dir/{name}").mtime_ns // 10**9
        assert line == f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ} {size} {name}"
    assert s4raw("ls", "s4://b/di").stdout == b"  PRE dir/\n"
    assert re.fullmatch(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ 0 b\n", s4raw("ls").stdout)


def test_names_are_in_the_order_of_their_bytes(s4raw, client):
    order = ["A", "a-", "a.txt", "a/b", "a/c/d", "a0", "b", "z", "é", "€", "\U0001f600"]
    put(client, reversed(order))
    assert names(s4raw("ls", "-r", "s4://b")) == order
    assert names(s4raw("ls", "s4://b/")) == ["A", "a-", "a.txt", "  PRE a/", *order[5:]]


def test_a_key_and_a_directory_of_one_name_are_both_listed(s4raw, client):
    put(client, ["a", "a/b"])
    assert names(s4raw("ls", "s4://b/")) == ["a", "  PRE a/"]
    assert names(s4raw("ls", "-r", "s4://b/a")) == ["a", "a/b"]


def test_a_directory_that_many_servers_hold_is_listed_once(s4raw, client):
    put(client, [f"d/{number:05}" for number in range(6)] + ["e/1"])
    assert names(s4raw("ls", "s4://b/")) == ["  PRE d/", "  PRE e/"]


def test_long_listings_come_in_many_pages(s4raw, tmp_path):
    order = [f"{number:05}" for number in range(2000)]
    (tmp_path / "in").mkdir()
    for name in order:
        (tmp_path / "in" / name).touch()
    s4raw("cp", "-r", "in", "s4://b/dir")
    assert names(s4raw("ls", "s4://b/dir/")) == order
    assert names(s4raw("ls", "-r", "s4://b/dir/001")) == [f"dir/{name}" for name in order if name.startswith("001")]
    assert names(s4raw("ls", "s4://b/")) == ["  PRE dir/"]
    assert json.loads(s4raw("rm", "-r", "--json", "s4://b/dir/").stdout)["count"] == 2000


@pytest.mark.parametrize(
    "prefix", ["b", "/b/key", "s3://b/key", "s4:/b", "s4://_b", "s4://b/white space", "s4://b/../c"]
)
def test_ls_refuses_what_is_no_prefix(s4raw, prefix):
    s4raw("ls", prefix, code=2)


def test_ls_r_needs_a_bucket(s4raw, client):
    put(client, LISTING)
    for arguments in ([], ["s4://"]):
        assert s4raw("ls", "-r", *arguments, code=2).stdout == b""


# rm


def test_rm_deletes_one_key(s4raw, client):
    put(client, ["rm/dir1/key1.txt", "rm/dir1/dir2/key2.txt", "rm/dir1/key1.txt2"])
    s4raw("rm", "s4://b//rm/dir1//key1.txt")
    assert left(client) == ["rm/dir1/dir2/key2.txt", "rm/dir1/key1.txt2"]


def test_rm_r_deletes_what_begins_with_the_prefix_on_every_server(s4raw, client):
    put(client, [f"rm/dir/{number:05}" for number in range(9)] + ["rm/di", "rm/other/key", "key"])
    put(client, ["key"], "bucket")
    s4raw("rm", "-r", "s4://b/rm/di")
    assert left(client) == ["key", "rm/other/key"]
    s4raw("rm", "-r", "s4://b")
    assert [bucket.name for bucket in client.list("s4://")] == ["bucket"]


def test_rm_leaves_no_empty_directories(s4raw, client, ring):
    put(client, ["deep/er/key"])
    s4raw("rm", "s4://b/deep/er/key")
    s4raw("ls", "s4://b/", code=1)
    assert not list(Path(ring.data).glob("*/b/*"))


def test_rm_of_a_missing_key_fails_and_names_it(s4raw, client):
    put(client, ["dir/key"])
    server = client.topology.place_basename("missing")
    failed = s4raw("rm", "s4://b/dir/missing", code=1)
    assert f"no such key (key s4://b/dir/missing, server {server})" in failed.stderr.decode()
    s4raw("rm", "s4://b/dir", code=1)
    assert left(client) == ["dir/key"]


@pytest.mark.parametrize(
    "arguments", [["s4://b/dir/"], ["s4://b"], ["s4://"], ["-r", "s4://"], ["-r", "b"], ["-r", "s4://_b"]]
)
def test_rm_refuses_what_it_cannot_mean(s4raw, client, arguments):
    put(client, ["dir/key"])
    s4raw("rm", *arguments, code=2)
    assert left(client) == ["dir/key"]


def test_rm_r_of_nothing_is_done(s4raw, client):
    put(client, ["dir/key"])
    assert json.loads(s4raw("rm", "-r", "--json", "s4://b/fake").stdout)["count"] == 0
    assert left(client) == ["dir/key"]


# Globs and filters

TREE = ["in/a_1", "in/b_2", "in/deep/c_1", "in/deep/d_2", "other_1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["s4://b/in/*_1"], ["in/a_1", "in/deep/c_1"]),
        (["s4://b/*_1"], ["in/a_1", "in/deep/c_1", "other_1"]),
        (["s4://b/in/deep/?_[12]"], ["in/deep/c_1", "in/deep/d_2"]),
        (["-r", "s4://b/**/*_1"], ["in/a_1", "in/deep/c_1"]),
        (["-r", "--include", "*_1", "s4://b/in/"], ["in/a_1", "in/deep/c_1"]),
        (["-r", "--include", "a*", "--include", "deep/*", "s4://b/in/"], ["in/a_1", "in/deep/c_1", "in/deep/d_2"]),
        (["-r", "--exclude", "deep/*", "--include", "*_1", "s4://b/in/"], ["in/a_1"]),
        (["-r", "--exclude", "in/deep/*", "--exclude", "o*", "s4://b"], ["in/a_1", "in/b_2"]),
        (["--exclude", "*_1", "s4://b/in/*"], ["in/b_2", "in/deep/d_2"]),
    ],
)
def test_ls_takes_globs_and_filters(s4raw, client, arguments, expected):
    put(client, TREE)
    assert names(s4raw("ls", *arguments)) == expected


def test_a_glob_that_matches_nothing_lists_nothing(s4raw, client):
    put(client, TREE)
    assert s4raw("ls", "s4://b/in/*_3", code=1).stdout == b""


def test_ls_humanizes_sizes(s4raw, client):
    client.put("s4://b/key", bytes(1536))
    assert s4raw("ls", "-H", "s4://b/").stdout.split()[2:] == [b"1.5KiB", b"key"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["s4://b/in/*_1"], ["in/b_2", "in/deep/d_2", "other_1"]),
        (["-r", "s4://b/*_[12]"], []),
        (["-r", "--exclude", "deep/*", "s4://b/in/"], ["in/deep/c_1", "in/deep/d_2", "other_1"]),
        (["-r", "--include", "*_1", "--exclude", "o*", "s4://b"], ["in/b_2", "in/deep/d_2", "other_1"]),
        (["--exclude", "a*", "s4://b/in/*_1"], ["in/a_1", "in/b_2", "in/deep/d_2", "other_1"]),
        (["-r", "--include", "none", "s4://b"], TREE),
    ],
)
def test_rm_takes_globs_and_filters(s4raw, client, arguments, expected):
    put(client, TREE)
    [done] = [json.loads(line) for line in s4raw("rm", "--json", *arguments).stdout.splitlines()]
    assert left(client) == expected
    assert done["count"] == len(TREE) - len(expected)


def test_rm_of_a_glob_that_matches_nothing_is_an_error(s4raw, client):
    put(client, TREE)
    for arguments in ([], ["-r"], ["-r", "--exclude", "x"]):
        assert b"no key matches s4://b/in/*_3" in s4raw("rm", *arguments, "s4://b/in/*_3", code=1).stderr
    assert left(client) == TREE


@pytest.mark.parametrize("verb", [["rm", "-r"], ["ls", "-r"], ["du"], ["find"]])
def test_filters_need_a_directory_and_not_what_begins_like_one(s4raw, client, verb):
    put(client, ["data/keep/x", "data/y", "data2"])
    failed = s4raw(*verb, "--exclude", "keep/*", "s4://b/data", code=2)
    assert b"end s4://b/data with /" in failed.stderr
    assert left(client) == ["data/keep/x", "data/y", "data2"]
    s4raw(*verb, "--exclude", "keep/*", "s4://b/data/")
    assert ("data/y" in left(client)) == (verb[0] != "rm")
    assert {"data/keep/x", "data2"} <= set(left(client))


def test_a_directory_named_like_a_glob_is_meant_before_what_matches(s4raw, client, tmp_path):
    put(client, ["d[1]/f", "d[1]/g/h", "d1/other"])
    assert names(s4raw("ls", "s4://b/d[1]/")) == ["f", "  PRE g/"]
    assert names(s4raw("ls", "-r", "s4://b/d[1]/")) == ["d[1]/f", "d[1]/g/h"]
    assert s4raw("du", "s4://b/d[1]/").stdout == b"14 bytes in 2 keys: s4://b/d[1]/\n"
    s4raw("cp", "-r", "s4://b/d[1]", ".")
    assert (tmp_path / "d[1]/g/h").read_bytes() == b"content"
    s4raw("cp", "-r", "d[1]", "s4://b/e[1]/")
    s4raw("mv", "-r", "s4://b/e[1]/", "s4://b/m[1]/")
    assert left(client) == ["d1/other", "d[1]/f", "d[1]/g/h", "m[1]/f", "m[1]/g/h"]
    s4raw("rm", "-r", "--exclude", "g/*", "s4://b/d[1]/")
    s4raw("rm", "-r", "s4://b/m[1]/")
    assert left(client) == ["d1/other", "d[1]/g/h"]


def test_a_key_named_like_a_glob_is_meant_before_what_matches(s4raw, client):
    put(client, ["a*", "a[1]", "a1", "ab"])
    assert names(s4raw("ls", "s4://b/a[1]")) == ["a[1]"]
    s4raw("rm", "s4://b/a*")
    assert left(client) == ["a1", "a[1]", "ab"]
    s4raw("rm", "s4://b/a[[]1]")
    assert left(client) == ["a1", "ab"]
    s4raw("rm", "s4://b/a*")
    assert left(client) == []
