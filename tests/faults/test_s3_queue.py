"""Writes that are queued in front of a remote: nothing accepted is lost, and all is seen at once, whatever happens."""

import hashlib
import json
import os
import re
import signal
import threading
import time
import urllib.request
from contextlib import suppress

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from conftest import wait_for
from s3_daemon import ACCESS_KEY, SECRET_KEY
from s3_fronts import Queueing, back_and_front, restart

from s4raw import cli

BUCKET = "bucket"
PART = 5 << 20
ODD = ["a//b", "trail/", "/lead", ".", "a/../b", "new\nline", "😀/é", "sp ace+&?#%", "x" * 1024]


def body_of(text):
    return (text.encode() + b"\n") * 100


def etag_of(content):
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def names(client, **query):
    return [entry["Key"] for entry in client.list_objects_v2(Bucket=BUCKET, **query).get("Contents", ())]


def content(client, key):
    return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


def code_of(action, **arguments):
    with pytest.raises(ClientError) as caught:
        action(Bucket=BUCKET, **arguments)
    return caught.value.response["Error"]["Code"]


def put_parts(client, key, contents, **more):
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key, **more)["UploadId"]
    where = {"Bucket": BUCKET, "Key": key, "UploadId": upload}
    parts = [
        {"PartNumber": at, "ETag": client.upload_part(**where, PartNumber=at, Body=part)["ETag"]}
        for at, part in enumerate(contents, 1)
    ]
    return client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})["ETag"]


def write_much(client):
    """Writes of every kind; the ETag of what was put in parts."""
    for name in ODD:
        told = client.put_object(
            Bucket=BUCKET, Key=name, Body=body_of(name), Metadata={"m": "1"}, Tagging="t=1", ContentType="text/x"
        )
        assert told["ETag"] == etag_of(body_of(name))
    client.put_object(Bucket=BUCKET, Key="twice", Body=b"first")
    client.put_object(Bucket=BUCKET, Key="twice", Body=b"second")
    joined = put_parts(client, "large", [b"1" * PART, b"2" * 1000], Metadata={"m": "2"})
    client.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "a//b"})
    client.put_object_tagging(Bucket=BUCKET, Key="twice", Tagging={"TagSet": [{"Key": "new", "Value": "1"}]})
    client.delete_object(Bucket=BUCKET, Key="gone")
    client.put_object(Bucket=BUCKET, Key="brief", Body=b"x")
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "brief"}]})
    client.head_bucket(Bucket=BUCKET)
    assert code_of(client.put_object, Key="twice", Body=b"", IfNoneMatch="*") == "PreconditionFailed"
    assert code_of(client.put_object, Key="twice", Body=b"", IfMatch=etag_of(b"first")) == "PreconditionFailed"
    client.put_object(Bucket=BUCKET, Key="twice", Body=b"third", IfMatch=etag_of(b"second"), Tagging="new=1")
    return joined


def check_much(client, joined):
    """That all of it is so."""
    for name in ODD:
        found = client.get_object(Bucket=BUCKET, Key=name)
        assert found["Body"].read() == body_of(name)
        assert (found["ETag"], found["Metadata"]) == (etag_of(body_of(name)), {"m": "1"})
        assert (found["ContentType"], found["TagCount"]) == ("text/x", 1)
    assert content(client, "twice") == b"third" and content(client, "copy") == body_of("a//b")
    assert client.get_object_tagging(Bucket=BUCKET, Key="twice")["TagSet"] == [{"Key": "new", "Value": "1"}]
    assert client.head_object(Bucket=BUCKET, Key="large")["ETag"] == joined
    found = client.get_object(Bucket=BUCKET, Key="large", Range=f"bytes={PART - 2}-{PART + 1}")
    assert found["Body"].read() == b"1122"
    for gone in ("gone", "brief"):
        assert code_of(client.get_object, Key=gone) == "NoSuchKey"


def check_away(client):
    """That what only the remote knows is not known."""
    assert code_of(client.get_object, Key="delivered") == "ServiceUnavailable"
    assert code_of(client.list_objects_v2) == "ServiceUnavailable"


def test_writes_go_on_while_the_remote_is_away_and_survive_a_kill(tmp_path):
    with back_and_front(tmp_path, Queueing) as (back, front):
        client = front.client()
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="delivered", Body=b"delivered")
        client.put_object(Bucket=BUCKET, Key="gone", Body=b"gone")
        front.wait_until_delivered()
        assert back.stop() == 0

        joined = write_much(client)
        held = client.create_multipart_upload(Bucket=BUCKET, Key="held")["UploadId"]
        client.upload_part(Bucket=BUCKET, Key="held", UploadId=held, PartNumber=1, Body=b"held")
        check_much(client, joined)
        check_away(client)
        front.kill()
        restart(front)
        client = front.client()
        check_much(client, joined)
        check_away(client)
        part = client.list_parts(Bucket=BUCKET, Key="held", UploadId=held)["Parts"][0]
        named = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        client.complete_multipart_upload(Bucket=BUCKET, Key="held", UploadId=held, MultipartUpload=named)
        assert content(client, "held") == b"held"

        restart(back)
        everything = sorted([*ODD, "twice", "large", "copy", "held", "delivered"], key=str.encode)
        assert names(client) == everything
        front.wait_until_delivered()
        for each in (client, back.client()):
            check_much(each, joined)
            assert names(each) == everything
        assert not [*(tmp_path / "queue" / "spool").iterdir()]


def test_a_front_whose_remote_is_silent_stops_in_time(tmp_path):
    with back_and_front(tmp_path, Queueing, "--grace", "1") as (back, front):
        client = front.client()
        client.create_bucket(Bucket=BUCKET)

        def ask():
            with suppress(BotoCoreError):
                client.list_objects_v2(Bucket=BUCKET)

        os.kill(back.pid, signal.SIGSTOP)
        try:
            waiting = threading.Thread(target=ask)
            waiting.start()
            client.put_object(Bucket=BUCKET, Key="key", Body=b"x")
            time.sleep(0.5)  # until the remote was asked
            began = time.monotonic()
            assert front.stop() == 0
            assert time.monotonic() - began < 20
        finally:
            os.kill(back.pid, signal.SIGCONT)
        waiting.join()
        restart(front)
        assert content(front.client(), "key") == b"x"
        front.wait_until_delivered()


def test_no_answer_is_taken_back_by_a_kill(tmp_path):
    """Threads write their own keys again and again; the front is killed at any moment, and started again."""
    rounds, writers = 4, 3
    with back_and_front(tmp_path, Queueing) as (back, front):
        front.client().create_bucket(Bucket=BUCKET)
        told = [{"put": -1, "parts": -1} for _ in range(writers)]
        tried = [{"put": -1, "parts": -1} for _ in range(writers)]

        def write(number, client, stop):
            while not stop.is_set():
                try:
                    turn = tried[number]["put"] = tried[number]["put"] + 1
                    client.put_object(Bucket=BUCKET, Key=f"put{number}", Body=b"%d " % turn * 5000)
                    told[number]["put"] = turn
                    turn = tried[number]["parts"] = tried[number]["parts"] + 1
                    put_parts(client, f"parts{number}", [b"%d " % turn * 5000])
                    told[number]["parts"] = turn
                except Exception:  # killed in the middle
                    if not stop.is_set():
                        stop.wait(5)

        def check(client):
            for number in range(writers):
                for kind in ("put", "parts"):
                    if told[number][kind] < 0:
                        continue
                    found = content(client, f"{kind}{number}").split()
                    assert len(found) == 5000 and len({*found}) == 1
                    assert told[number][kind] <= int(found[0]) <= tried[number][kind]

        for turn in range(rounds):
            stop = threading.Event()
            clients = [front.client() for _ in range(writers)]
            threads = [threading.Thread(target=write, args=(at, clients[at], stop)) for at in range(writers)]
            before = [mark["put"] for mark in told]
            for thread in threads:
                thread.start()
            try:
                wait_for(lambda before=before, turn=turn: sum(m["put"] for m in told) > sum(before) + 3 + 2 * turn)
                front.kill()
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            front.close_clients()
            restart(front)
            check(front.client())
        front.wait_until_delivered()
        check(front.client())
        check(back.client())
        assert not [*(tmp_path / "queue" / "spool").iterdir()]


def test_status_tells_what_is_pending_and_what_fails(tmp_path, runner):
    with back_and_front(tmp_path, Queueing) as (back, front):
        client = front.client()
        client.create_bucket(Bucket=BUCKET)
        status = runner(front.endpoint)
        assert status()["queue"]["entries"] == 0
        client.put_object(Bucket=BUCKET, Key="there", Body=b"x")
        front.wait_until_delivered()
        assert back.stop() == 0
        client.put_object(Bucket=BUCKET, Key="key", Body=b"12345")
        client.put_object(Bucket=BUCKET, Key="key2", Body=b"1")
        wait_for(lambda: front.queue()["entries"][0]["attempts"], "a failure")
        found = status(code=1)
        assert found["queue"]["entries"] == 2 and found["queue"]["size"] == 6 and "buckets" not in found
        assert [entry["key"] for entry in found["pending"]] == [f"{BUCKET}/key", f"{BUCKET}/key2"]
        found = status(f"{BUCKET}/key")
        (entry,) = found["pending"]
        assert found["bytes"] == 5 and entry["kind"] == "put" and "refused" in entry["error"]
        assert status(f"{BUCKET}/there", code=1)["pending"] == []
        client.delete_object(Bucket=BUCKET, Key="key")
        found = status(f"{BUCKET}/key", code=1)
        kinds = [entry["kind"] for entry in found["pending"]]
        assert kinds in (["delete"], ["put", "delete"])  # the put had failed; perhaps it is being tried again
        restart(back)
        front.wait_until_delivered()
        assert status()["buckets"] == 1 and status(f"{BUCKET}/key2")["pending"] == []


def test_what_the_remote_keeps_refusing_is_parked_and_read_and_tried_again_or_dropped(tmp_path, verbs):
    with back_and_front(tmp_path, Queueing, "--max-attempts", "1", "--http", "127.0.0.1:0") as (back, front):
        client, direct, run = front.client(), back.client(), verbs(front.endpoint)
        client.create_bucket(Bucket=BUCKET)
        client.put_object(Bucket=BUCKET, Key="old", Body=b"at the remote")
        front.wait_until_delivered()
        direct.delete_object(Bucket=BUCKET, Key="old")
        direct.delete_bucket(Bucket=BUCKET)
        for name in ("one", "two", "three", "four"):
            client.put_object(Bucket=BUCKET, Key=name, Body=name.encode())
        wait_for(lambda: front.queue()["s4raw-queue"]["parked"] == 4)
        ids = {entry["key"]: str(entry["id"]) for entry in front.queue()["entries"]}
        assert content(client, "one") == b"one", "what is parked is read"
        assert "4 parked" in run("status")
        at = re.search(r"status on (http://\S+),", front.log())[1]
        with urllib.request.urlopen(f"{at}/metrics") as answer:
            assert b"\ns4raw_s3_queue_parked 4\n" in answer.read()
        with urllib.request.urlopen(f"{at}/status") as answer:
            assert json.load(answer)["parked"] == 4
        assert f"{ids[f'{BUCKET}/one']} put {BUCKET}/one 3 B, " in run("status", f"{BUCKET}/one")
        assert "is parked after attempt 1: " in front.log() and "NoSuchBucket" in front.log()

        assert run("drop", "99999", ids[f"{BUCKET}/one"], f"{BUCKET}/none", code=1) == (
            f"1\ns4raw: drop: entry 99999: it is not in the queue\n"
            f"s4raw: drop: {BUCKET}/none: nothing of it is in the queue\n"
        )
        assert code_of(client.get_object, Key="one") == "NoSuchBucket", "the remote is seen again"
        direct.create_bucket(Bucket=BUCKET)
        assert run("retry", "99999", f"{BUCKET}/two", code=1) == (
            "1\ns4raw: retry: entry 99999: it is not in the queue\n"
        )
        wait_for(lambda: front.queue()["s4raw-queue"]["entries"] == 2)
        assert content(direct, "two") == b"two"
        assert run("retry", "--json", ids[f"{BUCKET}/three"]) == '{"verb": "retry", "count": 1}\n'
        assert run("flush", "--wait", "60") == "", "what is parked is not waited for"
        assert content(direct, "three") == b"three" and content(client, "four") == b"four"
        direct.put_object(Bucket=BUCKET, Key="four", Body=b"the remote's")
        assert content(client, "four") == b"four"
        assert run("drop", "--failed") == "1\n"
        assert content(client, "four") == b"the remote's"
        assert front.queue()["s4raw-queue"]["entries"] == 0 and not [*(tmp_path / "queue" / "spool").iterdir()]
        assert run("drop", "--all") == run("retry") == "0\n"
        run("drop", code=2)


@pytest.fixture
def verbs(monkeypatch, capsys):
    """Runs verbs of S3's client at an endpoint, in this process: what they print, and say on stderr."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)

    def at(endpoint):
        def run(verb, *arguments, code=0):
            assert cli.main(["s3", verb, "--endpoint", endpoint, *arguments]) == code
            return "".join(capsys.readouterr())

        return run

    return at


@pytest.fixture
def runner(tmp_path):
    import json
    import os
    import subprocess
    import sys

    from s3_daemon import ACCESS_KEY, SECRET_KEY

    def at(endpoint):
        def status(*arguments, code=0):
            command = [sys.executable, "-m", "s4raw", "s3", "status", "--json", "--endpoint", endpoint, *arguments]
            keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
            done = subprocess.run(
                command, capture_output=True, env=os.environ | keys, timeout=60, check=False, cwd=tmp_path
            )
            assert done.returncode == code, done.stderr
            return json.loads(done.stdout)

        return status

    return at
