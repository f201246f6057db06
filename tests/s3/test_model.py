"""Every operation of S3 as botocore's model has it: answers that botocore understands, and nothing done unasked.

Operations that are not there, too: they say so in S3's words and leave everything as it was.
"""

import base64
import gc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from xml.etree import ElementTree

import boto3
import botocore.session
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.model import OperationModel
from conftest import wait_for
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from objects_support import Body, etag_of

from s4raw.keys import Key
from s4raw.objects.base import Attributes, Backend, Part, Query
from s4raw.s3.errors import CODES

from .service import BACKENDS, Raw, Service
from .shapes import not_of_their_enum, parameters, strangers

MODEL = botocore.session.get_session().get_service_model("s3")
OPERATIONS: list[OperationModel] = [MODEL.operation_model(name) for name in MODEL.operation_names]

# What changes something here when it succeeds; everything else must leave all as it was.
CHANGES = frozenset(
    (
        *("CreateBucket", "DeleteBucket", "PutBucketTagging", "DeleteBucketTagging"),
        *("PutObject", "CopyObject", "DeleteObject", "DeleteObjects", "PutObjectTagging", "DeleteObjectTagging"),
        *("CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload", "AbortMultipartUpload"),
    )
)
# What else is there: it reads, or answers the same for all.
READS = frozenset(
    (
        *("ListBuckets", "HeadBucket", "GetBucketLocation", "GetBucketTagging", "ListObjects", "ListObjectsV2"),
        *("ListObjectVersions", "ListMultipartUploads", "ListParts", "GetObject", "HeadObject", "GetObjectTagging"),
        *("GetObjectAttributes", "GetObjectAcl", "GetBucketAcl", "PutBucketAcl", "PutObjectAcl"),
        *("GetBucketVersioning", "GetBucketPolicyStatus", "GetBucketLogging", "GetBucketRequestPayment"),
        *("GetBucketNotification", "GetBucketNotificationConfiguration", "GetBucketAccelerateConfiguration"),
    )
)
# What the access log calls the operations that no query names.
PLAIN = frozenset(
    (
        *("list_buckets", "create_bucket", "head_bucket", "delete_bucket", "list_objects", "post_object"),
        *("get_object", "head_object", "put_object", "copy_object", "delete_object"),
    )
)
DOCUMENTED = (CODES.keys() | {shape.name for shape in MODEL.error_shapes} | {"AccessForbidden"}) - {
    "InternalError",
    "InsufficientStorage",
}
NOT_THERE = 501
# In the answers of S3, and for those that read it without botocore, but not in the model.
BEYOND_THE_MODEL = frozenset(
    ("ListAllMyBucketsResult/Owner", "ListAllMyBucketsResult/Prefix", "ListAllMyBucketsResult/Buckets/Bucket/BucketArn")
)

NAMES = ["a", "a/b", "a//b", "trail/", "..", "é 😀", "x\ny", "<&>", "\x01"]
CRC32 = base64.b64encode(zlib.crc32(b"firstsecond").to_bytes(4, "big")).decode()
TIMELESS = settings(
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


class World:
    """A backend in a known state, which it is brought back to after every change."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.upload = ""
        self.state: Any = None
        self.reset()

    def reset(self) -> None:
        backend = self.backend
        for bucket in backend.buckets():
            for name in self._names(bucket.name):
                backend.delete(Key(bucket.name, name))
            backend.delete_bucket(bucket.name)
        for name in ("bucket", "other-bucket"):
            backend.create_bucket(name)
        backend.tag_bucket("bucket", {"k": "v", "a<": "&"})
        for at, name in enumerate(NAMES):
            content = name.encode() * at
            attributes = Attributes(
                etag_of(content), {"content-type": "text/x"}, {"m": "v"} if at % 2 else {}, {"t": "1"} if at % 3 else {}
            )
            backend.put(Key("bucket", name), Body(content, attributes))
        parts = [Part(1, 5, etag_of(b"first"), {"CRC32": "knHuVw=="}), Part(2, 6, etag_of(b"second"))]
        self.upload = self._begin("a/b")
        whole = self._begin("of parts")
        backend.complete(
            Key("bucket", "of parts"),
            whole,
            backend.parts(Key("bucket", "of parts"), whole),
            Attributes("0" * 32 + "-2", checksums={"CRC32": CRC32}, checksum_type="FULL_OBJECT", parts=parts),
        )
        self._begin("z\n<")
        self.state = self.dump()

    def _begin(self, name: str) -> str:
        key = Key("bucket", name)
        upload = self.backend.create_upload(key, Attributes(metadata={"m": "v"}))
        for number, content in ((1, b"first"), (2, b"second")):
            self.backend.put_part(key, upload, number, Body(content))
        return upload

    def _names(self, bucket: str) -> list[str]:
        return [entry.name for entry in self.backend.list(bucket, Query()).entries]

    def dump(self) -> Any:
        """All that the backend holds."""
        backend, found = self.backend, []
        for bucket in backend.buckets():
            for name in self._names(bucket.name):
                with backend.get(Key(bucket.name, name)) as reading:
                    found.append((name, reading.info, b"".join(bytes(piece) for piece in reading.pieces())))
            for upload in backend.uploads(bucket.name, Query()).uploads:
                found.append((upload, list(backend.parts(upload.key, upload.id))))
            found.append(bucket)
        return found

    def settle(self) -> bool:
        """Whether all is as it was; if not, it is now."""
        if self.dump() == self.state:
            return True
        self.reset()
        return False


class Caller:
    """Sends operations with botocore, and keeps what came back."""

    def __init__(self, service: Service, boto: boto3.Session) -> None:
        self.service = service
        config = Config(
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
            signature_version="s3v4",
            inject_host_prefix=False,
            max_pool_connections=1,
            read_timeout=20,
        )
        self.client: BaseClient = boto.client("s3", endpoint_url=service.endpoint, config=config)
        self.client.meta.events.register("before-parse.s3.*", self._keep)
        self.raw: dict[str, Any] = {}

    def _keep(self, response_dict: dict[str, Any], **_: Any) -> None:
        self.raw = dict(response_dict)

    def send(self, operation: OperationModel, given: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """The status and what botocore made of the answer; None when botocore refused to send that."""
        self.raw = {}
        try:
            answer = self.client._make_api_call(operation.name, given)
        except ClientError as error:
            answer = error.response
        except (BotoCoreError, UnicodeError, ValueError, AttributeError, TypeError):
            if self.raw:  # it is the answer that it does not understand
                raise
            return None
        for value in answer.values():
            if hasattr(value, "read"):
                value.read()
                value.close()
        return answer["ResponseMetadata"]["HTTPStatusCode"], answer

    def done_as(self, request: str) -> str:
        """Which operation the access log says that a request was; it is written after the answer."""
        lines = self.service.lines
        wait_for(lambda: any(line.endswith(request) for line in lines))
        found = next(line for line in lines if line.endswith(request))
        del lines[:]
        return found.split()[2]

    def close(self) -> None:
        self.client.close()
        gc.collect()


def check_error(operation: OperationModel, status: int, answer: dict[str, Any]) -> None:
    """An error is one that S3 has, with the status that it has there."""
    assert status < 500 or status == NOT_THERE, (status, answer)
    if operation.http["method"] == "HEAD" or status == 304:
        return
    code = answer["Error"]["Code"]
    assert code in DOCUMENTED, code
    if code in CODES:
        assert CODES[code][0] == status, (code, status)
    assert answer["Error"]["Message"], answer
    assert answer["ResponseMetadata"]["RequestId"] and answer["ResponseMetadata"]["HostId"], answer


def check_answer(operation: OperationModel, status: int, answer: dict[str, Any], raw: dict[str, Any]) -> None:
    """An answer is one that the model describes."""
    expected = 204 if operation.name == "PutBucketTagging" else operation.http.get("responseCode")
    assert status in ((expected,) if expected else (200, 206)), status
    assert operation.name in CHANGES | READS or expected == 204, "it is said to be there"
    body = raw["body"]
    if operation.name == "GetBucketLocation":  # botocore takes the root's text, against its model
        assert not len(ElementTree.fromstring(body))
        return
    assert not (found := not_of_their_enum(operation.output_shape, answer)), found
    if not isinstance(body, bytes) or not body:
        return
    root = ElementTree.fromstring(body)
    assert not (found := [one for one in strangers(operation, root) if one not in BEYOND_THE_MODEL]), found


def check(world: World, caller: Caller, operation: OperationModel, given: dict[str, Any]) -> None:
    """Send an operation, and hold all that came of it against the model."""
    sent = caller.send(operation, given)
    if sent is None:
        return
    status, answer = sent
    same = world.settle()
    if status >= 300:
        check_error(operation, status, answer)
        assert same, f"it failed with {status}, and changed something"
    else:
        check_answer(operation, status, answer, caller.raw)
        assert same or operation.name in CHANGES, "it changed something"
    caller.client.head_bucket(Bucket="bucket")  # the connection is as good as new
    if "?" in operation.http["requestUri"] and "list-type" not in operation.http["requestUri"]:
        name = caller.done_as(answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-request-id"])
        assert name not in PLAIN, f"{operation.name} became {name}"


def known(world: World) -> dict[str, st.SearchStrategy[Any]]:
    """Values that name something that is there, mostly."""
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
    there = st.sampled_from([*NAMES, "of parts"])
    names = st.integers(0, 9).flatmap(
        lambda at: text if at == 0 else st.sampled_from(["new", "x" * 1025]) if at == 1 else there
    )
    parts = [{"PartNumber": 1, "ETag": etag_of(b"first")}, {"PartNumber": 2, "ETag": f'"{etag_of(b"second")}"'}]
    versions = st.sampled_from(["null", "null", "", "v" * 32])
    return {
        "Bucket": st.sampled_from(["bucket"] * 16 + ["other-bucket", "no-such-bucket", "new-bucket"]),
        "Key": names,
        "UploadId": st.deferred(lambda: st.sampled_from([world.upload, world.upload, "none", "../x", "😀"])),
        "PartNumber": st.sampled_from([1, 1, 2, 3, 0, 10_000, 10_001]),
        "CopySource": st.sampled_from(
            [
                *({"Bucket": "bucket", "Key": name} for name in NAMES),
                "bucket/of%20parts",
                "/bucket/a",
                "bucket",
                "a/b/%",
            ]
        ),
        "MultipartUpload": st.sampled_from([{"Parts": parts}, {"Parts": parts[:1]}, {"Parts": parts[::-1]}, {}]),
        "VersionId": versions,
        "IfMatch": st.sampled_from(["*", f'"{etag_of(b"")}"', "none"]),
        "IfNoneMatch": st.sampled_from(["*", f'"{etag_of(b"")}"', "none"]),
    }


@contextmanager
def worlds(kind: str, directory: Path, boto: boto3.Session, complaints: list[str]) -> Iterator[tuple[World, Caller]]:
    backend = BACKENDS[kind](directory)
    try:
        with Service(backend, complaints, max_object_size=70_000) as service:
            caller = Caller(service, boto)
            try:
                yield World(backend), caller
            finally:
                caller.close()
    finally:
        backend.close()


def failure_of(world: World, caller: Caller, operation: OperationModel, examples: int) -> str:
    """What is wrong with an operation, in words and with an example; empty if nothing was found."""

    @settings(TIMELESS, max_examples=examples)
    @given(parameters(operation, known(world)))
    def answers(given: dict[str, Any]) -> None:
        check(world, caller, operation, given)

    try:
        answers()
    except Exception as error:
        world.settle()
        return f"{operation.name}: {error!r} {' '.join(getattr(error, '__notes__', []))}"
    return ""


@pytest.mark.long
@pytest.mark.parametrize("kind, absent", [("memory", 4), ("local", 1)])
def test_botocore_understands_every_answer(
    kind: str, absent: int, tmp_path: Path, boto: boto3.Session, complaints: list[str]
) -> None:
    """``absent`` is how often an operation is tried that is not there: none of them gets as far as a backend."""
    failures = []
    with worlds(kind, tmp_path / "backend", boto, complaints) as (world, caller):
        for operation in OPERATIONS:
            examples = 16 if operation.name in CHANGES | READS else absent
            failures.append(failure_of(world, caller, operation, examples))
    assert not any(failures), "\n".join(filter(None, failures))


# Sub-resources


def subresources() -> list[str]:
    """The names in queries that say which operation is meant."""
    found = {"uploadId"}
    for operation in OPERATIONS:
        found |= {name for name, _ in parse_qsl(urlsplit(operation.http["requestUri"]).query, keep_blank_values=True)}
    return sorted(found - {"list-type", "select-type"})


@pytest.mark.parametrize("kind", ["memory"])
def test_no_subresource_falls_through(
    kind: str, tmp_path: Path, boto: boto3.Session, complaints: list[str], new_raw: Callable[[Service], Raw]
) -> None:
    """With any method, on a bucket and on an object, with and without a value."""
    known = {_asked(operation) for operation in OPERATIONS}
    with worlds(kind, tmp_path / "backend", boto, complaints) as (world, caller):
        raw = new_raw(caller.service)
        for name in subresources():
            for target in ("/bucket", "/bucket/a", "/other-bucket", "/new-bucket"):
                for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
                    reply = raw(method, f"{target}?{name}", headers={"x-amz-copy-source": "bucket/a/b"})
                    done = caller.done_as(reply.headers["x-amz-request-id"])
                    assert done not in PLAIN, (method, target, name)
                    level = "object" if target.count("/") > 1 else "bucket"
                    if (method, level, name) not in known:
                        assert reply.status in (405, NOT_THERE), (method, target, name, reply)
                    changes = method != "GET" and reply.status < 300
                    assert world.settle() or changes, (method, target, name)


def _asked(operation: OperationModel) -> tuple[str, str, str]:
    path, _, query = operation.http["requestUri"].partition("?")
    name = "uploadId" if "UploadId" in (operation.input_shape or operation).members else query.partition("&")[0]
    return operation.http["method"], "object" if "Key" in path else "bucket", name
