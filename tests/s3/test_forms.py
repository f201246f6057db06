"""Browser forms: signed by boto3 or by hand, sent as browsers and as others send them."""

import base64
import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

BOUNDARY = "----formBoundary7MA4YWxk"
MIB = 1 << 20
Fields = dict[str, str]


class Reply(NamedTuple):
    """An answer to a form."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error."""
        return ElementTree.fromstring(self.body).findtext("Code") or ""


def body_of(fields: Fields, file: bytes | None, filename: str = "up.txt", after: Fields | None = None) -> bytes:
    """A form as browsers write it; without a file when it is None."""
    parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
    found = "".join(parts).encode()
    if file is not None:
        disposition = f'form-data; name="file"; filename="{filename}"'
        head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\nContent-Type: text/html\r\n\r\n"
        found += head.encode() + file + b"\r\n"
    for name, value in (after or {}).items():
        found += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    return found + f"--{BOUNDARY}--\r\n".encode()


Post = Callable[..., Reply]


def sent(
    endpoint: str, bucket: str, body: bytes | Iterable[bytes], kind: str = f"multipart/form-data; boundary={BOUNDARY}"
) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=30)
    try:
        connection.request("POST", f"/{bucket}", body=body, headers={"Content-Type": kind})
        answer = connection.getresponse()
        return Reply(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@pytest.fixture
def post(endpoint: str, bucket: str) -> Post:
    """Sends a form with a file to the bucket."""

    def send(fields: Fields, file: bytes | None = b"bar", *, to: str = bucket, **options: Any) -> Reply:
        return sent(endpoint, to, body_of(fields, file, **options))

    return send


def stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


@pytest.fixture
def sign(bucket: str, keys: tuple[str, str]) -> Callable[..., Fields]:
    """Fields of a form that is signed by hand with Signature V2, as s3-tests do it."""

    def make(
        conditions: list[Any] | None = None, fields: Fields | None = None, document: Any = None, **changed: str
    ) -> Fields:
        usual = [
            {"bucket": bucket},
            ["starts-with", "$key", "foo"],
            {"acl": "private"},
            ["starts-with", "$Content-Type", "text/plain"],
            ["content-length-range", 0, 1024],
        ]
        if document is None:
            document = {"expiration": stamp(6000), "conditions": usual if conditions is None else conditions}
        policy = base64.b64encode(json.dumps(document).encode()).decode()
        signature = base64.b64encode(hmac.new(keys[1].encode(), policy.encode(), hashlib.sha1).digest()).decode()
        found = {
            "key": "foo.txt",
            "AWSAccessKeyId": keys[0],
            "acl": "private",
            "signature": signature,
            "policy": policy,
        }
        found |= {"Content-Type": "text/plain", **(fields or {}), **changed}
        return {name: value for name, value in found.items() if value != "-"}

    return make


def read(s3: Any, bucket: str, key: str = "foo.txt") -> Any:
    found = s3.get_object(Bucket=bucket, Key=key)
    return found, found["Body"].read()


def test_a_form_signed_by_boto3(s3: Any, bucket: str, endpoint: str) -> None:
    made = s3.generate_presigned_post(
        bucket,
        "dir/${filename}",
        Fields={"Content-Type": "text/plain", "x-amz-meta-who": "me", "success_action_status": "201"},
        Conditions=[
            {"Content-Type": "text/plain"},
            {"x-amz-meta-who": "me"},
            {"success_action_status": "201"},
            ["content-length-range", 1, 10],
        ],
    )
    reply = sent(endpoint, bucket, body_of(made["fields"], b"12345", "C:\\path\\été 1.txt"))
    assert reply.status == 201, reply.body
    tree = ElementTree.fromstring(reply.body)
    assert tree.tag == "PostResponse"
    texts = {child.tag.rpartition("}")[2]: child.text for child in tree}
    assert texts["Key"] == "dir/été 1.txt" and texts["Bucket"] == bucket
    assert texts["ETag"] == f'"{hashlib.md5(b"12345").hexdigest()}"' == reply.headers["etag"]
    found, content = read(s3, bucket, "dir/été 1.txt")
    assert content == b"12345" and found["ContentType"] == "text/plain" and found["Metadata"] == {"who": "me"}
    assert sent(endpoint, bucket, body_of(made["fields"], b"12345678901")).code == "EntityTooLarge"
    assert sent(endpoint, bucket, body_of(made["fields"], b"")).code == "EntityTooSmall"
    wrong = {**made["fields"], "x-amz-signature": "0" * 64}
    assert sent(endpoint, bucket, body_of(wrong, b"12345")).code == "SignatureDoesNotMatch"


def test_a_form_signed_by_hand(s3: Any, bucket: str, post: Post, sign: Callable[..., Fields]) -> None:
    reply = post(sign())
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["etag"] == f'"{hashlib.md5(b"bar").hexdigest()}"'
    found, content = read(s3, bucket)
    assert content == b"bar" and found["ContentType"] == "text/plain"


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"AWSAccessKeyId": "foo"}, 403),
        ({"signature": "bm90IGl0"}, 403),
        ({"signature": "-"}, 400),
        ({"key": "-"}, 400),
        ({"key": ""}, 400),
        ({"key": "bar.txt"}, 403),
        ({"policy": "bm90IGpzb24="}, 403),
        ({"policy": "-"}, 400),
        ({"acl": "public-read"}, 403),
        ({"Content-Type": "text/html"}, 403),
        ({"Content-Type": "-"}, 403),
        ({"x-amz-meta-foo": "not in the policy"}, 403),
        ({"bucket": "another"}, 403),
        ({"x-ignore-foo": "bar"}, 204),
        ({"Content-MD5": "-"}, 204),
    ],
)
def test_fields_that_are_not_as_they_were_signed(
    s3: Any, bucket: str, post: Post, sign: Callable[..., Fields], changed: Fields, status: int
) -> None:
    reply = post(sign(fields=changed))
    assert reply.status == status, reply.body
    assert ("Contents" in s3.list_objects_v2(Bucket=bucket)) == (status == 204)


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({"expiration": "EXPIRED", "conditions": []}, 400),
        ({"EXPIRATION": stamp(6000), "conditions": []}, 400),
        ({"expiration": stamp(6000), "CONDITIONS": []}, 400),
        ({"expiration": stamp(6000), "conditions": [{}]}, 400),
        ({"expiration": stamp(6000), "conditions": [["content-length-range", 0]]}, 400),
        ({"expiration": stamp(6000), "conditions": [["content-length-range", -1, 0]]}, 400),
        ({"expiration": stamp(-6000), "conditions": []}, 403),
        ([], 400),
    ],
)
def test_policies_that_are_none(post: Post, sign: Callable[..., Fields], document: Any, status: int) -> None:
    assert post(sign(document=document)).status == status


@pytest.mark.parametrize(("least", "most", "code"), [(0, 2, "EntityTooLarge"), (4, 9, "EntityTooSmall"), (3, 3, "")])
def test_the_length_that_a_policy_allows(
    s3: Any, bucket: str, post: Post, sign: Callable[..., Fields], least: int, most: int, code: str
) -> None:
    conditions = [["starts-with", f"${name}", ""] for name in ("bucket", "key", "acl", "Content-Type")]
    reply = post(sign([*conditions, ["content-length-range", least, most]]))
    if code:
        assert (reply.status, reply.code) == (400, code)
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    else:
        assert reply.status == 204


def test_names_of_fields_in_any_case(post: Post, sign: Callable[..., Fields], bucket: str) -> None:
    fields = sign(
        [{"bUcKeT": bucket}, ["StArTs-WiTh", "$KeY", "foo"], {"AcL": "private"}, {"cONTENT-tYPE": "text/plain"}]
    )
    assert post({name.swapcase(): value for name, value in fields.items()}).status == 204


def test_a_form_for_another_bucket(post: Post, sign: Callable[..., Fields], other_bucket: str, bucket: str) -> None:
    assert post(sign(bucket=bucket), to=other_bucket).status == 403
    assert post(sign(), to="there-is-no-such-bucket").code == "NoSuchBucket"


def test_a_form_without_a_policy_needs_the_option(post: Post) -> None:
    reply = post({"key": "foo.txt", "Content-Type": "text/plain"})
    assert (reply.status, reply.code) == (403, "AccessDenied")


FREE = [["starts-with", f"${name}", ""] for name in ("bucket", "key", "acl", "Content-Type")]


def test_where_a_form_leads(post: Post, sign: Callable[..., Fields], bucket: str) -> None:
    anything = [*FREE, ["starts-with", "$success_action_redirect", ""]]
    etag = f'"{hashlib.md5(b"bar").hexdigest()}"'
    reply = post(sign(anything, key="foo & bar.txt", success_action_redirect="http://example.org/done?x=1"))
    assert reply.status == 303
    place = urlsplit(reply.headers["location"])
    assert place[:3] == ("http", "example.org", "/done")
    assert parse_qs(place.query) == {"x": ["1"], "bucket": [bucket], "key": ["foo & bar.txt"], "etag": [etag]}
    reply = post(sign(anything, success_action_redirect="http://example.org/"))
    assert reply.headers["location"] == f"http://example.org/?bucket={bucket}&key=foo.txt&etag=%22{etag[1:-1]}%22"
    for nowhere in ("foo", "javascript:alert(1)", "http://a/\r\nSet-Cookie: b", "http://[", "http://é/"):
        assert post(sign(anything, success_action_redirect=nowhere)).status == 204
    for status, answered in (("200", 200), ("201", 201), ("204", 204), ("404", 204), ("x", 204)):
        reply = post(sign([*FREE, {"success_action_status": status}], success_action_status=status))
        assert reply.status == answered and bool(reply.body) == (answered == 201)


def test_what_is_kept_with_the_object(s3: Any, bucket: str, post: Post, sign: Callable[..., Fields]) -> None:
    fields = {
        "x-amz-meta-name": "barclamp é",
        "Cache-Control": "no-cache",
        "x-amz-storage-class": "STANDARD_IA",
        "tagging": "<Tagging><TagSet><Tag><Key>0</Key><Value>a</Value></Tag></TagSet></Tagging>",
    }
    conditions = [*FREE, *(["starts-with", f"${name}", ""] for name in fields)]
    assert post(sign(conditions, fields)).status == 204
    found, _ = read(s3, bucket)
    assert found["CacheControl"] == "no-cache" and found["StorageClass"] == "STANDARD_IA"
    assert found["Metadata"]["name"].encode("latin-1").decode() == "barclamp é"
    assert s3.get_object_tagging(Bucket=bucket, Key="foo.txt")["TagSet"] == [{"Key": "0", "Value": "a"}]
    for name, value in (
        ("tagging", "<Tagging>"),
        ("x-amz-meta-name", "a\r\nSet-Cookie: b"),
        ("x-amz-storage-class", "NONE"),
    ):
        assert post(sign(conditions, {**fields, name: value})).status == 400


def test_a_header_cannot_come_from_the_name_of_a_field(post: Post, sign: Callable[..., Fields]) -> None:
    name = "x-amz-meta-a: b"
    assert post(sign([*FREE, ["starts-with", f"${name}", ""]], {name: "c"})).status == 400


def test_checksums_in_forms(s3: Any, bucket: str, post: Post, sign: Callable[..., Fields]) -> None:
    right, wrong = (base64.b64encode(hashlib.sha256(body).digest()).decode() for body in (b"bar", b"foo"))
    reply = post(sign(FREE, {"x-amz-checksum-sha256": right}))
    assert reply.status == 204 and reply.headers["x-amz-checksum-sha256"] == right
    assert s3.head_object(Bucket=bucket, Key="foo.txt", ChecksumMode="ENABLED")["ChecksumSHA256"] == right
    assert post(sign(FREE, {"x-amz-checksum-sha256": wrong, "key": "foo2"})).code == "BadDigest"
    assert post(sign(FREE, {"x-amz-checksum-sha256": "bad", "key": "foo2"})).status == 400
    md5 = base64.b64encode(hashlib.md5(b"foo").digest()).decode()
    with_md5 = [*FREE, ["starts-with", "$Content-MD5", ""]]
    assert post(sign(with_md5, {"Content-MD5": md5, "key": "foo2"})).code == "BadDigest"
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["foo.txt"]


def test_fields_after_the_file_are_ignored(s3: Any, bucket: str, post: Post, sign: Callable[..., Fields]) -> None:
    assert post(sign(), after={"key": "elsewhere", "file": "another"}).status == 204
    assert read(s3, bucket)[1] == b"bar"
    assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 1


def test_forms_that_are_none(endpoint: str, bucket: str, post: Post, sign: Callable[..., Fields]) -> None:
    assert post(sign(), None).code == "IncorrectNumberOfFilesInPostRequest"
    assert sent(endpoint, bucket, body_of(sign(), b"bar")[:-20]).code == "MalformedPOSTRequest"
    assert post({**sign(), "long": "x" * 30_000}).code == "MaxPostPreDataLengthExceededError"


def test_a_large_file_is_streamed(s3: Any, bucket: str, endpoint: str, sign: Callable[..., Fields]) -> None:
    """Sent in chunks, with the boundary's beginning in it again and again."""
    piece = (f"\r\n--{BOUNDARY[:-1]}".encode() + bytes(range(256))) * 4000
    fields = sign([*FREE, ["content-length-range", 0, 100 * MIB]])
    head, _, end = body_of(fields, b"HERE").partition(b"HERE")
    reply = sent(endpoint, bucket, iter([head, *([piece] * 20), end]))
    assert reply.status == 204, reply.body
    found, content = read(s3, bucket)
    assert content == piece * 20
    assert found["ETag"] == f'"{hashlib.md5(piece * 20).hexdigest()}"'


def test_a_file_that_is_too_large_is_refused_before_its_end(
    bucket: str, endpoint: str, sign: Callable[..., Fields], s3: Any
) -> None:
    """The rest of its 10 GiB never comes."""
    head = body_of(sign(), b"HERE").partition(b"HERE")[0]
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=30)
    connection.putrequest("POST", f"/{bucket}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    connection.putheader("Content-Length", str(10 << 30))
    connection.endheaders(head + b"x" * (2 * MIB))
    answer = connection.getresponse()
    reply = Reply(answer.status, {}, answer.read())
    connection.close()
    assert (reply.status, reply.code) == (400, "EntityTooLarge")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_what_looks_like_a_form_needs_a_signature_for_anything_else(s3: Any, bucket: str, endpoint: str) -> None:
    s3.put_object(Bucket=bucket, Key="kept", Body=b"x")
    body = b"<Delete><Object><Key>kept</Key></Object></Delete>"
    reply = sent(endpoint, f"{bucket}?delete", body)
    assert reply.code == "AccessDenied"
    assert s3.head_object(Bucket=bucket, Key="kept")


def test_anonymous_forms_by_option(serve: Callable[..., Any]) -> None:
    """What s3-tests sends to a bucket that anybody may write to."""
    endpoint = serve(anonymous=True).endpoint
    netloc = urlsplit(endpoint).netloc
    connection = http.client.HTTPConnection(netloc, timeout=30)
    connection.request("PUT", "/anybody")
    assert connection.getresponse().status == 200
    connection.close()
    assert sent(endpoint, "anybody", body_of({"key": "${filename}", "acl": "public-read"}, b"bar")).status == 204
    connection = http.client.HTTPConnection(netloc, timeout=30)
    connection.request("GET", "/anybody/up.txt")
    assert connection.getresponse().read() == b"bar"
    connection.close()
