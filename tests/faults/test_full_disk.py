"""A full disk: a clear error that names the server and the key, no partial key, and a server that goes on."""

import random
import resource
import subprocess

import pytest
from conftest import CLI, cli_runner
from fault_ring import SENT, fault_ring

from s4raw.errors import DiskFull

LIMIT = 1 << 20  # bytes that a server may write to one file: what is beyond fails like a full disk, without needing one
SMALL = random.Random(5).randbytes(1000)
LARGE = random.Random(6).randbytes(4 * LIMIT)
SOME = LARGE[: LIMIT // 5]  # one frame


@pytest.fixture(scope="module")
def _two(tmp_path_factory):
    with fault_ring(tmp_path_factory.mktemp("full"), count=2, tuning=SENT) as ring:
        yield ring


@pytest.fixture
def ring(_two):
    """Two servers. Key N lies on server N % 2; server 1 is full for files over LIMIT. Its log takes no space."""
    with _two.client() as client:
        client.remove_all("s4://b/")
        client.put("s4://b/in/0_large", LARGE)
        client.put("s4://b/in/1_large", LARGE)
    limit_files(_two, LIMIT)
    yield _two
    limit_files(_two, resource.RLIM_INFINITY)


def limit_files(ring, size: int) -> None:
    resource.prlimit(ring.processes[1].pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture
def run(ring, tmp_path):
    (tmp_path / "large").write_bytes(LARGE)
    return cli_runner(ring, tmp_path)


INPUTS = ["b/in/0_large", "b/in/1_large"]


def check_goes_on(ring, run):
    """Nothing partial is there, nothing is left over, and the same server takes what fits."""
    assert ring.published() == INPUTS
    ring.check_leaks()
    run("cp", "-", "s4://b/1_small", input=SMALL)
    assert run("cp", "s4://b/1_small", "-").stdout == SMALL


@pytest.mark.parametrize("source", ["large", "-"])
def test_a_put_that_does_not_fit_is_named(ring, run, source):
    error = run("cp", source, "s4://b/1_k", input=LARGE, code=1).stderr.decode()
    assert "full" in error and "s4://b/1_k" in error and ring.servers[1] in error
    check_goes_on(ring, run)


def test_a_put_of_one_frame_that_does_not_fit_is_named(ring, run):
    limit_files(ring, len(SOME) // 2)
    error = run("cp", "-", "s4://b/1_k", input=SOME, code=1).stderr.decode()
    limit_files(ring, LIMIT)
    assert "full" in error and "s4://b/1_k" in error and ring.servers[1] in error
    check_goes_on(ring, run)


def test_a_tree_that_does_not_fit_names_the_key_that_did_not(ring, run, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/1_k").write_bytes(LARGE)
    error = run("cp", "-r", "tree", "s4://b/tree", code=1).stderr.decode()
    assert "full" in error and "s4://b/tree/1_k" in error and ring.servers[1] in error
    check_goes_on(ring, run)


def test_a_client_goes_on_over_the_same_connection(ring, run):
    with ring.client() as client:
        client.put("s4://b/1_before", SMALL)
        for _ in range(3):
            with pytest.raises(DiskFull):
                client.put("s4://b/1_k", LARGE)
        client.put("s4://b/1_after", SMALL)
        assert client.get("s4://b/1_after") == SMALL


@pytest.mark.parametrize(
    ("verb", "command"),
    [("map", "cat"), ("map", "cat; true"), ("map-to-n", "cat > 1_out; echo 1_out"), ("map-from-n", "xargs cat")],
)
def test_an_output_that_does_not_fit_is_named(ring, run, verb, command):
    error = run(verb, "s4://b/in/1_*", "s4://b/out/", command, code=1).stderr.decode()
    assert "1_large" in error and ring.servers[1] in error
    check_goes_on(ring, run)


@pytest.mark.parametrize("verb", ["map", "map-to-n", "map-from-n"])
def test_a_call_on_a_server_without_any_space_says_so(ring, run, verb):
    limit_files(ring, 0)
    error = run(verb, "s4://b/in/1_*", "s4://b/out/", "echo 1", code=1).stderr.decode()
    limit_files(ring, LIMIT)
    assert "full" in error and ring.servers[1] in error
    check_goes_on(ring, run)


def test_an_output_shipped_to_a_server_where_it_does_not_fit_is_named(ring, run):
    error = run("map-to-n", "s4://b/in/0_*", "s4://b/out/", "cat > 1_out; echo 1_out", code=1).stderr.decode()
    assert "full" in error and "s4://b/out/0_large/1_out" in error and ring.servers[1] in error
    check_goes_on(ring, run)


def test_other_servers_take_what_does_not_fit_here(run):
    run("cp", "large", "s4://b/0_k")
    assert run("cp", "s4://b/0_k", "-").stdout == LARGE


@pytest.mark.parametrize("arguments", [["s4://b/in/1_large", "here"], ["-r", "s4://b/in/", "out/"]])
def test_a_download_that_does_not_fit_leaves_no_file(ring, tmp_path, arguments):
    done = subprocess.run(
        ["bash", "-c", f'ulimit -f {LIMIT // 1024}; exec "$@"', "-", *CLI, "cp", "-c", ring.conf, *arguments],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and b"File too large" in done.stderr, done.stderr
    assert not [path for path in tmp_path.rglob("*_large*") if "ring" not in path.parts]
