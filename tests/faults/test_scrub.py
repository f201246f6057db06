"""``scrub`` names every damaged key, and only those; it changes nothing and ends when its client does."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import CLI, descriptors, wait_for

from s4raw.digest import LEAF
from s4raw.keys import parse_prefix
from s4raw.scrub import scrub
from s4raw.store import RECORD_ATTRIBUTE


@pytest.fixture
def keys(client):
    """Healthy keys on all servers, one of several blocks among them."""
    found = {f"s4://b/dir/{number}_x": os.urandom(1000) for number in range(6)}
    found |= {"s4://c/large": os.urandom(2 * LEAF + 7), "s4://c/none": b""}
    for key, data in found.items():
        client.put(key, data)
    return found


def opened(client, key):
    """The stored file of a key, made writable."""
    path = Path(client.stat(key).path)
    path.chmod(0o644)
    return path


def flip(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_a_healthy_ring_has_nothing_to_tell(s4raw, keys):
    done = s4raw("scrub", "--json")
    total = sum(map(len, keys.values()))
    assert json.loads(done.stdout) == {"verb": "scrub", "keys": len(keys), "bytes": total, "damaged": 0}
    assert s4raw("scrub").stdout == b""


def test_damage_is_named_with_its_server_and_its_place(s4raw, keys, client):
    flip(opened(client, "s4://c/large"), LEAF + 5)
    done = s4raw("scrub", code=1)
    assert done.stdout.startswith(f"damaged: s4://c/large on {client.topology.servers[0]}".encode()[:20])
    assert client.stat("s4://c/large").server.encode() in done.stdout
    assert f"from byte {LEAF} to {2 * LEAF}".encode() in done.stdout
    assert b"1 of 8 keys are damaged" in done.stderr


def test_every_kind_of_damage_is_found_and_nothing_is_changed(s4raw, keys, client):
    names = [f"s4://b/dir/{number}_x" for number in range(4)]
    flip(opened(client, names[0]), 500)
    os.truncate(opened(client, names[1]), 10)
    os.removexattr(opened(client, names[2]), RECORD_ATTRIBUTE)
    os.setxattr(opened(client, names[3]), RECORD_ATTRIBUTE, b"\x02nonsense")
    found = [json.loads(line) for line in s4raw("scrub", "--json", "s4://b/", code=1).stdout.splitlines()]
    assert sorted(entry["key"] for entry in found[:-1]) == names
    assert found[-1]["damaged"] == 4 and found[-1]["keys"] == 6
    again = [json.loads(line) for line in s4raw("scrub", "--json", "s4://b/", code=1).stdout.splitlines()]
    assert sorted(entry["key"] for entry in again[:-1]) == names


def test_a_key_on_the_wrong_server_is_found(s4raw, ring, keys, client):
    path = Path(client.stat("s4://b/dir/0_x").path)
    other = Path(ring.data, "1", "b", "dir", "0_x")
    assert other != path
    shutil.copyfile(path, other)
    os.setxattr(other, RECORD_ATTRIBUTE, os.getxattr(path, RECORD_ATTRIBUTE))
    assert b"belongs on" in s4raw("scrub", code=1).stdout


def test_a_prefix_is_scrubbed_alone(s4raw, keys, client):
    flip(opened(client, "s4://c/large"), 0)
    assert s4raw("scrub", "s4://b/dir/").stdout == b""
    assert b"s4://c/large" in s4raw("scrub", "s4://c/la", code=1).stdout
    assert json.loads(s4raw("scrub", "--json", "s4://nothing/").stdout)["keys"] == 0


@pytest.mark.parametrize("rate", ["x", "-1", "", "1.5", "10Q"])
def test_what_is_no_rate_is_refused(s4raw, rate):
    assert b"--rate" in s4raw("scrub", f"--rate={rate}", code=2).stderr


def test_the_rate_bounds_what_is_read(keys, client):
    """At 64 KiB a second the large key alone would take half a minute: it is not done when the call is given up."""
    seen = []

    def progress(status):
        seen.append(status)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        scrub(client.pool, parse_prefix("s4://c/"), 64 << 10, lambda *_: None, progress)
    assert seen[0].done == 0 or seen[0].done < 2


def test_a_scrub_ends_with_its_client(ring, keys, tmp_path):
    """The leak check waits for the servers to come to rest, which a scrub at 1 KiB/s would take an hour to."""
    environment = {**os.environ, "S4_CONF_PATH": ring.conf}
    process = subprocess.Popen([*CLI, "scrub", "--rate", "1K"], env=environment, cwd=tmp_path)
    try:
        wait_for(
            lambda: any("/c/large" in what for server in ring.processes for what in descriptors(server.pid).values()),
            "a server to read the large key",
        )
    finally:
        process.kill()
        process.wait()
