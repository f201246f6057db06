"""A remote S3 as a backend, over our own daemon's application, keeps the promises of all backends.

As far as S3 can: docs/semantics.md says where it cannot, and ``Levelled`` is all that the suite is told of it.
"""

import http.client
import zlib
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing

import objects_conformance
import objects_conformance_uploads
import pytest
from objects_conformance import EVERYTHING, LARGE, Conformance
from objects_support import KEY, Body, etag_of, lines, plain, put, read, whole

from s4raw.errors import BadKey, NoSuchUpload, S4Error
from s4raw.keys import Key
from s4raw.objects.base import ALWAYS, Attributes, Conditions, Info, Listed, Part, Query, Range, Source
from s4raw.objects.memory import MemoryBackend
from s4raw.objects.remote import RemoteBackend, RemoteOptions, open_remote
from s4raw.s3 import buckets, completing

from .service import ACCESS_KEY, REGION, SECRET_KEY, Service

CONTENT = b"12345678"
KEPT = EVERYTHING._replace(  # what S3 can keep with these bytes
    etag=etag_of(CONTENT),
    headers={"content-type": "text/plain; charset=utf-8", "cache-control": "no-cache", "expires": "never"},
    tags={"a": "1", "é": "😀 +&=%"},
    metadata={"a" * 40: "x" * 1000, "empty": "", "text": "\xc3\xa9 =?UTF-8?B?", "quotes": '"\\'},
    checksums={"CRC32": b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()},
    checksum_type="FULL_OBJECT",
    parts=[],
)


class Levelled(RemoteBackend):
    """Looks where S3 does not tell: whether there was an object to delete, and at what second one was stored."""

    def delete(self, key: Key, conditions: Conditions = ALWAYS) -> bool:
        try:
            self.head(key)
            there = True
        except S4Error:
            there = False
        return super().delete(key, conditions) and there

    def put(self, key: Key, source: Source, conditions: Conditions = ALWAYS) -> Info:
        info = super().put(key, source, conditions)
        try:
            return info._replace(mtime_ns=self.head(key).mtime_ns)
        except S4Error:
            return info

    def put_part(self, key: Key, upload: str, number: int, source: Source) -> Part:
        part = super().put_part(key, upload, number, source)
        found = [*self.parts(key, upload, number - 1, 1)]
        return found[0] if found else part


def without_added(attributes: Attributes) -> Attributes:
    """Attributes without the checksum that the daemon makes of what has none."""
    found = plain(attributes)
    if [*found.checksums] == ["CRC64NVME"]:
        found = found._replace(checksums={}, checksum_type="")
    parts = [part._replace(checksums={}) if "CRC64NVME" in part.checksums else part for part in found.parts]
    return found._replace(parts=parts)


@pytest.fixture
def backend(complaints: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteBackend]:
    monkeypatch.setattr(completing, "MIN_PART", 0)
    monkeypatch.setattr(buckets, "check_name", lambda name: None)
    for module in (objects_conformance, objects_conformance_uploads):
        monkeypatch.setattr(module, "plain", without_added)
    monkeypatch.setattr(objects_conformance, "EVERYTHING", KEPT)
    with Service(MemoryBackend(), complaints) as service:
        options = RemoteOptions(service.endpoint, region=REGION, access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        opened = open_remote(options)
        found = Levelled(opened._remote)
        yield found
        found.close()


class TestRemote(Conformance):
    # S3 makes ETags, checksums and parts itself, of what it is sent
    test_ten_thousand_parts_come_back = None
    test_parts_are_those_of_the_attributes = None
    test_a_part_has_what_its_body_was_sealed_with = None
    test_a_copy_onto_itself_changes_the_attributes = None
    test_a_copy_keeps_the_attributes_that_it_is_given = None
    # a copy is of one piece there, and has another ETag then
    test_an_object_of_parts_is_copied_and_read_while_it_is_deleted = None
    # tags are asked for when somebody looks at them
    test_an_open_object_stays_what_it_was = None
    # an upload that is completed again is answered as the first time
    test_of_two_that_complete_an_upload_one_does = None
    # an object of parts has the headers, metadata and tags that its upload was begun with
    test_parts_make_an_object = None
    test_an_upload_is_known_as_it_was_begun = None

    @pytest.mark.parametrize("end", ["abort"])
    def test_an_upload_ends_once(self, bucket, end):
        super().test_an_upload_ends_once(bucket, end)

    @pytest.mark.parametrize("content", [CONTENT])
    def test_a_copy_has_the_bytes_and_the_attributes(self, two, content):
        super().test_a_copy_has_the_bytes_and_the_attributes(two, content)

    def test_all_attributes_come_back(self, bucket):
        bucket.put(KEY, Body(CONTENT, KEPT))
        assert plain(bucket.head(KEY).attributes) == plain(KEPT)
        with bucket.get(KEY) as reading:
            assert plain(reading.info.attributes) == plain(KEPT)
        (entry,), _ = lines(bucket.list(KEY.bucket, Query()))
        assert entry == Listed(KEY.name, 8, 0, KEPT.etag, ["CRC32"], "FULL_OBJECT")

    def test_a_copy_onto_itself_changes_metadata_or_nothing(self, bucket):
        put(bucket, KEY, CONTENT, metadata={"old": "1"}, tags={"a": "1"})
        assert bucket.copy(KEY, KEY).attributes.metadata == {"old": "1"}
        for target in (KEY, Key(KEY.bucket, "other")):
            bucket.copy(KEY, target, KEPT)
            assert plain(bucket.head(target).attributes) == plain(KEPT)
            assert read(bucket, target) == CONTENT
            assert bucket.copy(KEY, target, Attributes()).attributes.tags == {}
            left = bucket.head(target).attributes
            assert (left.headers, left.metadata, left.tags) == ({}, {}, {})

    def test_an_object_of_parts_has_what_its_upload_was_begun_with(self, bucket):
        given = Attributes("", {"content-type": "x"}, {"m": "1"}, {"t": "\xe9"})
        upload = bucket.create_upload(KEY, given, "CRC32")
        assert plain(bucket.upload(KEY, upload).attributes) == plain(given)
        parts = [bucket.put_part(KEY, upload, at, Body(content)) for at, content in [(1, LARGE), (3, b""), (4, b"end")]]
        info = bucket.complete(KEY, upload, parts, whole(parts, headers=given.headers))
        head = bucket.head(KEY)
        assert (head.attributes.etag, head.size) == (info.attributes.etag, info.size)
        assert (head.attributes.headers, head.attributes.metadata) == (given.headers, given.metadata)
        assert head.attributes.tags == given.tags and [*info.attributes.checksums] == ["CRC32"]
        assert [part[:2] for part in head.attributes.parts] == [(1, len(LARGE)), (3, 0), (4, 3)]
        assert read(bucket, KEY, Range(part=1)) == LARGE

    @pytest.mark.parametrize("upload", ["", "no"])
    def test_without_an_upload_the_object_is_not_touched(self, bucket, upload):
        put(bucket, KEY, b"kept")
        for act in (bucket.abort, bucket.upload, bucket.parts, lambda *at: bucket.complete(*at, [], Attributes())):
            with pytest.raises(NoSuchUpload):
                act(KEY, upload)
        assert read(bucket, KEY) == b"kept"

    def test_without_a_name_the_bucket_is_not_touched(self, bucket):
        for act in (bucket.delete, bucket.head, bucket.get, lambda key: bucket.abort(key, "x")):
            with pytest.raises(BadKey):
                act(Key(KEY.bucket, ""))
        assert bucket.bucket(KEY.bucket)


def test_a_front_says_of_a_bucket_what_the_remote_says(complaints: list[str]) -> None:
    def asked(port: int, method: str, target: str) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request(method, target)
            answer = connection.getresponse()
            return answer.status, answer.read()

    with Service(MemoryBackend(), complaints) as remote:
        for secret, status, code in ((SECRET_KEY, 404, b"NoSuchBucket"), ("wrong", 403, b"AccessDenied")):
            options = RemoteOptions(remote.endpoint, region=REGION, access_key=ACCESS_KEY, secret_key=secret)
            with closing(open_remote(options)) as backend, Service(backend, complaints, anonymous=True) as front:
                assert asked(front.port, "HEAD", "/bucket") == (status, b"")
                found, body = asked(front.port, "GET", "/bucket?location")
                assert found == status and code in body
