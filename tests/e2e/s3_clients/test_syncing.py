"""Programs that keep a directory and a bucket the same, or back one up into the other."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from .clients import PART, Aws, Rclone, S3cmd
from .conftest import tree
from .daemon import program, run

LARGE = os.urandom(PART + 12345)


@pytest.fixture
def up(tmp_path: Path) -> Path:
    """A tree, one of whose files goes up in parts."""
    directory = tmp_path / "up"
    contents = {"large.bin": LARGE, "a/small.txt": b"small", "a/b/empty": b"", "ä b/+%.txt": b"awkward"}
    for name, content in contents.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (time.time() - 60,) * 2)  # S3's times are whole seconds: what is younger counts as changed
    return directory


def changed(directory: Path) -> None:
    """Change a tree: one file is another, one is new, one is gone."""
    (directory / "a/small.txt").write_bytes(b"another")
    (directory / "a/new.txt").write_bytes(b"new")
    (directory / "a/b/empty").unlink()


def test_aws_s3_sync_sends_what_changed(daemon, bucket, up, tmp_path):
    aws = Aws(daemon, tmp_path)
    aws.run("s3", "sync", str(up), f"s3://{bucket}/tree")
    assert aws.run("s3", "sync", str(up), f"s3://{bucket}/tree") == ""
    changed(up)
    lines = aws.run("s3", "sync", "--no-progress", "--delete", str(up), f"s3://{bucket}/tree").splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["delete", "upload", "upload"]
    aws.run("s3", "sync", f"s3://{bucket}/tree", str(tmp_path / "down"))
    assert tree(tmp_path / "down") == tree(up)
    aws.run("s3", "rm", "--recursive", f"s3://{bucket}/tree")
    assert aws.run("s3", "ls", f"s3://{bucket}") == ""


def test_s3cmd_sync_sends_what_changed(daemon, bucket, s3, up, tmp_path):
    s3cmd = S3cmd(daemon, tmp_path)
    s3cmd.run("sync", f"{up}/", f"s3://{bucket}/tree/")
    changed(up)
    s3cmd.run("sync", "--delete-removed", f"{up}/", f"s3://{bucket}/tree/")
    (tmp_path / "down").mkdir()
    s3cmd.run("sync", f"s3://{bucket}/tree/", f"{tmp_path}/down/")
    assert tree(tmp_path / "down") == tree(up)
    assert s3cmd.run("du", f"s3://{bucket}/tree/").split()[:2] == [str(sum(map(len, tree(up).values()))), "4"]
    s3cmd.run("del", "--recursive", "--force", f"s3://{bucket}/tree/")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_rclone_sync_and_check_agree_with_the_bytes(daemon, bucket, s3, up, tmp_path):
    rclone = Rclone(daemon, tmp_path)
    rclone.run("sync", str(up), f"s:{bucket}/tree")
    changed(up)
    rclone.run("sync", str(up), f"s:{bucket}/tree")
    assert s3.head_object(Bucket=bucket, Key="tree/large.bin")["ETag"].endswith('-2"')
    rclone.run("check", str(up), f"s:{bucket}/tree")
    rclone.run("check", "--download", str(up), f"s:{bucket}/tree")
    sums = {name: hashlib.md5(content).hexdigest() for name, content in tree(up).items()}
    lines = rclone.run("hashsum", "MD5", f"s:{bucket}/tree").splitlines()
    assert {line[34:]: line[:32] for line in lines} == sums
    rclone.run("copy", f"s:{bucket}/tree", f"s:{bucket}/copy")  # on the server, the large one in parts
    rclone.run("sync", f"s:{bucket}/copy", str(tmp_path / "down"))
    assert tree(tmp_path / "down") == tree(up)
    rclone.run("purge", f"s:{bucket}")
    assert bucket not in {found["Name"] for found in s3.list_buckets()["Buckets"]}


def test_restic_backs_up_and_restores(daemon, bucket, up, tmp_path):
    restic = program("restic")
    place = {"RESTIC_REPOSITORY": f"s3:{daemon.endpoint}/{bucket}/backup", "RESTIC_PASSWORD": "secret"}
    for command in (
        ["init"],
        ["backup", "."],
        ["check", "--read-data"],
        ["restore", "latest", "--target", str(tmp_path / "down")],
        ["forget", "latest", "--prune"],
    ):
        run([restic, "--no-cache", *command], daemon, up, **place)
    assert tree(tmp_path / "down") == tree(up)
