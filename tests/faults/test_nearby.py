"""What a shuffle makes for servers on the same file system is linked there; for all others it is sent."""

import hashlib

import pytest
from conftest import cli_runner
from fault_ring import SENT, fault_ring

SIZES = [0, 1, 256 << 10, (256 << 10) + 1, 9 << 20]
MAKE = "".join(
    f"head -c {size} /dev/urandom > {3 * number + server}; " for number, size in enumerate(SIZES) for server in range(3)
)
LINKS = "for i in 0 1 2; do ln 12 hard$i; ln -s 13 soft$i; mkdir $i.d; echo $i > $i.d/in$i; done; "
ALL = "find -L . -type f ! -name sums"
TELL = f"{ALL}; {ALL} | xargs sha256sum > sums; stat -L -c '%i %n' * >> sums; echo sums"

NO_IDENTITY = "import s4raw.disk; s4raw.disk.DataDirectory.identity = lambda self: b'%d' % __import__('os').getpid()"
NO_LINKS = "import s4raw.nearby; s4raw.nearby.Nearby._try_link = lambda self, data: __import__('os').stat('/nowhere')"
NOT_OURS = "import s4raw.disk; s4raw.disk.DataDirectory.is_ours = lambda self: False"
GONE = "import s4raw.disk; s4raw.disk.DataDirectory.identity = lambda self: __import__('os').stat('/nowhere')"
WAYS = {"linked": "", "sent": SENT, "another directory": NO_IDENTITY, "another mount": NO_LINKS, "not ours": NOT_OURS}
WAYS["not told"] = GONE


@pytest.mark.parametrize("way", WAYS)
def test_files_arrive_whole_whichever_way_they_go(tmp_path, way):
    with fault_ring(tmp_path, count=3, tuning=WAYS[way]) as ring, ring.client() as client:
        for name in ("0", "1"):
            client.put(f"s4://b/in/{name}", b"")
        cli_runner(ring, tmp_path)("map-to-n", "s4://b/in/", "s4://b/out/", MAKE + LINKS + TELL)
        for name in ("0", "1"):
            told = client.get(f"s4://b/out/{name}/sums").decode().splitlines()
            sums = dict(line.split()[::-1] for line in told if len(line) > 64)
            inodes = dict(line.split()[::-1] for line in told if len(line) < 64)
            assert len(sums) == 24
            found, linked = {}, 0
            for path in sums:
                base = path.rpartition("/")[2]
                found[path] = hashlib.sha256(client.get(f"s4://b/out/{name}/{base}")).hexdigest()
                there = ring.stored_file(f"s4://b/out/{name}/{base}").stat()
                assert (there.st_nlink, there.st_mode & 0o777) == (1, 0o444)
                plain = base.isdigit() and base not in ("12", "13") and ring.place(f"s4://b/x/{base}") != int(name)
                linked += plain and str(there.st_ino) == inodes[base]
            assert found == sums
            assert linked == (9 if way == "linked" else 0)


def test_a_key_that_exists_nearby_is_kept_and_named(tmp_path):
    with fault_ring(tmp_path, count=2) as ring, ring.client() as client:
        client.put("s4://b/in/0", b"")
        client.put("s4://b/out/0/1", b"before")
        run = cli_runner(ring, tmp_path)
        error = run("map-to-n", "s4://b/in/", "s4://b/out/", "echo x > 1; echo 1", code=1).stderr.decode()
        assert "already exists" in error and "s4://b/out/0/1" in error and ring.servers[1] in error
        assert client.get("s4://b/out/0/1") == b"before"


def test_a_neighbour_that_was_started_again_is_found_again(tmp_path):
    tuning = "import s4raw.shipping; s4raw.shipping.Shipping.send = lambda self, parcel: 1 / 0"
    with fault_ring(tmp_path, count=2, tuning=tuning) as ring, ring.client() as client:
        client.put("s4://b/in/0", b"")
        for turn in range(2):
            cli_runner(ring, tmp_path)("map-to-n", "s4://b/in/", f"s4://b/out{turn}/", "echo x > 1; echo 1")
            ring.kill(1)
            ring.restart(1)
            assert client.get(f"s4://b/out{turn}/0/1") == b"x\n"
