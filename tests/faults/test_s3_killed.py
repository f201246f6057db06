"""kill -9 of the S3 daemon in the middle of whatever writes; SIGTERM; a slow reader of what is replaced."""

import hashlib
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from s3_daemon import Daemon, s3_daemon

MIB = 1 << 20
PART = 5 * MIB
OLD = random.Random(1).randbytes(3 * MIB + 17)
NEW = random.Random(2).randbytes(9 * MIB + 5)
PARTS = [random.Random(10 + number).randbytes(PART if number < 3 else 1234) for number in range(4)]
ROUNDS = 6


@pytest.fixture
def daemon(tmp_path) -> Iterator[Daemon]:
    with s3_daemon(tmp_path) as daemon:
        with closing(daemon.raw()) as raw:
            assert raw.ask("PUT", "/bucket").status == 200
            assert raw.ask("PUT", "/bucket/source", NEW).status == 200
        yield daemon


def internal(daemon: Daemon) -> list[str]:
    """What lies in the daemon's own directories but the files of buckets and locks."""
    return [name for name in daemon.inside() if not name.startswith(("_s3/buckets/", "_s3/lock"))]


def killed_while(daemon: Daemon, write: Callable[[Any], object], seconds: float) -> None:
    """Kill the daemon so long after ``write``, which is given a raw connection, began; start it again."""
    began = threading.Event()

    def run() -> None:
        with closing(daemon.raw()) as raw, suppress(ConnectionError):
            began.set()
            write(raw)

    thread = threading.Thread(target=run)
    thread.start()
    began.wait()
    time.sleep(seconds)
    daemon.kill()
    thread.join()
    daemon.start()


def half_a_put(raw: Any, target: str) -> None:
    raw.send(b"PUT %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (target.encode(), len(NEW)) + NEW[: 6 * MIB])
    raw.sock.recv(1)


def check_whole(daemon: Daemon, target: str, *contents: bytes | None) -> None:
    """The object is one of these, with its own ETag; None stands for no object."""
    with closing(daemon.raw()) as raw:
        answer = raw.ask("GET", target)
        if answer.status == 404:
            assert None in contents
            return
        assert answer.status == 200 and answer.body in contents
        etag = answer.headers["etag"].strip('"')
        assert "-" in etag or etag == hashlib.md5(answer.body).hexdigest()


def test_killed_in_the_middle_of_a_put(daemon):
    killed_while(daemon, lambda raw: half_a_put(raw, "/bucket/new"), 0.05)
    check_whole(daemon, "/bucket/new", None)
    assert internal(daemon) == []


def test_killed_in_the_middle_of_an_overwrite(daemon):
    with closing(daemon.raw()) as raw:
        raw.ask("PUT", "/bucket/key", OLD)
    killed_while(daemon, lambda raw: half_a_put(raw, "/bucket/key"), 0.05)
    check_whole(daemon, "/bucket/key", OLD)
    assert internal(daemon) == []


def overwrite(raw: Any) -> None:
    long = {f"x_amz_meta_{number}": "m" * 300 for number in range(6)}  # more than fits beside the object
    for number in range(10_000):
        assert raw.ask("PUT", "/bucket/key", NEW if number % 2 else OLD, **(long if number % 3 else {})).status == 200


def test_killed_at_any_moment_of_overwrites(daemon):
    with closing(daemon.raw()) as raw:
        raw.ask("PUT", "/bucket/key", OLD)
    for number in range(ROUNDS):
        killed_while(daemon, overwrite, 0.02 + 0.013 * number)
        check_whole(daemon, "/bucket/key", OLD, NEW)
    daemon.kill()
    daemon.start()
    left = [name for name in internal(daemon) if "attributes" not in name]
    assert left == [] and len(internal(daemon)) <= 1


def copy(raw: Any) -> None:
    for number in range(10_000):
        target, source = ("/bucket/copied", "/bucket/source" if number % 2 else "/bucket/old")
        assert raw.ask("PUT", target, x_amz_copy_source=source).status == 200


def test_killed_at_any_moment_of_copies(daemon):
    with closing(daemon.raw()) as raw:
        raw.ask("PUT", "/bucket/old", OLD)
    for number in range(ROUNDS):
        killed_while(daemon, copy, 0.01 + 0.007 * number)
        check_whole(daemon, "/bucket/copied", OLD, NEW, None)
        check_whole(daemon, "/bucket/old", OLD)
        check_whole(daemon, "/bucket/source", NEW)
    assert internal(daemon) == []


def begin(daemon: Daemon, count: int) -> tuple[str, list[dict[str, Any]]]:
    s3 = daemon.client()
    upload = s3.create_multipart_upload(Bucket="bucket", Key="multi")["UploadId"]
    return upload, [put_part(s3, upload, number) for number in range(count)]


def put_part(s3: Any, upload: str, number: int) -> dict[str, Any]:
    found = s3.upload_part(Bucket="bucket", Key="multi", UploadId=upload, PartNumber=number + 1, Body=PARTS[number])
    return {"PartNumber": number + 1, "ETag": found["ETag"]}


def complete(daemon: Daemon, upload: str, parts: list[dict[str, Any]]) -> None:
    daemon.client().complete_multipart_upload(
        Bucket="bucket", Key="multi", UploadId=upload, MultipartUpload={"Parts": parts}
    )


def test_an_upload_goes_on_after_a_kill_in_the_middle_of_a_part(daemon):
    upload, parts = begin(daemon, 2)
    target = f"/bucket/multi?partNumber=3&uploadId={upload}"
    killed_while(daemon, lambda raw: half_a_put(raw, target), 0.05)
    s3 = daemon.client()
    listed = s3.list_parts(Bucket="bucket", Key="multi", UploadId=upload)["Parts"]
    assert [(part["PartNumber"], part["ETag"]) for part in listed] == [tuple(part.values()) for part in parts]
    parts += [put_part(s3, upload, number) for number in (2, 3)]
    complete(daemon, upload, parts)
    check_whole(daemon, "/bucket/multi", b"".join(PARTS))
    assert internal(daemon) == []


@pytest.mark.parametrize("milliseconds", [0, 1, 2, 3, 5, 8])
def test_killed_in_the_middle_of_completing(daemon, milliseconds):
    upload, parts = begin(daemon, 4)
    body = "".join(f"<Part><PartNumber>{p['PartNumber']}</PartNumber><ETag>{p['ETag']}</ETag></Part>" for p in parts)
    body = f"<CompleteMultipartUpload>{body}</CompleteMultipartUpload>"
    killed_while(
        daemon, lambda raw: raw.ask("POST", f"/bucket/multi?uploadId={upload}", body.encode()), milliseconds / 1000
    )
    with closing(daemon.raw()) as raw:
        there = raw.ask("HEAD", "/bucket/multi").status == 200
    if not there:
        assert len(daemon.client().list_parts(Bucket="bucket", Key="multi", UploadId=upload)["Parts"]) == 4
        complete(daemon, upload, parts)
    check_whole(daemon, "/bucket/multi", b"".join(PARTS))
    with pytest.raises(ClientError, match="NoSuchUpload"):
        daemon.client().list_parts(Bucket="bucket", Key="multi", UploadId=upload)
    assert internal(daemon) == []


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])
def test_sigterm_lets_running_requests_finish_and_idle_ones_end(tmp_path, options):
    with s3_daemon(tmp_path, *options) as daemon, closing(daemon.raw()) as put, closing(daemon.raw()) as idle:
        with closing(daemon.raw()) as get:
            get.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            assert get.ask("PUT", "/bucket").status == 200
            assert get.ask("PUT", "/bucket/large", NEW).status == 200
            assert idle.ask("GET", "/healthz").status == 200
            put.send(b"PUT /bucket/key HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(NEW) + NEW[:100])
            get.send(b"GET /bucket/large HTTP/1.1\r\nHost: h\r\n\r\n")
            begun = get.sock.recv(10, socket.MSG_WAITALL)
            assert begun == b"HTTP/1.1 2"
            time.sleep(0.1)  # the PUT's head is read by now, which nothing else says
            os.kill(daemon.pid, 15)
            assert idle.at_end()
            put.send(NEW[100:])
            assert put.answer().status == 200
            get._buffer = begun
            assert get.answer().body == NEW
        assert daemon.process.wait(30) == 0
        daemon.start()
        check_whole(daemon, "/bucket/key", NEW)


def test_a_slow_reader_gets_the_old_bytes_while_the_object_is_replaced_and_deleted(daemon):
    large = OLD * 8
    with closing(daemon.raw()) as raw:
        assert raw.ask("PUT", "/bucket/key", large).status == 200
        with closing(daemon.raw()) as reader, closing(daemon.raw()) as ranged:
            for each, extra in ((reader, b""), (ranged, b"Range: bytes=1000-\r\n")):
                each.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                each.send(b"GET /bucket/key HTTP/1.1\r\nHost: h\r\n%s\r\n" % extra)
                each._buffer = each.sock.recv(10, socket.MSG_WAITALL)
            assert raw.ask("PUT", "/bucket/key", NEW).status == 200
            assert raw.ask("GET", "/bucket/key").body == NEW
            assert raw.ask("DELETE", "/bucket/key").status == 204
            assert raw.ask("GET", "/bucket/key").status == 404
            assert reader.answer().body == large
            assert ranged.answer().body == large[1000:]


def test_a_put_whose_client_dies_leaves_the_old_object_and_nothing_else(daemon):
    with closing(daemon.raw()) as raw:
        assert raw.ask("PUT", "/bucket/key", OLD).status == 200
        for length in (0, 1, 100_000, 6 * MIB):
            with closing(daemon.raw()) as dying:
                dying.send(
                    b"PUT /bucket/key HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(NEW) + NEW[:length]
                )
        assert raw.ask("GET", "/bucket/key").body == OLD
    daemon.check_leaks()
    assert internal(daemon) == []
