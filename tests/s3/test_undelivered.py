"""GET /?s4raw-queue: what the write queue holds, for s3 status."""

import http.client
import json
from contextlib import closing
from urllib.parse import quote

import pytest

from s4raw import cli
from s4raw.errors import Refused
from s4raw.keys import Key
from s4raw.objects.base import Attributes
from s4raw.objects.memory import MemoryBackend
from s4raw.objects.queued import QueuedBackend
from s4raw.queue.entries import DELETE, TAG, Order
from s4raw.queue.queue import Queue

from .service import ACCESS_KEY, SECRET_KEY, Service


def ask(service, query, body=None):
    with closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)) as connection:
        connection.request("GET" if body is None else "POST", f"/?s4raw-queue{query}", body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def do(service, **what):
    status, body = ask(service, "", json.dumps(what))
    assert status == 200, body
    return json.loads(body)


@pytest.fixture
def queue(tmp_path):
    queue = Queue(str(tmp_path / "queue"))
    yield queue
    queue.close()


def test_the_queue_tells_what_it_holds(queue, tmp_path, complaints):
    backend = QueuedBackend(MemoryBackend(), queue, str(tmp_path / "queue" / "s3"))
    for name, kind in [("a/1", TAG), ("a/1", DELETE), ("b", DELETE), ("a/2\n", TAG)]:
        queue.add(Order("", Key("bucket", name), kind, attributes=Attributes(tags={"a": "1"} if kind == TAG else {})))
    with Service(backend, complaints, anonymous=True, queue=queue) as service:
        status, body = ask(service, "&max-keys=3")
        found = json.loads(body)
        assert status == 200 and found["more"] is True
        assert found["s4raw-queue"]["entries"] == 4 and found["s4raw-queue"]["oldest_seconds"] >= 0
        assert [(entry["key"], entry["kind"]) for entry in found["entries"]] == [
            *(("bucket/a/1", "tag"), ("bucket/a/1", "delete"), ("bucket/b", "delete"))
        ]
        assert {entry["state"] for entry in found["entries"]} == {"queued"}
        below = json.loads(ask(service, "=&prefix=bucket%2Fa%2F")[1])
        assert [entry["key"] for entry in below["entries"]] == ["bucket/a/1", "bucket/a/1", "bucket/a/2\n"]
        assert json.loads(ask(service, "&prefix=other/")[1])["entries"] == []
        for wrong in ["0", "1001", "-1", "x", "²", "9" * 30]:
            status, body = ask(service, f"&max-keys={quote(wrong)}")
            assert status == 400 and b"InvalidArgument" in body
    backend.close()


def test_the_queue_does_what_it_is_asked_and_says_what_it_could_not(queue, tmp_path, complaints):
    backend = QueuedBackend(MemoryBackend(), queue, str(tmp_path / "queue" / "s3"))
    for name in ("old", "a/1", "a/1", "b"):
        queue.add(Order("", Key("bucket", name), DELETE))
    with Service(backend, complaints, anonymous=True, queue=queue) as service:
        assert do(service, do="flush", wait=0) == {"empty": False}
        flying = queue.take(lambda: False)
        assert json.loads(ask(service, "")[1])["entries"][0]["state"] == "in flight"
        parked = queue.take(lambda: False)
        queue.park(parked.id, Refused("never"))
        shown = [(entry["id"], entry["state"]) for entry in json.loads(ask(service, "&max-keys=2")[1])["entries"]]
        assert shown == [(parked.id, "parked"), (flying.id, "in flight")], "what is parked is not overlooked"
        assert do(service, do="drop", ids=[flying.id, 99], places=["bucket/a/1"]) == {
            "count": 2,
            "left": [{"id": 99, "error": "it is not in the queue"}, {"id": flying.id, "error": "it is in flight"}],
        }
        queue.failed(flying.id, Refused("no"), 60.0)
        assert do(service, do="retry", places=["bucket/old"]) == {"count": 1, "left": []}
        for wrong in ["", "{", "[]", "null", "{}", '{"do":1}', '{"do":"drop"}', '{"do":"drop","places":["bucket"]}']:
            status, body = ask(service, "", wrong)
            assert status == 400 and b"<Code>Invalid" in body, wrong
        assert len(queue.entries()) == 2
    backend.close()


def test_without_a_queue_there_is_none_to_tell_of(complaints):
    with Service(MemoryBackend(), complaints, anonymous=True) as service:
        for asked in (None, '{"do":"retry"}'):
            status, body = ask(service, "", asked)
            assert status == 501 and b"NotImplemented" in body
    complaints.clear()


def test_who_does_not_sign_is_told_nothing(queue, tmp_path, complaints):
    backend = QueuedBackend(MemoryBackend(), queue, str(tmp_path / "queue" / "s3"))
    with Service(backend, complaints, queue=queue) as service:
        assert ask(service, "")[0] == ask(service, "", '{"do":"drop","all":true}')[0] == 403
    backend.close()


def test_a_key_says_nothing_to_a_terminal(queue, tmp_path, complaints, monkeypatch, capsys):
    backend = QueuedBackend(MemoryBackend(), queue, str(tmp_path / "queue" / "s3"))
    queue.add(Order("", Key("bucket", "a\n\x1b[2Jé"), DELETE))
    monkeypatch.setenv("S3D_ACCESS_KEY", ACCESS_KEY)
    monkeypatch.setenv("S3D_SECRET_KEY", SECRET_KEY)
    with Service(backend, complaints, queue=queue) as service:
        assert cli.main(["s3", "status", "--endpoint", f"http://127.0.0.1:{service.port}"]) == 0
    assert "pending:     1 delete bucket/a\\n\\x1b[2Jé 0 B, " in capsys.readouterr().out
    backend.close()
