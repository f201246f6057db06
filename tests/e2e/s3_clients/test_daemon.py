"""Presigned URLs, TLS, buckets that the host names, several processes, and objects that the ring's verbs see too."""

import os
import socket
import subprocess
import urllib.error
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import cli_runner

from .clients import Aws
from .daemon import Daemon, fetch

KEY = "dir/a b+c%41ä.txt"


@pytest.mark.parametrize("version", ["s3", "s3v4"], ids=["V2", "V4"])
def test_presigned_urls_do_one_thing_for_whoever_has_them(daemon, bucket, version):
    where = {"Bucket": bucket, "Key": KEY}
    with closing(daemon.boto(signature_version=version)) as s3:
        assert ("X-Amz-Signature=" in s3.generate_presigned_url("get_object", where)) == (version == "s3v4")
        typed = {**where, "ContentType": "text/x-test"}
        fetch(s3.generate_presigned_url("put_object", typed), "PUT", b"content", {"Content-Type": "text/x-test"})
        assert s3.head_object(**where)["ContentType"] == "text/x-test"
        url = s3.generate_presigned_url("get_object", {**where, "ResponseContentType": "text/y-test"})
        assert fetch(url) == b"content"
        curl = ["curl", "--silent", "--fail", "--include", "--noproxy", "*", url]
        head, _, body = subprocess.run(curl, capture_output=True, timeout=60, check=True).stdout.partition(b"\r\n\r\n")
        assert b"content-type: text/y-test" in head.lower()
        assert body == b"content"
        for bad, method in ((url, "PUT"), (url.replace("dir", "dIr"), "GET"), (url.replace("y-test", "z"), "GET")):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                fetch(bad, method)
        fetch(s3.generate_presigned_url("delete_object", where), "DELETE")
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_boto3_speaks_tls_with_a_certificate_that_it_checks(tmp_path):
    pem = certificate(tmp_path)
    content = os.urandom(6 << 20)
    with Daemon(tmp_path / "daemon", "--local", str(tmp_path / "data"), "--tls-cert", str(pem)) as daemon:
        endpoint = f"https://localhost:{daemon.port}"
        with closing(daemon.boto(endpoint, verify=str(pem))) as s3:
            s3.create_bucket(Bucket="bucket")
            s3.put_object(Bucket="bucket", Key=KEY, Body=content)
            assert s3.get_object(Bucket="bucket", Key=KEY)["Body"].read() == content
            part = s3.get_object(Bucket="bucket", Key=KEY, Range="bytes=5000000-5000009")
            assert part["Body"].read() == content[5_000_000:5_000_010]


def certificate(directory: Path) -> Path:
    """A certificate of localhost and its key in one file."""
    path = directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-out", str(path), "-keyout", str(directory / "key.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    path.write_bytes(path.read_bytes() + (directory / "key.pem").read_bytes())
    return path


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names below localhost are this machine, as RFC 6761, 6.3 asks of resolvers and not all of them do."""
    real: Callable[..., Any] = socket.getaddrinfo

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".localhost") else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize("version", ["s3", "s3v4"], ids=["V2", "V4"])
def test_buckets_may_be_named_in_the_host(tmp_path, loopback, version):
    with Daemon(tmp_path / "daemon", "--local", str(tmp_path / "data"), "--domain", "localhost") as daemon:
        endpoint = f"http://localhost:{daemon.port}"
        virtual = {"addressing_style": "virtual"}
        with (
            closing(daemon.boto(endpoint, s3=virtual, signature_version=version)) as s3,
            closing(daemon.boto()) as path,
        ):
            s3.create_bucket(Bucket="bucket")
            s3.put_object(Bucket="bucket", Key=KEY, Body=b"content")
            assert path.get_object(Bucket="bucket", Key=KEY)["Body"].read() == b"content"
            assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]] == [KEY]
            url = s3.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": KEY})
            assert url.startswith(f"http://bucket.localhost:{daemon.port}/dir/")
            assert fetch(url) == b"content"


def test_several_processes_serve_one_store(tmp_path):
    with (
        Daemon(tmp_path / "daemon", "--local", str(tmp_path / "data"), "--workers", "2") as daemon,
        closing(daemon.boto(max_pool_connections=8)) as s3,
        ThreadPoolExecutor(8) as pool,
    ):
        s3.create_bucket(Bucket="bucket")
        contents = {f"key {n}": os.urandom(1000 + n) for n in range(100)}
        for _ in pool.map(lambda item: s3.put_object(Bucket="bucket", Key=item[0], Body=item[1]), contents.items()):
            pass
        found = pool.map(lambda key: s3.get_object(Bucket="bucket", Key=key)["Body"].read(), contents)
        assert dict(zip(contents, found, strict=True)) == contents
        assert s3.list_objects_v2(Bucket="bucket")["KeyCount"] == 100


def test_what_s3_clients_put_is_mapped_and_got(ring_daemon, s3_ring, tmp_path):
    aws = Aws(ring_daemon, tmp_path)
    s4raw = cli_runner(s3_ring, tmp_path)
    for number in range(3):
        path = tmp_path / "in" / f"{number}_words.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"some words of {number}\n")
    aws.make("mapped")
    aws.run("s3", "cp", "--recursive", "in", "s3://mapped/in/")
    s4raw("map", "s4://mapped/in/", "s4://mapped/out/", "tr a-z A-Z")
    aws.run("s3", "cp", "--recursive", "s3://mapped/out/", "out")
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {f"{number}_words.txt": f"SOME WORDS OF {number}\n" for number in range(3)}
    s4raw("cp", "in/0_words.txt", "s4://mapped/put.txt")
    assert aws.get("mapped", "put.txt") == b"some words of 0\n"


def test_a_client_with_another_secret_is_refused(daemon, bucket, tmp_path):
    aws = Aws(daemon, tmp_path)
    done = subprocess.run(
        [aws.executable, "s3", "ls", f"s3://{bucket}"],
        env={**daemon.environment, **aws.environment(), "AWS_SECRET_ACCESS_KEY": "guess"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert b"SignatureDoesNotMatch" in done.stderr
