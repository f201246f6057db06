"""Clients of S3, all made to answer to the same few words, each in the way of its own users."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from .daemon import ACCESS_KEY, REGION, SECRET_KEY, Daemon, program, run

PART = 5 << 20
NASTY = ("with space.txt", "a+b.txt", "100%41.txt", "ä/ö ü/🙂.txt", "quote'\"<&>.txt", "semi;colon=,@$!()[]{}^`|.txt")


class Client:
    """A client at work on one daemon. What one of them cannot say is not in ``can``."""

    can = frozenset({"buckets", "metadata", "range", "presign", "any key"})
    keys: tuple[str, ...] = NASTY

    def __init__(self, daemon: Daemon, directory: Path) -> None:
        self.daemon = daemon
        self.directory = directory
        self.open()

    def open(self) -> None:
        """Get ready."""

    def close(self) -> None:
        """End what was begun."""

    def path(self, key: str = "") -> Path:
        return self.directory / (key or "received")

    def put_tree(self, bucket: str, directory: Path) -> None:
        """Put the files below a directory under their relative paths."""
        for path in directory.rglob("*"):
            if path.is_file():
                self.put(bucket, str(path.relative_to(directory)), path)

    def get_tree(self, bucket: str, directory: Path, keys: tuple[str, ...]) -> None:
        """Get all keys of a bucket as files below a directory."""
        for key in keys:
            path = directory / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(bucket, key))

    def put(self, bucket: str, key: str, path: Path) -> None:
        raise NotImplementedError

    def get(self, bucket: str, key: str) -> bytes:
        raise NotImplementedError


class Boto(Client):
    """boto3, as it comes."""

    keys = (*NASTY, "trail/", "a//b", "/lead", "./x/../y", "new\nline", "~", "%2F", "x" * 1024)
    options: ClassVar[dict[str, str]] = {}

    def open(self) -> None:
        from boto3.s3.transfer import TransferConfig

        self.s3 = self.daemon.boto(**self.options)
        self.config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=4)

    def close(self) -> None:
        self.s3.close()

    def make(self, bucket: str) -> None:
        self.s3.create_bucket(Bucket=bucket)

    def remove(self, bucket: str) -> None:
        self.s3.delete_bucket(Bucket=bucket)

    def buckets(self) -> set[str]:
        return {found["Name"] for found in self.s3.list_buckets()["Buckets"]}

    def put(self, bucket: str, key: str, path: Path, **metadata: str) -> None:
        self.s3.upload_file(str(path), bucket, key, ExtraArgs={"Metadata": metadata}, Config=self.config)

    def get(self, bucket: str, key: str) -> bytes:
        self.s3.download_file(bucket, key, str(self.path()), Config=self.config)
        return self.path().read_bytes()

    def range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        found: bytes = self.s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}")["Body"].read()
        return found

    def list(self, bucket: str, prefix: str) -> set[str]:
        page = self.s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
        names = {entry["Key"] for entry in page.get("Contents", [])}
        return names | {entry["Prefix"] for entry in page.get("CommonPrefixes", [])}

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.s3.copy({"Bucket": bucket, "Key": key}, bucket, to, Config=self.config)

    def metadata(self, bucket: str, key: str) -> dict[str, str]:
        found: dict[str, str] = self.s3.head_object(Bucket=bucket, Key=key)["Metadata"]
        return found

    def delete(self, bucket: str, key: str) -> None:
        self.s3.delete_object(Bucket=bucket, Key=key)

    def presign(self, bucket: str, key: str) -> str:
        url: str = self.s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key})
        return url


class BotoWhenRequired(Boto):
    """boto3 that sends checksums only where S3 requires them."""

    options: ClassVar = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }


class Program(Client):
    """A client that is a program."""

    name = ""
    can = Client.can - {"any key"}  # awkward keys are in its trees; one process for each would be slow

    def open(self) -> None:
        self.executable = program(self.name)

    def environment(self) -> dict[str, str]:
        return {}

    def run(self, *arguments: str) -> str:
        return run([self.executable, *arguments], self.daemon, self.directory, **self.environment())


class Aws(Program):
    """awscli."""

    name = "aws"

    def open(self) -> None:
        super().open()
        (self.directory / "aws.conf").write_text(
            "[default]\ns3 =\n  multipart_threshold = 5MB\n  multipart_chunksize = 5MB\n  addressing_style = path\n"
        )

    def environment(self) -> dict[str, str]:
        return {"AWS_CONFIG_FILE": str(self.directory / "aws.conf"), "AWS_ENDPOINT_URL": self.daemon.endpoint}

    def make(self, bucket: str) -> None:
        self.run("s3", "mb", f"s3://{bucket}")

    def remove(self, bucket: str) -> None:
        self.run("s3", "rb", f"s3://{bucket}")

    def buckets(self) -> set[str]:
        return {line.split()[2] for line in self.run("s3", "ls").splitlines()}

    def put(self, bucket: str, key: str, path: Path, **metadata: str) -> None:
        given = ["--metadata", json.dumps(metadata)] if metadata else []
        self.run("s3", "cp", "--only-show-errors", str(path), f"s3://{bucket}/{key}", *given)

    def get(self, bucket: str, key: str) -> bytes:
        self.run("s3", "cp", "--only-show-errors", f"s3://{bucket}/{key}", str(self.path()))
        return self.path().read_bytes()

    def put_tree(self, bucket: str, directory: Path) -> None:
        self.run("s3", "sync", "--only-show-errors", str(directory), f"s3://{bucket}")

    def get_tree(self, bucket: str, directory: Path, keys: tuple[str, ...]) -> None:
        self.run("s3", "sync", "--only-show-errors", f"s3://{bucket}", str(directory))

    def range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        where = ["--bucket", bucket, "--key", key, "--range", f"bytes={start}-{end - 1}"]
        self.run("s3api", "get-object", *where, str(self.path()))
        return self.path().read_bytes()

    def list(self, bucket: str, prefix: str) -> set[str]:
        lines = self.run("s3", "ls", f"s3://{bucket}/{prefix}").splitlines()
        return {prefix + re.sub(r"^(\s*PRE|\S+ \S+\s+\d+) ", "", line) for line in lines}

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.run("s3", "cp", "--only-show-errors", f"s3://{bucket}/{key}", f"s3://{bucket}/{to}")

    def metadata(self, bucket: str, key: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.run("s3api", "head-object", "--bucket", bucket, "--key", key))[
            "Metadata"
        ]
        return found

    def delete(self, bucket: str, key: str) -> None:
        self.run("s3", "rm", "--only-show-errors", f"s3://{bucket}/{key}")

    def presign(self, bucket: str, key: str) -> str:
        return self.run("s3", "presign", f"s3://{bucket}/{key}").strip()


class S3cmd(Program):
    """s3cmd."""

    name = "s3cmd"
    can = Program.can - {"range"}

    def open(self) -> None:
        super().open()
        address = self.daemon.address
        (self.directory / "s3cfg").write_text(
            f"[default]\naccess_key = {ACCESS_KEY}\nsecret_key = {SECRET_KEY}\nhost_base = {address}\n"
            f"host_bucket = {address}\nuse_https = False\nmultipart_chunk_size_mb = 5\nbucket_location = {REGION}\n"
        )

    def run(self, *arguments: str) -> str:
        return super().run(
            "--config", "s3cfg", "--quiet" if arguments[0] in ("put", "get", "sync") else "-v", *arguments
        )

    def make(self, bucket: str) -> None:
        self.run("mb", f"s3://{bucket}")

    def remove(self, bucket: str) -> None:
        self.run("rb", f"s3://{bucket}")

    def buckets(self) -> set[str]:
        return {line.split("s3://")[1] for line in self.run("ls").splitlines()}

    def put(self, bucket: str, key: str, path: Path, **metadata: str) -> None:
        given = [f"--add-header=x-amz-meta-{name}:{value}" for name, value in metadata.items()]
        self.run("put", str(path), f"s3://{bucket}/{key}", *given)

    def get(self, bucket: str, key: str) -> bytes:
        self.run("get", "--force", f"s3://{bucket}/{key}", str(self.path()))
        return self.path().read_bytes()

    def put_tree(self, bucket: str, directory: Path) -> None:
        self.run("sync", f"{directory}/", f"s3://{bucket}/")

    def get_tree(self, bucket: str, directory: Path, keys: tuple[str, ...]) -> None:
        self.run("sync", f"s3://{bucket}/", f"{directory}/")

    def list(self, bucket: str, prefix: str) -> set[str]:
        return set(re.findall(f"s3://{bucket}/(.*)", self.run("ls", f"s3://{bucket}/{prefix}")))

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.run("cp", f"s3://{bucket}/{key}", f"s3://{bucket}/{to}")

    def metadata(self, bucket: str, key: str) -> dict[str, str]:
        return dict(re.findall(r"x-amz-meta-([a-z]+):\s*(.*)", self.run("info", f"s3://{bucket}/{key}")))

    def delete(self, bucket: str, key: str) -> None:
        self.run("rm", f"s3://{bucket}/{key}")

    def presign(self, bucket: str, key: str) -> str:
        return self.run("signurl", f"s3://{bucket}/{key}", "+600").strip()


class Rclone(Program):
    """rclone of Debian."""

    name = "rclone"

    def environment(self) -> dict[str, str]:
        options = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ACCESS_KEY_ID": ACCESS_KEY,
            "SECRET_ACCESS_KEY": SECRET_KEY,
            "REGION": REGION,
            "ENDPOINT": self.daemon.endpoint,
            "UPLOAD_CUTOFF": "5M",
            "CHUNK_SIZE": "5M",
            "COPY_CUTOFF": "5M",
        }
        return {"RCLONE_CONFIG": "", **{f"RCLONE_CONFIG_S_{name}": value for name, value in options.items()}}

    def make(self, bucket: str) -> None:
        self.run("mkdir", f"s:{bucket}")

    def remove(self, bucket: str) -> None:
        self.run("rmdir", f"s:{bucket}")

    def buckets(self) -> set[str]:
        return {line.removesuffix("/") for line in self.run("lsf", "s:").splitlines()}

    def put(self, bucket: str, key: str, path: Path, **metadata: str) -> None:
        given = [f"--metadata-set={name}={value}" for name, value in metadata.items()]
        self.run("copyto", "--metadata", str(path), f"s:{bucket}/{key}", *given)

    def get(self, bucket: str, key: str) -> bytes:
        self.run("copyto", f"s:{bucket}/{key}", str(self.path()))
        return self.path().read_bytes()

    def put_tree(self, bucket: str, directory: Path) -> None:
        self.run("copy", str(directory), f"s:{bucket}")

    def get_tree(self, bucket: str, directory: Path, keys: tuple[str, ...]) -> None:
        self.run("copy", f"s:{bucket}", str(directory))

    def range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        return self.run("cat", f"--offset={start}", f"--count={end - start}", f"s:{bucket}/{key}").encode()

    def list(self, bucket: str, prefix: str) -> set[str]:
        return {prefix + line for line in self.run("lsf", f"s:{bucket}/{prefix}").splitlines()}

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.run("copyto", f"s:{bucket}/{key}", f"s:{bucket}/{to}")

    def metadata(self, bucket: str, key: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.run("lsjson", "--stat", "--metadata", f"s:{bucket}/{key}"))["Metadata"]
        return found

    def delete(self, bucket: str, key: str) -> None:
        self.run("deletefile", f"s:{bucket}/{key}")

    def presign(self, bucket: str, key: str) -> str:
        return self.run("link", "--expire=10m", f"s:{bucket}/{key}").strip()


class Obstore(Client):
    """obstore, the Python face of Rust's object_store."""

    can = Client.can - {"buckets"}

    def open(self) -> None:
        self.obs = pytest.importorskip("obstore")
        self.stores: dict[str, Any] = {}

    def store(self, bucket: str) -> Any:
        if bucket not in self.stores:
            from obstore.store import S3Store

            self.stores[bucket] = S3Store(
                bucket,
                endpoint=self.daemon.endpoint,
                access_key_id=ACCESS_KEY,
                secret_access_key=SECRET_KEY,
                region=REGION,
                client_options={"allow_http": True},
            )
        return self.stores[bucket]

    def put(self, bucket: str, key: str, path: Path, **metadata: str) -> None:
        self.obs.put(self.store(bucket), key, path, attributes=metadata, chunk_size=PART)

    def get(self, bucket: str, key: str) -> bytes:
        return bytes(self.obs.get(self.store(bucket), key).bytes())

    def range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        return bytes(self.obs.get_range(self.store(bucket), key, start=start, end=end))

    def list(self, bucket: str, prefix: str) -> set[str]:
        page = self.obs.list_with_delimiter(self.store(bucket), prefix)
        return {entry["path"] for entry in page["objects"]} | {found + "/" for found in page["common_prefixes"]}

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.obs.copy(self.store(bucket), key, to)

    def metadata(self, bucket: str, key: str) -> dict[str, str]:
        return dict(self.obs.get(self.store(bucket), key).attributes)

    def delete(self, bucket: str, key: str) -> None:
        self.obs.delete(self.store(bucket), key)

    def presign(self, bucket: str, key: str) -> str:
        from datetime import timedelta

        return str(self.obs.sign(self.store(bucket), "GET", key, timedelta(minutes=10)))


class Pyarrow(Client):
    """pyarrow's S3FileSystem."""

    can = Client.can - {"metadata", "presign"}

    def open(self) -> None:
        self.s3 = pytest.importorskip("pyarrow.fs").S3FileSystem(
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            region=REGION,
            scheme="http",
            endpoint_override=self.daemon.address,
            allow_bucket_creation=True,
            allow_bucket_deletion=True,
        )

    def make(self, bucket: str) -> None:
        self.s3.create_dir(bucket)

    def remove(self, bucket: str) -> None:
        self.s3.delete_dir(bucket)

    def names(self, path: str) -> dict[str, bool]:
        from pyarrow.fs import FileSelector, FileType

        return {found.path: found.type == FileType.Directory for found in self.s3.get_file_info(FileSelector(path))}

    def buckets(self) -> set[str]:
        return set(self.names(""))

    def put(self, bucket: str, key: str, path: Path) -> None:
        with self.s3.open_output_stream(f"{bucket}/{key}") as out:
            out.write(path.read_bytes())

    def get(self, bucket: str, key: str) -> bytes:
        with self.s3.open_input_stream(f"{bucket}/{key}") as file:
            found: bytes = file.read()
        return found

    def range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        with self.s3.open_input_file(f"{bucket}/{key}") as file:
            found: bytes = file.read_at(end - start, start)
        return found

    def list(self, bucket: str, prefix: str) -> set[str]:
        found = self.names(f"{bucket}/{prefix}".rstrip("/"))
        return {path.removeprefix(f"{bucket}/") + "/" * directory for path, directory in found.items()}

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.s3.copy_file(f"{bucket}/{key}", f"{bucket}/{to}")

    def delete(self, bucket: str, key: str) -> None:
        self.s3.delete_file(f"{bucket}/{key}")


class S3fs(Client):
    """s3fs, which pandas, dask and others use."""

    def open(self) -> None:
        self.s3 = pytest.importorskip("s3fs").S3FileSystem(**fsspec_options(self.daemon), skip_instance_cache=True)

    def make(self, bucket: str) -> None:
        self.s3.mkdir(bucket)

    def remove(self, bucket: str) -> None:
        self.s3.rmdir(bucket)

    def buckets(self) -> set[str]:
        return set(self.s3.ls("", refresh=True))

    def put(self, bucket: str, key: str, path: Path, **metadata: str) -> None:
        self.s3.put_file(str(path), f"{bucket}/{key}", chunksize=PART, Metadata=metadata)

    def get(self, bucket: str, key: str) -> bytes:
        self.s3.get_file(f"{bucket}/{key}", str(self.path()))
        return self.path().read_bytes()

    def range(self, bucket: str, key: str, start: int, end: int) -> bytes:
        found: bytes = self.s3.cat_file(f"{bucket}/{key}", start=start, end=end)
        return found

    def list(self, bucket: str, prefix: str) -> set[str]:
        found = self.s3.ls(f"{bucket}/{prefix}", detail=True, refresh=True)
        return {entry["name"].removeprefix(f"{bucket}/") + "/" * (entry["type"] == "directory") for entry in found}

    def copy(self, bucket: str, key: str, to: str) -> None:
        self.s3.copy(f"{bucket}/{key}", f"{bucket}/{to}")

    def metadata(self, bucket: str, key: str) -> dict[str, str]:
        found: dict[str, str] = self.s3.metadata(f"{bucket}/{key}", refresh=True)
        return found

    def delete(self, bucket: str, key: str) -> None:
        self.s3.rm_file(f"{bucket}/{key}")

    def presign(self, bucket: str, key: str) -> str:
        url: str = self.s3.url(f"{bucket}/{key}", expires=600)
        return url


def fsspec_options(daemon: Daemon) -> dict[str, Any]:
    """What s3fs, or pandas as its ``storage_options``, needs to know."""
    return {"key": ACCESS_KEY, "secret": SECRET_KEY, "endpoint_url": daemon.endpoint}


CLIENTS: dict[str, type[Client]] = {
    "boto3": Boto,
    "boto3-when-required": BotoWhenRequired,
    "awscli": Aws,
    "s3cmd": S3cmd,
    "rclone": Rclone,
    "obstore": Obstore,
    "pyarrow": Pyarrow,
    "s3fs": S3fs,
}
