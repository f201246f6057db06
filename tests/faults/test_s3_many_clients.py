"""10,000 silent connections, and 200 clients of boto3 at work: no error, no leak, bounded memory.

``S4RAW_LOAD_SECONDS`` says how long the 200 go on.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from conftest import descriptors, rss, thread_count, wait_for
from s3_daemon import Raw, s3_daemon

IDLE = 10_000
MAX_IDLE_RSS = 48 << 10  # bytes of the daemon for each idle connection
CLIENTS, PROCESSES = 200, 4
SECONDS = float(os.environ.get("S4RAW_LOAD_SECONDS", "30"))
MAX_RSS = 600 << 20  # bytes of both workers under load
KIB, MIB = 1 << 10, 1 << 20


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Let this process have so many descriptors. Skips the test where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip(f"needs {count} descriptors, may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_10_000_idle_connections_cost_little_and_hinder_nobody(tmp_path, capsys):
    with many_descriptors(IDLE + 500), s3_daemon(tmp_path, "--max-connections", "12000") as daemon, ExitStack() as stack:
        raws = []

        def connect(count: int) -> None:
            for _ in range(count):
                raw = stack.enter_context(Raw(daemon.port))
                assert raw.ask("GET", "/healthz").status == 200
                raws.append(raw)

        connect(100)  # what is paid once
        before = rss(daemon.pid)
        connect(IDLE - 100)
        each = (rss(daemon.pid) - before) / (IDLE - 100)
        assert thread_count(daemon.pid) == 1 + IDLE
        with Raw(daemon.port) as raw:
            assert raw.ask("PUT", "/bucket").status == 200
            assert raw.ask("PUT", "/bucket/key", b"content").status == 200
            assert raw.ask("GET", "/bucket/key").body == b"content"
        for raw in raws[::1000]:
            assert raw.ask("GET", "/bucket/key").body == b"content"
        stack.close()
        daemon.check_leaks()
        after = rss(daemon.pid) - before
        with capsys.disabled():
            print(
                f"\n{IDLE} idle connections cost the daemon {each / KIB:.1f} KiB each; {after / MIB:.1f} MiB stayed"
                " when they had gone"
            )
        assert each < MAX_IDLE_RSS
        assert after < 64 * MIB
