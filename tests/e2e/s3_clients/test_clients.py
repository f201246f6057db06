"""What every client of S3 does every day, over a directory and over a ring; boto3 says what was really done."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from .clients import CLIENTS, PART, Client
from .conftest import NUMBERS, tree
from .daemon import Daemon, fetch

LARGE = os.urandom(2 * PART + 4711)


def able(what: str = "") -> Callable[..., Any]:
    """For each client that can do something."""
    return pytest.mark.parametrize(
        "client", [name for name, kind in CLIENTS.items() if not what or what in kind.can], indirect=True
    )


@pytest.fixture
def client(request: pytest.FixtureRequest, daemon: Daemon, tmp_path: Path) -> Iterator[Client]:
    directory = tmp_path / "client"
    directory.mkdir()
    with closing(CLIENTS[request.param](daemon, directory)) as found:
        yield found


def content(s3: Any, bucket: str, key: str) -> bytes:
    found: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return found


def names(s3: Any, bucket: str) -> set[str]:
    return {entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket).get("Contents", [])}


@able("buckets")
def test_buckets_are_made_listed_and_removed(client, s3):
    bucket = f"made-{next(NUMBERS)}"
    client.make(bucket)
    assert s3.head_bucket(Bucket=bucket)
    assert bucket in client.buckets()
    client.remove(bucket)
    assert bucket not in {found["Name"] for found in s3.list_buckets()["Buckets"]}


@able()
@pytest.mark.parametrize("size", [0, len(LARGE)])
def test_bytes_come_back_as_they_went(client, s3, bucket, tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(LARGE[:size])
    client.put(bucket, "dir/file.bin", path)
    assert content(s3, bucket, "dir/file.bin") == LARGE[:size]
    assert client.get(bucket, "dir/file.bin") == LARGE[:size]
    parts = s3.head_object(Bucket=bucket, Key="dir/file.bin")["ETag"].strip('"').partition("-")[2]
    assert size < PART or int(parts) > 1


@able("any key")
def test_awkward_keys_are_themselves(client, s3, bucket):
    for number, key in enumerate(client.keys):
        s3.put_object(Bucket=bucket, Key=key, Body=b"%d" % number)
    for number, key in enumerate(client.keys):
        assert client.get(bucket, key) == b"%d" % number
        client.delete(bucket, key)
    assert not {key for key in names(s3, bucket) if key in client.keys}


@able()
def test_trees_go_up_and_come_down(client, s3, bucket, tmp_path):
    up, down = tmp_path / "up", tmp_path / "down"
    down.mkdir()
    for number, key in enumerate((*Client.keys, "deep/er/and/deeper.bin")):
        path = up / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    client.put_tree(bucket, up)
    assert {key: content(s3, bucket, key) for key in names(s3, bucket)} == tree(up)
    client.get_tree(bucket, down, tuple(tree(up)))
    assert tree(down) == tree(up)


@able()
def test_a_listing_stops_at_the_delimiter(client, s3, bucket):
    for key in ("top", "dir/one", "dir/two words", "dir/sub/three", "dir.txt"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert client.list(bucket, "dir/") == {"dir/one", "dir/two words", "dir/sub/"}


@able()
def test_objects_are_copied_and_deleted(client, s3, bucket):
    s3.put_object(Bucket=bucket, Key="a b/one+1", Body=b"content")
    client.copy(bucket, "a b/one+1", "c/two 2")
    assert content(s3, bucket, "c/two 2") == b"content"
    client.delete(bucket, "a b/one+1")
    assert names(s3, bucket) - {"a b/"} == {"c/two 2"}  # pyarrow leaves a directory of that name behind


@able("range")
def test_a_range_is_read(client, s3, bucket):
    s3.put_object(Bucket=bucket, Key="key", Body=b"0123456789" * 10)
    assert client.range(bucket, "key", 15, 25) == b"5678901234"


@able("metadata")
def test_metadata_stay_with_an_object_and_its_copy(client, s3, bucket, tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"content")
    client.put(bucket, "one.txt", path, colour="dark green")
    assert s3.head_object(Bucket=bucket, Key="one.txt")["Metadata"]["colour"] == "dark green"
    client.copy(bucket, "one.txt", "two.txt")
    assert client.metadata(bucket, "two.txt")["colour"] == "dark green"


@able("presign")
def test_a_presigned_url_needs_no_key(client, s3, bucket):
    s3.put_object(Bucket=bucket, Key="dir/a b+c%.txt", Body=b"content")
    assert fetch(client.presign(bucket, "dir/a b+c%.txt")) == b"content"
