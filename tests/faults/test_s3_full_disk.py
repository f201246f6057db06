"""A full disk: an S3 error, the old object as it was, nothing left over, and a daemon and a connection that go on."""

import random
import resource
from collections.abc import Iterator
from contextlib import closing

import pytest
from s3_daemon import Daemon, s3_daemon

LIMIT = (
    1 << 20
)  # bytes that the daemon may write to one file: what is beyond fails like a full disk, without needing one
SMALL = random.Random(5).randbytes(1000)
LARGE = random.Random(6).randbytes(4 * LIMIT)
PART = random.Random(7).randbytes(5 * LIMIT)


@pytest.fixture(scope="module", name="_one")
def _daemon(tmp_path_factory) -> Iterator[Daemon]:
    with s3_daemon(tmp_path_factory.mktemp("full")) as daemon:
        yield daemon


@pytest.fixture
def daemon(_one: Daemon) -> Iterator[Daemon]:
    limit_files(_one, resource.RLIM_INFINITY)
    with closing(_one.raw()) as raw:
        raw.ask("PUT", "/bucket")
        for target, body in (("/bucket/key", SMALL), ("/bucket/large", LARGE)):
            assert raw.ask("PUT", target, body).status == 200
        limit_files(_one, LIMIT)
        yield _one
        limit_files(_one, resource.RLIM_INFINITY)
        assert raw.ask("GET", "/bucket/key").body == SMALL
        assert raw.ask("GET", "/bucket/large").body == LARGE
    _one.close_clients()
    _one.check_leaks()
    _one.check_no_traceback()
    assert not _one.inside("_tmp")


def limit_files(daemon: Daemon, size: int) -> None:
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


CHUNKED = b"PUT /bucket/%s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"


@pytest.mark.parametrize("target", ["/bucket/new", "/bucket/key", "/bucket/key/below"])
def test_a_put_that_does_not_fit_is_an_error_of_s3_and_the_connection_goes_on(daemon, target):
    with closing(daemon.raw()) as raw:
        before = raw.ask("GET", target)
        for _ in range(3):
            answer = raw.ask(
                "PUT", target, LARGE[: LIMIT + 4096]
            )  # what is left is less than is worth a new connection
            assert answer.status >= 500 and answer.code, answer
            assert raw.ask("GET", target).body[:9] == before.body[:9]
        assert raw.ask("PUT", "/bucket/fits", SMALL).status == 200
        assert raw.ask("GET", "/bucket/fits").body == SMALL


def test_a_put_in_chunks_and_a_large_one_that_do_not_fit_are_told_so(daemon):
    with closing(daemon.raw()) as raw:
        raw.send(CHUNKED % (b"new", len(LARGE), LARGE))
        assert raw.answer().status >= 500
    with closing(daemon.raw()) as raw:
        assert raw.ask("PUT", "/bucket/new", LARGE * 4).status >= 500
    with closing(daemon.raw()) as raw:
        assert raw.ask("GET", "/bucket/new").status == 404


def test_a_copy_that_does_not_fit_leaves_the_target(daemon):
    with closing(daemon.raw()) as raw:
        for target, status in (("/bucket/key", 200), ("/bucket/other", 404)):
            assert raw.ask("PUT", target, x_amz_copy_source="/bucket/large").status >= 500
            assert raw.ask("GET", target).status == status


def test_a_part_that_does_not_fit_leaves_the_upload_usable(daemon):
    s3 = daemon.client()
    upload = s3.create_multipart_upload(Bucket="bucket", Key="multi")["UploadId"]
    with closing(daemon.raw()) as raw:
        assert raw.ask("PUT", f"/bucket/multi?partNumber=1&uploadId={upload}", PART).status >= 500
    assert "Parts" not in s3.list_parts(Bucket="bucket", Key="multi", UploadId=upload)
    limit_files(daemon, resource.RLIM_INFINITY)
    etag = s3.upload_part(Bucket="bucket", Key="multi", UploadId=upload, PartNumber=1, Body=PART)["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(Bucket="bucket", Key="multi", UploadId=upload, MultipartUpload=parts)
    assert s3.get_object(Bucket="bucket", Key="multi")["Body"].read() == PART


def test_without_any_space_everything_that_writes_fails_and_everything_that_reads_does_not(daemon):
    limit_files(daemon, 0)
    tags = b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"
    with closing(daemon.raw()) as raw:
        for method, target, body in (
            ("PUT", "/bucket/key", b"new"),
            ("PUT", "/bucket/new", b"new"),
            ("PUT", "/bucket?tagging", tags),
            ("PUT", "/other-bucket", b""),
            ("POST", "/bucket/multi?uploads", b""),
        ):
            answer = raw.ask(method, target, body)
            assert answer.status >= 500 and answer.code, (method, target, answer)
        assert raw.ask("GET", "/bucket/key").body == SMALL
        assert b"<Key>key<" in raw.ask("GET", "/bucket").body
        assert raw.ask("DELETE", "/bucket/fits").status == 204
