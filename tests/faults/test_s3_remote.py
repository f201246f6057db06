"""An S3 daemon in front of another one: what a client does to the one is done at the other, and told as it says it."""

import os
import socket
import subprocess
import sys
from contextlib import closing

import pytest
from botocore.exceptions import ClientError
from proxy import Proxy
from s3_daemon import ACCESS_KEY, SECRET_KEY, s3_daemon
from s3_fronts import Back, Passing, Queueing, back_and_front
from test_s3_queue import BUCKET, ODD, PART, body_of, code_of, content, etag_of, names, put_parts

from s4raw.net import listen

LARGE = bytes(range(251)) * 70_000  # 17 MB: more than is held in memory


def told(answer):
    """What an answer says of an object, without its time and whose answer it is."""
    left_out = ("ResponseMetadata", "Body", "LastModified")
    return {name: value for name, value in answer.items() if name not in left_out}


@pytest.fixture(scope="module", params=[Passing, Queueing], ids=["passing", "queueing"])
def pair(request, tmp_path_factory):
    """Clients of the front and of the remote; the front has no queue, or one that is delivered before one looks."""
    with back_and_front(tmp_path_factory.mktemp("front"), request.param) as (back, front):
        settle = front.wait_until_delivered if request.param is Queueing else lambda: None
        client = front.client()
        client.create_bucket(Bucket=BUCKET)
        direct = back.client()
        direct.list_buckets()
        yield client, direct, settle


def test_an_object_is_at_the_remote_with_all_it_has(pair):
    client, direct, settle = pair
    more = {
        "Metadata": {"name": "value", "other": "2"},
        "Tagging": "a=1&b=%C3%A9",
        "ContentType": "text/plain",
        "CacheControl": "no-cache",
        "ContentDisposition": 'attachment; filename="x"',
        "ContentEncoding": "gzip",
        "ContentLanguage": "de",
        "ChecksumAlgorithm": "SHA256",
    }
    client.put_object(Bucket=BUCKET, Key="all", Body=b"content", **more)
    seen = told(client.head_object(Bucket=BUCKET, Key="all", ChecksumMode="ENABLED"))
    settle()
    for each in (client, direct):
        found = each.get_object(Bucket=BUCKET, Key="all", ChecksumMode="ENABLED")
        assert found["Body"].read() == b"content"
        assert told(each.head_object(Bucket=BUCKET, Key="all", ChecksumMode="ENABLED")) == seen
        assert (found["ETag"], found["Metadata"], found["TagCount"]) == (etag_of(b"content"), more["Metadata"], 2)
        assert (
            found["ChecksumSHA256"] == seen["ChecksumSHA256"]
            and found["ContentDisposition"] == 'attachment; filename="x"'
        )
        tags = each.get_object_tagging(Bucket=BUCKET, Key="all")["TagSet"]
        assert sorted((tag["Key"], tag["Value"]) for tag in tags) == [("a", "1"), ("b", "é")]


@pytest.mark.parametrize("key", ODD)
def test_any_key_arrives_as_it_is(pair, key):
    client, direct, settle = pair
    client.put_object(Bucket=BUCKET, Key=key, Body=body_of(key))
    assert content(client, key) == body_of(key)
    settle()
    assert content(direct, key) == content(client, key) == body_of(key)
    assert key in names(client) and key in names(direct)
    client.delete_object(Bucket=BUCKET, Key=key)
    assert code_of(client.get_object, Key=key) == "NoSuchKey"
    settle()
    assert code_of(direct.get_object, Key=key) == "NoSuchKey"


def test_large_objects_stream_through_and_ranges_are_exact(pair):
    client, direct, settle = pair
    client.put_object(Bucket=BUCKET, Key="large", Body=LARGE)
    settle()
    assert content(client, "large") == content(direct, "large") == LARGE
    for asked, start, end in [("0-0", 0, 1), ("-7", len(LARGE) - 7, None), ("9000000-9000009", 9_000_000, 9_000_010)]:
        found = client.get_object(Bucket=BUCKET, Key="large", Range=f"bytes={asked}")
        assert found["Body"].read() == LARGE[start:end]
        assert found["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert code_of(client.get_object, Key="large", Range=f"bytes={len(LARGE)}-") == "InvalidRange"


def test_parts_become_the_same_object_on_both_sides(pair):
    client, direct, settle = pair
    parts = [b"1" * PART, b"2" * (PART + 1), b"3"]
    etag = put_parts(client, "parts", parts, Metadata={"m": "1"}, ContentType="text/x")
    assert etag.endswith('-3"')
    settle()
    for each in (client, direct):
        found = each.head_object(Bucket=BUCKET, Key="parts")
        assert (found["ETag"], found["Metadata"], found["ContentType"]) == (etag, {"m": "1"}, "text/x")
        second = each.get_object(Bucket=BUCKET, Key="parts", PartNumber=2)
        assert second["Body"].read() == parts[1] and second["PartsCount"] == 3
    assert content(direct, "parts") == b"".join(parts)
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    assert [one["UploadId"] for one in client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]] == [upload]
    client.abort_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload)
    assert code_of(client.list_parts, Key="parts", UploadId=upload) == "NoSuchUpload"


def test_conditions_and_errors_are_those_of_the_remote(pair):
    client, direct, settle = pair
    client.put_object(Bucket=BUCKET, Key="key", Body=b"old")
    settle()
    assert code_of(client.put_object, Key="key", Body=b"new", IfNoneMatch="*") == "PreconditionFailed"
    assert code_of(client.put_object, Key="key", Body=b"new", IfMatch='"other"') == "PreconditionFailed"
    assert code_of(client.put_object, Key="none", Body=b"new", IfMatch='"other"') == "NoSuchKey"
    assert code_of(client.get_object, Key="key", IfMatch='"other"') == "PreconditionFailed"
    assert code_of(client.get_object, Key="key", IfNoneMatch=etag_of(b"old")) == "304"
    client.put_object(Bucket=BUCKET, Key="key", Body=b"new", IfMatch=etag_of(b"old"))
    settle()
    assert content(direct, "key") == b"new"
    assert code_of(client.get_object, Key="none") == "NoSuchKey"
    assert code_of(client.delete_bucket) == "BucketNotEmpty"
    for action in (client.list_objects_v2, client.get_bucket_tagging, client.delete_bucket):
        with pytest.raises(ClientError, match="NoSuchBucket"):
            action(Bucket="absent")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        client.put_object(Bucket="absent", Key="key", Body=b"x")
    wrong = "AAAAAAAAAAAAAAAAAAAAAA=="
    assert code_of(client.put_object, Key="key", Body=b"wrong", ContentMD5=wrong) == "BadDigest"
    assert content(client, "key") == b"new"


def test_copies_and_tags_and_deletes_arrive(pair):
    client, direct, settle = pair
    client.put_object(Bucket=BUCKET, Key="from/a", Body=b"a" * 1000, Metadata={"m": "1"}, Tagging="t=1")
    for key, more in [("to/plain", {}), ("to/changed", {"MetadataDirective": "REPLACE", "Metadata": {"m": "2"}})]:
        client.copy_object(Bucket=BUCKET, Key=key, CopySource={"Bucket": BUCKET, "Key": "from/a"}, **more)
        settle()  # the next one is a copy of what is at the remote
    client.put_object_tagging(Bucket=BUCKET, Key="to/plain", Tagging={"TagSet": [{"Key": "t", "Value": "2"}]})
    client.put_object(Bucket=BUCKET, Key="to/gone", Body=b"x")
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "to/gone"}, {"Key": "to/never"}]})
    settle()
    for each in (client, direct):
        assert names(each, Prefix="to/") == ["to/changed", "to/plain"]
        assert each.head_object(Bucket=BUCKET, Key="to/changed")["Metadata"] == {"m": "2"}
        assert each.head_object(Bucket=BUCKET, Key="to/plain")["Metadata"] == {"m": "1"}
        tags = [
            each.get_object_tagging(Bucket=BUCKET, Key=f"to/{key}")["TagSet"][0]["Value"]
            for key in ("plain", "changed")
        ]
        assert tags == ["2", "1"]
        page = each.list_objects_v2(Bucket=BUCKET, Delimiter="/", Prefix="", MaxKeys=1000)
        assert {"from/", "to/"} <= {found["Prefix"] for found in page["CommonPrefixes"]}


def start(tmp_path, *arguments, **environment):
    """A daemon that must not start: what it says."""
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    done = subprocess.run(
        [sys.executable, "-m", "s4raw", "s3", "run", *arguments],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=os.environ | keys | environment,
    )
    assert done.returncode == 2, done
    return done.stderr.decode()


def test_a_daemon_in_front_of_itself_is_refused(tmp_path):
    with closing(listen("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for address in (f"127.0.0.1:{port}", f"0.0.0.0:{port}"):
        for there in (f"http://127.0.0.1:{port}", f"http://localhost:{port}/"):
            assert "is this daemon itself" in start(tmp_path, "--address", address, "--remote", there)


def test_a_daemon_that_is_its_own_remote_by_another_address_refuses(tmp_path):
    listener = socket.create_server(("127.0.0.1", 0))
    front = Passing(tmp_path, "--remote", "http://{}:{}".format(*listener.getsockname()))
    with closing(Proxy(listener, ("127.0.0.1", front.start().port))):
        try:
            with closing(front.raw()) as raw:
                for target in ("/", f"/{BUCKET}/key"):
                    reply = raw.ask("GET", target)
                    assert (reply.status, reply.code) == (508, "LoopDetected")
        finally:
            assert front.stop() == 0
            front._cut_lifeline()


def test_a_remote_whose_clock_is_wrong_takes_what_it_is_sent(tmp_path):
    tuning = "import time; right = time.time; time.time = lambda: right() - 7200"
    with (
        s3_daemon(tmp_path / "back", kind=Back, tuning=tuning) as back,
        s3_daemon(tmp_path / "front", "--remote", back.endpoint, kind=Passing) as front,
        front.raw() as raw,
    ):
        assert raw.ask("PUT", f"/{BUCKET}").status == 200
        assert raw.ask("PUT", f"/{BUCKET}/key", LARGE).status == 200
        assert raw.ask("GET", f"/{BUCKET}/key").body == LARGE


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--remote", "http://127.0.0.1:1", "--write-queue", "--workers", "2"], {}, "only one process may hold"),
        (["--write-queue"], {}, "goes with --remote"),
        ([], {"S3D_WRITE_QUEUE": "true"}, "goes with --remote"),
        (["--remote"], {"S3D_WRITE_QUEUE": "perhaps"}, "true or false"),
        (["http://127.0.0.1:1"], {}, "URL goes with --remote"),
        (["--remote", "http://127.0.0.1:1", "--queue", "q"], {}, "--queue goes with --write-queue"),
        (["--remote", "http://127.0.0.1:1", "--local", "d"], {}, "name one"),
        (["--remote", "http://127.0.0.1:1", "--write-queue", "--queue-size", "much"], {}, "--queue-size needs"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path, arguments, environment, words):
    assert words in start(tmp_path, "--address", "127.0.0.1:0", *arguments, **environment)


def test_a_queue_has_one_daemon(tmp_path):
    with back_and_front(tmp_path, Queueing) as (back, front):
        queue = str(tmp_path / "queue")
        words = start(
            tmp_path, "--address", "127.0.0.1:0", "--remote", back.endpoint, "--write-queue", "--queue", queue
        )
        assert "in use by another process" in words and str(front.pid) in words
