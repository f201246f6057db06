"""``s4raw s3 VERB`` against a real daemon, and against servers that answer badly."""

import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zlib
from base64 import b64encode
from contextlib import ExitStack, closing, contextmanager
from hashlib import md5
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import CLI, wait_for
from test_s3_tls import certificate

from s4raw.keys import Key
from s4raw.net import listen
from s4raw.s3.client import Client
from s4raw.s3.transfer import PART

PAIR = ("AKIDOFTHETESTS", "the-secret-of-the-tests/EXAMPLE+KEY")
KEYS = {"AWS_ACCESS_KEY_ID": PAIR[0], "AWS_SECRET_ACCESS_KEY": PAIR[1]}
UNSET = dict.fromkeys(("S3D_ACCESS_KEY", "S3D_SECRET_KEY", "S3D_LOCAL_DIR", "S4RAW_SECRET_FILE"), "")


@contextmanager
def daemon(directory: Path, *options: str):
    """``s4raw s3 run`` over a directory; gives its port."""
    reader, writer = os.pipe()
    with ExitStack() as stack:
        listener = stack.enter_context(closing(listen("127.0.0.1", 0)))
        stack.callback(os.close, reader)
        log = stack.enter_context(open(directory / "daemon.log", "ab"))
        command = ["s3", "run", "--local", str(directory / "objects"), "--listen-fd", str(listener.fileno())]
        process = subprocess.Popen(
            [*CLI, *command, "--lifeline-fd", str(reader), *options],
            env={**os.environ, **UNSET, **KEYS},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(listener.fileno(), reader),
        )
        stack.callback(process.wait, 40)
        stack.callback(os.close, writer)
        yield listener.getsockname()[1]
    assert "Traceback" not in (directory / "daemon.log").read_text()


@pytest.fixture
def port(tmp_path):
    with daemon(tmp_path) as found:
        yield found


@pytest.fixture
def endpoint(port):
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def s3(endpoint, tmp_path):
    """Runs ``s4raw s3 ARGUMENTS`` against the daemon; fails unless it exits as expected."""
    return runner(endpoint, tmp_path)


@pytest.fixture
def client(endpoint):
    with Client(endpoint, PAIR) as found:
        yield found


def environment(endpoint):
    return {**os.environ, **UNSET, **KEYS, "S3D_ENDPOINT": endpoint, "PYTHONPATH": str(Path(__file__).parents[2])}


def runner(endpoint, cwd):
    def run(*arguments, code=0, stdin=b"", env=None):
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        done = subprocess.run(
            [*CLI, "s3", *arguments],
            **given,
            capture_output=True,
            cwd=cwd,
            env={**environment(endpoint), **(env or {})},
            timeout=100,
            check=False,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout[:1000], done.stderr)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done

    return run


@contextmanager
def answering(*answers: bytes, abrupt=False):
    """A server that reads a head, sends the first answer, and closes; then the next one. Gives its endpoint.

    An abrupt one reads nothing of what follows the head.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for answer in answers:
            peer, _ = listener.accept()
            with peer:
                got = b""
                while b"\r\n\r\n" not in got and (more := peer.recv(1 << 16)):
                    got += more
                peer.sendall(answer)
                if abrupt:
                    continue
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(1 << 16):
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


def answer(body, *headers, status="200 OK", length=None):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


# is the daemon there


def test_status_says_whether_the_daemon_is_there(s3, endpoint):
    s3("mb", "bucket")
    assert s3("status").stdout.decode().split() == ["endpoint:", endpoint, "healthy:", "yes", "buckets:", "1"]
    assert json.loads(s3("status", "--json").stdout) == {"endpoint": endpoint, "healthy": True, "buckets": 1}


def test_a_daemon_that_is_not_there_is_an_error(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
    run = runner(endpoint, tmp_path)
    for arguments in (("status",), ("ls",), ("get", "bucket/key"), ("put", "bucket/key"), ("mb", "bucket")):
        stderr = run(*arguments, code=1).stderr.decode()
        assert "Connection refused" in stderr
        assert "s4raw s3 run" in stderr
        assert endpoint in stderr


# bytes, and what belongs to them


@pytest.mark.parametrize("size", [0, 1, 4096, 3 << 20])
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_what_is_put_is_got(s3, tmp_path, size, kind):
    data = os.urandom(size)
    (tmp_path / "in").write_bytes(data)
    s3("mb", "bucket")
    with open(tmp_path / "in", "rb") as file:
        done = s3("put", "bucket/key", "--json", stdin=file if kind == "file" else data)
    etag = md5(data).hexdigest()
    assert json.loads(done.stdout) == {"verb": "put", "key": "bucket/key", "bytes": size, "etag": etag}
    assert s3("get", "bucket/key").stdout == data


def test_a_file_is_put_from_where_it_stands(s3, tmp_path):
    (tmp_path / "in").write_bytes(b"0123456789")
    s3("mb", "bucket")
    with open(tmp_path / "in", "rb") as file:
        os.lseek(file.fileno(), 4, os.SEEK_SET)
        s3("put", "bucket/key", stdin=file)
    assert s3("get", "-q", "bucket/key").stdout == b"456789"


def test_what_belongs_to_an_object_is_kept_and_told(s3, endpoint):
    s3("mb", "bucket")
    options = ["--content-type", "text/plain", "--metadata", "Who=n\u00f6body = me", "--metadata", "b=2"]
    s3("put", "bucket/key", *options, "--tag", "t\u00e4g=a b&c", "--tag", "x=", stdin=b"hello")
    found = json.loads(s3("status", "bucket/key", "--json").stdout)
    assert found.pop("time").endswith("Z")
    assert found == {
        "key": "bucket/key",
        "bytes": 5,
        "etag": md5(b"hello").hexdigest(),
        "type": "text/plain",
        "checksums": {"CRC32": b64encode(zlib.crc32(b"hello").to_bytes(4, "big")).decode()},
        "metadata": {"who": "n\u00f6body = me", "b": "2"},
        "tags": {"t\u00e4g": "a b&c", "x": ""},
    }
    lines = s3("status", "s3://bucket/key").stdout.decode().splitlines()
    assert "metadata:    who=n\u00f6body = me" in lines
    assert "tag:         t\u00e4g=a b&c" in lines
    got = s3("get", "bucket/key")
    assert got.stdout == b"hello"
    assert [line for line in lines if not line.startswith("tag:")] == got.stderr.decode().splitlines()
    assert json.loads(s3("get", "bucket/key", "--json").stderr)["metadata"] == found["metadata"]
    assert s3("get", "-q", "bucket/key").stderr == b""


def test_a_bucket_is_told(s3):
    s3("mb", "bucket")
    s3("set", "bucket", "--tag", "a=1")
    found = json.loads(s3("status", "bucket", "--json").stdout)
    assert found.pop("time").endswith("Z")
    assert found == {"bucket": "bucket", "region": "us-east-1", "tags": {"a": "1"}}
    assert "tag:         a=1" in s3("status", "bucket/").stdout.decode().splitlines()


NASTY = ["a//b", "/lead", "trail/", "./..", "two words", "new\nline", "\u20ac\U0001f600", "%41%2F", "a?b#c&d=+", "\x01"]


def test_a_key_is_kept_byte_for_byte(s3, client):
    s3("mb", "bucket")
    for name in NASTY:
        s3("put", f"bucket/{name}", stdin=name.encode())
        assert s3("get", "-q", f"bucket/{name}").stdout == name.encode()
        s3("set", f"bucket/{name}", "--tag", "a=b")
        assert client.tags(Key("bucket", name)) == {"a": "b"}
        with urllib.request.urlopen(client.presign("GET", Key("bucket", name), 60), timeout=20) as found:
            assert found.read() == name.encode()
    listed = [json.loads(line)["key"] for line in s3("ls", "-r", "--json", "bucket").stdout.splitlines()]
    assert listed == sorted(f"bucket/{name}" for name in NASTY)
    for name in NASTY:
        s3("rm", f"bucket/{name}")
    s3("rb", "bucket")


def test_a_range_is_what_http_calls_one(s3):
    s3("mb", "bucket")
    s3("put", "bucket/key", stdin=b"0123456789")
    for wanted, data in {"0-3": b"0123", "8-": b"89", "-3": b"789", "8-99": b"89"}.items():
        done = s3("get", f"--range={wanted}", "bucket/key")
        assert done.stdout == data
        assert "size:        10" in done.stderr.decode()
    assert b"InvalidRange" in s3("get", "--range", "10-", "bucket/key", code=1).stderr
    for wrong in ("1", "a-b", "3-1x", "-"):
        s3("get", "--range", wrong, "bucket/key", code=2)


def test_a_long_pipe_goes_in_parts(s3, tmp_path, client):
    data = os.urandom(1 << 20) * (PART // (1 << 20) + 3)
    s3("mb", "bucket")
    found = json.loads(s3("put", "bucket/key", "--json", "--metadata", "a=b", "--tag", "c=d", stdin=data).stdout)
    assert found["bytes"] == len(data)
    assert found["etag"].endswith("-2")
    assert s3("get", "-q", "bucket/key").stdout == data
    told = json.loads(s3("status", "--json", "bucket/key").stdout)
    assert (told["metadata"], told["tags"]) == ({"a": "b"}, {"c": "d"})
    assert told["checksums"] == {"CRC32": b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()}


def uploads(client):
    found = client.read("GET", Key("bucket", ""), "uploads=", root="ListMultipartUploadsResult")
    return found.all("Upload")


def parts(client):
    """The parts of all uploads to bucket/key."""
    queries = [f"uploadId={quote(upload.need('UploadId'))}" for upload in uploads(client)]
    key = Key("bucket", "key")
    return [part for query in queries for part in client.read("GET", key, query, root="ListPartsResult").all("Part")]


def test_an_interrupted_pipe_leaves_nothing(endpoint, client, s3, tmp_path):
    s3("mb", "bucket")
    process = subprocess.Popen(
        [*CLI, "s3", "put", "bucket/key"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=environment(endpoint),
    )
    with process:
        process.stdin.write(bytes(PART))
        process.stdin.flush()
        wait_for(lambda: parts(client), "a part to be stored")  # so that the upload's id has been heard
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 130
        process.stdin.close()
        assert process.stderr.read() == b"s4raw: interrupted\n"
    assert not uploads(client)
    assert b"NoSuchKey" in s3("get", "bucket/key", code=1).stderr


def test_whoever_has_read_enough_is_no_error_worth_a_word(endpoint, s3, tmp_path):
    s3("mb", "bucket")
    s3("put", "bucket/key", stdin=bytes(8 << 20))
    command = [*CLI, "s3", "get", "-q", "bucket/key"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment(endpoint)
    )
    with process:
        assert process.stdout.read(10) == bytes(10)
        process.stdout.close()
        assert process.wait(40) == 1
        assert process.stderr.read() == b""


# listings


def test_lines_are_date_time_size_and_name(s3):
    s3("mb", "bucket")
    for name in ("dir/one", "dir/two", "dir.txt", "other"):
        s3("put", f"bucket/{name}", stdin=name.encode())

    def listed(*arguments):
        return [line.split(" ", 2)[2] for line in s3("ls", *arguments).stdout.decode().splitlines()]

    assert listed() == ["0 bucket"]
    assert listed("bucket") == listed("bucket/") == ["7 dir.txt", "PRE dir/", "5 other"]
    assert listed("bucket/dir") == ["7 dir.txt", "PRE dir/"]
    assert listed("bucket/dir/") == ["7 one", "7 two"]
    assert listed("-r", "bucket") == ["7 dir.txt", "7 dir/one", "7 dir/two", "5 other"]
    assert listed("-r", "bucket/dir/t") == ["7 dir/two"]
    first = s3("ls", "bucket/dir/one").stdout.decode()
    assert time.strptime(" ".join(first.split()[:2]), "%Y-%m-%d %H:%M:%SZ")
    lines = [json.loads(line) for line in s3("ls", "--json", "bucket/dir").stdout.splitlines()]
    assert [line.get("key") or line["prefix"] for line in lines] == ["bucket/dir.txt", "bucket/dir/"]


def test_nothing_found_is_exit_code_1(s3):
    assert s3("ls", code=1).stdout == b""
    s3("mb", "bucket")
    assert s3("ls", "bucket", code=1).stderr == b""
    s3("put", "bucket/key")
    s3("ls", "bucket/none", code=1)
    assert b"NoSuchBucket" in s3("ls", "none", code=1).stderr
    assert b"needs a bucket" in s3("ls", "-r", code=2).stderr


def test_more_than_a_page_is_listed(s3, client):
    s3("mb", "bucket")
    names = [f"dir{number % 7}/{number:04}" for number in range(1003)]
    for name in names:
        client.request("PUT", Key("bucket", name))
    found = [line.split()[3] for line in s3("ls", "-r", "bucket").stdout.decode().splitlines()]
    assert found == sorted(names)
    assert len(s3("ls", "bucket").stdout.splitlines()) == 7


# tags, URLs, buckets


def test_set_changes_the_tags_that_it_names(s3, client):
    s3("mb", "bucket")
    s3("put", "bucket/key", "--tag", "a=1", "--tag", "b=2", "--tag", "empty=")
    s3("set", "bucket/key", "--tag", "b=3", "--tag", "c=x=y")
    assert client.tags(Key("bucket", "key")) == {"a": "1", "b": "3", "c": "x=y", "empty": ""}
    for name in ("a", "b", "c", "empty", "none"):
        s3("set", "bucket/key", "--tag", f"{name}=")
    assert client.tags(Key("bucket", "key")) == {}
    assert s3("get", "-q", "bucket/key").stdout == b""
    assert b"NoSuchKey" in s3("set", "bucket/none", "--tag", "a=b", code=1).stderr
    assert b"K=V" in s3("set", "bucket/key", "--tag", "a", code=2).stderr
    s3("set", "bucket/key", code=2)


def test_a_presigned_url_needs_no_keys(s3):
    s3("mb", "bucket")
    url = s3("presign", "bucket/key", "--method", "put").stdout.decode().strip()
    with urllib.request.urlopen(urllib.request.Request(url, b"sent", method="PUT"), timeout=20) as done:
        assert done.status == 200
    url = s3("presign", "bucket/key", "--expires", "60").stdout.decode().strip()
    with urllib.request.urlopen(url, timeout=20) as found:
        assert found.read() == b"sent"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.replace("/key?", "/other?"), timeout=20)
    with caught.value:
        assert caught.value.code == 403
    for wrong in (["--expires", "604801"], ["--expires", "x"], ["--method", "POST"], ["--anonymous"]):
        s3("presign", "bucket/key", *wrong, code=2)


def test_buckets_and_objects_go_when_they_are_told_to(s3):
    s3("mb", "bucket")
    s3("mb", "bucket")
    s3("put", "bucket/key")
    assert b"BucketNotEmpty" in s3("rb", "bucket", code=1).stderr
    s3("rm", "bucket/key")
    s3("rm", "bucket/key")
    s3("rb", "bucket")
    assert b"NoSuchBucket" in s3("rb", "bucket", code=1).stderr
    assert b"InvalidBucketName" in s3("mb", "No_Bucket", code=1).stderr
    s3("mb", "bucket/key", code=2)


# errors


def test_errors_say_what_and_where(s3, endpoint):
    s3("mb", "bucket")
    for arguments, words in {
        ("get", "bucket/none"): ["NoSuchKey: The specified key does not exist.", "bucket/none"],
        ("get", "none/key"): ["NoSuchBucket: ", "none/key"],
        ("status", "bucket/none"): ["NoSuchKey: ", "bucket/none"],
        ("status", "none"): ["NoSuchBucket: ", "(key none,"],
        ("put", "none/key"): ["NoSuchBucket: ", "s4raw s3 mb none"],
        ("put", "bucket/" + "x" * 1024, "--metadata", "a=" + "x" * 3000): ["MetadataTooLarge: "],
    }.items():
        stderr = s3(*arguments, code=1).stderr.decode()
        assert all(word in stderr for word in (*words, f"server {endpoint}")), stderr


def test_a_large_body_that_is_refused_early_is_told_why(s3, tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(200 << 20)
    with open(tmp_path / "large", "rb") as file:
        assert b"NoSuchBucket" in s3("put", "none/key", code=1, stdin=file).stderr
    assert b"NoSuchBucket" in s3("put", "none/key", code=1, stdin=bytes(PART)).stderr


def test_keys_come_from_a_file_or_the_environment(s3, tmp_path, endpoint):
    (tmp_path / "good").write_text(" ".join(PAIR))
    (tmp_path / "bad").write_text(f"{PAIR[0]} another")
    none = dict.fromkeys(KEYS, "")
    s3("mb", "bucket", "--keys", "good", env=none)
    assert b"SignatureDoesNotMatch" in s3("ls", "--keys", "bad", code=1).stderr
    assert b"AWS_ACCESS_KEY_ID" in s3("ls", code=2, env=none).stderr
    assert b"AccessDenied" in s3("ls", "--anonymous", code=1, env=none).stderr
    assert b"cannot read" in s3("ls", "--keys", "missing", code=2).stderr
    s3("ls", "--endpoint", endpoint, env={"S3D_ENDPOINT": "http://127.0.0.1:1"})


def test_wrong_usage_is_exit_code_2(s3):
    for arguments in (
        ["get"],
        ["get", "bucket"],
        ["put", "bucket/"],
        ["rm", ""],
        ["ls", "--endpoint", "ftp://host"],
        ["ls", "--endpoint", "http://host/path"],
        ["ls", "--endpoint", "http://host:port"],
        ["put", "bucket/key", "--metadata", "a"],
        ["put", "bucket/key", "--metadata", "a b=c"],
        ["put", "bucket/key", "--metadata", "a=b\nc"],
        ["put", "bucket/key", "--tag", "a=\udcff"],
        ["get", "bucket/\udcff"],
        ["ls", "--region", "\u20ac"],
        ["ls", "--endpoint", "http://\u20ac:1"],
        ["get", "bucket/" + "x" * 1025],
        ["nothing"],
        [],
    ):
        assert s3(*arguments, code=2).stderr, arguments


def test_an_answer_is_read_although_the_body_was_not(tmp_path):
    with open(tmp_path / "large", "wb") as file:
        file.truncate(50 << 20)
    error = b"<Error><Code>EntityTooLarge</Code><Message>Too large</Message></Error>"
    with answering(answer(error, status="400 Bad"), abrupt=True) as endpoint, open(tmp_path / "large", "rb") as file:
        assert b"EntityTooLarge: Too large" in runner(endpoint, tmp_path)("put", "b/key", code=1, stdin=file).stderr


CRC = b64encode(zlib.crc32(b"good").to_bytes(4, "big")).decode()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer(b"evil", f"x-amz-checksum-crc32: {CRC}"), ["its CRC32 is", CRC]),
        (answer(b"evil", f'ETag: "{md5(b"good").hexdigest()}"'), ["its MD5 is"]),
        (answer(b"evil", "x-amz-checksum-sha256: AAAA"), ["its SHA256 is"]),
        (answer(b"evil", "x-amz-checksum-crc64nvme: AAAA"), ["its CRC64NVME is"]),
        (answer(b"good", length=9), ["ended 5 bytes early"]),
        (b"HTTP/1.1 200 OK\r\n\r\ngood", ["does not say how long"]),
        (b"not http at all\r\n\r\n", ["no HTTP"]),
        (b"", ["closed the connection"]),
        (answer(b"<html>", status="502 Bad Gateway"), ["HTTP 502 Bad Gateway"]),
    ],
)
def test_what_comes_damaged_is_an_error(tmp_path, reply, words):
    with answering(reply) as endpoint:
        stderr = runner(endpoint, tmp_path)("get", "-q", "bucket/key", code=1).stderr.decode()
    assert all(word in stderr for word in (*words, "bucket/key", endpoint)), stderr


@pytest.mark.parametrize(
    "headers",
    [
        [f"x-amz-checksum-crc32: {CRC}"],
        [f'ETag: "{md5(b"good").hexdigest()}"'],
        ["x-amz-checksum-crc32: AAAAAA==-2", "x-amz-checksum-type: COMPOSITE", 'ETag: "abc-2"'],
        [],
    ],
)
def test_what_comes_whole_is_no_error(tmp_path, headers):
    with answering(answer(b"good", *headers)) as endpoint:
        assert runner(endpoint, tmp_path)("get", "-q", "bucket/key").stdout == b"good"


def test_an_unhealthy_server_is_exit_code_1(tmp_path):
    buckets = b"<ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>"
    with answering(answer(b"", "Connection: close", status="503 No"), answer(buckets)) as endpoint:
        assert b"healthy:     no" in runner(endpoint, tmp_path)("status", code=1).stdout


def test_a_kept_connection_that_was_closed_is_made_anew(tmp_path):
    with daemon(tmp_path, "--idle-timeout", "0.1") as port, Client(f"http://127.0.0.1:{port}", PAIR) as client:
        assert list(client.buckets()) == []
        assert select.select([client._connection], [], [], 20)[0], "the daemon keeps idle connections"
        client.read("PUT", Key("bucket", ""))
        assert [bucket.name for bucket in client.buckets()] == ["bucket"]


def test_everything_works_through_tls(tmp_path):
    pem = certificate(tmp_path)
    with daemon(tmp_path, "--tls-cert", str(pem)) as port:
        s3 = runner(f"https://localhost:{port}", tmp_path)
        stderr = s3("ls", code=1).stderr.decode()
        assert "self-signed" in stderr or "self signed" in stderr
        trust = ["--ca-cert", str(pem)]
        s3("mb", "bucket", *trust)
        data = os.urandom(3 << 20)
        (tmp_path / "in").write_bytes(data)
        with open(tmp_path / "in", "rb") as file:
            s3("put", "bucket/key", *trust, stdin=file)
        assert s3("get", "-q", "bucket/key", *trust).stdout == data
        assert s3("presign", "bucket/key", *trust).stdout.startswith(b"https://localhost:")
        assert b"cannot use the certificates" in s3("ls", "--ca-cert", "none", code=2).stderr


def test_a_client_needs_no_package_but_the_core(s3, tmp_path, client):
    (tmp_path / "without").mkdir()
    (tmp_path / "without/awscrt.py").write_text("raise ImportError")
    path = {"PYTHONPATH": f"{tmp_path / 'without'}:{Path(__file__).parents[2]}"}
    s3("mb", "bucket")
    s3("put", "bucket/key", stdin=b"hello", env=path)
    assert s3("get", "-q", "bucket/key", env=path).stdout == b"hello"
    assert s3("ls", "bucket", env=path).stdout.endswith(b" 5 key\n")
    client.request("PUT", Key("bucket", "key"), body=b"other")
    got = s3("get", "bucket/key", env=path)
    assert b"CRC64NVME" in got.stderr  # what awscrt is for; the MD5 stands in for it
    assert got.stdout == b"other"
