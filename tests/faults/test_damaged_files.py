"""A stored key whose file or record was damaged is named on read, and never delivered as success."""

import os

import pytest
from conftest import cli_runner, wait_for
from fault_ring import fault_ring, finish, start_cli
from proxy import DOWN, Stall

from s4raw.errors import Corrupt
from s4raw.store import RECORD_ATTRIBUTE

BODY = b"hello\n" * 20_000
KEY = "s4://b/dir/k"


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("damaged"), count=2) as ring:
        yield ring


@pytest.fixture
def run(ring, tmp_path):
    return cli_runner(ring, tmp_path)


@pytest.fixture
def stored(ring, run):
    """The file of a stored key, open for writing."""
    run("rm", "-r", "s4://b/")
    run("cp", "-", KEY, input=BODY)
    path = ring.stored_file(KEY)
    path.chmod(0o644)
    return path


def flip_in_file(path):
    with path.open("r+b") as file:
        file.seek(len(BODY) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def flip_in_record(offset: int):
    def flip(path):
        record = bytearray(os.getxattr(path, RECORD_ATTRIBUTE))
        record[offset] ^= 4
        os.setxattr(path, RECORD_ATTRIBUTE, bytes(record))

    return flip


def truncate(path):
    os.truncate(path, len(BODY) - 1)


def empty(path):
    os.truncate(path, 0)


def grow(path):
    with path.open("ab") as file:
        file.write(b"\0")


def remove_record(path):
    os.removexattr(path, RECORD_ATTRIBUTE)


def shorten_record(path):
    os.setxattr(path, RECORD_ATTRIBUTE, os.getxattr(path, RECORD_ATTRIBUTE)[:-1])


def empty_record(path):
    os.setxattr(path, RECORD_ATTRIBUTE, b"")


SEEN_AT_OPENING = {
    "truncated": truncate,
    "emptied": empty,
    "grown": grow,
    "record-removed": remove_record,
    "record-shortened": shorten_record,
    "record-emptied": empty_record,
    "record-version": flip_in_record(0),
    "record-kind": flip_in_record(1),
    "record-level": flip_in_record(2),
    "record-padding": flip_in_record(3),
    "record-size": flip_in_record(4),
}
SEEN_AT_READING = {"flipped": flip_in_file, "digest": flip_in_record(12), "digest-end": flip_in_record(27)}
DAMAGES = SEEN_AT_OPENING | SEEN_AT_READING


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_key_is_named_and_not_delivered(ring, run, stored, tmp_path, damage):
    damage(stored)
    error = run("cp", KEY, "here", code=1).stderr.decode()
    assert KEY in error and ring.servers[ring.place(KEY)] in error
    run("cp", "-r", "s4://b/dir/", "out/", code=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    with ring.client() as client, pytest.raises(Corrupt), client.open(KEY) as file:
        file.read()
    with ring.client() as client, pytest.raises(Corrupt):
        client.get(KEY)


@pytest.mark.parametrize("damage", SEEN_AT_OPENING.values(), ids=SEEN_AT_OPENING)
def test_a_damaged_key_is_named_by_compute(ring, run, stored, damage):
    damage(stored)
    for arguments in (["eval", KEY, "cat"], ["map", "s4://b/dir/", "s4://b/out/", "cat"]):
        done = run(*arguments, code=1)
        assert KEY in done.stderr.decode() and ring.servers[ring.place(KEY)] in done.stderr.decode()
        assert done.stdout == b""
    run("ls", "-r", "s4://b/out/", code=1)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_key_can_be_deleted_and_put_again(run, stored, damage):
    damage(stored)
    run("cp", "-", KEY, input=BODY, code=1)
    run("rm", KEY)
    run("cp", "-", KEY, input=b"new")
    assert run("cp", KEY, "-").stdout == b"new"


def test_a_file_without_a_record_is_not_delivered(ring, run):
    path = ring.directory(0) / "b" / "stray"
    path.parent.mkdir(exist_ok=True)
    while ring.place(f"s4://b/{path.name}") != 0:
        path = path.with_name(path.name + "x")
    path.write_bytes(b"stray")
    assert path.name in run("cp", f"s4://b/{path.name}", "-", code=1).stderr.decode()
    run("rm", f"s4://b/{path.name}")


def test_a_file_that_shrinks_while_it_is_sent_is_not_delivered(tmp_path):
    body = BODY * 200  # more than the sockets between take
    with fault_ring(tmp_path, proxied=True) as ring, ring.client() as client:
        client.put(KEY, body)
        ring.proxies[0].plan.append([Stall(DOWN, 1000)])
        download = start_cli(ring, tmp_path, "cp", KEY, "here")
        wait_for(ring.proxies[0].stalled.is_set, "the download to begin")
        os.truncate(ring.stored_file(KEY), len(body) // 2)
        ring.proxies[0].resume.set()
        error = finish(download, 1).decode()
        assert KEY in error and ring.servers[0] in error
        assert not (tmp_path / "here").exists() and not (tmp_path / "here.part").exists()
