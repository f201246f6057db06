"""Many clients of boto3 at once, as a process of its own: ``python load_s3.py ENDPOINT CLIENTS SECONDS NAME``.

Each client is a thread with keys of its own; it puts, gets, copies, lists, deletes and uploads in parts, and checks
what comes. Prints what they did.
"""

import hashlib
import json
import random
import sys
import threading
import time
import traceback
from typing import Any

import boto3
from botocore.config import Config
from s3_daemon import ACCESS_KEY, SECRET_KEY

SIZES = (0, 1, 1000, 10_000, 100_000, 300_000)
KEYS = 4
PART = 5 << 20


def one_round(s3: Any, prefix: str, source: random.Random, large: bool) -> int:
    """Put a few keys, read them back, list them, delete them; returns the number of requests."""
    contents = {f"{prefix}{number} k+%": source.randbytes(source.choice(SIZES)) for number in range(KEYS)}
    for key, content in contents.items():
        answer = s3.put_object(Bucket="load", Key=key, Body=content, Metadata={"size": str(len(content))})
        assert answer["ETag"] == f'"{hashlib.md5(content).hexdigest()}"'
    for key, content in contents.items():
        answer = s3.get_object(Bucket="load", Key=key)
        assert answer["Body"].read() == content and answer["Metadata"] == {"size": str(len(content))}
    first = next(iter(contents))
    s3.copy_object(Bucket="load", Key=f"{prefix}copy", CopySource={"Bucket": "load", "Key": first})
    contents[f"{prefix}copy"] = contents[first]
    found = s3.list_objects_v2(Bucket="load", Prefix=prefix)["Contents"]
    assert {entry["Key"]: entry["Size"] for entry in found} == {key: len(body) for key, body in contents.items()}
    if large:
        in_parts(s3, f"{prefix}parts", source)
    answer = s3.delete_objects(Bucket="load", Delete={"Objects": [{"Key": key} for key in contents]})
    assert len(answer["Deleted"]) == len(contents) and "Errors" not in answer
    assert "Contents" not in s3.list_objects_v2(Bucket="load", Prefix=prefix)
    return 2 * KEYS + 4


def in_parts(s3: Any, key: str, source: random.Random) -> None:
    parts, body = [], source.randbytes(PART + 1000)
    upload = s3.create_multipart_upload(Bucket="load", Key=key)["UploadId"]
    for number, part in enumerate((body[:PART], body[PART:]), 1):
        answer = s3.upload_part(Bucket="load", Key=key, UploadId=upload, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    s3.complete_multipart_upload(Bucket="load", Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.get_object(Bucket="load", Key=key)["Body"].read() == body
    s3.delete_object(Bucket="load", Key=key)


def main(endpoint: str, clients: int, seconds: float, name: str) -> None:
    """Run the clients until the time is up, each for one round at least."""
    config = Config(
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"},
        max_pool_connections=clients,
        read_timeout=60,
    )
    s3 = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1").client(
        "s3", endpoint_url=endpoint, config=config
    )  # boto3's clients are for any thread; one for each of 50 would take most of the time to make
    deadline = time.monotonic() + seconds
    counts, rounds, errors = [0] * clients, [0] * clients, []

    def run(number: int) -> None:
        source = random.Random(f"{name}-{number}")
        try:
            while not counts[number] or time.monotonic() < deadline:
                large = number % 10 == 0 and not rounds[number]
                counts[number] += one_round(s3, f"{name}/{number}/", source, large)
                rounds[number] += 1
        except BaseException:
            errors.append(traceback.format_exc())

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    s3.close()
    json.dump({"requests": sum(counts), "least": min(counts), "errors": errors[:3]}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
