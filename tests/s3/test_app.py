"""What the application does with any request: addresses, errors, ids, health, the access log, who may ask."""

import http.client
import re
import socket
import time
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import wait_for

from s4raw.s3.signing import presign

from .service import ACCESS_KEY, SECRET_KEY, Raw, fails


def test_errors_are_xml_with_the_ids_of_the_headers(raw: Raw, bucket: str) -> None:
    found = raw("GET", "/bucket/no%20key")
    assert (found.status, found.headers["content-type"]) == (404, "application/xml")
    root = ElementTree.fromstring(found.body)
    assert root.tag == "Error"
    assert root.findtext("Code") == "NoSuchKey"
    assert root.findtext("Message") == "The specified key does not exist."
    assert root.findtext("RequestId") == found.headers["x-amz-request-id"]
    assert root.findtext("HostId") == found.headers["x-amz-id-2"]
    assert root.findtext("Resource") == "/bucket/no%20key"
    assert raw("GET", "/bucket/no").headers["x-amz-request-id"] != found.headers["x-amz-request-id"]


def test_errors_have_no_body_where_http_has_none(raw: Raw, s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="key", Body=b"1")["ETag"]
    assert raw("HEAD", "/bucket/no").body == b""
    found = raw("GET", "/bucket/key", headers={"If-None-Match": etag})
    assert (found.status, found.body, found.headers["etag"]) == (304, b"", etag)
    assert raw("GET", "/bucket/key").body == b"1"  # the connection still works


@pytest.mark.parametrize(
    "target", ["/bucket/%zz", "/bucket/%", "/bucket/%ff", "/bucket/%c3", "/bucket?prefix=%ff", "/%ff"]
)
def test_paths_and_queries_are_percent_encoded_utf8(raw: Raw, target: str) -> None:
    found = raw("GET", target, sign=False)
    assert (found.status, b"<Code>InvalidURI</Code>" in found.body) == (400, True)


def test_methods_and_subresources_that_are_none(raw: Raw, bucket: str) -> None:
    assert raw("PATCH", "/bucket/key").status == 405
    assert raw("POST", "/bucket/key").status == 405
    assert raw("GET", "/bucket?acl&tagging").status == 400
    assert raw("GET", "/bucket?bogus").status == 501
    assert raw("PUT", "/bucket/key?partNumber=1", b"x").status == 400
    assert raw("PUT", "/bucket/key?versionId=null", b"x").status == 400
    asking = {"Origin": "http://example.com", "Access-Control-Request-Method": "GET"}
    assert raw("OPTIONS", "/bucket/key", sign=False, headers=asking).status == 403
    for header in asking:
        short = {name: value for name, value in asking.items() if name != header}
        assert raw("OPTIONS", "/bucket/key", sign=False, headers=short).status == 400
    assert raw("GET", "/bucket/key").status == 404


def test_nothing_without_a_signature(raw: Raw, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"1")
    for method, target in (("GET", "/"), ("GET", "/bucket/key"), ("PUT", "/bucket/key"), ("DELETE", "/bucket/key")):
        assert raw(method, target, sign=False).status == 403
    assert raw("GET", "/bucket/key").body == b"1"


def test_anonymous_by_option(serve: Any, new_client: Any) -> None:
    service = serve(anonymous=True)
    s3 = new_client(service)
    s3.create_bucket(Bucket="open")
    s3.put_object(Bucket="open", Key="key", Body=b"1")
    connection = http.client.HTTPConnection("127.0.0.1", service.port)
    for target, status in (("/open/key", 200), ("/open/key?response-content-type=text%2Fhtml", 400)):
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_presigned(s3: Any, bucket: str, raw: Raw, endpoint: str) -> None:
    where = {"Bucket": bucket, "Key": "a b+ü"}
    put = s3.generate_presigned_url("put_object", Params=where)
    assert raw("PUT", put.removeprefix(endpoint), b"body", sign=False).status == 200
    get = s3.generate_presigned_url("get_object", Params={**where, "ResponseContentType": "text/html"})
    found = raw("GET", get.removeprefix(endpoint), sign=False)
    assert (found.body, found.headers["content-type"]) == (b"body", "text/html")
    assert raw("GET", get.removeprefix(endpoint) + "0", sign=False).status == 403


def test_headers_may_stand_in_presigned_urls(s3: Any, bucket: str, raw: Raw, service: Any) -> None:
    def presigned(method: str, path: str, query: str) -> str:
        host = f"127.0.0.1:{service.port}"
        return f"{path}?{presign(method, path, query, host, ACCESS_KEY, SECRET_KEY, now=time.time())}"

    # The SDK for JavaScript presigns without a body, with the checksum of an empty one; S3 does not look at it.
    hoisted = "x-amz-meta-colour=dark%20green&X-Amz-Tagging=a%3D1&x-amz-checksum-crc32=AAAAAA%3D%3D"
    assert raw("PUT", presigned("PUT", "/bucket/one", hoisted), b"content", sign=False).status == 200
    assert s3.head_object(Bucket=bucket, Key="one")["Metadata"] == {"colour": "dark green"}
    assert s3.get_object_tagging(Bucket=bucket, Key="one")["TagSet"] == [{"Key": "a", "Value": "1"}]
    copied = raw("PUT", presigned("PUT", "/bucket/two", "x-amz-copy-source=bucket%2Fone"), sign=False)
    assert b"<CopyObjectResult" in copied.body
    assert s3.get_object(Bucket=bucket, Key="two")["Body"].read() == b"content"


def test_presigned_by_signature_v2(new_client: Any, service: Any, s3: Any, bucket: str, raw: Raw) -> None:
    old = new_client(service, signature_version="s3")
    url = old.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "key", "ContentType": "text/x"})
    assert "content-type=text%2Fx" in url
    sent = url.removeprefix(service.endpoint)
    assert raw("PUT", sent, b"content", headers={"Content-Type": "text/x"}, sign=False).status == 200
    assert s3.head_object(Bucket=bucket, Key="key")["ContentType"] == "text/x"
    assert raw("PUT", sent, b"content", headers={"Content-Type": "text/y"}, sign=False).status == 403
    assert old.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


@pytest.mark.parametrize(
    "more",
    [
        *(
            "x-Amz-Copy-Source=bucket%2Fsecret",
            "X-Amz-Copy-Source=bucket%2Fsecret",
            "X%2DAmz-Copy-Source=bucket%2Fsecret",
        ),
        *("taggin%67=", "ac%6C=", "response-content-typ%65=text%2Fhtml", "uploadI%64=0"),
    ],
)
@pytest.mark.parametrize("method", ["get_object", "put_object", "delete_object"])
def test_nothing_can_be_added_to_a_url_of_signature_v2(
    new_client: Any, service: Any, s3: Any, bucket: str, raw: Raw, method: str, more: str
) -> None:
    for key in ("key", "secret"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    url = new_client(service, signature_version="s3").generate_presigned_url(method, {"Bucket": bucket, "Key": "key"})
    verb = method.partition("_")[0].upper()
    assert raw(verb, f"{url.removeprefix(service.endpoint)}&{more}", sign=False).status == 403
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"key"


def test_a_header_in_a_url_of_signature_v2_counts_once(
    new_client: Any, service: Any, s3: Any, bucket: str, raw: Raw
) -> None:
    for key in ("open", "secret"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    where = {"Bucket": bucket, "Key": "key", "CopySource": "bucket/open"}
    old = new_client(service, signature_version="s3")
    path, _, query = old.generate_presigned_url("copy_object", where).removeprefix(service.endpoint).partition("?")
    for name in ("x-amz-copy-source", "X-Amz-Copy-Source"):
        assert raw("PUT", f"{path}?{name}=bucket%2Fsecret&{query}", sign=False).status in (400, 403)
    assert raw("PUT", f"{path}?{query}", sign=False).status == 200
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"open"


def test_virtual_hosts_by_option(serve: Any, new_client: Any, boto: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = serve(domain="s3.localhost")
    lookup = socket.getaddrinfo

    def local(host: str, *rest: Any, **named: Any) -> Any:
        return lookup("127.0.0.1" if str(host).endswith("localhost") else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    client = new_client(service, s3={"addressing_style": "virtual"}, host=f"http://s3.localhost:{service.port}")
    client.create_bucket(Bucket="my.bucket")
    client.create_bucket(Bucket="mine")
    client.put_object(Bucket="mine", Key="dir/a b", Body=b"1")
    assert client.get_object(Bucket="mine", Key="dir/a b")["Body"].read() == b"1"
    assert [entry["Key"] for entry in client.list_objects_v2(Bucket="mine")["Contents"]] == ["dir/a b"]
    assert [each["Name"] for each in new_client(service).list_buckets()["Buckets"]] == ["mine", "my.bucket"]


def test_health(raw: Raw) -> None:
    found = raw("GET", "/healthz", sign=False)
    assert (found.status, found.body) == (200, b"ok\n")
    assert raw("GET", "/healthz").status == 404  # a client that signs means a bucket


def test_the_access_log(s3: Any, bucket: str, service: Any, raw: Raw) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"12345")
    s3.get_object(Bucket=bucket, Key="key")["Body"].read()
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "key"})
    raw("GET", url.removeprefix(service.endpoint), sign=False)
    wait_for(lambda: len(service.lines) == 4, "the line that follows the last answer")
    lines = service.lines[-3:]
    assert re.fullmatch(rf"127\.\S+ {ACCESS_KEY} put_object PUT /bucket/key 200 0 [\d.]+ms [0-9A-F]{{16}}", lines[0])
    assert re.fullmatch(rf"127\.\S+ {ACCESS_KEY} get_object GET /bucket/key 200 5 [\d.]+ms [0-9A-F]{{16}}", lines[1])
    assert "X-Amz-Signature=... 200 5 " in lines[2]


class Broken:
    """A backend with a defect."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("what nobody expected")


def test_a_defect_is_an_internal_error(serve: Any, new_client: Any, complaints: list[str]) -> None:
    service = serve()
    service.app._backend = Broken()
    fails("InternalError", 500, new_client(service).list_buckets)
    assert "what nobody expected" in complaints[0] and "Traceback" in complaints[0]
    complaints.clear()


def test_large_objects_have_a_limit(serve: Any, new_client: Any) -> None:
    s3 = new_client(serve(max_object_size=10))
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key", Body=b"0" * 10)
    fails("EntityTooLarge", 400, s3.put_object, Bucket="bucket", Key="key", Body=b"0" * 11)
