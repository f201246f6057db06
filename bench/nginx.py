"""Debian's nginx on a free port of 127.0.0.1, with a configuration of its own: the rival of a get."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time

START_SECONDS = 10.0
STOP_SECONDS = 10.0
ATTEMPTS = 5  # at a port that somebody else took in between
TEMP_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

CONF = """\
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
{temp_paths}
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""


def missing() -> str:
    """Which of nginx and curl is not installed."""
    return " and ".join(name for name in ("nginx", "curl") if shutil.which(name) is None)


class Nginx:
    """An nginx that serves the files below ``root``, as one process."""

    def __init__(self, directory: str, root: str) -> None:
        """Raises OSError when it does not come up."""
        os.makedirs(directory)
        for _ in range(ATTEMPTS):
            self.port = _free_port()
            self._process = self._start(directory, root)
            if self._wait():
                return
            self.stop()
        with open(os.path.join(directory, "error.log"), encoding="utf-8", errors="replace") as file:
            raise OSError(f"nginx did not start: {file.read()[-2000:]}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def url(self, name: str) -> str:
        """Where a file below the root is."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def _start(self, directory: str, root: str) -> subprocess.Popen[bytes]:
        conf = os.path.join(directory, "nginx.conf")
        paths = "".join(f"    {name}_temp_path {directory}/{name};\n" for name in TEMP_PATHS)
        with open(conf, "w", encoding="utf-8") as file:
            file.write(CONF.format(directory=directory, root=root, port=self.port, temp_paths=paths))
        errors = os.path.join(directory, "error.log")
        return subprocess.Popen(
            ["nginx", "-p", directory, "-e", errors, "-c", conf],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _wait(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            except OSError:
                time.sleep(0.01)
        return False

    def stop(self) -> None:
        """Stop it; twice is fine."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
