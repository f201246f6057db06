"""5,000 clients that connect and say nothing: another one is served meanwhile, and nothing stays of them."""

import random
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from conftest import descriptors, rss, thread_count, wait_for
from proxy import UP, Cut
from push_daemon import push_daemon, remote_s3
from push_faults import endpoint_of, heal, proxy_to

SILENT = 5_000
MAX_EACH = 48 << 10  # bytes of the daemon for each of them
KIB, MIB = 1 << 10, 1 << 20
BODY = random.Random(1).randbytes(300_000)


@contextmanager
def many_descriptors(count: int) -> Iterator[None]:
    """Let this process have so many descriptors. Skips the test where it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        pytest.skip(f"needs {count} descriptors, may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_5000_clients_that_say_nothing_cost_little_and_nothing_once_they_have_gone(tmp_path, capsys):
    (tmp_path / "file").write_bytes(BODY)
    with (
        many_descriptors(SILENT + 500),
        remote_s3(tmp_path / "remote", "bucket") as remote,
        push_daemon(tmp_path / "push", "--idle-timeout", "3600", endpoint=remote.endpoint) as daemon,
    ):
        began = time.monotonic()
        with ExitStack() as stack:

            def connect(count: int) -> None:
                for _ in range(count):
                    stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=60))

            for number in range(30):  # what is paid once
                assert daemon.old(tmp_path / "file", f"a/bucket/first{number}") == "Success"
            connect(100)
            wait_for(lambda: thread_count(daemon.pid) > 100)
            threads, open_files, before = thread_count(daemon.pid), len(descriptors(daemon.pid)), rss(daemon.pid)
            connect(SILENT - 100)
            wait_for(lambda: thread_count(daemon.pid) >= threads + SILENT - 100, "all to be let in", 60)
            each = (rss(daemon.pid) - before) / (SILENT - 100)
            with daemon.connect() as client:
                for number in range(20):
                    assert client.ask(file=str(tmp_path / "file"), to=f"a/bucket/during{number}")["ok"]
            assert daemon.old(tmp_path / "file", "a/bucket/old") == "Success"
            assert daemon.http("/healthz")[0] == 200
            assert daemon.status()["entries"] == 0
        wait_for(lambda: thread_count(daemon.pid) <= threads - 50, "their threads to end", 60)
        wait_for(lambda: len(descriptors(daemon.pid)) <= open_files - 50, "their connections to be closed", 60)
        assert remote.get("bucket", "old") == remote.get("bucket", "during19") == BODY
        after = rss(daemon.pid) - before
        with capsys.disabled():
            print(
                f"\n{SILENT} silent clients cost the uploader {each / KIB:.1f} KiB each; {after / MIB:.1f} MiB stayed"
                f" when they had gone, after {time.monotonic() - began:.0f} s"
            )
        assert each < MAX_EACH


def test_without_a_descriptor_for_a_file_it_is_waited_for_and_not_set_aside(tmp_path):
    (tmp_path / "file").write_bytes(BODY)
    with (
        remote_s3(tmp_path / "remote", "bucket") as remote,
        proxy_to(remote.port, Cut(UP, 0)) as proxy,
        push_daemon(tmp_path / "push", endpoint=endpoint_of(proxy)) as daemon,
        daemon.connect() as client,
    ):
        assert client.ask(file=str(tmp_path / "file"), to="a/bucket/scarce", ack="queued")["ok"]
        _, most = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, most))  # none can be opened any more
        try:
            count = client.ask(do="status")["failures"]
            wait_for(
                lambda: (
                    client.ask(do="status")["failures"] >= count + 2
                    or client.ask(do="list")["entries"][0]["state"] == "parked"
                )
            )
            entry = client.ask(do="list")["entries"][0]
            assert "Too many open files" in entry["error"] and entry["state"] != "parked"
            heal(proxy)
        finally:
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (most, most))
        daemon.wait_empty(60)
        assert remote.get("bucket", "scarce") == BODY
