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


class Pushd:
    """``s4raw push run`` for this row alone: its ``port`` and its ``pid``."""

    def __init__(self, lab: Lab, endpoint: str, options: Sequence[str] = (), queue: str = "") -> None:
        """``queue`` is a directory, to be kept, if it is not to be its own. Raises OSError when it does not start."""
        self._directory = lab.path(f"pushd-{lab.new_number()}")
        os.mkdir(self._directory)
        self._log = os.path.join(self._directory, "log")
        self.queue = queue or os.path.join(self._directory, "queue")
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, open(self._log, "wb") as log:
            self.port: int = listener.getsockname()[1]
            passed = listener.fileno()
            command = [sys.executable, "-m", "s4raw", "push", "run", "--queue", self.queue, "--listen-fd", str(passed)]
            self._process = subprocess.Popen(
                [*command, *options],
                cwd=CHECKOUT,
                env={**os.environ, **KEYS, "S3_ENDPOINT_URL": endpoint},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(passed,),
                process_group=0,
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
                with socket.create_connection(("127.0.0.1", self.port), START_SECONDS) as sock:
                    sock.sendall(b'{"do": "status"}\n')
                    if sock.recv(1) == b"{":
                        return
            except OSError:
                time.sleep(0.01)
        with open(self._log, encoding="utf-8", errors="replace") as file:
            said = file.read()[-2000:]
        self.stop()
        raise OSError(f"s4raw push did not start: {said}")

    def stop(self) -> None:
        """Kill it, whatever it still has to do, and remove its queue; twice is fine."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)
