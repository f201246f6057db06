"""Whatever boto3 does to a bucket, in whatever order, what it is told afterwards is what plain dictionaries say."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import boto3
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from .plain_model import SMALLEST, Object, Upload, checksum, completed, copied, listing, md5, put
from .service import BACKENDS, Remote, Service

BUCKET = "bucket"
FAMILIES = [  # names that get into each other's way
    *(
        ["a", "a/", "a/b", "a/b/c"],
        ["a//b", "a/", "/lead", "//"],
        [".", "..", "./x", "a/../b"],
        ["é", "é/", "😀/x", "%41"],
    ),
    *(
        ["p" * 255, "p" * 256, "p" * 256 + "/q"],
        ["x y", "x+y", "x\ny", "<&>"],
        ["\x01", "\x7f/", "\uffff", "\U0010ffff"],
    ),
]
NAMES = [name for family in FAMILIES for name in family]
UNSPEAKABLE = {"\x01", "\uffff"}  # in XML
BIG = b"0123456789abcdef" * (SMALLEST >> 4)

positions = st.integers(0, 7)
contents = st.sampled_from([b"", b"x", b"hello, world"]) | st.binary(max_size=30)
contents |= st.just(30_000).map(lambda count: b"long" * count)
algorithms = st.sampled_from(["", "", "CRC32", "CRC64NVME", "SHA256"])
words = st.text("abcXYZ019-", min_size=1, max_size=5)
metadata = st.just({}) | st.dictionaries(words.map(str.lower), words, min_size=1, max_size=2)
tag_sets = st.just({}) | st.dictionaries(words, st.text("aé +&=%", max_size=4), min_size=1, max_size=2)
types = st.sampled_from(["binary/octet-stream", "text/plain; charset=utf-8"])
upload_kinds = st.sampled_from(  # checksum algorithm and type
    [("", ""), ("CRC32", "FULL_OBJECT"), ("CRC32", "COMPOSITE"), ("CRC64NVME", ""), ("SHA256", "COMPOSITE")]
)


def failure(call: Callable[..., Any], **given: Any) -> str:
    """The code of the error that a call ends with, empty if it does not."""
    try:
        answer = call(**given)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    if "Body" in answer:
        answer["Body"].close()
    return ""


class History(RuleBasedStateMachine):
    """A server beside dictionaries. Subclasses have ``client``, ``fresh`` and ``restart_server``."""

    client: Any
    fresh: Callable[[], None]
    restart_server: Callable[[], None]

    def __init__(self) -> None:
        super().__init__()
        type(self).fresh()
        self.objects: dict[str, Object] = {}
        self.uploads: dict[str, Upload] = {}
        self.ended: list[tuple[str, str]] = []
        self.client.create_bucket(Bucket=BUCKET)
        self.names = NAMES[:4]

    @initialize(family=st.sampled_from(FAMILIES), others=st.lists(st.sampled_from(NAMES), max_size=4))
    def choose(self, family: list[str], others: list[str]) -> None:
        """The names of this history; half of them have objects, and one has an upload."""
        self.names = [*family, *others]
        for at, name in enumerate(self.names[::2]):
            tag = "" if name in UNSPEAKABLE else name[:9]
            self.put(2 * at, name.encode() * at + b"0123456789", "", {"m": "v"}, "text/plain", {"t": tag}, "")
        self.create_upload(1, ("SHA256", "COMPOSITE"), {"of": "parts"})
        self.put_part(0, 1, b"first", False)

    def name(self, at: int) -> str:
        return self.names[at % len(self.names)]

    def there(self, at: int) -> str:
        """The name of an object that is there, if there is one."""
        return list(self.objects)[at % len(self.objects)] if self.objects else self.name(at)

    def at(self, name: str) -> dict[str, str]:
        return {"Bucket": BUCKET, "Key": name}

    def etag(self, name: str) -> str:
        return self.objects[name].etag if name in self.objects else "none"

    # Objects

    @rule(
        at=positions,
        content=contents,
        algorithm=algorithms,
        metadata=metadata,
        kind=types,
        tags=tag_sets,
        condition=st.sampled_from(["", "", "", "new", "same", "other"]),
    )
    def put(self, at, content, algorithm, metadata, kind, tags, condition) -> None:
        name = self.name(at)
        given: dict[str, Any] = {"Body": content, "Metadata": metadata, "ContentType": kind, "Tagging": urlencode(tags)}
        if algorithm:
            given["ChecksumAlgorithm"] = algorithm
        expected = ""
        if condition == "new":
            given["IfNoneMatch"], expected = "*", "PreconditionFailed" if name in self.objects else ""
        elif condition:
            given["IfMatch"] = self.etag(name) if condition == "same" else md5(b"other")
            expected = "" if condition == "same" else "PreconditionFailed"
            if given["IfMatch"] == self.etag(name):
                expected = ""
            expected = expected if name in self.objects else "NoSuchKey"
        assert failure(self.client.put_object, **self.at(name), **given) == expected
        if not expected:
            self.objects[name] = put(content, algorithm, metadata, kind, tags)
        self.check(name)

    def check(self, name: str) -> None:
        """HEAD says what is there."""
        wanted = self.objects.get(name)
        if wanted is None:
            assert failure(self.client.head_object, **self.at(name)) == "404"
            return
        found = self.client.head_object(**self.at(name), ChecksumMode="ENABLED")
        assert (found["ContentLength"], found["ETag"]) == (len(wanted.content), f'"{wanted.etag}"')
        self.check_described(found, wanted)

    def check_described(self, found: dict[str, Any], wanted: Object) -> None:
        assert (found["Metadata"], found["ContentType"]) == (wanted.metadata, wanted.content_type)
        sums = {
            name: found[f"Checksum{name}"] for name in ("CRC32", "CRC64NVME", "SHA256") if f"Checksum{name}" in found
        }
        assert (sums, found["ChecksumType"]) == (wanted.checksums, wanted.checksum_type)
        assert found.get("TagCount", 0) == len(wanted.tags)

    @rule(at=positions)
    def get(self, at: int) -> None:
        name = self.there(at)
        if name not in self.objects:
            assert failure(self.client.get_object, **self.at(name)) == "NoSuchKey"
            return
        found = self.client.get_object(**self.at(name), ChecksumMode="ENABLED")
        assert found["Body"].read() == self.objects[name].content
        self.check_described(found, self.objects[name])

    @precondition(lambda self: self.objects)
    @rule(at=positions, first=st.integers(0, 15), last=st.none() | st.integers(0, 200_000), suffix=st.booleans())
    def get_range(self, at: int, first: int, last: int | None, suffix: bool) -> None:
        name = self.there(at)
        content = self.objects[name].content
        text = f"bytes={first}-{'' if last is None else last}"
        if suffix:
            wanted, text = content[-first:] if first else b"", f"bytes=-{first}"
        elif last is not None and last < first:
            wanted = content  # that is no range
        else:
            wanted = content[first : None if last is None else last + 1]
        if not wanted and (content or suffix or last is None or last >= first):
            assert failure(self.client.get_object, **self.at(name), Range=text) == "InvalidRange"
            return
        found = self.client.get_object(**self.at(name), Range=text)
        assert found["Body"].read() == wanted

    @precondition(lambda self: self.objects)
    @rule(at=positions, same=st.booleans(), negated=st.booleans(), heads=st.booleans())
    def get_if(self, at: int, same: bool, negated: bool, heads: bool) -> None:
        name = self.there(at)
        etag = self.etag(name) if same else "other"
        call = self.client.head_object if heads else self.client.get_object
        if negated:
            assert failure(call, **self.at(name), IfNoneMatch=f'"{etag}"') == ("304" if same else "")
        else:
            refused = "412" if heads else "PreconditionFailed"
            assert failure(call, **self.at(name), IfMatch=f'"{etag}"') == ("" if same else refused)

    @rule(
        at=positions,
        to=positions,
        algorithm=algorithms,
        replaced=st.none() | metadata,
        tags=st.none() | tag_sets,
        condition=st.sampled_from(["", "", "", "same", "other"]),
    )
    def copy(self, at, to, algorithm, replaced, tags, condition) -> None:
        source, target = self.there(at), self.name(to)
        given: dict[str, Any] = {"CopySource": {"Bucket": BUCKET, "Key": source}}
        if algorithm:
            given["ChecksumAlgorithm"] = algorithm
        if replaced is not None:
            given |= {"MetadataDirective": "REPLACE", "Metadata": replaced, "ContentType": "x/y"}
        if tags is not None:
            given |= {"TaggingDirective": "REPLACE", "Tagging": urlencode(tags)}
        if condition:
            given["CopySourceIfMatch"] = self.etag(source) if condition == "same" else "other"
        expected = ""
        if source == target and replaced is None:
            expected = "InvalidRequest"
        elif source not in self.objects:
            expected = "NoSuchKey"
        elif condition == "other":
            expected = "PreconditionFailed"
        assert failure(self.client.copy_object, **self.at(target), **given) == expected
        if not expected:
            made = copied(self.objects[source], algorithm)
            if replaced is not None:
                made.metadata, made.content_type = replaced, "x/y"
            if tags is not None:
                made.tags = tags
            self.objects[target] = made
        self.check(target)

    @rule(at=positions, condition=st.sampled_from(["", "", "same", "other"]))
    def delete(self, at: int, condition: str) -> None:
        name = self.there(at)
        given = {"IfMatch": self.etag(name) if condition == "same" else "other"} if condition else {}
        expected = "PreconditionFailed" if condition == "other" and name in self.objects else ""
        assert failure(self.client.delete_object, **self.at(name), **given) == expected
        if not expected:
            self.objects.pop(name, None)
        self.check(name)

    @rule(places=st.lists(positions, min_size=1, max_size=4), quiet=st.booleans())
    def delete_many(self, places: list[int], quiet: bool) -> None:
        names = [name for name in map(self.name, places) if name not in UNSPEAKABLE]
        if not names:
            return
        answer = self.client.delete_objects(
            Bucket=BUCKET, Delete={"Objects": [{"Key": name} for name in names], "Quiet": quiet}
        )
        assert "Errors" not in answer
        assert [done["Key"] for done in answer.get("Deleted", [])] == ([] if quiet else names)
        for name in names:
            self.objects.pop(name, None)
            self.check(name)

    @rule(at=positions, tags=st.none() | tag_sets)
    def tag(self, at: int, tags: dict[str, str] | None) -> None:
        name = self.there(at)
        expected = "" if name in self.objects else "NoSuchKey"
        if tags is None:
            assert failure(self.client.delete_object_tagging, **self.at(name)) == expected
        else:
            tag_set = {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}
            assert failure(self.client.put_object_tagging, **self.at(name), Tagging=tag_set) == expected
        if not expected:
            self.objects[name].tags = tags or {}
            found = self.client.get_object_tagging(**self.at(name))["TagSet"]
            assert [(tag["Key"], tag["Value"]) for tag in found] == sorted((tags or {}).items())
        self.check(name)

    # Listings

    @rule(
        at=positions,
        cut=st.sampled_from([0, 0, 1, 2, None]),
        delimiter=st.sampled_from(["", "/", "/", "//", "b", "p/", "\n"]),
        size=st.sampled_from([1, 2, 3, 1000]),
        start=st.none() | positions,
        version=st.sampled_from([1, 2]),
    )
    def list_objects(self, at, cut, delimiter, size, start, version) -> None:
        prefix, after = self.name(at)[:cut], "" if start is None else self.name(start)
        wanted = listing(list(self.objects), prefix, delimiter, after)
        given: dict[str, Any] = {"Bucket": BUCKET, "Prefix": prefix, "Delimiter": delimiter, "MaxKeys": size}
        if after:
            given["StartAfter" if version == 2 else "Marker"] = after
        call = self.client.list_objects_v2 if version == 2 else self.client.list_objects
        found: list[tuple[str, bool]] = []
        for _ in range(len(wanted) + 1):
            page = call(**given)
            entries = [(entry["Key"], False) for entry in page.get("Contents", [])]
            entries += [(entry["Prefix"], True) for entry in page.get("CommonPrefixes", [])]
            entries.sort(key=lambda entry: entry[0].encode())
            assert len(entries) == (size if page["IsTruncated"] else len(entries)) <= size
            assert version == 1 or page["KeyCount"] == len(entries)
            for entry in page.get("Contents", []):
                self.check_listed(entry)
            found += entries
            if not page["IsTruncated"]:
                break
            if version == 2:
                given["ContinuationToken"] = page["NextContinuationToken"]
            else:
                given["Marker"] = page["NextMarker"] if delimiter else entries[-1][0]
        assert found == wanted

    def check_listed(self, entry: dict[str, Any]) -> None:
        wanted = self.objects[entry["Key"]]
        assert (entry["Size"], entry["ETag"]) == (len(wanted.content), f'"{wanted.etag}"')
        assert (entry["ChecksumAlgorithm"], entry["ChecksumType"]) == (list(wanted.checksums), wanted.checksum_type)

    # Uploads

    @precondition(lambda self: len(self.uploads) < 3)
    @rule(
        at=positions,
        kind=upload_kinds,
        metadata=metadata,
    )
    def create_upload(self, at: int, kind: tuple[str, str], metadata: dict[str, str]) -> None:
        algorithm, checksum_type = kind
        given = {"ChecksumAlgorithm": algorithm} if algorithm else {}
        given |= {"ChecksumType": checksum_type} if checksum_type else {}
        name = self.name(at)
        answer = self.client.create_multipart_upload(**self.at(name), Metadata=metadata, **given)
        self.uploads[answer["UploadId"]] = Upload(name, algorithm, checksum_type, metadata)

    def upload(self, at: int) -> tuple[str, Upload]:
        return list(self.uploads.items())[at % len(self.uploads)]

    @rule(at=positions, kind=upload_kinds, metadata=metadata, parts=st.lists(contents, min_size=1, max_size=3))
    def upload_whole(self, at: int, kind: tuple[str, str], metadata: dict[str, str], parts: list[bytes]) -> None:
        self.create_upload(at, kind, metadata)
        place = len(self.uploads) - 1
        for number, content in enumerate(parts, 1):
            self.put_part(place, number, content, len(parts) == 2 and number == 1)
        self.complete(place, set(), False)

    @precondition(lambda self: self.uploads)
    @rule(
        at=positions,
        number=st.sampled_from([1, 2, 2, 3, 10_000]),
        content=contents,
        big=st.sampled_from([False] * 4 + [True]),
    )
    def put_part(self, at: int, number: int, content: bytes, big: bool) -> None:
        upload_id, upload = self.upload(at)
        content = BIG + content if big else content
        given = {"ChecksumAlgorithm": upload.algorithm} if upload.algorithm else {}
        answer = self.client.upload_part(
            **self.at(upload.key), UploadId=upload_id, PartNumber=number, Body=content, **given
        )
        assert answer["ETag"] == f'"{md5(content)}"'
        upload.parts[number] = content
        self.list_parts(at, 1000)

    @precondition(lambda self: self.uploads and self.objects)
    @rule(at=positions, number=st.sampled_from([1, 2, 3]), source=positions, first=st.none() | st.integers(0, 3))
    def copy_part(self, at: int, number: int, source: int, first: int | None) -> None:
        upload_id, upload = self.upload(at)
        name = self.there(source)
        content = self.objects[name].content
        given: dict[str, Any] = {"CopySource": {"Bucket": BUCKET, "Key": name}}
        if first is not None:
            given["CopySourceRange"] = f"bytes={first}-{first + 2}"
        expected = "" if first is None or first + 2 < len(content) else "InvalidRange"
        place = {**self.at(upload.key), "UploadId": upload_id, "PartNumber": number}
        assert failure(self.client.upload_part_copy, **place, **given) == expected
        if not expected:
            upload.parts[number] = content if first is None else content[first : first + 3]
        self.list_parts(at, 1000)

    @precondition(lambda self: self.uploads)
    @rule(at=positions, size=st.sampled_from([1, 2, 1000]))
    def list_parts(self, at: int, size: int) -> None:
        upload_id, upload = self.upload(at)
        found: list[dict[str, Any]] = []
        for _ in range(len(upload.parts) + 1):
            marker = found[-1]["PartNumber"] if found else 0
            page = self.client.list_parts(
                **self.at(upload.key), UploadId=upload_id, MaxParts=size, PartNumberMarker=marker
            )
            found += page.get("Parts", [])
            if not page["IsTruncated"]:
                break
        wanted = [(number, len(part), f'"{md5(part)}"') for number, part in sorted(upload.parts.items())]
        assert [(part["PartNumber"], part["Size"], part["ETag"]) for part in found] == wanted
        if upload.algorithm:
            sums = [checksum(upload.algorithm, part) for _, part in sorted(upload.parts.items())]
            assert [part[f"Checksum{upload.algorithm}"] for part in found] == sums

    def list_uploads(self) -> None:
        answer = self.client.list_multipart_uploads(Bucket=BUCKET, EncodingType="url")
        found = sorted((upload["UploadId"], upload["Key"]) for upload in answer.get("Uploads", []))
        assert [upload for upload, _ in found] == sorted(self.uploads)

    @precondition(lambda self: self.uploads)
    @rule(at=positions, chosen=st.sets(st.sampled_from([1, 2, 3, 10_000])), wrong=st.sampled_from([False] * 5 + [True]))
    def complete(self, at: int, chosen: set[int], wrong: bool) -> None:
        upload_id, upload = self.upload(at)
        numbers = sorted(chosen & upload.parts.keys()) or sorted(upload.parts)
        if not numbers:
            return
        parts = [{"PartNumber": number, "ETag": md5(upload.parts[number])} for number in numbers]
        expected = ""
        if wrong:
            parts[-1]["ETag"], expected = md5(b"wrong"), "InvalidPart"
        elif any(len(upload.parts[number]) < SMALLEST for number in numbers[:-1]):
            expected = "EntityTooSmall"
        if upload.algorithm and upload.kind == "COMPOSITE":
            for part, number in zip(parts, numbers, strict=True):
                part[f"Checksum{upload.algorithm}"] = checksum(upload.algorithm, upload.parts[number])
        place = {**self.at(upload.key), "UploadId": upload_id}
        assert failure(self.client.complete_multipart_upload, **place, MultipartUpload={"Parts": parts}) == expected
        if not expected:
            self.objects[upload.key] = completed(upload, numbers)
            del self.uploads[upload_id]
            self.ended.append((upload.key, upload_id))
        self.check(upload.key)

    @precondition(lambda self: self.uploads)
    @rule(at=positions)
    def abort(self, at: int) -> None:
        upload_id, upload = self.upload(at)
        self.client.abort_multipart_upload(**self.at(upload.key), UploadId=upload_id)
        del self.uploads[upload_id]
        self.ended.append((upload.key, upload_id))

    @precondition(lambda self: self.ended)
    @rule(at=positions)
    def use_what_has_ended(self, at: int) -> None:
        name, upload_id = self.ended[at % len(self.ended)]
        place = {**self.at(name), "UploadId": upload_id}
        assert failure(self.client.list_parts, **place) == "NoSuchUpload"
        assert failure(self.client.upload_part, **place, PartNumber=1, Body=b"x") == "NoSuchUpload"
        assert failure(self.client.abort_multipart_upload, **place) == "NoSuchUpload"

    # Buckets and the server

    @rule(what=st.sampled_from(["list uploads", "delete the bucket", "restart", "restart"]))
    def see_to_the_whole(self, what: str) -> None:
        if what == "list uploads":
            self.list_uploads()
        elif what == "restart":
            type(self).restart_server()
        else:
            self.delete_bucket()

    def delete_bucket(self) -> None:
        assert failure(self.client.delete_bucket, Bucket=BUCKET) == ("BucketNotEmpty" if self.objects else "")
        if not self.objects:
            self.ended += [(upload.key, upload_id) for upload_id, upload in self.uploads.items()]
            self.uploads.clear()
            assert failure(self.client.list_objects_v2, Bucket=BUCKET) == "NoSuchBucket"
            self.client.create_bucket(Bucket=BUCKET)

    def teardown(self) -> None:
        self.list_objects(0, 0, "", 1000, None, 2)
        for name in self.objects:
            found = self.client.get_object(**self.at(name))
            assert found["Body"].read() == self.objects[name].content


def client_of(service: Service, boto: boto3.Session) -> BaseClient:
    config = Config(
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
        signature_version="s3v4",
        request_checksum_calculation="when_required",
    )
    return boto.client("s3", endpoint_url=service.endpoint, config=config)


@pytest.mark.parametrize("kind, runs", [("memory", 50), ("local", 25), ("remote", 10)])
def test_any_history(kind: str, runs: int, tmp_path: Path, boto: boto3.Session, complaints: list[str]) -> None:
    count = 0
    make = BACKENDS.get(kind, lambda _: Remote())
    backend = make(tmp_path / "0")
    with Service(backend, complaints) as service:

        def reopen(fresh: bool) -> None:
            nonlocal backend, count
            count += fresh
            if fresh or kind == "local":  # memory forgets
                service.restart(lambda: (backend.close(), make(tmp_path / str(count)))[1])
                backend = service.backend

        class Machine(History):
            client = client_of(service, boto)
            fresh = staticmethod(lambda: reopen(True))
            restart_server = staticmethod(lambda: reopen(False))

        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    deadline=None,
                    database=None,
                    max_examples=runs,
                    stateful_step_count=25,
                    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
                ),
            )
        finally:
            Machine.client.close()
            gc.collect()
    backend.close()
