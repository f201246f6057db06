"""The flights example: real data through map, shuffle and merge, checked against one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FLIGHTS = Path(__file__).parents[2] / "examples/flights"
# One attempt, and not for long: without a network there is no data, and the tests say so.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PIP_RETRIES": "0",
    "PIP_TIMEOUT": "20",
}


def run(*command, code=0, **environment):
    done = subprocess.run(
        [*map(str, command)], env=ENVIRONMENT | environment, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def flights():
    """The file with a year of flights."""
    fetched = subprocess.run(
        ["bash", FLIGHTS / "fetch.sh"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    if fetched.returncode:
        pytest.skip(f"the flights cannot be fetched: {fetched.stderr.strip().splitlines()[-1]}")
    return FLIGHTS / ".data/flights.csv"


@pytest.mark.long
@pytest.mark.usefixtures("flights")
def test_the_demo_gets_the_answers_that_one_process_gets(tmp_path):
    shown = run("bash", FLIGHTS / "run.sh", TMPDIR=str(tmp_path))
    assert "check: one process gives the same bytes" in shown
    assert "All 336,776 flights by distance" in shown
    assert os.listdir(tmp_path) == []


def test_the_demo_fails_when_an_answer_differs(flights, tmp_path):
    with open(flights) as file, open(tmp_path / "some.csv", "w") as some:
        some.writelines(line for number, line in enumerate(file) if number % 200 == 0)
    run(
        "s4raw", "local", "--data", tmp_path / "ring", "--", "bash", FLIGHTS / "job.sh", tmp_path / "some.csv", tmp_path
    )
    check = (sys.executable, FLIGHTS / "check.py", tmp_path / "some.csv", tmp_path / "results")
    run(*check)
    answer = sorted((tmp_path / "results/carriers").iterdir())[0]
    answer.write_bytes(answer.read_bytes().replace(b"\t", b" ", 1))
    run(*check, code=1)
