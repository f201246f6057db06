"""S3 daemons each of which is the remote of another: what is asked of one goes round once at most, and all are told."""

from contextlib import ExitStack, contextmanager

import pytest
from conftest import wait_for
from push_faults import endpoint_of, heal, proxy_to
from s3_daemon import request, s3_daemon
from s3_fronts import Back, Passing, Queueing, back_and_front
from test_s3_queue import BUCKET

DELETES = b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key></Object></Delete>"
ASKED = [
    ("GET", "/", b""),
    ("GET", f"/{BUCKET}", b""),
    ("HEAD", f"/{BUCKET}/key", b""),
    ("GET", f"/{BUCKET}/key", b""),
    ("PUT", f"/{BUCKET}/key", b"x" * 100_000),
    ("PUT", f"/{BUCKET}/key?tagging", b"<Tagging><TagSet/></Tagging>"),
    ("POST", f"/{BUCKET}/key?uploads", b""),
    ("DELETE", f"/{BUCKET}/key", b""),
]


@contextmanager
def chain(directory, kind, count):
    """Daemons each of which is in front of the next, and a proxy that the last is in front of; it leads nowhere yet."""
    with proxy_to(1) as proxy, ExitStack() as held:
        daemons, there = [], endpoint_of(proxy)
        for number in range(count):
            queue = ("--write-queue", "--queue", str(directory / f"queue{number}")) if kind is Queueing else ()
            options = ("--remote", there, "--access-log", *queue)
            daemons.insert(0, held.enter_context(s3_daemon(directory / str(number), *options, kind=kind)))
            there = daemons[0].endpoint
        yield daemons, proxy
        heal(proxy)


def served(daemon, method):
    """How many requests a daemon has served, but for its own health."""
    return sum(f" {method} /" in line and "/healthz" not in line for line in daemon.log().splitlines())


@pytest.mark.parametrize("count", [1, 3])
def test_a_request_that_comes_back_is_answered_at_once_by_all_whom_it_passed(tmp_path, count):
    with chain(tmp_path, Passing, count) as (daemons, proxy):
        proxy.target = ("127.0.0.1", daemons[0].port)
        for method, target, body in ASKED:
            with daemons[0].raw() as raw:  # whoever refuses a body may end the connection
                reply = raw.ask(method, target, body)
                assert (reply.status, reply.code) == (508, "" if method == "HEAD" else "LoopDetected"), (method, target)
        with daemons[0].raw() as raw:
            assert raw.ask("POST", f"/{BUCKET}?delete", DELETES).body.count(b"<Code>LoopDetected<") == 2
        assert served(daemons[0], "GET") == 2 * sum(method == "GET" for method, *_ in ASKED)  # each went round once


def test_who_says_where_a_request_has_been_is_passed_on_and_bounded(tmp_path):
    with back_and_front(tmp_path, Passing) as (_, front), front.raw() as raw:
        assert raw.ask("GET", "/", Via="1.1 nginx, HTTP/1.0 other").status == 200
        raw.send(request("GET", "/", Via="1.1 a" * 300))
        assert raw.answer().code == "LoopDetected"


def test_what_was_queued_goes_round_once_is_shown_as_failing_and_arrives_when_the_loop_is_undone(tmp_path):
    with s3_daemon(tmp_path / "back", kind=Back) as back, chain(tmp_path, Queueing, 2) as ((first, last), proxy):
        proxy.target = ("127.0.0.1", back.port)
        with first.raw() as raw:
            assert raw.ask("PUT", f"/{BUCKET}").status == 200
            assert raw.ask("PUT", f"/{BUCKET}/gone", b"x").status == 200
        for daemon in (first, last):  # both know the bucket from here on, and need not ask
            daemon.wait_until_delivered()
        heal(proxy)
        proxy.target = ("127.0.0.1", first.port)
        with first.raw() as raw:
            assert raw.ask("PUT", f"/{BUCKET}/new", b"content").status == 200
            assert raw.ask("DELETE", f"/{BUCKET}/gone").status == 204
            first.wait_until_delivered()
            wait_for(lambda: len(failing(last)) == 2, "both to fail")
            assert all("LoopDetected" in each["error"] for each in failing(last)), last.queue()
            assert first.queue()["s4raw-queue"]["entries"] == 0
            assert raw.ask("GET", f"/{BUCKET}/new").body == b"content"
            assert raw.ask("PUT", "/other").code == "LoopDetected"
            assert raw.ask("HEAD", f"/{BUCKET}").status == 508  # not: as it was last seen, as if the remote was away
        heal(proxy)
        proxy.target = ("127.0.0.1", back.port)
        last.wait_until_delivered()
        with back.raw() as raw:
            assert raw.ask("GET", f"/{BUCKET}/new").body == b"content"
            assert raw.ask("GET", f"/{BUCKET}/gone").code == "NoSuchKey"


def failing(daemon):
    """What a daemon has tried to deliver in vain."""
    return [entry for entry in daemon.queue()["entries"] if entry["attempts"]]
