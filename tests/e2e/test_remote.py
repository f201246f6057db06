"""A remote S3 as real processes: another make of server, our own daemon through TLS, and who may ask."""

import os
import re
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from hashlib import md5
from pathlib import Path

import pytest
from conftest import wait_for
from objects_conformance import NASTY
from objects_support import KEY, Body, begin, names, put, read, whole
from scripted import Scripted, Visit
from test_cli_s3 import PAIR, daemon
from test_s3_tls import certificate

from s4raw.errors import BadRange, ConfError, NoSuchBucket, NoSuchKey, NotModified, PreconditionFailed, Refused
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Conditions, Query, Range
from s4raw.objects.remote import RemoteBackend, RemoteOptions, open_remote
from s4raw.objects.sources import FileSource
from s4raw.remote.credentials import find


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What this machine's user has set up for AWS is not for these tests."""
    for name in [*os.environ]:
        if name.startswith("AWS_") or name == "S3_ENDPOINT_URL" or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """moto's server, whose endpoint it is."""
    pytest.importorskip("moto.server")
    log = tmp_path_factory.mktemp("moto") / "log"
    with open(log, "wb") as file:
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_for(lambda: re.search(r"http://127\.0\.0\.1:\d+", log.read_text()), "moto to start", 60)
        yield re.findall(r"http://127\.0\.0\.1:\d+", log.read_text())[0]
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def backend(moto: str, request: pytest.FixtureRequest) -> Iterator[RemoteBackend]:
    found = open_remote(RemoteOptions(moto, region="us-east-1", access_key="a", secret_key="b"))
    for bucket in found.buckets():
        for entry in found.list(bucket.name, Query()).entries:
            found.delete(Key(bucket.name, entry.name))
        found.delete_bucket(bucket.name)
    found.create_bucket(KEY.bucket)
    yield found
    found.close()


def test_every_key_is_the_same_at_another_server(backend: RemoteBackend) -> None:
    keys = sorted(
        {*NASTY, "a+b", "a%20b", "a b", "q?x=1", "h#f", "semi;colon", "am&p", "quo\"te'", "tab\t", "\x01\x7f"}
    )
    keys = [name for name in keys if "\n" not in name]  # moto's routes do not match those
    for name in keys:
        put(backend, Key(KEY.bucket, name), name.encode())
    for name in keys:
        assert read(backend, Key(KEY.bucket, name)) == name.encode()
        assert backend.head(Key(KEY.bucket, name)).attributes.etag == md5(name.encode()).hexdigest()
    assert names(backend.list(KEY.bucket, Query())) == sorted(keys, key=str.encode)
    copied = Key(KEY.bucket, "copied?+ %/")
    backend.copy(Key(KEY.bucket, "+ &?#"), copied)
    assert read(backend, copied) == b"+ &?#"
    for name in keys:
        backend.delete(Key(KEY.bucket, name))
    assert names(backend.list(KEY.bucket, Query())) == [copied.name]


def test_listings_of_another_server_are_paged(backend: RemoteBackend) -> None:
    for at in range(25):
        put(backend, Key(KEY.bucket, f"d{at % 5}/{at:02}"))
    found, after, truncated = [], "", True
    while truncated:
        page = backend.list(KEY.bucket, Query("", "/", after, 2))
        found += names(page)
        after, truncated = page.entries[-1].name, page.truncated
    assert found == [f"d{at}/" for at in range(5)]
    assert len(names(backend.list(KEY.bucket, Query(limit=7)))) == 7


def test_objects_are_kept_whole_at_another_server(backend: RemoteBackend, tmp_path: Path) -> None:
    content = os.urandom(11 << 20)
    (tmp_path / "file").write_bytes(content)
    known = Attributes("", {"content-type": "a/b", "cache-control": "no-cache"}, {"m": "1"}, {"t": "a b"})
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        backend.put(KEY, FileSource(fd, known))
        parts = RemoteBackend(backend._remote, multipart_threshold=8 << 20, part_size=5 << 20)
        info = parts.put(Key(KEY.bucket, "parts"), FileSource(fd, known))
    finally:
        os.close(fd)
    assert info.attributes.etag.endswith("-3")
    for name in (KEY.name, "parts"):
        key = Key(KEY.bucket, name)
        assert read(backend, key) == content and read(backend, key, Range(5, 9)) == content[5:10]
        found = backend.head(key).attributes
        assert (found.headers, found.metadata, found.tags) == (known.headers, known.metadata, known.tags)
        assert backend.copy(key, key, known._replace(metadata={"n": "2"})).attributes.metadata == {"n": "2"}
    assert [part.size for part in parts.head(Key(KEY.bucket, "parts")).attributes.parts] in (
        [5 << 20, 5 << 20, 1 << 20],
        [],
    )
    backend.tag(KEY, {"x": "y"})
    assert backend.head(KEY).attributes.tags == {"x": "y"}
    backend.put(KEY, Body(content))
    assert read(backend, KEY) == content


def test_another_server_refuses_as_it_should(backend: RemoteBackend) -> None:
    info = put(backend, KEY, b"x")
    with pytest.raises(PreconditionFailed):
        put(backend, KEY, b"y", Conditions(if_none_match=["*"]))
    with pytest.raises(NotModified):
        backend.get(KEY, None, Conditions(if_none_match=[info.attributes.etag]))
    with pytest.raises(BadRange):
        backend.get(KEY, Range(10, 20))
    for act in (backend.head, backend.get):
        with pytest.raises(NoSuchKey):
            act(Key(KEY.bucket, "absent"))
        with pytest.raises(NoSuchBucket):
            act(Key("absent", "absent"))
    upload, parts = begin(backend, KEY, [b"z" * (5 << 20), b"end"])
    assert [part[:3] for part in backend.parts(KEY, upload)] == [part[:3] for part in parts]
    backend.complete(KEY, upload, parts, whole(parts))
    assert read(backend, KEY)[-4:] == b"zend"


def splice(visit: Visit, port: int) -> None:
    """Move bytes both ways between a client and a port until one of them ends."""
    with socket.create_connection(("127.0.0.1", port)) as there:
        ends = {visit.sock: there, there: visit.sock}
        while True:
            for end in select.select([*ends], [], [])[0]:
                if not (data := end.recv(1 << 16)):
                    return
                ends[end].sendall(data)


def test_tls_goes_through_the_tunnel_of_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = certificate(tmp_path)
    with daemon(tmp_path, "--tls-cert", str(pem)) as port:

        def act(visit: Visit) -> bool:
            proxy.remember(visit, b"")
            visit.sock.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            splice(visit, port)
            return False

        with Scripted(act) as proxy:
            monkeypatch.setenv("https_proxy", proxy.endpoint.replace("//", "//me:secret@"))
            given = {"region": "us-east-1", "access_key": PAIR[0], "secret_key": PAIR[1], "connections": 1}
            backend = open_remote(RemoteOptions("https://localhost:1", authorities=str(pem), **given))
            backend.create_bucket(KEY.bucket)
            backend.put(KEY, Body(b"through"))
            assert read(backend, KEY) == b"through"
            backend.close()
        asked = [(each.method, each.target, each.headers["proxy-authorization"]) for each in proxy.asked]
        assert asked == [("CONNECT", "localhost:1", "Basic bWU6c2VjcmV0")]


def test_everything_goes_through_tls(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    content = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(content)
    with daemon(tmp_path, "--tls-cert", str(pem)) as port:
        given = {"region": "us-east-1", "access_key": PAIR[0], "secret_key": PAIR[1]}
        backend = open_remote(RemoteOptions(f"https://localhost:{port}", authorities=str(pem), connections=3, **given))
        backend.warm()
        pool = next(iter(backend._remote._pools.values()))
        warm = {connection for connection, _ in pool._idle}
        backend.create_bucket(KEY.bucket)
        fd = os.open(tmp_path / "file", os.O_RDONLY)
        backend.put(KEY, FileSource(fd))
        os.close(fd)
        assert read(backend, KEY) == content
        assert {connection for connection, _ in pool._idle} == warm, "warm connections were thrown away"
        backend.close()
        stranger = open_remote(RemoteOptions(f"https://localhost:{port}", max_attempts=1, **given))
        with pytest.raises(Exception, match=r"self.signed"):
            stranger.buckets()
        stranger.close()


def test_a_wrong_secret_is_what_the_remote_says(tmp_path: Path) -> None:
    with daemon(tmp_path) as port:
        given = {"region": "us-east-1", "access_key": PAIR[0], "secret_key": "wrong"}
        backend = open_remote(RemoteOptions(f"http://127.0.0.1:{port}", **given))
        with pytest.raises(Refused) as caught:
            put(backend, KEY)
        assert (caught.value.s3_code, caught.value.http) == ("", 403) or caught.value.s3_code == "SignatureDoesNotMatch"
        backend.close()


# who asks, and where


def test_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "ak",
        "AWS_SECRET_ACCESS_KEY": "sk",
        "AWS_SESSION_TOKEN": "st",
        "AWS_ENDPOINT_URL": "http://other:1",
        "S3_ENDPOINT_URL": "http://here:1",
    }.items():
        monkeypatch.setenv(name, value)
    account = find()
    assert (account.endpoint, account.region, account.keys()) == ("http://here:1", "us-east-1", ("ak", "sk", "st"))
    assert find(endpoint="http://mine:2", region="eu-north-1")[:2] == ("http://mine:2", "eu-north-1")
    monkeypatch.delenv("S3_ENDPOINT_URL")
    assert find().endpoint == "http://other:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:1")
    assert find().endpoint == "http://s3:1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    account = find()
    assert account[:2] == ("https://s3.eu-north-1.amazonaws.com", "eu-north-1") and account.amazon


def test_a_profile_is_found_in_shared_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id=dk\naws_secret_access_key=ds\n"
        "[named]\naws_access_key_id=nk\naws_secret_access_key=ns\n"
    )
    (tmp_path / "config").write_text(
        "[profile named]\nregion=eu-north-1\nendpoint_url=http://named:1\n[default]\nregion=us-west-2\n"
    )
    account = find("named")
    assert (account.endpoint, account.region, account.keys()) == ("http://named:1", "eu-north-1", ("nk", "ns", ""))
    assert find(endpoint="http://x:1").keys() == ("dk", "ds", "") and find(endpoint="http://x:1").region == "us-west-2"
    monkeypatch.setenv("AWS_PROFILE", "named")
    assert find().keys() == ("nk", "ns", "")
    with pytest.raises(ConfError, match="no-such"):
        find("no-such")


def test_keys_that_run_out_are_renewed(tmp_path: Path) -> None:
    script = tmp_path / "keys.py"
    script.write_text(
        "import json, pathlib, time\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "count.write_text(count.read_text() + 'x' if count.exists() else 'x')\n"
        "soon = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(time.time() + 60))\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': 'k' + str(len(count.read_text())), 'SecretAccessKey': 's',"
        " 'SessionToken': 't', 'Expiration': soon}))\n"
    )
    (tmp_path / "config").write_text(f"[profile aging]\ncredential_process={sys.executable} {script}\n")
    account = find("aging", endpoint="http://x:1")
    first = account.keys()
    assert first[1:] == ("s", "t") and account.keys() != first


def test_without_keys_or_botocore_there_is_a_word_on_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfError, match="AWS_ACCESS_KEY_ID"):
        find(endpoint="http://x:1")
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(ConfError, match=r"s4raw\[s3\]"):
        open_remote(RemoteOptions("http://x:1"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ak")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sk")
    assert find(endpoint="http://x:1")[:2] == ("http://x:1", "us-east-1")
