"""``cp`` is exact to the byte: at the sizes where buffers and frames end, from files and from pipes."""

import filecmp
import os
import subprocess
import sys

import pytest

KIB, MIB = 1 << 10, 1 << 20
EDGES = [size + offset for size in (64 * KIB, 256 * KIB, MIB, 8 * MIB) for offset in (-1, 0, 1)]


@pytest.mark.parametrize("size", [0, 1, *EDGES])
def test_round_trip(s4raw, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    s4raw("cp", "file", "s4://b/file")
    s4raw("cp", "-", "s4://b/pipe", input=content)
    assert s4raw("cp", "s4://b/file", "-").stdout == content
    s4raw("cp", "s4://b/pipe", "copy")
    assert (tmp_path / "copy").read_bytes() == content


def test_round_trip_of_300_mib(s4raw, ring, tmp_path):
    block = os.urandom(MIB - 8)
    with open(tmp_path / "file", "wb") as file:
        for number in range(300):
            file.write(number.to_bytes(8, "big") + block)
    s4raw("cp", "file", "s4://b/file")
    s4raw("cp", "s4://b/file", "copy")
    assert filecmp.cmp(tmp_path / "file", tmp_path / "copy", shallow=False)
    (tmp_path / "copy").unlink()
    piped = 'cat file | "$0" -m s4raw cp - s4://b/pipe && "$0" -m s4raw cp s4://b/pipe - | cmp - file'
    environment = {**os.environ, "S4_CONF_PATH": ring.conf}
    subprocess.run(
        ["bash", "-eo", "pipefail", "-c", piped, sys.executable], cwd=tmp_path, env=environment, check=True, timeout=100
    )
    (tmp_path / "file").unlink()
