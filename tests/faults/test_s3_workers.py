"""Several processes over one directory: conditions hold, and bytes never mix, whichever process answers."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from conftest import descriptors
from s3_daemon import Daemon, Raw, s3_daemon

CLIENTS = 8


@pytest.fixture(scope="module", name="daemon")
def _daemon(tmp_path_factory) -> Iterator[Daemon]:
    with s3_daemon(tmp_path_factory.mktemp("workers"), "--workers", "2") as daemon:
        with closing(daemon.raw()) as raw:
            assert raw.ask("PUT", "/bucket").status == 200
        yield daemon


def at_once(daemon: Daemon, action: Callable[[int, Raw], None]) -> None:
    """Run ``action`` in CLIENTS threads, each with a connection of its own; both processes have some of them."""
    errors: list[BaseException] = []
    with ExitStack() as stack:
        raws = [stack.enter_context(daemon.raw()) for _ in range(CLIENTS)]
        for raw in raws:
            assert raw.ask("GET", "/healthz").status == 200
        held = [len(descriptors(pid)) - daemon.at_rest[pid][1] for pid in daemon.pids]
        assert sum(held) == CLIENTS and min(held) > 0

        def run(number: int, raw: Raw) -> None:
            try:
                action(number, raw)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=pair) for pair in enumerate(raws)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def test_no_update_is_lost_that_was_made_on_condition(daemon):
    with closing(daemon.raw()) as raw:
        assert raw.ask("PUT", "/bucket/counter", b"[]").status == 200
    rounds = 15

    def count(number: int, raw: Raw) -> None:
        for step in range(rounds):
            for _ in range(10_000):
                found = raw.ask("GET", "/bucket/counter")
                new = json.dumps([*json.loads(found.body), [number, step]]).encode()
                answer = raw.ask("PUT", "/bucket/counter", new, If_Match=found.headers["etag"])
                if answer.status == 200:
                    break
                assert answer.status == 412, answer
            else:
                raise AssertionError("never got through")

    at_once(daemon, count)
    with closing(daemon.raw()) as raw:
        found = json.loads(raw.ask("GET", "/bucket/counter").body)
    assert sorted(found) == [[number, step] for number in range(CLIENTS) for step in range(rounds)]


def test_if_none_match_has_one_winner(daemon):
    won: list[tuple[int, int]] = []
    barrier = threading.Barrier(CLIENTS)
    rounds = 20

    def race(number: int, raw: Raw) -> None:
        for step in range(rounds):
            barrier.wait(30)
            answer = raw.ask("PUT", f"/bucket/race/{step}", b"%d" % number, If_None_Match="*")
            assert answer.status in (200, 412), answer
            if answer.status == 200:
                won.append((step, number))

    at_once(daemon, race)
    assert sorted(step for step, _ in won) == list(range(rounds))
    with closing(daemon.raw()) as raw:
        for step, number in won:
            assert raw.ask("GET", f"/bucket/race/{step}").body == b"%d" % number


@pytest.mark.parametrize("size", [3000, 200_000, 2_000_000])
def test_who_reads_while_others_overwrite_gets_one_content_whole(daemon, size):
    sizes = [size + 1000 * number for number in range(4)]  # contents differ in every byte that could be mixed
    contents = {number: bytes([number]) * length for number, length in enumerate(sizes)}
    with closing(daemon.raw()) as raw:
        assert raw.ask("PUT", "/bucket/mixed", contents[0], x_amz_meta_number="0").status == 200

    def work(number: int, raw: Raw) -> None:
        source = random.Random(number)
        for _ in range(20):
            if number % 2:
                mine = source.randrange(4)
                extra = {"x_amz_meta_long": "x" * 1500} if mine % 2 else {}
                answer = raw.ask("PUT", "/bucket/mixed", contents[mine], x_amz_meta_number=str(mine), **extra)
                assert answer.status == 200, answer
            else:
                answer = raw.ask("GET", "/bucket/mixed")
                assert answer.status == 200 and answer.body == contents[int(answer.headers["x-amz-meta-number"])]
                assert ("x-amz-meta-long" in answer.headers) == (answer.body[0] % 2 == 1)

    at_once(daemon, work)


def test_a_worker_that_is_killed_ends_the_daemon_which_says_so(tmp_path):
    daemon = Daemon(tmp_path, "--workers", "2").start()
    try:
        with closing(daemon.raw()) as raw:
            assert raw.ask("PUT", "/bucket").status == 200
        import os

        os.kill(daemon.pids[0], 9)
        assert daemon.process.wait(30) == 1
        assert "a worker process died" in daemon.log()
    finally:
        if daemon.process.poll() is None:
            daemon.kill()
        daemon._cut_lifeline()
