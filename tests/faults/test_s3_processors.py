"""Which processors the daemon's threads run on: one for small requests, all for large bodies and in a crowd."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import wait_for
from s3_daemon import Daemon, s3_daemon

from s4raw import processors

ALL = os.sched_getaffinity(0)
MANY = pytest.mark.skipif(len(ALL) < 2, reason="there is one processor")
QUIET, CROWDED = (f"import s4raw.processors as p; p.CROWDED = {part}; p.LOOK_SECONDS = 0.02" for part in (9.0, -1.0))
LARGE = b"x" * (256 << 10)


def tasks(daemon: Daemon) -> set[int]:
    """The threads of a daemon."""
    return {int(task) for task in os.listdir(f"/proc/{daemon.pid}/task")}


def allowed(daemon: Daemon) -> list[int]:
    """On how many processors each thread of a daemon may run, the fewest first."""
    return sorted(len(os.sched_getaffinity(task)) for task in tasks(daemon))


@MANY
def test_threads_of_small_requests_share_a_processor_and_large_bodies_have_all(tmp_path):
    with s3_daemon(tmp_path / "s3", tuning=QUIET) as daemon:
        with daemon.raw() as first, daemon.raw() as second:
            assert first.ask("PUT", "/bucket").status == 200
            for number in range(3):
                for client in (first, second):
                    assert client.ask("PUT", f"/bucket/{number}", b"small").status == 200
                    assert client.ask("GET", f"/bucket/{number}").body == b"small"
            assert allowed(daemon) == [1, 1, 1]
            assert len({frozenset(os.sched_getaffinity(task)) for task in tasks(daemon)}) == 1
            assert first.ask("PUT", "/bucket/large", LARGE).status == 200
            assert allowed(daemon) == [1, 1, len(ALL)]
            assert second.ask("GET", "/bucket/large").body == LARGE
            assert allowed(daemon) == [1, len(ALL), len(ALL)]
        wait_for(lambda: daemon.rests(daemon.pid), "the threads to end")
        with daemon.raw() as third:
            assert third.ask("GET", "/bucket/0").body == b"small"
            assert allowed(daemon) == [1, 1]


@MANY
def test_a_thread_that_had_all_processors_serves_its_next_connection_on_one(tmp_path):
    with s3_daemon(
        tmp_path / "s3", tuning=f"{QUIET}; import s4raw.serving as s; s.SPARE_SECONDS, s.MAX_SPARE = 1.0, 1"
    ) as daemon:
        with daemon.raw() as client:
            assert client.ask("PUT", "/bucket").status == 200
        for _ in range(50):
            with daemon.raw() as client:
                assert client.ask("PUT", "/bucket/large", LARGE).status == 200
                wide = {task for task in tasks(daemon) if len(os.sched_getaffinity(task)) > 1}
            wait_for(lambda: len(tasks(daemon)) <= 2, "other threads to end")
            with daemon.raw() as client:
                assert client.ask("GET", "/bucket").status == 200
                if wide < tasks(daemon) and len(tasks(daemon)) == 2:  # it serves this connection
                    assert allowed(daemon) == [1, 1]
                    return
        raise AssertionError("no thread served two connections")


@MANY
def test_a_copy_has_all_processors(tmp_path):
    with s3_daemon(tmp_path / "s3", tuning=QUIET) as daemon, daemon.raw() as client:
        assert client.ask("PUT", "/bucket").status == 200
        assert client.ask("PUT", "/bucket/source", b"small").status == 200
        assert allowed(daemon) == [1, 1]
        assert client.ask("PUT", "/bucket/copy", b"", **{"x-amz-copy-source": "bucket/source"}).status == 200
        assert allowed(daemon) == [1, len(ALL)]


@MANY
def test_where_other_programs_keep_the_processors_busy_threads_run_on_any(tmp_path):
    with s3_daemon(tmp_path / "s3", tuning=CROWDED) as daemon:

        def roams() -> bool:
            with daemon.raw() as client:
                assert client.ask("GET", "/healthz").status == 200
                return set(allowed(daemon)) == {len(ALL)}

        wait_for(roams, "the daemon to notice")


def test_what_has_not_settled_stays_where_it_is():
    before = os.sched_getaffinity(0)
    processors.roam()
    processors.come_home()
    assert os.sched_getaffinity(0) == before


def test_what_others_use_is_a_part_of_what_there_is():
    total, others = processors.used_by_others()
    assert 0 < others < total


def test_on_one_processor_nothing_settles():
    program = (
        "import os; from s4raw import processors as p; "
        "one = {min(os.sched_getaffinity(0))}; os.sched_setaffinity(0, one); "
        "p.settle(5); p.come_home(); p.roam(); assert os.sched_getaffinity(0) == one"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2], timeout=60)
