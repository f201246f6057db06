"""What a remote's client does when the remote, or the network, fails: over real sockets, against a server that does."""

import hashlib
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial

import pytest
from conftest import wait_for
from objects_support import KEY, Body, etag_of
from scripted import Scripted, Visit, head_of

from s4raw.errors import (
    BadRange,
    Cancelled,
    ConnectionLost,
    Corrupt,
    DiskFull,
    LocalFileError,
    NoSuchBucket,
    NoSuchUpload,
    PeerTimeout,
    PreconditionFailed,
    ProtocolError,
    Refused,
    Unreachable,
    UsageError,
)
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Conditions, Part, Query
from s4raw.objects.remote import RemoteOptions, open_remote
from s4raw.objects.sources import FileSource
from s4raw.remote import service
from s4raw.remote.credentials import Account
from s4raw.s3 import signing
from s4raw.via import VIA

ETAG = {"ETag": '"0123"'}
NEW = Conditions(if_none_match=["*"])
LONG = os.urandom(9 << 20)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Pauses between attempts are short here; how long they are is a test of its own."""
    monkeypatch.setattr(service, "FIRST_WAIT", 0.001)


@contextmanager
def scripted(*acts, **options):
    """A server, and the backend of it."""
    with Scripted(*acts) as server:
        given = {"region": "us-east-1", "access_key": "AK", "secret_key": "SK", "read_timeout": 10.0, **options}
        backend = open_remote(RemoteOptions(server.endpoint, **given))
        try:
            yield server, backend
        finally:
            backend.close()


@pytest.fixture
def file(tmp_path):
    """Makes files: ``file(b"content")`` is one as a source."""
    opened = []

    def make(content, known=Attributes(), name="file"):  # noqa: B008
        (tmp_path / name).write_bytes(content)
        opened.append(os.open(tmp_path / name, os.O_RDONLY))
        return FileSource(opened[-1], known)

    yield make
    for fd in opened:
        os.close(fd)


def says(status=200, body=b"", headers=ETAG, until=None):
    """Reads the request and answers; ``until`` bytes of the answer, and then the end."""

    def act(visit: Visit):
        act.server.remember(visit, visit.read())
        answer = head_of(status, len(body), headers) + (b"" if visit.method == "HEAD" else body)
        visit.sock.sendall(answer[:until])
        return until is None

    return act


def error(status, code, headers=None):
    body = f"<Error><Code>{code}</Code><Message>why</Message></Error>".encode()
    return says(status, body, headers or {})


def cut(count):
    """Reads some bytes of the body, and ends the connection."""

    def act(visit: Visit):
        act.server.remember(visit, visit.read(min(count, visit.length)))
        return False

    return act


def hangs():
    """Reads the request and says nothing."""

    def act(visit: Visit):
        act.server.remember(visit, visit.read())
        visit.sock.recv(1)
        return False

    return act


def doing(what, then):
    """Does something before."""

    def act(visit: Visit):
        what(visit)
        then.server = act.server
        return then(visit)

    return act


@contextmanager
def remote(*acts, **options):
    with scripted(*acts, **options) as (server, backend):
        for act in acts:
            act.server = server
        yield server, backend


def xml(root, inner=""):
    return f'<{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{root}>'.encode()


PASSING = [
    error(500, "InternalError"),
    error(503, "SlowDown"),
    error(503, "ServiceUnavailable", {"Retry-After": "0"}),
    error(429, "TooManyRequests"),
    error(400, "RequestTimeout"),
    says(502, b"<html>bad gateway", {}),
    cut(0),
    cut(70_000),
    says(until=20),
    says(200, b"<html>not this", {}, until=-5),
]


@pytest.mark.parametrize("failing", PASSING, ids=range(len(PASSING)))
@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_a_file_is_sent_again_from_its_start(file, failing, size):
    content = os.urandom(size)
    with remote(failing, says()) as (server, backend):
        info = backend.put(KEY, file(content))
        assert (info.size, info.attributes.etag) == (size, "0123")
    assert server.methods() == ["PUT", "PUT"]
    assert server.asked[1].body == content
    assert server.asked[1].headers["x-amz-content-sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("failing", [error(500, "InternalError"), cut(0)], ids=["500", "cut"])
def test_there_is_an_end_to_attempts(file, failing):
    with remote(failing, max_attempts=3) as (server, backend), pytest.raises((Refused, ConnectionLost)) as caught:
        backend.put(KEY, file(b"x" * 100_000))
    assert server.methods() == ["PUT"] * 3
    assert caught.value.server == server.endpoint and caught.value.key == "bucket/dir/key"


@pytest.mark.parametrize(
    ("refusing", "kind", "code"),
    [
        (error(403, "AccessDenied"), Refused, "AccessDenied"),
        (error(400, "EntityTooLarge"), Refused, "EntityTooLarge"),
        (error(501, "NotImplemented"), Refused, "NotImplemented"),
        (error(508, "LoopDetected"), Refused, "LoopDetected"),
        (error(412, "PreconditionFailed"), PreconditionFailed, ""),
        (error(507, "InsufficientStorage"), DiskFull, ""),
        (says(403, b"", {}), Refused, ""),
        (says(416, b"", {}), BadRange, ""),
    ],
)
def test_what_cannot_help_is_not_repeated(file, refusing, kind, code):
    with remote(refusing) as (server, backend), pytest.raises(kind) as caught:
        backend.put(KEY, file(b"x"))
    assert server.methods() == ["PUT"] and getattr(caught.value, "s3_code", "") == code


def test_a_pause_is_bounded_and_as_long_as_the_server_asks(monkeypatch):
    monkeypatch.undo()
    assert all(0 <= service._pause(attempt, "") <= service.LONGEST_WAIT for attempt in range(1, 100))
    assert max(service._pause(1, "") for _ in range(1000)) <= 2 * service.FIRST_WAIT
    assert service._pause(1, "7") >= 7
    assert service._pause(1, "100000") <= service.LONGEST_WAIT
    assert service._pause(1, "Fri, 31 Dec 1999 23:59:59 GMT") <= 2 * service.FIRST_WAIT


def test_a_small_put_is_one_request_on_a_warm_connection(file):
    with remote(says()) as (server, backend):
        for _ in range(5):
            backend.put(KEY, file(b"x" * 50_000))
            backend.put(KEY, Body(b"y" * 50_000), Conditions())
        assert server.methods() == ["PUT"] * 10 and server.connections == 1


def test_a_connection_that_was_closed_while_idle_costs_no_attempt(file):
    with remote(says(), cut(0), says(), max_attempts=1) as (server, backend):
        backend.put(KEY, file(b"first"))
        backend.put(KEY, file(b"second"))  # the kept connection ends just as it is used
        assert [request.connection for request in server.asked] == [0, 0, 1]
        server._socks[1].shutdown(2)  # and this one while it is idle
        backend.put(KEY, file(b"third"))
        assert [request.body for request in server.asked] == [b"first", b"", b"second", b"third"]
        assert server.asked[-1].connection == 2


def test_a_server_that_says_nothing_is_left(file):
    with remote(hangs(), read_timeout=0.1, max_attempts=2) as (server, backend), pytest.raises(PeerTimeout):
        backend.put(KEY, file(b"x"))
    assert server.methods() == ["PUT", "PUT"]


def test_a_server_that_is_not_there_is_unreachable(file):
    with remote(says(), max_attempts=2) as (server, backend):
        endpoint = server.endpoint
    backend = open_remote(RemoteOptions(endpoint, region="x", access_key="a", secret_key="b", max_attempts=2))
    with pytest.raises(Unreachable) as caught:
        backend.put(KEY, file(b"x"))
    assert caught.value.server == endpoint


def test_what_is_no_http_is_an_error_at_once(file):
    def speaks(visit):
        visit.sock.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")
        return False

    with remote(speaks) as (_, backend), pytest.raises(ProtocolError):
        backend.put(KEY, file(b"x"))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 100 Continue\r\n\r\n", b""], ids=["after a 100", "chunked"])
def test_other_framings_are_read(answer):
    def act(visit):
        body = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nx: y\r\n\r\n"
        heads = {b"": b"Transfer-Encoding: chunked\r\nx-amz-mp-parts-count: 0\r\n"}.get(
            answer, b"Content-Length: 11\r\n"
        )
        visit.sock.sendall(answer + b"HTTP/1.1 200 OK\r\n" + heads + b"\r\n" + (b"hello world" if answer else body))
        return True

    with remote(act) as (server, backend):
        for _ in range(2):
            reply = backend._remote.call("GET", KEY)
            assert reply.content == b"hello world"
        assert server.connections == 1


def test_a_long_body_that_comes_once_is_sent_once():
    body = Body(LONG, piece=100_000)
    with remote(says(), cut(1_000_000), says()) as (server, backend), pytest.raises(ConnectionLost):
        backend.put(KEY, body)
    assert server.methods() == ["HEAD", "PUT"] and body.asked


@pytest.mark.parametrize(
    "broken",
    [{"breaks": ConnectionLost("gone"), "breaks_at": 8_500_000}, {"denies": ConnectionLost("gone")}],
    ids=["breaks off", "is denied at its end"],
)
def test_a_body_that_is_broken_never_becomes_whole_at_the_remote(broken):
    with remote(says(), says()) as (server, backend), pytest.raises(ConnectionLost, match="gone"):
        backend.put(KEY, Body(LONG, piece=100_000, **broken))
    request = server.asked[1]
    assert len(request.body) < int(request.headers["content-length"]) == len(LONG)


def test_a_file_that_changes_while_it_is_sent_never_becomes_whole(file, tmp_path):
    source = file(os.urandom(24 << 20))

    def touch(visit):
        visit.buffer = visit.read(1000)
        os.utime(tmp_path / "file", ns=(1, 1))

    with remote(doing(touch, says()), signed_payload=False) as (server, backend):
        with pytest.raises(LocalFileError, match="changed"):
            backend.put(KEY, source)
        wait_for(lambda: server.asked)
    assert len(server.asked[0].body) < 24 << 20


def test_a_file_that_changed_before_is_not_sent(file, tmp_path):
    source = file(b"x")
    (tmp_path / "file").write_bytes(b"longer")
    with remote(says()) as (server, backend), pytest.raises(LocalFileError, match="changed"):
        backend.put(KEY, source)
    assert not server.asked


def test_a_body_of_unknown_length_is_sent_whole_and_again():
    with remote(says(), error(500, "InternalError"), says()) as (server, backend):
        backend.put(KEY, Body(LONG, sized=False))
    assert [request.body == LONG for request in server.asked] == [False, True, True]


@pytest.mark.parametrize("size", [10, 9 << 20], ids=["in memory", "as it comes"])
def test_what_the_client_announced_is_told_to_the_remote(size):
    content = LONG[:size]
    known = Attributes(
        etag_of(content), {"content-type": "a/b"}, {"n": "v"}, {"a b": "c&"}, {"CRC32": "AAAAAA=="}, "FULL_OBJECT"
    )
    with remote(says(), says()) as (server, backend):
        backend.put(KEY, Body(content, known), NEW)
    sent = server.asked[1].headers
    assert sent["x-amz-checksum-crc32"] == "AAAAAA==" and sent["content-md5"] and sent["if-none-match"] == "*"
    assert (sent["content-type"], sent["x-amz-meta-n"], sent["x-amz-tagging"]) == ("a/b", "v", "a%20b=c%26")


def test_short_bodies_go_as_they_come_when_memory_is_taken():
    with remote(says(), cut(4), says()) as (server, backend):
        assert backend._memory.take(256 << 20)
        with pytest.raises(ConnectionLost):  # it could not be sent again
            backend.put(KEY, Body(b"x" * 100_000))
        backend._memory.give_back(256 << 20)
        backend.put(KEY, Body(b"x" * 100_000))
        assert backend._memory.take(256 << 20), "what was taken is given back"
    assert server.methods() == ["HEAD", "PUT", "PUT"]


@pytest.mark.parametrize("size", [5, 9 << 20])
@pytest.mark.parametrize("error", [-1, 1], ids=["short", "long"])
def test_a_body_of_another_length_than_it_says_is_not_stored(size, error):
    body = Body(LONG[:size], piece=1000)
    body.size += error
    with remote(says()) as (server, backend), pytest.raises(Corrupt):
        backend.put(KEY, body)
    assert all(len(request.body) < size for request in server.asked)


# an answer that was lost


@pytest.mark.parametrize(("there", "done"), [(etag_of(b"mine"), True), ("other", False)])
def test_a_condition_that_fails_after_a_lost_answer_is_looked_into(file, there, done):
    acts = [cut(4), error(412, "PreconditionFailed"), says(headers={"ETag": f'"{there}"'})]
    with remote(*acts) as (server, backend):
        if done:
            assert backend.put(KEY, file(b"mine"), NEW).attributes.etag == there
        else:
            with pytest.raises(PreconditionFailed):
                backend.put(KEY, file(b"mine"), NEW)
    assert server.methods() == ["PUT", "PUT", "HEAD"]


def test_a_condition_that_fails_after_an_idle_connection_ended_is_looked_into(file):
    acts = [says(), cut(0), error(412, "PreconditionFailed"), says(headers={"ETag": f'"{etag_of(b"mine")}"'})]
    with remote(*acts, max_attempts=1) as (server, backend):
        backend.put(KEY, file(b"first"))
        backend.put(KEY, file(b"mine"), NEW)
    assert server.methods() == ["PUT", "PUT", "PUT", "HEAD"]


def test_a_bucket_that_is_gone_is_not_believed_in_any_more(file):
    with remote(says(), error(404, "NoSuchBucket"), says(404, b"", {})) as (server, backend):
        backend.put(KEY, file(b"x"))
        with pytest.raises(NoSuchBucket):
            backend.put(KEY, file(b"x"))
        body = Body(b"x")
        with pytest.raises(NoSuchBucket):
            backend.put(KEY, body)
        assert not body.asked
    assert server.methods() == ["PUT", "PUT", "HEAD"]


def test_a_bucket_that_may_not_be_looked_at_is_not_said_to_be_made():
    acts = says(403, b"", {}), error(409, "BucketAlreadyExists")
    with remote(*acts) as (server, backend), pytest.raises(Refused, match="why") as raised:
        backend.create_bucket(KEY.bucket)
    assert raised.value.s3_code == "BucketAlreadyExists" and server.methods() == ["HEAD", "PUT"]


@pytest.mark.parametrize("status", [403, 501])
def test_what_is_said_of_a_bucket_is_what_the_remote_says(status):
    with remote(says(status, b"", {})) as (_, backend), pytest.raises(Refused) as raised:
        backend.bucket(KEY.bucket)
    assert raised.value.http == status


def test_a_bucket_that_may_not_be_looked_at_may_be_written_to():
    with remote(says(403, b"", {}), says()) as (server, backend):
        backend.put(KEY, Body(b"x"))
    assert server.methods() == ["HEAD", "PUT"]


DONE = says(200, xml("CompleteMultipartUploadResult", "<ETag>&quot;x-1&quot;</ETag>"))
PARTS = [Part(1, 5, etag_of(b"first"))]
OURS = hashlib.md5(bytes.fromhex(etag_of(b"first"))).hexdigest() + "-1"


@pytest.mark.parametrize(("there", "done"), [(OURS, True), ("other-1", False)])
def test_an_upload_that_is_gone_after_a_lost_answer_was_completed_if_its_object_is_there(there, done):
    acts = [cut(4), error(404, "NoSuchUpload"), says(headers={"ETag": f'"{there}"'})]
    with remote(*acts) as (server, backend):
        if done:
            assert backend.complete(KEY, "id", PARTS, Attributes()).attributes.etag == there
        else:
            with pytest.raises(NoSuchUpload):
                backend.complete(KEY, "id", PARTS, Attributes())
    assert server.methods() == ["POST", "POST", "HEAD"]


def test_an_upload_that_is_gone_at_once_is_no_success():
    with remote(error(404, "NoSuchUpload")) as (server, backend), pytest.raises(NoSuchUpload):
        backend.complete(KEY, "id", PARTS, Attributes())
    assert server.methods() == ["POST"]


def test_an_error_in_an_answer_that_began_well_is_an_error():
    failing = says(200, b"  \n" + xml("Error", "<Code>InternalError</Code><Message>why</Message>"))
    with remote(failing, DONE) as (server, backend):
        assert backend.complete(KEY, "id", PARTS, Attributes()).attributes.etag == "x-1"
    assert server.methods() == ["POST", "POST"]
    refused = says(200, xml("Error", "<Code>AccessDenied</Code><Message>why</Message>"))
    with remote(refused) as (server, backend), pytest.raises(Refused, match="AccessDenied"):
        backend.copy(KEY, Key("bucket", "to"))
    assert server.methods() == ["PUT"]


# reading


def part_of(content, etag='"e"'):
    """Answers a GET, or a ranged one, as S3 does."""

    def act(visit):
        act.server.remember(visit, b"")
        wanted = visit.headers.get("range", "")
        if not wanted:
            visit.sock.sendall(head_of(200, len(content), {"ETag": etag}) + content)
            return True
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        headers = {"ETag": etag, "Content-Range": f"bytes {first}-{last}/{len(content)}"}
        visit.sock.sendall(head_of(206, last + 1 - first, headers) + content[first : last + 1])
        return True

    return act


def broken_off(content, at):
    """Answers with the first bytes, and ends."""

    def act(visit):
        act.server.remember(visit, b"")
        visit.sock.sendall(head_of(200, len(content), {"ETag": '"e"'}) + content[:at])
        return False

    return act


def whole(backend):
    with backend.get(KEY) as reading:
        return b"".join(bytes(piece) for piece in reading.pieces())


@pytest.mark.parametrize("at", [0, 1, 2_500_000, len(LONG) - 1])
def test_a_reading_that_breaks_goes_on_where_it_was(at):
    with remote(broken_off(LONG, at), part_of(LONG)) as (server, backend):
        assert whole(backend) == LONG
    assert server.asked[1].headers["range"] == f"bytes={at}-{len(LONG) - 1}"
    assert server.asked[1].headers["if-match"] == '"e"'


def test_a_reading_is_not_continued_with_another_object():
    gone = error(412, "PreconditionFailed")
    with remote(broken_off(LONG, 5_000_000), gone) as (server, backend), pytest.raises(ConnectionLost):
        whole(backend)
    assert server.methods() == ["GET", "GET"]


def test_a_reading_that_ends_gives_its_connection_back_and_one_that_is_left_closes_it():
    with remote(part_of(LONG)) as (server, backend):
        whole(backend)
        whole(backend)
        assert server.connections == 1
        with backend.get(KEY) as reading:
            next(reading.pieces())
        whole(backend)
        assert server.connections == 2


# parts


def uploads(etag=True, failing=None):
    """A server of multipart uploads; ``failing`` meets the parts."""

    def act(visit):
        if visit.method == "PUT" and failing is not None:
            failing.server = act.server
            return failing(visit)
        body = visit.read()
        act.server.remember(visit, body)
        answers = {
            "POST": xml("InitiateMultipartUploadResult", "<UploadId>id</UploadId>"),
            "PUT": b"",
            "DELETE": b"",
        }
        content = answers[visit.method]
        if visit.method == "POST" and "uploadId" in visit.target:
            content = xml("CompleteMultipartUploadResult", "<ETag>&quot;x-3&quot;</ETag>")
        visit.sock.sendall(head_of(200, len(content), {"ETag": f'"{etag_of(body)}"'}) + content)
        return True

    return act


MULTIPART = {"multipart_threshold": 8 << 20, "part_size": 5 << 20}


def test_a_large_file_goes_in_parts(file):
    content = os.urandom(12 << 20)
    with remote(uploads(), **MULTIPART) as (server, backend):
        info = backend.put(KEY, file(content, Attributes(headers={"content-type": "a/b"})))
        assert info.size == len(content) and info.attributes.etag == "x-3"
    assert server.methods()[0] == "POST" and server.asked[0].headers["content-type"] == "a/b"
    parts = {request.target: request.body for request in server.asked if request.method == "PUT"}
    assert b"".join(parts[f"/bucket/dir/key?partNumber={at}&uploadId=id"] for at in (1, 2, 3)) == content
    named = server.asked[-1].body
    assert all(etag_of(body).encode() in named for body in parts.values())


def test_a_file_whose_etag_is_known_gets_it(file):
    content = os.urandom(12 << 20)
    with remote(says(headers={"ETag": f'"{etag_of(content)}"'}), **MULTIPART) as (server, backend):
        backend.put(KEY, file(content, Attributes(etag_of(content))))
    assert server.methods() == ["PUT"] and server.asked[0].headers["content-md5"]
    sizes = [6 << 20, 5 << 20, 1 << 20]
    known = Attributes("x-3", parts=[Part(at, size) for at, size in enumerate(sizes, 1)])
    with remote(uploads(), **MULTIPART) as (server, backend):
        backend.put(KEY, file(content, known))
    assert sorted(len(request.body) for request in server.asked if request.method == "PUT") == sorted(sizes)


def test_parts_whose_checksums_are_known_are_sent_with_them(file):
    sizes = {1: 5 << 20, 2: 5 << 20, 3: 2 << 20}
    parts = [Part(at, size, checksums={"CRC32": f"AAAA{at}A=="}) for at, size in sizes.items()]
    known = Attributes("x-3", checksums={"CRC32": "whole"}, checksum_type="FULL_OBJECT", parts=parts)
    with remote(uploads(), **MULTIPART) as (server, backend):
        backend.put(KEY, file(os.urandom(12 << 20), known))
    begun = server.asked[0].headers
    assert (begun["x-amz-checksum-algorithm"], begun["x-amz-checksum-type"]) == ("CRC32", "FULL_OBJECT")
    for request in server.asked[1:-1]:
        number = re.findall("partNumber=([0-9])", request.target)[0]
        assert request.headers["x-amz-checksum-crc32"] == f"AAAA{number}A=="
        assert f"<ChecksumCRC32>AAAA{number}A==</ChecksumCRC32>".encode() in server.asked[-1].body


def test_a_copy_of_more_than_5_gib_goes_in_parts():
    size = (5 << 30) + 5

    def act(visit):
        act.server.remember(visit, visit.read())
        if visit.method == "HEAD":
            sized = b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: "e"\r\nx-amz-meta-m: 1\r\n\r\n' % size
            visit.sock.sendall(sized)
        elif visit.method == "PUT" and "partNumber" not in visit.target:
            why = b"<Error><Code>InvalidRequest</Code><Message>The source is larger than that</Message></Error>"
            visit.sock.sendall(head_of(400, len(why)) + why)
        else:
            found = {"PUT": "CopyPartResult", "POST": "CompleteMultipartUploadResult"}[visit.method]
            if visit.target.endswith("uploads="):
                found = "InitiateMultipartUploadResult"
            body = xml(found, "<ETag>&quot;p&quot;</ETag><UploadId>id</UploadId>")
            visit.sock.sendall(head_of(200, len(body)) + body)
        return True

    with remote(act) as (server, backend):
        assert backend.copy(Key("bucket", "a b/+"), KEY, None, Conditions(if_match=["e"])).size == size
    parts = [request for request in server.asked if "partNumber" in request.target]
    spans = sorted(
        tuple(map(int, request.headers["x-amz-copy-source-range"].removeprefix("bytes=").split("-")))
        for request in parts
    )
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])] and spans[-1][1] == size - 1
    assert {request.headers["x-amz-copy-source"] for request in parts} == {"/bucket/a%20b/%2B"}
    assert {request.headers["x-amz-copy-source-if-match"] for request in parts} == {'"e"'}
    assert [request.headers.get("x-amz-meta-m") for request in server.asked if request.target.endswith("uploads=")] == [
        "1"
    ]


@pytest.mark.parametrize("tells", [True, False], ids=["all at once", "one at a time"])
def test_parts_are_asked_for_when_somebody_looks(tells):
    def act(visit):
        act.server.remember(visit, b"")
        if visit.method == "GET":
            part = "<Part><PartNumber>{0}</PartNumber><Size>{0}</Size></Part>"
            inner = "<ObjectParts>" + part.format(1) + part.format(2) + "</ObjectParts>" if tells else ""
            body = xml("GetObjectAttributesOutput", f"<ETag>e-2</ETag>{inner}")
            visit.sock.sendall(head_of(200, len(body)) + body)
        else:
            length = int(visit.target.partition("partNumber=")[2] or 3)
            visit.sock.sendall(head_of(200, length, {"ETag": '"e-2"', "x-amz-tagging-count": "3"}))
        return True

    with remote(act) as (server, backend):
        attributes = backend.head(KEY).attributes
        assert len(attributes.parts) == 2 and len(attributes.tags) == 3 and len(server.asked) == 1
        assert [part.size for part in attributes.parts] == [1, 2]
        assert len(server.asked) == (2 if tells else 4)


@pytest.mark.parametrize("failing", [error(403, "AccessDenied"), error(500, "InternalError")], ids=["403", "500"])
def test_an_upload_that_fails_is_given_up(file, failing):
    with remote(uploads(failing=failing), max_attempts=2, **MULTIPART) as (server, backend), pytest.raises(Refused):
        backend.put(KEY, file(os.urandom(12 << 20)))
    assert "DELETE" in server.methods() and server.methods().count("POST") == 1


def test_an_upload_that_is_interrupted_is_given_up(file):
    main, once = threading.main_thread().ident, threading.Lock()

    def waits():
        frame = sys._current_frames()[main]
        while frame and frame.f_code.co_name != "finish":
            frame = frame.f_back
        return frame is not None

    def failing(visit):
        visit.read()
        if once.acquire(blocking=False):
            wait_for(waits)  # a thread whose start is interrupted would look like a leak
            signal.pthread_kill(main, signal.SIGINT)
        visit.sock.sendall(head_of(200, 0, ETAG))
        return True

    with remote(uploads(failing=failing), **MULTIPART) as (server, backend):
        with pytest.raises(KeyboardInterrupt):
            backend.put(KEY, file(os.urandom(30 << 20)))
        assert "DELETE" in server.methods()


def test_a_large_source_goes_in_parts_once_one_request_cannot_take_it(monkeypatch):
    monkeypatch.setattr("s4raw.remote.uploading.MAX_SINGLE", 8 << 20)
    content = os.urandom(12 << 20)
    with remote(doing(lambda visit: None, says()), uploads(), part_size=5 << 20) as (server, backend):
        assert backend.put(KEY, Body(content)).size == len(content)
    parts = sorted((request.target, request.body) for request in server.asked if request.method == "PUT")
    assert b"".join(body for _, body in parts) == content
    broken = Body(content, denies=ConnectionLost("gone"))
    with (
        remote(says(), uploads(), part_size=5 << 20) as (server, backend),
        pytest.raises(ConnectionLost, match="gone"),
    ):
        backend.put(KEY, broken)
    assert server.methods()[-1] == "DELETE" and server.methods().count("POST") == 1


# the pool


def test_no_more_connections_than_allowed_are_used_at_once(file):
    with remote(doing(lambda visit: time.sleep(0.02), says()), connections=3) as (server, backend):
        sources = [file(b"x", name=str(at)) for at in range(12)]
        threads = [threading.Thread(target=backend.put, args=(KEY, source)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.asked) == 12 and server.most_at_once <= 3 and server.connections <= 3


def test_connections_are_warmed_and_used(file):
    with remote(says(), connections=5) as (server, backend):
        backend.warm()
        for _ in range(3):
            backend.put(KEY, file(b"x"))
        assert server.connections == 5 and len({request.connection for request in server.asked}) == 1


def test_what_a_burst_needed_beyond_the_warm_connections_is_closed_after_a_while(file, monkeypatch):
    with remote(says(), connections=5, keep=2) as (_, backend):
        backend.warm(5)
        pool = next(iter(backend._remote._pools.values()))
        assert pool.idle() == 5
        backend.put(KEY, file(b"x"))
        assert pool.idle() == 5, "a burst often comes again soon"
        monkeypatch.setattr("s4raw.remote.pool.IDLE_SECONDS", 0.0)
        backend.put(KEY, file(b"x"))
        assert pool.idle() == 2


def test_readers_and_slow_senders_keep_nobody_waiting(file):
    acts = [part_of(LONG), part_of(LONG), says()]
    with remote(*acts, connections=1) as (_, backend), backend.get(KEY), backend.get(KEY):
        backend.put(KEY, file(b"x"))


# where to


@pytest.mark.parametrize("connected", [True, False])
def test_who_waits_for_a_silent_server_is_cut_off(file, connected):
    arrived, over = threading.Event(), threading.Event()

    def silent(visit):
        arrived.set()
        return over.wait(20)

    acts = (says(), silent) if connected else (silent,)
    with remote(*acts) as (_, backend):
        if connected:
            backend.put(KEY, file(b"x"))
        told = []

        def ask():
            with pytest.raises((ConnectionLost, Cancelled)) as raised:
                backend.head(KEY)
            told.append(raised.value)

        thread = threading.Thread(target=ask)
        thread.start()
        assert arrived.wait(10)
        backend.cut_off()
        thread.join(5)
        over.set()
        assert told
        with pytest.raises(Cancelled):
            backend.head(KEY)


def test_a_bucket_of_another_region_is_asked_there(file):
    elsewhere = {"x-amz-bucket-region": "eu-north-1"}
    with remote(error(301, "PermanentRedirect", elsewhere), says(), max_attempts=1) as (server, backend):
        backend.put(KEY, file(b"x"))
        backend.put(KEY, file(b"y"))
    regions = [request.headers["authorization"].split("/")[2] for request in server.asked]
    assert regions == ["us-east-1", "eu-north-1", "eu-north-1"]


def test_a_wrong_region_is_learned():
    why = xml("Error", "<Code>AuthorizationHeaderMalformed</Code><Message>expecting 'b-1'</Message>")
    buckets = xml("ListAllMyBucketsResult", "<Buckets></Buckets>")
    with remote(says(400, why), says(200, buckets), max_attempts=1) as (server, backend):
        assert [*backend.buckets()] == []
    assert [request.headers["authorization"].split("/")[2] for request in server.asked] == ["us-east-1", "b-1"]


def at(ahead):
    """A time in that many seconds, as answers say it."""
    return {"Date": formatdate(time.time() + ahead, usegmt=True)}


def clocks(server):
    """By how many minutes the clocks are ahead that requests were signed by."""
    return [round((signing.seconds_of(asked.headers["x-amz-date"]) - time.time()) / 60) for asked in server.asked]


@pytest.mark.parametrize("ahead", [-3600, 20 * 60, 86400 * 400])
def test_who_is_refused_for_his_clock_goes_by_that_of_the_server(file, ahead):
    body = os.urandom(100_000)
    with remote(error(403, "RequestTimeTooSkewed", at(ahead)), says(), max_attempts=1) as (server, backend):
        for _ in range(2):
            backend.put(KEY, file(body))
    assert clocks(server) == [0, ahead / 60, ahead / 60]
    assert [asked.body for asked in server.asked] == [body] * 3


def test_who_is_refused_without_a_reason_goes_by_the_clock_of_the_server_if_it_is_another():
    with remote(says(403, b"", at(3600)), says(), max_attempts=1) as (server, backend):
        backend.head(KEY)
        assert clocks(server) == [0, 60]
    with remote(says(403, b"", at(0)), max_attempts=1) as (server, backend), pytest.raises(Refused):
        backend.head(KEY)
    assert server.methods() == ["HEAD"]


@pytest.mark.parametrize(
    ("told", "minutes"),
    [(partial(at, 3600), [0, 60, 60]), (partial(at, 0), [0, 0]), (dict, [0, 0]), (lambda: {"Date": "now"}, [0, 0])],
    ids=["other", "same", "none", "broken"],
)
def test_a_server_that_minds_any_clock_is_asked_once_more_at_most(file, told, minutes):
    with remote(error(403, "RequestTimeTooSkewed", told())) as (server, backend):
        for _ in range(2):
            with pytest.raises(Refused, match="RequestTimeTooSkewed"):
                backend.put(KEY, file(b"x"))
    assert clocks(server) == minutes


def test_a_body_that_comes_once_is_not_sent_again_for_a_clock_but_the_next_is_right():
    bodies = [Body(LONG), Body(LONG)]
    with remote(says(), error(403, "RequestTimeTooSkewed", at(3600)), says(), max_attempts=1) as (server, backend):
        with pytest.raises(Refused):
            backend.put(KEY, bodies[0])
        backend.put(KEY, bodies[1])
    assert clocks(server) == [0, 0, 60] and server.asked[2].body == LONG


def test_the_parts_of_an_upload_tell_through_whom_it_came(file):
    with remote(uploads(), via="me", **MULTIPART) as (server, backend):
        token = VIA.set("1.1 client")
        try:
            backend.put(KEY, file(LONG))
        finally:
            VIA.reset(token)
        backend.delete(KEY)
    *sent, alone = (asked.headers["via"] for asked in server.asked)
    assert len(sent) == 4 and {*sent} == {"1.1 client, 1.1 me"} and alone == "1.1 me"


def test_a_listing_that_does_not_go_on_is_an_error():
    page = xml(
        "ListBucketResult",
        "<IsTruncated>true</IsTruncated><CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>",
    )
    with remote(says(200, page)) as (_, backend):
        assert backend.list("bucket", Query("", "/", "", 1)).truncated
        with pytest.raises(ProtocolError):
            backend.list("bucket", Query("", "/", "a/", 1))
    page = xml("ListMultipartUploadsResult", "<IsTruncated>true</IsTruncated>")
    with remote(says(200, page)) as (_, backend), pytest.raises(ProtocolError):
        backend.uploads("bucket", Query())


def test_a_payload_is_signed_unless_told_not_to(file):
    content = b"x" * 100_000
    for signed, sha in [(None, hashlib.sha256(content).hexdigest()), (False, "UNSIGNED-PAYLOAD")]:
        with remote(says(), signed_payload=signed) as (server, backend):
            backend.put(KEY, file(content))
        assert server.asked[0].headers["x-amz-content-sha256"] == sha


def test_what_no_header_can_hold_is_refused_before_it_is_sent(file):
    with remote(says()) as (server, backend):
        for attributes in [
            Attributes(metadata={"a": "b\r\nx: y"}),
            Attributes(metadata={"a b": "c"}),
            Attributes(headers={"content-type": "a\nb"}),
        ]:
            with pytest.raises(UsageError):
                backend.put(KEY, file(b"x", attributes))
    assert not server.asked


@pytest.mark.parametrize(
    ("endpoint", "virtual", "region", "host", "path"),
    [
        ("http://s3.example.org:9", False, "", "s3.example.org:9", "/bucket/a//b%20"),
        ("http://s3.example.org:9", True, "", "bucket.s3.example.org:9", "/a//b%20"),
        ("http://s3.example.org:9", True, "eu-north-1", "bucket.s3.example.org:9", "/a//b%20"),
        ("https://s3.us-east-1.amazonaws.com", False, "eu-north-1", "s3.eu-north-1.amazonaws.com", "/bucket/a//b%20"),
        ("https://s3.us-east-1.amazonaws.com", True, "eu-north-1", "bucket.s3.eu-north-1.amazonaws.com", "/a//b%20"),
    ],
)
def test_requests_go_to_the_host_of_their_bucket(endpoint, virtual, region, host, path):
    account = Account(endpoint, "us-east-1", lambda: ("a", "b", ""), amazon="amazonaws" in endpoint)
    remote = service.Remote(account, service.Manner(virtual=virtual))
    if region:
        remote._regions["bucket"] = region
    place, found = remote._route(Key("bucket", "a//b "))
    assert (place.host, found) == (host, path) and place.name == host.partition(":")[0]
    assert remote._route(Key("bucket", ""))[1] == ("/" if virtual else "/bucket")
    assert remote._route(Key("", ""))[0].host == endpoint.partition("//")[2]
