"""``find``, ``du``, ``stat``: which keys, and what is said of them."""

import json
import os
import re
from pathlib import Path

import pytest

from s4raw.digest import digest

SIZES = {"in/a_1": 0, "in/b_2": 10, "in/deep/c_1": 2048, "in/deep/er/d_1": 3000, "in2": 5}
CELLAR = {"a/b": 1, "a/c/d": 2, "a/c-d": 4, "a/c/e/f": 8, "ab/c": 16}


def put(client, sizes, bucket="b"):
    for name, size in sizes.items():
        client.put(f"s4://{bucket}/{name}", bytes(size))


def lines(done):
    return done.stdout.decode().splitlines()


# find


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["s4://b/in/*_1"], ["in/a_1", "in/deep/c_1", "in/deep/er/d_1"]),
        (["s4://b/**/deep/*_1"], ["in/deep/c_1", "in/deep/er/d_1"]),
        (["s4://b"], list(SIZES)),
        (["s4://b/in/"], list(SIZES)[:4]),
        (["s4://b/in/b_2"], ["in/b_2"]),
        (["s4://b/none"], []),
        (["s4://b/*none"], []),
        (["--size", "+2K", "s4://b"], ["in/deep/er/d_1"]),
        (["--size", "-1K", "s4://b"], ["in/a_1", "in/b_2", "in2"]),
        (["--size", "2KiB", "s4://b"], ["in/deep/c_1"]),
        (["--size=+0", "--size", "-2k", "s4://b/in/*"], ["in/b_2"]),
        (["--newer", "1h", "s4://b/in/*"], list(SIZES)[:4]),
        (["--older", "1.5h", "s4://b"], []),
        (["--older", "2999-01-01", "--newer", "2020-01-31T12:00:00Z", "s4://b/in2"], ["in2"]),
        (["--newer", "2999-01-01T00:00:00+02:00", "s4://b"], []),
        (["--include", "deep/*", "--exclude", "*d_1", "s4://b/in/"], ["in/deep/c_1"]),
    ],
)
def test_find_prints_whole_names(s4raw, client, arguments, expected):
    put(client, SIZES)
    assert lines(s4raw("find", *arguments)) == [f"s4://b/{name}" for name in expected]


def test_find_by_time_looks_at_the_time_of_the_put(s4raw, client):
    put(client, {"old": 1, "new": 1})
    os.utime(client.stat("s4://b/old").path, (1e9, 1e9))
    assert lines(s4raw("find", "--older", "2001-09-09T01:46:41Z", "s4://b")) == ["s4://b/old"]
    assert lines(s4raw("find", "--newer", "2001-09-09T01:46:41Z", "s4://b")) == ["s4://b/new"]
    assert lines(s4raw("find", "--newer", "2001-09-09T01:46:40", "s4://b")) == ["s4://b/new", "s4://b/old"]


def test_find_has_json(s4raw, client):
    put(client, SIZES)
    found = [json.loads(line) for line in lines(s4raw("find", "--json", "s4://b/in/deep/"))]
    assert [(line["key"], line["bytes"]) for line in found] == [
        ("s4://b/in/deep/c_1", 2048),
        ("s4://b/in/deep/er/d_1", 3000),
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", line["time"]) for line in found)


# du


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["s4://b/a"], ["31 bytes in 5 keys: s4://b/a"]),
        (["s4://b/a/"], ["15 bytes in 4 keys: s4://b/a/"]),
        (["s4://b/a/c*"], ["14 bytes in 3 keys: s4://b/a/c*"]),
        (["--exclude", "c/*", "s4://b/a/"], ["5 bytes in 2 keys: s4://b/a/"]),
        (["--include", "c/*", "s4://b/a/"], ["10 bytes in 2 keys: s4://b/a/"]),
        (
            ["-r", "s4://b/a"],
            [
                "8 bytes in 1 keys: s4://b/a/c/e/",
                "10 bytes in 2 keys: s4://b/a/c/",
                "15 bytes in 4 keys: s4://b/a/",
                "16 bytes in 1 keys: s4://b/ab/",
                "31 bytes in 5 keys: s4://b/a",
            ],
        ),
        ([], ["31 bytes in 5 keys: s4://b/", "2048 bytes in 1 keys: s4://c/"]),
        (["-H", "s4://c"], ["2.0KiB bytes in 1 keys: s4://c"]),
    ],
)
def test_du_counts(s4raw, client, arguments, expected):
    put(client, CELLAR)
    put(client, {"key": 2048}, "c")
    assert lines(s4raw("du", *arguments)) == expected


def test_du_of_nothing_is_an_error_and_names_it(s4raw, client):
    put(client, CELLAR)
    for place in ("s4://b/none", "s4://none/", "s4://b/*none"):
        assert f"no keys below {place}" in s4raw("du", place, code=1).stderr.decode()


def test_du_has_json(s4raw, client):
    put(client, CELLAR)
    found = [json.loads(line) for line in lines(s4raw("du", "-r", "--json", "s4://b/a/c/"))]
    assert found == [
        {"prefix": "s4://b/a/c/e/", "bytes": 8, "count": 1},
        {"prefix": "s4://b/a/c/", "bytes": 10, "count": 2},
    ]


# stat


def test_stat_says_what_is_known_of_a_key(s4raw, client, ring):
    client.put("s4://b/dir/00001_x", b"content")
    fields = dict(line.split(None, 1) for line in lines(s4raw("stat", "s4://b/dir/00001_x")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", fields.pop("time:"))
    path = Path(fields.pop("path:"))
    assert path.read_bytes() == b"content"
    assert path == Path(ring.data, "1/b/dir/00001_x")
    assert fields == {
        "key:": "s4://b/dir/00001_x",
        "size:": "7",
        "digest:": digest(b"content").hex(),
        "server:": ring.servers[1],
    }


def test_stat_takes_many_keys_and_globs_in_their_order(s4raw, client):
    put(client, SIZES)
    done = s4raw("stat", "--json", "s4://b/in2", "s4://b/in/*_1", "s4://b/in/b_2")
    found = [json.loads(line) for line in lines(done)]
    assert [line["key"] for line in found] == [
        f"s4://b/{name}" for name in ("in2", "in/a_1", "in/deep/c_1", "in/deep/er/d_1", "in/b_2")
    ]
    assert [line["bytes"] for line in found] == [5, 0, 2048, 3000, 10]
    assert list(found[0]) == ["key", "time", "digest", "server", "path", "bytes"]
    assert s4raw("stat", "s4://b/in2", "s4://b/in/b_2").stdout.count(b"\n\nkey:") == 1


def test_stat_of_a_missing_key_names_it_after_the_others(s4raw, client):
    put(client, SIZES)
    failed = s4raw("stat", "s4://b/in2", "s4://b/none", code=1)
    assert failed.stdout.startswith(b"key:    s4://b/in2\n")
    server = client.topology.place_basename("none")
    assert f"no such key (key s4://b/none, server {server})" in failed.stderr.decode()
    assert b"no key matches s4://b/none*" in s4raw("stat", "s4://b/none*", code=1).stderr
