"""The example of S3 and map: data in by an S3 client, work where it lies, data out by the S3 client."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("client", ["boto3", "s4raw"])
def test_what_an_s3_client_put_is_mapped_and_what_map_made_is_got(tmp_path, client):
    tools, work = tmp_path / "bin", tmp_path / "work"
    tools.mkdir()
    work.mkdir()
    for name, arguments in {"s4raw": "-m s4raw ", "python3": ""}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", ROOT / "examples/s3-and-map/run.sh"],
        env=environment | {"TMPDIR": str(work), "S3_CLIENT": client},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"S3 client: {client}\ncheck: one process counts the same " in done.stdout
    assert os.listdir(work) == []
