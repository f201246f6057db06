"""The push daemon, on a queue of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from bench.lab import CHECKOUT, Lab
from bench.s3servers import KEYS

START_SECONDS = 60.0
STOP_SECONDS = 10.0


class Pushd:
    """``s4raw push run`` for this row alone: its ``port`` and its ``pid``."""

    def __init__(self, lab: Lab, endpoint: str, connections: int = 25, options: Sequence[str] = ()) -> None:
        """Raises OSError when it does not start."""
        self._directory = lab.path(f"pushd-{lab.new_number()}")
        os.mkdir(self._directory)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]
        env = {
            **os.environ,
            **KEYS,
            **self.environment(),
            "S3_ENDPOINT_URL": endpoint,
            "S3DAEMON_MAX_CONNECTIONS": str(connections),
        }
        queue = os.path.join(self._directory, "queue")
        command = [sys.executable, "-m", "s4raw", "push", "run", "--queue", queue, *options]
        self._log = os.path.join(self._directory, "log")
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                *(command,), cwd=CHECKOUT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        lab.at_row_end(self.stop)
        self._wait()

    def environment(self) -> Mapping[str, str]:
        """What its clients find it by."""
        return {"S3DAEMON_HOST": "127.0.0.1", "S3DAEMON_PORT": str(self.port)}

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.02)
        self.stop()
        with open(self._log, encoding="utf-8", errors="replace") as file:
            raise OSError(f"s4raw push did not start: {file.read()[-2000:]}")

    def stop(self) -> None:
        """Kill it, whatever it still has to do, and remove its queue; twice is fine."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
