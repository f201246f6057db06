"""Tricks with buckets and keys: nothing outside the bucket's keys can be read, written or deleted by any of them."""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

import pytest
from s3_daemon import Daemon, Raw, Reply, s3_daemon, serves

SECRET = b"this is none of the objects"
PLANTED = ("/bucket/out/secret", "/bucket/out/", "/bucket/link")
INTERNAL = ("_s3", "_tmp", "_drafts", "_format", "_lock", "_removals", "_place")

# paths as they are sent; none of them leads anywhere but to a key of ``bucket``, or to an error
TRICKS = (
    "/..",
    "/../secret",
    "/../../../../../etc/passwd",
    "/bucket/../../secret",
    "/bucket/../other/key",
    "/bucket/%2e%2e/other/key",
    "/bucket/%2e%2e%2fother%2fkey",
    "/bucket%2f..%2fother/key",
    "/bucket/..%2f..%2fsecret",
    "/bucket/..%5c..%5csecret",
    "/bucket/..\\..\\secret",
    "/%2e%2e/secret",
    "/%2e%2e%2fsecret",
    "/./secret",
    "/%2e/secret",
    "//secret",
    "//etc/passwd",
    "/bucket//etc/passwd",
    "/bucket/%2fetc%2fpasswd",
    "/bucket/.",
    "/bucket/./",
    "/bucket/..",
    "/bucket/../",
    "/bucket/a/../../../secret",
    "/bucket/key%00",
    "/bucket/key%00.txt",
    "/bucket%00/key",
    "/%00",
    "/bucket/%c0%ae%c0%ae/other/key",
    "/bucket/%e0%80%ae%e0%80%ae/secret",
    "/bucket/%c0%af..%c0%afsecret",
    "/bucket/%ed%a0%80",
    "/bucket/%ff",
    "/bucket/%",
    "/bucket/%2",
    "/bucket/%zz",
    "/bucket/%=",
    "/bucket/%25=",
    "/bucket/dir/%25=",
    "/bucket/%25",
    "/bucket/%25..",
    "/bucket/%25..%2f%25..%2fsecret",
    "/bucket/%252e%252e%252fsecret",
    "/bucket/%25+a/%25-b",
    "/bucket/out/secret",
    "/bucket/out/",
    "/bucket/link",
    "/linked/secret",
    "/linked/",
    "/_s3/buckets/bucket",
    "/_s3/uploads",
    "/_s3",
    "/_tmp",
    "/_tmp/x",
    "/_format",
    "/_format/x",
    "/_lock",
    "/%5fformat",
    "/%5fs3/buckets/bucket",
    "/bucket/../_s3/buckets/bucket",
    "/bucket/%2e%2e/_format",
    "/" + "b" * 256 + "/key",
    "/" + "%62" * 256 + "/key",
    "/bucket/" + "k" * 1025,
    "/bucket/" + "%c3%a9" * 513,
    "/bucket/" + "../" * 341 + "ab",
    "/bucket/" + "a/" * 512,
)


@pytest.fixture(scope="module", name="daemon")
def _daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon in whose data directory somebody has planted symlinks that lead out of it."""
    top = tmp_path_factory.mktemp("paths")
    (top / "secret").write_bytes(SECRET)
    with s3_daemon(top) as daemon:
        with closing(daemon.raw()) as raw:
            for target in ("/bucket", "/other"):
                assert raw.ask("PUT", target).status == 200
            assert raw.ask("PUT", "/other/key", SECRET).status == 200
            assert raw.ask("PUT", "/bucket/key", b"key").status == 200
        (daemon.data / "bucket/out").symlink_to(top)
        (daemon.data / "bucket/link").symlink_to(top / "secret")
        (daemon.data / "linked").symlink_to(top)
        yield daemon


@pytest.fixture
def raw(daemon: Daemon) -> Iterator[Raw]:
    with closing(daemon.raw()) as raw:
        yield raw


def snapshot(top: Path) -> dict[str, bytes | str]:
    """All files and links below a directory but what belongs to the bucket, and the log."""
    found: dict[str, bytes | str] = {}
    for directory, directories, files in os.walk(top):
        if directory == str(top / "data"):
            directories[:] = [name for name in directories if name != "bucket"]
        for name in [*files, *directories]:
            path = Path(directory, name)
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file() and name != "daemon.log":
                found[str(path)] = path.read_bytes()
    return found


def ask(daemon: Daemon, method: str, target: str, body: bytes = b"", **headers: str) -> Reply:
    """One request over a connection of its own, which the daemon may close."""
    with closing(daemon.raw()) as raw:
        return raw.ask(method, target, body, **headers)


def is_key_of_the_bucket(target: str) -> bool:
    decoded = unquote(target, errors="replace")
    return decoded.startswith("/bucket/") and len(decoded) > len("/bucket/")


@pytest.mark.parametrize("target", TRICKS, ids=lambda target: target[:40])
def test_a_trick_reads_writes_and_deletes_nothing_but_the_key_that_it_says(daemon, target):
    before = snapshot(daemon.directory)
    with serves(daemon):
        for method, body in (("GET", b""), ("HEAD", b""), ("PUT", b"written"), ("GET", b""), ("DELETE", b"")):
            reply = ask(daemon, method, target, body)
            assert reply.status < 500 or (target in PLANTED and method == "PUT"), (method, reply)
            assert SECRET not in reply.body and b"root:" not in reply.body
            if method == "PUT" and reply.status == 200:
                if is_key_of_the_bucket(target):
                    assert ask(daemon, "GET", target).body == b"written"
                else:  # it made a bucket
                    assert target.count("/") == 1
            elif method == "PUT":
                assert reply.status in (400, 404) or reply.code == "InternalError", reply
        ask(daemon, "DELETE", target)
    assert snapshot(daemon.directory) == before
    daemon.check_no_traceback()


@pytest.mark.parametrize("source", TRICKS, ids=lambda target: target[:40])
def test_a_trick_copies_nothing_from_outside_the_keys(daemon, source):
    reply = ask(daemon, "PUT", "/bucket/copied", x_amz_copy_source=source)
    assert reply.status < 500, reply
    assert SECRET not in ask(daemon, "GET", "/bucket/copied").body


@pytest.mark.parametrize("name", INTERNAL)
def test_internal_files_are_no_buckets_and_hold_no_keys(daemon, raw, name):
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        assert ask(daemon, method, f"/{name}", b"").status in (400, 404), method
        assert ask(daemon, method, f"/{name}/buckets", b"").status in (400, 404), method
    listed = raw.ask("GET", "/").body
    assert name.encode() not in listed and b"<Name>bucket<" in listed


def test_what_was_planted_is_not_listed(daemon, raw):
    for target in ("/bucket", "/bucket?list-type=2&delimiter=/", "/bucket?prefix=out/", "/bucket?prefix=link"):
        names = re.findall(rb"<(?:Key|Prefix)>([^<]*)<", raw.ask("GET", target).body)
        assert not {b"link", b"out/", b"out/secret"} & (set(names) - {target.partition("prefix=")[2].encode()}), names
    assert b"linked" not in raw.ask("GET", "/").body
    assert raw.ask("GET", "/linked").status == 404


@pytest.mark.parametrize("prefix", ["../", "..", "%2e%2e/", "/", "../other/", "%00", "_s3/", "out/", "%25", "%25="])
@pytest.mark.parametrize("how", ["prefix", "marker", "start-after", "continuation-token", "delimiter"])
def test_a_listing_shows_keys_of_its_bucket_only(daemon, raw, prefix, how):
    version = "" if how in ("prefix", "marker", "delimiter") else "list-type=2&"
    reply = raw.ask("GET", f"/bucket?{version}{how}={prefix}")
    assert reply.status in (200, 400), reply
    keys = set(re.findall(rb"<Key>([^<]*)<", reply.body))
    assert not any(b"other" in key or b"secret" in key for key in keys), keys


@pytest.mark.parametrize("upload", ["..", ".", "../..", "x", "a" * 48, "%00", "../../_tmp", "0" * 48 + "/", "%2e%2e"])
def test_an_upload_id_is_no_path(daemon, raw, upload):
    before = snapshot(daemon.directory)
    for method, body in (("PUT", b"part"), ("GET", b""), ("DELETE", b""), ("POST", b"<CompleteMultipartUpload/>")):
        number = "&partNumber=1" if method == "PUT" else ""
        with closing(daemon.raw()) as one:
            reply = one.ask(method, f"/bucket/key?uploadId={upload}{number}", body)
        assert reply.status in (400, 404), (method, reply)
    assert snapshot(daemon.directory) == before
    assert raw.ask("GET", "/bucket/key").body == b"key"


def test_a_key_has_1024_bytes_and_no_more(daemon, raw):
    for key in ("k" * 1024, "%c3%a9" * 512, "a/" * 511 + "ab", "../" * 341 + "a", "%25" * 1024, "%f0%9f%92%a9" * 256):
        assert raw.ask("PUT", f"/bucket/{key}", key.encode()).status == 200
        assert raw.ask("GET", f"/bucket/{key}").body == key.encode()
        assert raw.ask("DELETE", f"/bucket/{key}").status == 204
        assert raw.ask("PUT", f"/bucket/{key}x", b"").code == "KeyTooLongError"
        assert raw.ask("GET", f"/bucket/{key}x", b"").status in (400, 404)


def test_names_that_mean_something_on_disk_are_keys_like_others(daemon, raw):
    keys = ["%=", "%", "%.", "%..", "%+a", "%-a", "%+a/%-b", "a//b", "trail/", ".", "..", "./.", "../..", "/", "//"]
    keys += ["_s3/buckets/bucket", "_format", "dir", "dir/%=", "dir/", "dir/a", "\\", "..\\.."]

    def quoted(key: str) -> str:
        return "/bucket/names/" + key.replace("%", "%25")

    for key in keys:
        assert raw.ask("PUT", quoted(key), key.encode()).status == 200, key
    for key in keys:
        assert raw.ask("GET", quoted(key)).body == key.encode(), key
    listed = raw.ask("GET", "/bucket?prefix=names/").body
    found = {key.decode() for key in re.findall(rb"<Key>names/([^<]*)<", listed)}
    assert found == set(keys)
    for number, key in enumerate(keys):
        assert raw.ask("DELETE", quoted(key)).status == 204
        for other in keys[number + 1 :]:
            assert raw.ask("HEAD", quoted(other)).status == 200, (key, other)
