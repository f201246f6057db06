"""What every backend must do. A backend's tests subclass ``Conformance`` and give it a fixture ``backend``, empty.

Each class here is about one side of it. See ``objects_model`` for what they do to each other.
"""

import threading
import time

import pytest
from objects_conformance_uploads import Multipart
from objects_support import KEY, Body, begin, etag_of, expected, lines, names, plain, put, read, shown, whole
from support import at_once

from s4raw.errors import (
    BadKey,
    BadRange,
    BucketNotEmpty,
    ConnectionLost,
    Corrupt,
    NoSuchBucket,
    NoSuchKey,
    NotModified,
    PreconditionFailed,
    S4Error,
)
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Conditions, Listed, Part, Query, Range

ABSENT = Key("absent", "key")
LARGE = bytes(range(251)) * 16_500  # 4 MB: more than any buffer
NASTY = [
    *(
        "a",
        "a/",
        "a/b",
        "a/b/c",
        "a//",
        "a//b",
        "a.b",
        "a!",
        "a0",
        "trail/",
        "/lead",
        "/",
        "//",
        ".",
        "..",
        "./x",
        "../x",
    ),
    *(
        "x/../y",
        "x/.",
        "%",
        "%=",
        "%2F",
        "x/%=",
        "😀",
        "😀/x",
        "\n",
        "x\ny",
        " ",
        "é",
        "e\u0301",
        "\uffff",
        "\U0010ffff",
    ),
    *(
        "*",
        "\\",
        "-rf",
        "_x",
        "_tmp/x",
        "p" * 255,
        "p" * 256,
        "p" * 256 + "/q",
        "q" * 512 + "/" + "q" * 511,
        "r" * 1024,
    ),
    *("é" * 512, "/".join("s" * 512), "+ &?#"),
]


class Buckets:
    """Buckets come and go."""

    def test_there_are_no_buckets_to_begin_with(self, backend):
        assert [*backend.buckets()] == []

    def test_a_bucket_is_made_once(self, backend):
        before = time.time_ns()
        assert backend.create_bucket("new")
        assert not backend.create_bucket("new")
        made = backend.bucket("new")
        assert made.name == "new" and dict(made.tags) == {}
        assert before - 10**9 < made.created_ns < time.time_ns() + 10**9
        assert backend.bucket("new") == made

    def test_buckets_are_listed_by_name(self, backend):
        for name in ["b", "a.b", "a", "a-b", "B"]:
            backend.create_bucket(name)
        assert [made.name for made in backend.buckets()] == ["B", "a", "a-b", "a.b", "b"]

    @pytest.mark.parametrize("name", ["", ".", "..", "_x", "a/b", "a\0", "x" * 256])
    def test_what_is_no_bucket_name_is_refused(self, backend, name):
        with pytest.raises(BadKey):
            backend.create_bucket(name)
        assert [*backend.buckets()] == []

    def test_tags_of_a_bucket_are_replaced(self, bucket):
        for tags in [{"a": "1", "b": ""}, {"é😀": "x" * 256}, {}]:
            bucket.tag_bucket(KEY.bucket, tags)
            assert dict(bucket.bucket(KEY.bucket).tags) == tags
            assert [dict(made.tags) for made in bucket.buckets()] == [tags]

    def test_a_bucket_keeps_its_time_and_tags_when_it_is_made_again(self, bucket):
        bucket.tag_bucket(KEY.bucket, {"a": "1"})
        made = bucket.bucket(KEY.bucket)
        assert not bucket.create_bucket(KEY.bucket)
        assert bucket.bucket(KEY.bucket) == made

    def test_only_an_empty_bucket_is_deleted(self, bucket):
        put(bucket, KEY, b"x")
        with pytest.raises(BucketNotEmpty):
            bucket.delete_bucket(KEY.bucket)
        assert read(bucket, KEY) == b"x"
        bucket.delete(KEY)
        bucket.delete_bucket(KEY.bucket)
        assert [*bucket.buckets()] == []

    def test_a_bucket_is_empty_again_after_the_deepest_keys(self, bucket):
        for name in NASTY:
            put(bucket, Key(KEY.bucket, name))
        for name in NASTY:
            assert bucket.delete(Key(KEY.bucket, name))
        bucket.delete_bucket(KEY.bucket)

    def test_a_bucket_that_is_made_anew_has_nothing_of_the_old_one(self, bucket):
        bucket.tag_bucket(KEY.bucket, {"a": "1"})
        upload, _ = begin(bucket, KEY, [b"x"])
        bucket.delete_bucket(KEY.bucket)
        bucket.create_bucket(KEY.bucket)
        assert dict(bucket.bucket(KEY.bucket).tags) == {}
        assert [*bucket.uploads(KEY.bucket, Query()).uploads] == []
        with pytest.raises(S4Error) as caught:
            bucket.put_part(KEY, upload, 2, Body(b"y"))
        assert type(caught.value).__name__ == "NoSuchUpload"

    @pytest.mark.parametrize("present", [True, False], ids=["other bucket", "no bucket"])
    @pytest.mark.parametrize(
        "act",
        [
            lambda b: b.bucket("absent"),
            lambda b: b.tag_bucket("absent", {}),
            lambda b: b.delete_bucket("absent"),
            lambda b: b.list("absent", Query()),
            lambda b: b.head(ABSENT),
            lambda b: b.get(ABSENT),
            lambda b: b.tag(ABSENT, {}),
            lambda b: b.delete(ABSENT),
            lambda b: b.copy(ABSENT, KEY),
            lambda b: b.create_upload(ABSENT, Attributes()),
            lambda b: b.upload(ABSENT, "0"),
            lambda b: b.parts(ABSENT, "0"),
            lambda b: b.complete(ABSENT, "0", [], Attributes()),
            lambda b: b.abort(ABSENT, "0"),
            lambda b: b.uploads("absent", Query()),
        ],
    )
    def test_what_needs_a_bucket_says_that_there_is_none(self, backend, act, present):
        if present:
            backend.create_bucket(KEY.bucket)
        with pytest.raises(NoSuchBucket):
            act(backend)

    def test_a_copy_needs_the_bucket_it_goes_to(self, bucket):
        put(bucket, KEY)
        with pytest.raises(NoSuchBucket):
            bucket.copy(KEY, ABSENT)

    def test_a_body_is_not_asked_for_when_its_bucket_is_not_there(self, backend):
        for act in [backend.put, lambda key, body: backend.put_part(key, "0", 1, body)]:
            body = Body(b"x")
            with pytest.raises(NoSuchBucket):
                act(ABSENT, body)
            assert not body.asked and not body.seals


EVERYTHING = Attributes(
    etag="0" * 32 + "-10000",
    headers={"content-type": "text/plain; charset=utf-8", "cache-control": "no-cache", "expires": "", "x": "é" * 100},
    metadata={"a" * 40: "x" * 1960, "empty": "", "text": "é😀 =?UTF-8?B?", "quotes": '"\\\t'},
    tags={f"{at}{'é' * 127}": "😀" * 256 for at in range(10)},
    checksums={"CRC32": "AAAAAA==", "CRC32C": "x-3", "CRC64NVME": "A" * 12, "SHA1": "A" * 28, "SHA256": "A" * 44},
    checksum_type="COMPOSITE",
    parts=[Part(3, 3), Part(7, 5, checksums={"SHA256": "A" * 44})],
)


class Objects:
    """Objects are stored, read, copied, tagged and deleted."""

    @pytest.mark.parametrize("content", [b"", b"x", LARGE], ids=["empty", "a byte", "large"])
    @pytest.mark.parametrize("sized", [True, False])
    @pytest.mark.parametrize("piece", [1000, 1 << 20])
    def test_what_is_put_is_got(self, bucket, content, sized, piece):
        if piece == 1000:
            content = content[:70_001]
        body = Body(content, sized=sized, piece=piece)
        before = time.time_ns()
        info = bucket.put(KEY, body)
        assert body.seals == 1
        assert info.size == len(content)
        assert before - 10**9 < info.mtime_ns < time.time_ns() + 10**9
        assert plain(info.attributes) == plain(body.attributes)
        assert read(bucket, KEY) == content
        head = bucket.head(KEY)
        assert head._replace(attributes=plain(head.attributes)) == info._replace(attributes=plain(info.attributes))

    @pytest.mark.parametrize("name", NASTY, ids=[str(at) for at in range(len(NASTY))])
    def test_any_key_is_a_key_of_its_own(self, bucket, name):
        key = Key(KEY.bucket, name)
        for other in ["a", "a/b", "b", name + "x", name + "/"]:
            if other != name and len(other.encode()) <= 1024:
                put(bucket, Key(KEY.bucket, other), b"another")
        with pytest.raises(NoSuchKey):
            bucket.head(key)
        assert not bucket.delete(key)
        put(bucket, key, b"old")
        put(bucket, key, name.encode())
        assert read(bucket, key) == name.encode()
        before = names(bucket.list(KEY.bucket, Query()))
        assert bucket.delete(key)
        assert names(bucket.list(KEY.bucket, Query())) == [other for other in before if other != name]

    @pytest.mark.parametrize("name", ["", "x" * 1025, "é" * 513, "a\0b", "\ud800"])
    def test_what_is_no_key_is_refused(self, bucket, name):
        key = Key(KEY.bucket, name)
        put(bucket, KEY)
        for act in [
            lambda: put(bucket, key),
            lambda: bucket.copy(KEY, key),
            lambda: bucket.create_upload(key, Attributes()),
        ]:
            with pytest.raises(BadKey):
                act()
        for act in [lambda: bucket.head(key), lambda: bucket.get(key), lambda: bucket.tag(key, {})]:
            with pytest.raises((BadKey, NoSuchKey)):
                act()

    def test_all_attributes_come_back(self, bucket):
        bucket.put(KEY, Body(b"12345678", EVERYTHING))
        assert plain(bucket.head(KEY).attributes) == plain(EVERYTHING)
        with bucket.get(KEY) as reading:
            assert plain(reading.info.attributes) == plain(EVERYTHING)
        (entry,), _ = lines(bucket.list(KEY.bucket, Query()))
        assert entry == Listed(KEY.name, 8, 0, EVERYTHING.etag, sorted(EVERYTHING.checksums), "COMPOSITE")

    def test_ten_thousand_parts_come_back(self, bucket):
        parts = [Part(number, 1, checksums={"SHA256": "A" * 44}) for number in range(1, 10_001)]
        attributes = EVERYTHING._replace(parts=parts)
        bucket.put(KEY, Body(b"ab" * 5000, attributes))
        assert plain(bucket.head(KEY).attributes) == plain(attributes)
        assert read(bucket, KEY, Range(part=7778)) == b"b"
        bucket.tag(KEY, {"a": "1"})
        copied = bucket.copy(KEY, Key(KEY.bucket, "copy"))
        assert plain(copied.attributes) == plain(attributes._replace(tags={"a": "1"}))

    def test_attributes_are_replaced_as_a_whole(self, bucket):
        bucket.put(KEY, Body(b"12345678", EVERYTHING))
        put(bucket, KEY, b"x")
        assert plain(bucket.head(KEY).attributes) == plain(Attributes(etag_of(b"x")))

    def test_what_the_caller_does_with_its_mappings_later_changes_nothing(self, bucket):
        tags = {"a": "1"}
        put(bucket, KEY, b"x", tags=tags)
        tags["b"] = "2"
        assert dict(bucket.head(KEY).attributes.tags) == {"a": "1"}

    @pytest.mark.parametrize("old", [b"old", None], ids=["over an object", "new"])
    @pytest.mark.parametrize("breaks_at", [0, 100_000, len(LARGE)])
    def test_a_body_that_breaks_off_leaves_what_was_there(self, bucket, old, breaks_at):
        if old is not None:
            put(bucket, KEY, old)
        body = Body(LARGE, breaks=ConnectionLost("gone"), breaks_at=breaks_at)
        with pytest.raises(ConnectionLost, match="gone"):
            bucket.put(KEY, body)
        self.unchanged(bucket, old)
        assert body.seals == 0

    @pytest.mark.parametrize("old", [b"old", None], ids=["over an object", "new"])
    def test_a_body_that_is_denied_at_its_end_leaves_what_was_there(self, bucket, old):
        if old is not None:
            put(bucket, KEY, old)
        with pytest.raises(Corrupt, match="wrong"):
            bucket.put(KEY, Body(LARGE, denies=Corrupt("wrong")))
        self.unchanged(bucket, old)

    def unchanged(self, backend, old):
        if old is not None:
            assert read(backend, KEY) == old
            assert names(backend.list(KEY.bucket, Query())) == [KEY.name]
            return
        with pytest.raises(NoSuchKey):
            backend.head(KEY)
        assert names(backend.list(KEY.bucket, Query())) == []
        backend.delete_bucket(KEY.bucket)

    def test_nothing_is_seen_of_a_body_that_is_on_its_way(self, bucket):
        put(bucket, KEY, b"old")
        seen = []

        def look():
            seen.append(read(bucket, KEY))
            seen.append(names(bucket.list(KEY.bucket, Query())))

        bucket.put(KEY, Body(LARGE, piece=1 << 20, between=look))
        assert len(seen) >= 8 and seen == [b"old", [KEY.name]] * (len(seen) // 2)
        assert read(bucket, KEY) == LARGE

    def test_a_bucket_that_goes_while_the_body_comes_takes_nothing_more(self, bucket):
        def vanish():
            if bucket.buckets():
                bucket.delete_bucket(KEY.bucket)

        with pytest.raises(NoSuchBucket):
            bucket.put(KEY, Body(b"x", between=vanish))
        bucket.create_bucket(KEY.bucket)
        assert names(bucket.list(KEY.bucket, Query())) == []

    def test_an_open_object_stays_what_it_was(self, bucket):
        other = Key(KEY.bucket, "other")
        for key in [KEY, other]:
            put(bucket, key, LARGE, tags={"a": "1"})
        with bucket.get(KEY) as first, bucket.get(other, Range(10, 3_000_000)) as second:
            begun = first.pieces()
            content = bytes(next(begun))
            put(bucket, KEY, b"new")
            bucket.delete(other)
            content += b"".join(bytes(piece) for piece in begun)
            assert content == LARGE
            assert b"".join(bytes(piece) for piece in second.pieces()) == LARGE[10:3_000_001]
            assert dict(first.info.attributes.tags) == {"a": "1"}
        assert read(bucket, KEY) == b"new"

    def test_an_open_object_outlives_its_bucket(self, bucket):
        put(bucket, KEY, LARGE)
        with bucket.get(KEY) as reading:
            bucket.delete(KEY)
            bucket.delete_bucket(KEY.bucket)
            assert b"".join(bytes(piece) for piece in reading.pieces()) == LARGE

    def test_a_reading_may_be_left_early(self, bucket):
        put(bucket, KEY, LARGE)
        for _ in range(3):
            with bucket.get(KEY) as reading:
                next(iter(reading.pieces()))
            with bucket.get(KEY):
                pass
        assert read(bucket, KEY) == LARGE

    def test_what_is_not_there_says_so(self, bucket):
        put(bucket, Key(KEY.bucket, KEY.name + "/below"))
        for act in [
            bucket.head,
            bucket.get,
            lambda key: bucket.tag(key, {}),
            lambda key: bucket.copy(key, Key(KEY.bucket, "x")),
        ]:
            with pytest.raises(NoSuchKey):
                act(KEY)
        assert bucket.delete(KEY) is False
        assert bucket.delete(Key(KEY.bucket, "dir")) is False

    def test_an_object_is_deleted_once(self, bucket):
        put(bucket, KEY)
        assert bucket.delete(KEY) is True
        assert bucket.delete(KEY) is False
        with pytest.raises(NoSuchKey):
            bucket.get(KEY)

    def test_tags_are_replaced_and_all_else_stays(self, bucket):
        bucket.put(KEY, Body(b"12345678", EVERYTHING))
        before = bucket.head(KEY)
        for tags in [{"a": "1"}, {f"{at}{'é' * 127}": "😀" * 256 for at in range(10)}, {}]:
            bucket.tag(KEY, tags)
            after = bucket.head(KEY)
            assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
            assert plain(after.attributes) == plain(EVERYTHING._replace(tags=tags))
            assert bucket.list(KEY.bucket, Query()).entries[0].mtime_ns == before.mtime_ns
        assert read(bucket, KEY) == b"12345678"

    def test_a_listing_shows_what_head_shows(self, bucket):
        info = put(bucket, KEY, b"12345")
        (entry,) = bucket.list(KEY.bucket, Query()).entries
        assert entry[:4] == (KEY.name, 5, info.mtime_ns, etag_of(b"12345"))


class Copies:
    """An object's bytes go to another key, or its attributes change."""

    to = Key("second", "copied/to")

    @pytest.fixture
    def two(self, bucket):
        bucket.create_bucket(self.to.bucket)
        return bucket

    @pytest.mark.parametrize("content", [b"", b"12345678", LARGE], ids=["empty", "small", "large"])
    def test_a_copy_has_the_bytes_and_the_attributes(self, two, content):
        two.put(KEY, Body(content, EVERYTHING))
        before = two.head(KEY)
        info = two.copy(KEY, self.to)
        assert info.size == len(content) and info.mtime_ns >= before.mtime_ns
        assert plain(info.attributes) == plain(two.head(self.to).attributes) == plain(EVERYTHING)
        assert read(two, self.to) == read(two, KEY) == content
        assert two.head(KEY).mtime_ns == before.mtime_ns

    def test_a_copy_keeps_the_attributes_that_it_is_given(self, two):
        put(two, KEY, b"12345678", metadata={"old": "1"}, tags={"old": "1"})
        two.copy(KEY, self.to, EVERYTHING)
        assert plain(two.head(self.to).attributes) == plain(EVERYTHING)
        bare = Attributes(EVERYTHING.etag)  # without one, whoever delivers the object gives it one
        two.copy(KEY, self.to, bare)
        assert plain(two.head(self.to).attributes) == plain(bare)

    def test_a_copy_and_its_source_go_separate_ways(self, two):
        put(two, KEY, b"one")
        two.copy(KEY, self.to)
        two.tag(self.to, {"a": "1"})
        assert dict(two.head(KEY).attributes.tags) == {}
        put(two, KEY, b"two")
        assert read(two, self.to) == b"one"
        assert two.delete(KEY)
        assert read(two, self.to) == b"one"

    def test_a_copy_replaces(self, two):
        put(two, KEY, b"new", tags={"a": "1"})
        put(two, self.to, LARGE, metadata={"old": "1"})
        two.copy(KEY, self.to)
        assert read(two, self.to) == b"new"
        assert plain(two.head(self.to).attributes) == plain(Attributes(etag_of(b"new"), tags={"a": "1"}))

    def test_a_copy_onto_itself_changes_the_attributes(self, two):
        put(two, KEY, LARGE)
        before = two.head(KEY)
        info = two.copy(KEY, KEY, EVERYTHING)
        assert plain(two.head(KEY).attributes) == plain(EVERYTHING)
        assert two.head(KEY).mtime_ns == info.mtime_ns >= before.mtime_ns
        assert read(two, KEY) == LARGE

    def test_a_copy_that_fails_changes_nothing(self, two):
        put(two, self.to, b"old")
        with pytest.raises(NoSuchKey):
            two.copy(KEY, self.to)
        assert read(two, self.to) == b"old"


class Ranges:
    """Parts of objects are read."""

    @pytest.mark.parametrize(
        ("wanted", "start", "end"),
        [
            (Range(0, 0), 0, 1),
            (Range(0, 9), 0, 10),
            (Range(9, 9), 9, 10),
            (Range(3, 5), 3, 6),
            (Range(3), 3, 10),
            (Range(3, 1000), 3, 10),
            (Range(suffix=1), 9, 10),
            (Range(suffix=10), 0, 10),
            (Range(suffix=1000), 0, 10),
            (Range(part=1), 0, 10),
        ],
    )
    def test_a_range_is_read(self, bucket, wanted, start, end):
        put(bucket, KEY, b"0123456789")
        with bucket.get(KEY, wanted) as reading:
            assert (reading.start, reading.end, reading.info.size) == (start, end, 10)
        assert read(bucket, KEY, wanted) == b"0123456789"[start:end]

    @pytest.mark.parametrize(
        ("content", "wanted"),
        [
            (b"0123456789", Range(10)),
            (b"0123456789", Range(10, 20)),
            (b"0123456789", Range(2**63)),
            (b"0123456789", Range(suffix=0)),
            (b"0123456789", Range(part=0)),
            (b"0123456789", Range(part=2)),
            (b"", Range(0, 0)),
            (b"", Range(0)),
            (b"", Range(suffix=5)),
        ],
    )
    def test_a_range_without_a_byte_is_refused(self, bucket, content, wanted):
        put(bucket, KEY, content)
        with pytest.raises(BadRange):
            bucket.get(KEY, wanted)

    def test_ranges_of_a_large_object_are_exact(self, bucket):
        put(bucket, KEY, LARGE)
        mib = 1 << 20
        for first, last in [(0, mib - 1), (1, mib), (mib, mib), (mib - 1, 2 * mib + 1), (3 * mib + 7, len(LARGE))]:
            assert read(bucket, KEY, Range(first, last)) == LARGE[first : last + 1]
        assert read(bucket, KEY, Range(suffix=mib + 3)) == LARGE[-mib - 3 :]

    def test_the_only_part_of_an_empty_object_is_empty(self, bucket):
        put(bucket, KEY)
        assert read(bucket, KEY, Range(part=1)) == b""

    def test_parts_are_those_of_the_attributes(self, bucket):
        put(bucket, KEY, b"0123456789", parts=[Part(2, 3), Part(5, 0), Part(6, 7)])
        assert [read(bucket, KEY, Range(part=at)) for at in (1, 2, 3)] == [b"012", b"", b"3456789"]
        with pytest.raises(BadRange):
            bucket.get(KEY, Range(part=4))

    def test_conditions_come_before_the_range(self, bucket):
        put(bucket, KEY, b"x")
        with pytest.raises(PreconditionFailed):
            bucket.get(KEY, Range(5), Conditions(if_match=["other"]))
        with pytest.raises(NotModified):
            bucket.get(KEY, Range(5), Conditions(if_none_match=["*"]))


ETAG = etag_of(b"old")
HOLDS, FAILS, SAME = None, PreconditionFailed, NotModified
CONDITIONS = [  # RFC 9110, 13.2.2; times are relative to the object's
    ({"if_match": [ETAG]}, HOLDS),
    ({"if_match": ["*"]}, HOLDS),
    ({"if_match": ["other", ETAG]}, HOLDS),
    ({"if_match": ["other"]}, FAILS),
    ({"if_match": []}, FAILS),
    ({"if_none_match": ["other"]}, HOLDS),
    ({"if_none_match": []}, HOLDS),
    ({"if_none_match": [ETAG]}, SAME),
    ({"if_none_match": ["other", ETAG]}, SAME),
    ({"if_none_match": ["*"]}, SAME),
    ({"if_unmodified_since": 0}, HOLDS),
    ({"if_unmodified_since": 1}, HOLDS),
    ({"if_unmodified_since": -1}, FAILS),
    ({"if_modified_since": -1}, HOLDS),
    ({"if_modified_since": 0}, SAME),
    ({"if_modified_since": 1}, SAME),
    ({"if_match": [ETAG], "if_unmodified_since": -1}, HOLDS),
    ({"if_match": ["other"], "if_unmodified_since": 0}, FAILS),
    ({"if_none_match": ["other"], "if_modified_since": 0}, HOLDS),
    ({"if_none_match": [ETAG], "if_modified_since": -1}, SAME),
    ({"if_match": ["other"], "if_none_match": [ETAG]}, FAILS),
    ({"if_match": [ETAG], "if_none_match": [ETAG]}, SAME),
    ({"if_match": [ETAG], "if_modified_since": 0}, SAME),
    ({"if_unmodified_since": -1, "if_none_match": [ETAG]}, FAILS),
    ({"if_size": 3}, HOLDS),
    ({"if_size": 4}, FAILS),
    ({"if_mtime": 0}, HOLDS),
    ({"if_mtime": -1}, FAILS),
    ({"if_mtime": 1}, FAILS),
    ({"if_match": [ETAG], "if_size": 4}, FAILS),
]
conditional = pytest.mark.parametrize(("given", "outcome"), CONDITIONS)


def relative(given, info):
    """Conditions whose times are relative to an object's."""
    seconds = info.mtime_ns // 10**9
    timed = ("if_modified_since", "if_unmodified_since", "if_mtime")
    return Conditions(**{name: value + seconds if name in timed else value for name, value in given.items()})


class Conditional:
    """Requests that are done only if something holds."""

    @conditional
    def test_reads(self, bucket, given, outcome):
        conditions = relative(given, put(bucket, KEY, b"old"))
        if not outcome:
            assert bucket.head(KEY, conditions).size == 3
            assert read(bucket, KEY, None, conditions) == b"old"
            return
        for act in [bucket.head, lambda key, conditions: bucket.get(key, None, conditions)]:
            with pytest.raises(outcome) as caught:
                act(KEY, conditions)
            assert outcome is FAILS or caught.value.detail == ETAG.encode()

    @conditional
    @pytest.mark.parametrize("how", ["put", "copy", "complete"])
    def test_writes(self, bucket, given, outcome, how):
        source = Key(KEY.bucket, "source")
        put(bucket, source, b"new")
        info = put(bucket, KEY, b"old")
        upload, parts = begin(bucket, KEY, [b"new"])
        write = {
            "put": lambda conditions: put(bucket, KEY, b"new", conditions),
            "copy": lambda conditions: bucket.copy(source, KEY, None, Conditions(), conditions),
            "complete": lambda conditions: bucket.complete(KEY, upload, parts, whole(parts), conditions),
        }[how]
        if not outcome:
            write(relative(given, info))
            assert read(bucket, KEY) == b"new"
            return
        with pytest.raises(PreconditionFailed):
            write(relative(given, info))
        assert read(bucket, KEY) == b"old"
        assert bucket.head(KEY).mtime_ns == info.mtime_ns
        assert [*bucket.parts(KEY, upload)] == parts

    @conditional
    def test_deletes(self, bucket, given, outcome):
        conditions = relative(given, put(bucket, KEY, b"old"))
        if not outcome:
            assert bucket.delete(KEY, conditions) is True
            return
        with pytest.raises(PreconditionFailed):
            bucket.delete(KEY, conditions)
        assert read(bucket, KEY) == b"old"

    @conditional
    def test_sources_of_copies(self, bucket, given, outcome):
        to = Key(KEY.bucket, "to")
        conditions = relative(given, put(bucket, KEY, b"old"))
        if not outcome:
            bucket.copy(KEY, to, None, conditions)
            assert read(bucket, to) == b"old"
            return
        with pytest.raises(PreconditionFailed):
            bucket.copy(KEY, to, None, conditions)
        with pytest.raises(NoSuchKey):
            bucket.head(to)

    @conditional
    def test_without_an_object(self, bucket, given, outcome):
        conditions = Conditions(**given)
        source = Key(KEY.bucket, "source")
        put(bucket, source, b"new")
        upload, parts = begin(bucket, KEY, [b"new"])
        for act in [bucket.head, lambda key, conditions: bucket.get(key, None, conditions)]:
            with pytest.raises(NoSuchKey):
                act(KEY, conditions)
        with pytest.raises(NoSuchKey):
            bucket.copy(KEY, source, None, conditions)
        assert bucket.delete(KEY, conditions) is False
        for write in [
            lambda: put(bucket, KEY, b"new", conditions),
            lambda: bucket.copy(source, KEY, None, Conditions(), conditions),
            lambda: bucket.complete(KEY, upload, parts, whole(parts), conditions),
        ]:
            if "if_match" in given:
                with pytest.raises(NoSuchKey):
                    write()
                assert not bucket.delete(KEY)
            else:
                write()
                assert read(bucket, KEY) == b"new"
                assert bucket.delete(KEY)

    def test_conditions_hold_when_the_body_has_come(self, bucket):
        put(bucket, KEY, b"old")

        def meanwhile():
            put(bucket, KEY, b"meanwhile")

        with pytest.raises(PreconditionFailed):
            bucket.put(KEY, Body(b"new", between=meanwhile), Conditions(if_match=[ETAG]))
        assert read(bucket, KEY) == b"meanwhile"
        bucket.delete(KEY)
        with pytest.raises(PreconditionFailed):
            bucket.put(KEY, Body(b"new", between=meanwhile), Conditions(if_none_match=["*"]))
        assert read(bucket, KEY) == b"meanwhile"


class Listings:
    """Objects are listed."""

    @pytest.fixture
    def full(self, bucket):
        for name in NASTY:
            put(bucket, Key(KEY.bucket, name), name.encode())
        bucket.create_bucket("other")
        put(bucket, Key("other", "a/other"))
        return bucket

    def test_an_empty_bucket_has_an_empty_page(self, bucket):
        for query in [Query(), Query("a"), Query("", "/"), Query("a/", "/", "a/b"), Query(limit=0), Query(limit=1)]:
            assert shown(bucket.list(KEY.bucket, query)) == ([], False)

    def test_objects_come_in_the_order_of_their_bytes(self, full):
        entries, truncated = lines(full.list(KEY.bucket, Query()))
        assert not truncated
        assert [entry.name for entry in entries] == sorted(NASTY, key=str.encode)
        assert all((entry.size, entry.etag) == (len(name := entry.name.encode()), etag_of(name)) for entry in entries)

    @pytest.mark.parametrize("delimiter", ["", "/", "//", "b", "p", "/q", "😀", "\n", "\U0010ffff", "none of them"])
    def test_any_query_gives_its_page(self, full, delimiter):
        for prefix in [
            "",
            "a",
            "a/",
            "a//",
            "/",
            "x/",
            "p",
            "p" * 256,
            "q" * 512 + "/",
            "😀",
            "nothing",
            "%",
            "\U0010ffff",
        ]:
            for after in ["", "a", "a/", "a/b", "a/b/", "a/zz", "a0", "p" * 255, "p" * 256 + "/", "x/", "é", "\uffff"]:
                for limit in [0, 1, 3, 1000]:
                    query = Query(prefix, delimiter, after, limit)
                    assert shown(full.list(KEY.bucket, query)) == expected(NASTY, query), query

    @pytest.mark.parametrize("delimiter", ["", "/", "b"])
    @pytest.mark.parametrize("limit", [1, 2, 7])
    def test_pages_follow_each_other(self, full, delimiter, limit):
        found, after, truncated = [], "", True
        while truncated:
            entries, truncated = shown(full.list(KEY.bucket, Query("", delimiter, after, limit)))
            assert len(entries) == limit or not truncated
            found += entries
            after = entries[-1][0]
        assert found == expected(NASTY, Query("", delimiter))[0]

    @pytest.mark.parametrize("limit", [1, 4, 5, 6])
    def test_a_page_is_truncated_only_if_more_follows(self, bucket, limit):
        for name in ["a/1", "a/2", "b", "c", "d/1", "e"]:
            put(bucket, Key(KEY.bucket, name))
        assert bucket.list(KEY.bucket, Query("", "/", "", limit)).truncated == (limit < 5)
        assert bucket.list(KEY.bucket, Query("", "", "", limit)).truncated == (limit < 6)

    def test_a_common_prefix_carries_nothing_else(self, bucket):
        put(bucket, KEY, b"x")
        assert [*bucket.list(KEY.bucket, Query("", "/")).entries] == [Listed("dir/", is_prefix=True)]

    def test_what_is_deleted_is_not_listed(self, full):
        left = [*NASTY]
        for name in NASTY[::2]:
            full.delete(Key(KEY.bucket, name))
            left.remove(name)
        for delimiter in ["", "/"]:
            query = Query("", delimiter)
            assert shown(full.list(KEY.bucket, query)) == expected(left, query)


THREADS, TIMES = 4, 10


def number(content):
    return b"%d" % content


class Races:
    """Threads that meet at a key."""

    def test_of_many_that_create_a_key_one_does(self, bucket):
        for turn in range(TIMES):
            key, won = Key(KEY.bucket, f"{turn}/k"), []

            def create(content, key=key, won=won):
                try:
                    put(bucket, key, content, Conditions(if_none_match=["*"]))
                except PreconditionFailed:
                    return
                won.append(content)

            at_once(*[lambda seed=seed: create(bytes([seed]) * 5000) for seed in range(THREADS)])
            assert [read(bucket, key)] == won

    def test_no_increment_is_lost(self, bucket):
        put(bucket, KEY, number(0))

        def increment():
            for _ in range(TIMES):
                for _ in range(10_000):
                    with bucket.get(KEY) as reading:
                        found = b"".join(bytes(piece) for piece in reading.pieces())
                        etag = reading.info.attributes.etag
                    assert etag == etag_of(found)
                    try:
                        put(bucket, KEY, number(int(found) + 1), Conditions(if_match=[etag]))
                        break
                    except PreconditionFailed:
                        continue
                else:
                    raise AssertionError("never its turn")

        at_once(*[increment] * THREADS)
        assert read(bucket, KEY) == number(THREADS * TIMES)

    def test_readers_see_whole_objects(self, bucket):
        put(bucket, KEY, b"0" * 100_000)
        done = threading.Event()

        def write():
            try:
                for turn in range(1, 4 * TIMES):
                    content = b"%d" % (turn % 10) * (100_000 + turn)
                    put(bucket, KEY, content, metadata={"turn": str(turn)})
            finally:
                done.set()

        def look():
            while not done.is_set():
                with bucket.get(KEY) as reading:
                    content = b"".join(bytes(piece) for piece in reading.pieces())
                assert reading.info.attributes.etag == etag_of(content)
                turn = int(reading.info.attributes.metadata.get("turn", "0"))
                assert reading.info.size == len(content) == 100_000 + turn
                info = bucket.head(KEY)
                assert info.size == 100_000 + int(info.attributes.metadata.get("turn", "0"))
                (entry,) = bucket.list(KEY.bucket, Query()).entries
                assert entry.etag == etag_of(b"%d" % ((entry.size - 100_000) % 10) * entry.size)

        at_once(write, look, look)

    def test_a_tag_never_brings_old_bytes_back(self, bucket):
        for turn in range(TIMES):
            put(bucket, KEY, b"old")
            at_once(lambda: put(bucket, KEY, b"new"), lambda turn=turn: bucket.tag(KEY, {"turn": str(turn)}))
            info = bucket.head(KEY)
            assert read(bucket, KEY) == b"new" and info.attributes.etag == etag_of(b"new")

    def test_a_put_survives_the_removal_of_its_neighbours(self, bucket):
        def come_and_go(name):
            for _ in range(TIMES):
                put(bucket, Key(KEY.bucket, name), name.encode())
                assert read(bucket, Key(KEY.bucket, name)) == name.encode()
                assert bucket.delete(Key(KEY.bucket, name))

        at_once(*[lambda name=name: come_and_go(name) for name in ["a", "a/b", "a/b/c", "a/b/d", "a/"]])
        bucket.delete_bucket(KEY.bucket)

    def test_a_bucket_is_deleted_or_takes_an_object(self, backend):
        for turn in range(2 * TIMES):
            name, done = f"turn{turn}", []
            backend.create_bucket(name)

            def delete(name=name, done=done):
                try:
                    backend.delete_bucket(name)
                    done.append("delete")
                except BucketNotEmpty:
                    pass

            def store(name=name, done=done):
                try:
                    put(backend, Key(name, "a/b"), b"x")
                    done.append("put")
                except NoSuchBucket:
                    pass

            at_once(delete, store)
            assert done in (["delete"], ["put"])
            assert ([name] == [made.name for made in backend.buckets() if made.name == name]) == (done == ["put"])
            if done == ["put"]:
                assert read(backend, Key(name, "a/b")) == b"x"

    def test_of_two_that_complete_an_upload_one_does(self, bucket):
        for turn in range(TIMES):
            key, done = Key(KEY.bucket, f"{turn}"), []
            upload, parts = begin(bucket, key, [b"one", b"two"])

            def complete(key=key, upload=upload, parts=parts, done=done):
                try:
                    bucket.complete(key, upload, parts, whole(parts))
                    done.append(True)
                except S4Error as error:
                    done.append(type(error).__name__)

            at_once(complete, complete)
            assert sorted(done, key=str) == ["NoSuchUpload", True]
            assert read(bucket, key) == b"onetwo"

    def test_a_part_that_is_put_while_its_upload_completes_is_in_it_or_not(self, bucket):
        for turn in range(TIMES):
            key = Key(KEY.bucket, f"{turn}")
            upload, parts = begin(bucket, key, [b"one" * 1000])
            done = []

            def complete(key=key, upload=upload, parts=parts, done=done):
                try:
                    bucket.complete(key, upload, parts, whole(parts))
                    done.append("complete")
                except S4Error as error:
                    done.append(type(error).__name__)

            def again(key=key, upload=upload, done=done):
                try:
                    bucket.put_part(key, upload, 1, Body(b"other"))
                except S4Error as error:
                    done.append(type(error).__name__)

            at_once(complete, again)
            assert sorted(done) in (["complete"], ["NoSuchUpload", "complete"], ["InvalidPart"])
            if "complete" in done:
                assert read(bucket, key) == b"one" * 1000
            else:
                bucket.abort(key, upload)


class Conformance(Buckets, Objects, Copies, Ranges, Conditional, Listings, Multipart, Races):
    """All of it."""

    @pytest.fixture
    def bucket(self, backend):
        """A backend with the bucket of KEY."""
        backend.create_bucket(KEY.bucket)
        return backend
