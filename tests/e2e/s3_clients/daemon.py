"""A process of the S3 daemon, and what clients need to know of it."""

import os
import shutil
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from s4raw.net import listen

ACCESS_KEY, SECRET_KEY = "AKIDOFTHETESTSEXAMPLE", "the-secret-of-the-tests/EXAMPLE+KEY"
REGION = "us-east-1"
SECONDS = 100


class Daemon:
    """``s4raw s3 run`` with options, on a free port of 127.0.0.1, until the end of a ``with`` block."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S4_", "S3D_"))},
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "NO_PROXY": "*",
        }

    def __enter__(self) -> "Daemon":
        self.directory.mkdir(parents=True, exist_ok=True)
        reader, self._lifeline = os.pipe()
        with closing(listen("127.0.0.1", 0)) as listener, self.log_path.open("wb") as log:
            self.port: int = listener.getsockname()[1]
            fds = (listener.fileno(), reader)
            command = [sys.executable, "-m", "s4raw", "s3", "run", *self.options]
            command += ["--listen-fd", str(fds[0]), "--lifeline-fd", str(fds[1]), "--access-log"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=log, pass_fds=fds, env=self.environment
            )
        os.close(reader)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lifeline)
        try:
            status = self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
        assert status == 0, self.log()
        assert not self.faults(), self.faults()

    @property
    def log_path(self) -> Path:
        return self.directory / "s3.log"

    def log(self) -> str:
        return self.log_path.read_text()

    def faults(self) -> list[str]:
        """What the daemon has logged as its own fault."""
        return [line for line in self.log().splitlines() if " s4raw s3 error " in line or "Traceback" in line]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    def boto(self, endpoint: str = "", verify: str | None = None, **options: object) -> "boto3.client":
        """A client of boto3, for path-style addresses unless ``s3`` says otherwise."""
        options.setdefault("s3", {"addressing_style": "path"})
        session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        config = Config(retries={"total_max_attempts": 1}, **options)
        return session.client("s3", endpoint_url=endpoint or self.endpoint, verify=verify, config=config)


def program(name: str) -> str:
    """The path of a program: that beside this Python, or that of this machine; without it the test is skipped."""
    path = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(command: list[str], daemon: Daemon, cwd: Path, **environment: str) -> str:
    """Run a client in a directory; what it printed. Fails unless it exits with 0."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**daemon.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{error}\n{error.stdout!r}\n{error.stderr!r}\n{daemon.log()[-3000:]}") from None
    assert done.returncode == 0, f"{command}\n{done.stdout.decode()}\n{done.stderr.decode()}\n{daemon.log()[-3000:]}"
    return done.stdout.decode()


def fetch(url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    """What a plain HTTP client gets from a URL."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        found: bytes = answer.read()
    return found
