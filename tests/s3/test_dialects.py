"""What S3 lets pass, or answers in its own way, and conformance suites insist on."""

import base64
import hashlib
import hmac
import http.client
import socket
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from s4raw.s3.head import LIMITS

from .service import ACCESS_KEY, REGION, SECRET_KEY, Raw, Reply, Service


@pytest.mark.parametrize("expectation", ["200", "", "100-Continue"])
def test_an_expectation_that_nobody_knows_is_none(raw: Raw, bucket: str, expectation: str) -> None:
    assert raw("PUT", "/bucket/key", b"body", {"Expect": expectation}).status == 200
    assert raw("GET", "/bucket/key").body == b"body"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("deflate, gzip", "deflate, gzip"),
        ("deflate,gzip", "deflate,gzip"),
        ("deflate, gzip, aws-chunked", "deflate, gzip"),
        ("aws-chunked, gzip", "gzip"),
        ("aws-chunked", None),
        ("aws-chunked, AWS-Chunked", None),
    ],
)
def test_content_encoding_stays_as_it_was_written(raw: Raw, bucket: str, sent: str, kept: str | None) -> None:
    assert raw("PUT", "/bucket/key", b"body", {"Content-Encoding": sent}).status == 200
    assert raw("HEAD", "/bucket/key").headers.get("content-encoding") == kept


@pytest.mark.parametrize(
    ("date", "code"),
    [
        ("20100707T215304Z", b"RequestTimeTooSkewed"),
        ("99990707T215304Z", b"RequestTimeTooSkewed"),
        ("19500707T215304Z", b"AccessDenied"),
        ("Bad Date", b"AccessDenied"),
    ],
)
def test_a_date_that_was_changed_after_signing(service: Service, bucket: str, date: str, code: bytes) -> None:
    request = AWSRequest("PUT", f"{service.endpoint}/bucket/key", data=b"body")
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(request)
    headers = {**dict(request.headers.items()), "X-Amz-Date": date}
    answer = ask(service, "PUT", "/bucket/key", headers, b"body")
    assert (answer.status, b"<Code>" + code + b"</Code>" in answer.body) == (403, True)


def ask(service: Service, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    try:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("ending", ["", "/"])
@pytest.mark.parametrize("query", ["", "?location"])
def test_signature_v2_of_a_bucket_with_or_without_a_slash(
    service: Service, bucket: str, ending: str, query: str
) -> None:
    def signed(resource: str) -> dict[str, str]:
        date = formatdate(usegmt=True)
        text = f"GET\n\n\n{date}\n{resource}"
        signature = base64.b64encode(hmac.digest(SECRET_KEY.encode(), text.encode(), "sha1")).decode()
        return {"Date": date, "Authorization": f"AWS {ACCESS_KEY}:{signature}"}

    assert ask(service, "GET", f"/bucket{query}", signed(f"/bucket{ending}{query}")).status == 200
    assert ask(service, "GET", f"/bucket{query}", signed(f"/other{ending}{query}")).status == 403
    assert ask(service, "GET", f"/bucket/key{query}", signed(f"/bucket/key/{query}")).status == 403


def test_boto3_with_signature_v2(service: Service, boto: boto3.Session) -> None:
    config = Config(signature_version="s3", retries={"total_max_attempts": 1})
    client = boto.client("s3", endpoint_url=service.endpoint, config=config)
    try:
        client.create_bucket(Bucket="second")
        client.put_object(Bucket="second", Key="key", Body=b"body")
        assert client.list_objects(Bucket="second")["Contents"][0]["Key"] == "key"
        url = client.generate_presigned_url("list_objects", Params={"Bucket": "second"})
        assert ask(service, "GET", url.removeprefix(service.endpoint), {}).status == 200
    finally:
        client.close()


def test_a_body_that_never_comes_is_a_timeout(serve: Callable[..., Service]) -> None:
    service = serve(limits=LIMITS._replace(stall_seconds=0.3))
    path = f"{service.endpoint}/bucket"
    for method, url, length in (("PUT", path, 0), ("PUT", f"{path}/key", 4)):
        request = AWSRequest(method, url, headers={"x-amz-content-sha256": hashlib.sha256(b"").hexdigest()})
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(request)
        lines = [f"{name}: {value}\r\n" for name, value in request.headers.items()]
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
            head = f"{method} {url.removeprefix(service.endpoint)} HTTP/1.1\r\nHost: 127.0.0.1:{service.port}\r\n"
            connection.sendall(f"{head}Content-Length: {length}\r\n{''.join(lines)}\r\n{'abc' * bool(length)}".encode())
            answer: Any = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            found = answer.read()
            assert answer.status == (400 if length else 200), found
    assert b"<Code>RequestTimeout</Code>" in found and answer.will_close
