"""What every backend must do with uploads in parts: a piece of ``objects_conformance``."""

import time

import pytest
from objects_support import KEY, Body, begin, etag_of, names, plain, put, read, shown, whole

from s4raw.errors import ConnectionLost, Corrupt, InvalidPart, NoSuchKey, NoSuchUpload, PreconditionFailed
from s4raw.keys import Key
from s4raw.objects.base import Attributes, Conditions, Part, Query, Range, Upload

OTHER = Key(KEY.bucket, KEY.name + "/below")
LARGE = bytes(range(251)) * 16_500
KEYS = ["a", "a/b", "a/c", "a//d", "b", "b/", "é/1", "é/2", "😀", "z" * 1024, "%=", "..", "\n"]


def merged(page):
    """Uploads and common prefixes of a page in one order, as names."""
    return sorted([upload.key.name for upload in page.uploads] + [*page.prefixes], key=str.encode)


class Multipart:
    """Objects are made of parts."""

    def test_parts_make_an_object(self, bucket):
        contents = [LARGE, b"", b"in the middle", LARGE[::-1]]
        upload, parts = begin(bucket, KEY, contents, headers={"content-type": "x"})
        assert isinstance(upload, str) and upload
        with pytest.raises(NoSuchKey):
            bucket.head(KEY)
        attributes = whole(parts, headers={"content-type": "x"}, tags={"a": "1"}, checksums={"CRC32": "A"})
        before = time.time_ns()
        info = bucket.complete(KEY, upload, parts, attributes)
        assert info.size == sum(map(len, contents)) and info.mtime_ns > before - 10**9
        assert plain(info.attributes) == plain(bucket.head(KEY).attributes) == plain(attributes)
        assert read(bucket, KEY) == b"".join(contents)
        for at, content in enumerate(contents, 1):
            assert read(bucket, KEY, Range(part=at)) == content
        edge = len(LARGE)
        assert read(bucket, KEY, Range(edge - 3, edge + 20)) == b"".join(contents)[edge - 3 : edge + 21]

    def test_an_upload_is_known_as_it_was_begun(self, bucket):
        given = Attributes("", {"content-type": "x"}, {"m": "é" * 1000}, {"t": "😀"}, {}, "COMPOSITE")
        before = time.time_ns()
        upload = bucket.create_upload(KEY, given, "CRC64NVME")
        known = bucket.upload(KEY, upload)
        assert known[:2] == (KEY, upload) and known.checksum_algorithm == "CRC64NVME"
        assert before - 10**9 < known.created_ns < time.time_ns() + 10**9
        assert plain(known.attributes) == plain(given)
        assert [(found.key, found.id) for found in bucket.uploads(KEY.bucket, Query()).uploads] == [(KEY, upload)]

    def test_a_part_has_what_its_body_was_sealed_with(self, bucket):
        upload = bucket.create_upload(KEY, Attributes(), "SHA256")
        body = Body(b"12345", Attributes("etag", checksums={"SHA256": "A" * 44}))
        before = time.time_ns()
        part = bucket.put_part(KEY, upload, 10_000, body)
        assert body.seals == 1
        assert part[:3] == (10_000, 5, "etag") and dict(part.checksums) == {"SHA256": "A" * 44}
        assert before - 10**9 < part.mtime_ns < time.time_ns() + 10**9
        assert [*bucket.parts(KEY, upload)] == [part]

    def test_parts_are_listed_by_number(self, bucket):
        upload = bucket.create_upload(KEY, Attributes())
        assert [*bucket.parts(KEY, upload)] == []
        for number in [10, 2, 10_000, 1, 9]:
            bucket.put_part(KEY, upload, number, Body(b"%d" % number))

        def numbers(*page):
            return [part.number for part in bucket.parts(KEY, upload, *page)]

        assert numbers() == [1, 2, 9, 10, 10_000]
        assert (numbers(0, 2), numbers(2, 2), numbers(10, 2), numbers(10_000, 2)) == ([1, 2], [9, 10], [10_000], [])
        assert (numbers(3), numbers(0, 0)) == ([9, 10, 10_000], [])

    def test_a_thousand_parts(self, bucket):
        upload, parts = begin(bucket, KEY, [b"%d," % at for at in range(1000)])
        assert [*bucket.parts(KEY, upload)] == parts
        bucket.complete(KEY, upload, parts, whole(parts))
        assert read(bucket, KEY) == b"".join(b"%d," % at for at in range(1000))
        assert read(bucket, KEY, Range(part=778)) == b"777,"

    def test_parts_may_come_in_any_order_with_gaps_and_some_may_be_left_out(self, bucket):
        upload = bucket.create_upload(KEY, Attributes())
        parts = {at: bucket.put_part(KEY, upload, at, Body(b"<%d>" % at)) for at in [7, 3, 9999, 5]}
        named = [parts[3], parts[7], parts[9999]]
        bucket.complete(KEY, upload, named, whole(named))
        assert read(bucket, KEY) == b"<3><7><9999>"
        assert [part.number for part in bucket.head(KEY).attributes.parts] == [3, 7, 9999]

    @pytest.mark.parametrize("new", [b"x", b"a longer one than before", b""])
    def test_a_part_that_is_put_again_replaces(self, bucket, new):
        upload, parts = begin(bucket, KEY, [b"first", b"second"])
        again = bucket.put_part(KEY, upload, 1, Body(new))
        assert [*bucket.parts(KEY, upload)] == [again, parts[1]]
        with pytest.raises(InvalidPart):
            bucket.complete(KEY, upload, parts, whole(parts))
        with pytest.raises(NoSuchKey):
            bucket.head(KEY)
        named = [again, parts[1]]
        bucket.complete(KEY, upload, named, whole(named))
        assert read(bucket, KEY) == new + b"second"

    def test_a_part_that_is_put_again_the_same_is_the_same(self, bucket):
        upload, parts = begin(bucket, KEY, [b"first", b"second"])
        bucket.put_part(KEY, upload, 1, Body(b"first"))
        bucket.complete(KEY, upload, parts, whole(parts))
        assert read(bucket, KEY) == b"firstsecond"

    @pytest.mark.parametrize(
        "body", [{"breaks": ConnectionLost("gone"), "breaks_at": 10}, {"denies": Corrupt("wrong")}]
    )
    def test_a_part_that_breaks_off_leaves_the_one_before(self, bucket, body):
        upload, parts = begin(bucket, KEY, [b"first"])
        for number in [1, 2]:
            with pytest.raises((ConnectionLost, Corrupt)):
                bucket.put_part(KEY, upload, number, Body(b"x" * 100, piece=10, **body))
        assert [*bucket.parts(KEY, upload)] == parts
        bucket.complete(KEY, upload, parts, whole(parts))
        assert read(bucket, KEY) == b"first"

    @pytest.mark.parametrize("wrong", [Part(2, 1, etag_of(b"x")), Part(1, 5, "other"), Part(1, 5)])
    def test_what_is_no_part_of_the_upload_is_refused(self, bucket, wrong):
        put(bucket, KEY, b"old")
        upload, parts = begin(bucket, KEY, [b"first"])
        with pytest.raises(InvalidPart):
            bucket.complete(KEY, upload, [wrong], whole(parts))
        assert read(bucket, KEY) == b"old"
        assert [*bucket.parts(KEY, upload)] == parts
        bucket.complete(KEY, upload, parts, whole(parts))
        assert read(bucket, KEY) == b"first"

    def test_an_object_is_replaced_only_when_the_upload_completes(self, bucket):
        put(bucket, KEY, LARGE, metadata={"old": "1"})
        upload, parts = begin(bucket, KEY, [b"new"])
        assert names(bucket.list(KEY.bucket, Query())) == [KEY.name]
        assert read(bucket, KEY) == LARGE
        with bucket.get(KEY) as reading:
            bucket.complete(KEY, upload, parts, whole(parts))
            assert b"".join(bytes(piece) for piece in reading.pieces()) == LARGE
        assert read(bucket, KEY) == b"new"
        assert plain(bucket.head(KEY).attributes) == plain(whole(parts))

    def test_an_object_of_parts_is_copied_and_read_while_it_is_deleted(self, bucket):
        upload, parts = begin(bucket, KEY, [LARGE, b"end"])
        bucket.complete(KEY, upload, parts, whole(parts))
        with bucket.get(KEY) as reading:
            bucket.copy(KEY, OTHER)
            bucket.delete(KEY)
            assert b"".join(bytes(piece) for piece in reading.pieces()) == LARGE + b"end"
        assert read(bucket, OTHER, Range(part=2)) == b"end"

    @pytest.mark.parametrize("end", ["complete", "abort"])
    def test_an_upload_ends_once(self, bucket, end):
        upload, parts = begin(bucket, KEY, [b"first"])
        if end == "complete":
            bucket.complete(KEY, upload, parts, whole(parts))
        else:
            bucket.abort(KEY, upload)
        self.unknown(bucket, KEY, upload, parts)
        assert [*bucket.uploads(KEY.bucket, Query()).uploads] == []
        assert names(bucket.list(KEY.bucket, Query())) == [KEY.name] * (end == "complete")

    @pytest.mark.parametrize("upload", ["", "x", "..", "../../x", "a/b", "0" * 300, "é\n", "\0", "%s", "-1"])
    def test_what_is_no_upload_id_is_unknown(self, bucket, upload):
        begin(bucket, KEY, [b"first"])
        self.unknown(bucket, KEY, upload, [])

    def test_an_upload_belongs_to_its_key(self, bucket):
        bucket.create_bucket("other")
        upload, parts = begin(bucket, KEY, [b"first"])
        for key in [OTHER, Key("other", KEY.name)]:
            self.unknown(bucket, key, upload, parts)
        bucket.complete(KEY, upload, parts, whole(parts))
        assert read(bucket, KEY) == b"first"

    def unknown(self, backend, key, upload, parts):
        body = Body(b"late")
        for act in [
            lambda: backend.upload(key, upload),
            lambda: backend.put_part(key, upload, 1, body),
            lambda: backend.parts(key, upload),
            lambda: backend.complete(key, upload, parts, whole(parts)),
            lambda: backend.abort(key, upload),
        ]:
            with pytest.raises(NoSuchUpload):
                act()
        assert not body.asked and not body.seals

    @pytest.mark.parametrize("end", ["complete", "abort", "bucket"])
    def test_a_part_whose_upload_ends_meanwhile_is_not_stored(self, bucket, end):
        upload, parts = begin(bucket, KEY, [b"first"])

        def meanwhile():
            if not bucket.buckets() or not bucket.uploads(KEY.bucket, Query()).uploads:
                return
            if end == "complete":
                bucket.complete(KEY, upload, parts, whole(parts))
            elif end == "abort":
                bucket.abort(KEY, upload)
            else:
                bucket.delete_bucket(KEY.bucket)
                bucket.create_bucket(KEY.bucket)

        with pytest.raises(NoSuchUpload):
            bucket.put_part(KEY, upload, 1, Body(b"late", between=meanwhile))
        assert [*bucket.uploads(KEY.bucket, Query()).uploads] == []
        if end == "complete":
            assert read(bucket, KEY) == b"first"

    def test_uploads_of_one_key_are_apart(self, bucket):
        first, first_parts = begin(bucket, KEY, [b"first"])
        second, second_parts = begin(bucket, KEY, [b"second"])
        assert first != second
        bucket.complete(KEY, second, second_parts, whole(second_parts))
        assert read(bucket, KEY) == b"second"
        bucket.complete(KEY, first, first_parts, whole(first_parts))
        assert read(bucket, KEY) == b"first"

    def test_a_condition_that_fails_leaves_the_upload(self, bucket):
        put(bucket, KEY, b"old")
        upload, parts = begin(bucket, KEY, [b"new"])
        with pytest.raises(PreconditionFailed):
            bucket.complete(KEY, upload, parts, whole(parts), Conditions(if_none_match=["*"]))
        bucket.complete(KEY, upload, parts, whole(parts), Conditions(if_match=[etag_of(b"old")]))
        assert read(bucket, KEY) == b"new"

    def test_uploads_are_no_objects(self, bucket):
        upload, _ = begin(bucket, KEY, [b"first"])
        assert shown(bucket.list(KEY.bucket, Query())) == ([], False)
        assert bucket.delete(KEY) is False
        assert bucket.upload(KEY, upload).id == upload
        bucket.delete_bucket(KEY.bucket)
        assert [*bucket.buckets()] == []

    def test_uploads_come_by_key_and_then_by_id(self, bucket):
        begun = [(name, bucket.create_upload(Key(KEY.bucket, name), Attributes())) for name in [*KEYS, *KEYS[::-1]]]
        page = bucket.uploads(KEY.bucket, Query())
        found = [(upload.key.name, upload.id) for upload in page.uploads]
        assert found == sorted(begun, key=lambda entry: (entry[0].encode(), entry[1]))
        assert not page.prefixes and not page.truncated
        assert all(isinstance(upload, Upload) and upload.key.bucket == KEY.bucket for upload in page.uploads)

    @pytest.mark.parametrize("delimiter", ["", "/", "//"])
    @pytest.mark.parametrize("prefix", ["", "a", "a/", "é", "none"])
    @pytest.mark.parametrize("limit", [1, 2, 3, 1000])
    def test_pages_of_uploads_follow_each_other(self, bucket, delimiter, prefix, limit):
        for name in [*KEYS, "a", "a/b", "b"]:
            bucket.create_upload(Key(KEY.bucket, name), Attributes())
        everything = bucket.uploads(KEY.bucket, Query(prefix, delimiter))
        assert not everything.truncated
        rolled = [name for name in KEYS if name.startswith(prefix) and delimiter and delimiter in name[len(prefix) :]]
        alone = [name for name in [*KEYS, "a", "a/b", "b"] if name.startswith(prefix) and name not in rolled]
        prefixes = {prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter for name in rolled}
        assert merged(everything) == sorted([*alone, *prefixes], key=str.encode)
        assert [*everything.prefixes] == sorted(prefixes, key=str.encode)
        found, marker = [], ("", "")
        for _ in range(2 * len(KEYS) + 9):
            page = bucket.uploads(KEY.bucket, Query(prefix, delimiter, marker[0], limit), marker[1])
            size = len(page.uploads) + len(page.prefixes)
            assert size == limit or (size < limit and not page.truncated)
            found += [(upload.key.name, upload.id) for upload in page.uploads]
            found += [(name, "") for name in page.prefixes]
            if not page.truncated:
                break
            marker = max(found, key=lambda entry: (entry[0].encode(), entry[1]))
        assert sorted(found) == sorted(
            [(upload.key.name, upload.id) for upload in everything.uploads]
            + [(name, "") for name in everything.prefixes]
        )

    def test_a_key_without_an_id_as_marker_leaves_out_all_its_uploads(self, bucket):
        for name in ["a", "a", "b"]:
            bucket.create_upload(Key(KEY.bucket, name), Attributes())
        assert merged(bucket.uploads(KEY.bucket, Query(after="a"))) == ["b"]
        first, second, _ = bucket.uploads(KEY.bucket, Query()).uploads
        assert merged(bucket.uploads(KEY.bucket, Query(after="a"), first.id)) == ["a", "b"]
        assert merged(bucket.uploads(KEY.bucket, Query(after="a"), second.id)) == ["b"]

    def test_a_marker_in_a_common_prefix_leaves_out_the_prefix(self, bucket):
        for name in ["a/1", "a/1", "a/2", "b"]:
            bucket.create_upload(Key(KEY.bucket, name), Attributes())
        first = bucket.uploads(KEY.bucket, Query()).uploads[0]
        for marker in ["", first.id]:
            assert merged(bucket.uploads(KEY.bucket, Query("", "/", "a/1"), marker)) == ["b"]

    def test_a_page_of_no_uploads_is_not_truncated(self, bucket):
        bucket.create_upload(KEY, Attributes())
        uploads, prefixes, truncated = bucket.uploads(KEY.bucket, Query(limit=0))
        assert not uploads and not prefixes and not truncated
