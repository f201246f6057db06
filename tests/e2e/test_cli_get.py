"""``get`` and the options of ``cp`` for large keys: ranges, several connections, going on with a copy that broke."""

import json
import os

import pytest

from s4raw.digest import LEAF
from s4raw.files import part_name

SIZE = 3 * LEAF + 12345
KEY = "s4://b/dir/large"


@pytest.fixture
def content(client):
    data = os.urandom(SIZE)
    client.put(KEY, data)
    return data


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("0-0", 0, 1),
        ("0-99", 0, 100),
        (f"{LEAF - 1}-{LEAF}", LEAF - 1, LEAF + 1),
        (f"{SIZE - 5}-", SIZE - 5, SIZE),
        (f"{LEAF}-{SIZE + 1000}", LEAF, SIZE),
        ("-7", SIZE - 7, SIZE),
        (f"-{SIZE + 1}", 0, SIZE),
        ("0-", 0, SIZE),
    ],
)
def test_a_range_is_what_http_calls_one(s4raw, content, text, start, end):
    assert s4raw("get", "--range", text, KEY).stdout == content[start:end]


def test_a_range_goes_to_a_file(s4raw, content, tmp_path):
    s4raw("get", f"--range=-{LEAF + 3}", KEY, "part")
    assert (tmp_path / "part").read_bytes() == content[-LEAF - 3 :]
    s4raw("get", KEY, "./")
    assert (tmp_path / "large").read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["large", "part"]


@pytest.mark.parametrize("text", ["", "-", "1", "5-4", "a-b", "1-x", "-1-2", "٣-٤"])
def test_what_is_no_range_is_refused(s4raw, content, text):
    assert b"--range" in s4raw("get", "--range", text, KEY, code=2).stderr


def test_a_range_behind_the_end_is_refused_and_makes_no_file(s4raw, content, tmp_path):
    done = s4raw("get", "--range", f"{SIZE}-", KEY, "part", code=2)
    assert b"no byte of the key" in done.stderr and KEY.encode() in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_key_that_is_not_there(s4raw, tmp_path):
    assert b"no such key" in s4raw("get", "--range", "0-1", "s4://b/none", "part", code=1).stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("options", [["--connections", "3"], ["--resume"], ["--resume", "--connections", "2"]])
def test_a_copy_with_options_is_the_same_copy(s4raw, tmp_path, options):
    data = os.urandom(SIZE)
    (tmp_path / "file").write_bytes(data)
    s4raw("cp", *options, "file", KEY)
    done = s4raw("cp", "--json", *options, KEY, "copy")
    assert json.loads(done.stdout)["bytes"] == SIZE
    assert (tmp_path / "copy").read_bytes() == data
    assert sorted(os.listdir(tmp_path)) == ["copy", "file"]


def test_a_download_is_gone_on_with(s4raw, content, tmp_path):
    """What is there already is kept, if it is the key's: here the first block is, the second is not."""
    part = tmp_path / os.path.basename(part_name("copy"))
    part.write_bytes(content[:LEAF] + bytes(LEAF))
    s4raw("cp", "--resume", KEY, "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert os.listdir(tmp_path) == ["copy"]


def test_a_download_that_fails_keeps_its_beginning_only_to_be_gone_on_with(s4raw, ring, content, client, tmp_path):
    path = client.stat(KEY).path
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(2 * LEAF + 1)
        file.write(b"\0\0\0\0\0\0\0\0")
    s4raw("cp", KEY, "copy", code=1)
    assert os.listdir(tmp_path) == []
    s4raw("cp", "--resume", KEY, "copy", code=1)
    assert os.listdir(tmp_path) == [part_name("copy")]
    assert (tmp_path / part_name("copy")).read_bytes()[: 2 * LEAF] == content[: 2 * LEAF]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--resume", "-", KEY],
        ["--resume", KEY, "-"],
        ["--resume", "-r", "dir", "s4://b/"],
        ["--connections", "3", "-r", "dir", "s4://b/"],
        ["--connections", "x", "-r", "dir", "s4://b/"],
        ["--connections", "3", KEY, "-"],
        ["--connections", "0", KEY, "copy"],
        ["--connections", "x", KEY, "copy"],
    ],
)
def test_options_that_make_no_sense_are_refused(s4raw, content, tmp_path, arguments):
    (tmp_path / "dir").mkdir()
    s4raw("cp", *arguments, code=2)
