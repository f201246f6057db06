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
from conftest import descriptors, rss, thread_count
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


@pytest.mark.long
def test_10_000_idle_connections_cost_little_and_hinder_nobody(tmp_path, capsys):
    with (
        many_descriptors(IDLE + 500),
        s3_daemon(tmp_path, "--max-connections", "12000") as daemon,
        ExitStack() as stack,
    ):
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
        assert after < 160 * MIB


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 120)
def test_200_clients_of_boto3_meet_no_error_and_the_daemon_stays_bounded(tmp_path, capsys):
    program = Path(__file__).with_name("load_s3.py")
    path = os.pathsep.join([str(program.parent), str(program.parents[1]), *sys.path])
    with s3_daemon(tmp_path, "--workers", "2") as daemon, ExitStack() as stack:
        with Raw(daemon.port) as raw:
            assert raw.ask("PUT", "/load").status == 200
        before = daemon.rss()
        loads = []
        for number in range(PROCESSES):
            arguments = [daemon.endpoint, str(CLIENTS // PROCESSES), str(SECONDS), f"p{number}"]
            load = subprocess.Popen(
                [sys.executable, str(program), *arguments],
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "*"},
            )
            loads.append(stack.enter_context(load))
            stack.callback(load.kill)
        most = {"rss": 0, "threads": 0, "descriptors": 0}
        while any(load.poll() is None for load in loads):
            now = {
                "rss": daemon.rss(),
                "threads": sum(map(thread_count, daemon.pids)),
                "descriptors": sum(len(descriptors(pid)) for pid in daemon.pids),
            }
            most = {name: max(most[name], now[name]) for name in most}
            time.sleep(0.2)
        results = [json.loads(load.stdout.read()) for load in loads]
        daemon.check_leaks()
        with capsys.disabled():
            print(
                f"\n{CLIENTS} clients of boto3, {SECONDS:g} s: {sum(result['requests'] for result in results)} "
                f"requests, the least busy client {min(result['least'] for result in results)}; both workers had at "
                f"most {most['threads']} threads, {most['descriptors']} descriptors and {most['rss'] / MIB:.0f} MiB, "
                f"{before / MIB:.0f} MiB before and {daemon.rss() / MIB:.0f} MiB after"
            )
        assert not [error for result in results for error in result["errors"]]
        assert most["threads"] > CLIENTS // 2
        assert most["rss"] < MAX_RSS
        with Raw(daemon.port) as raw:
            assert b"<KeyCount>0<" in raw.ask("GET", "/load?list-type=2").body
        assert [name for name in daemon.inside() if not name.startswith(("_s3/buckets/", "_s3/lock"))] == []
