"""What job.sh asks of boto3: make_bucket BUCKET, upload DIR BUCKET/PREFIX, download BUCKET/PREFIX DIR."""

import sys
from pathlib import Path

import boto3

s3 = boto3.client("s3")


def make_bucket(bucket):
    s3.create_bucket(Bucket=bucket)


def upload(directory, target):
    bucket, _, prefix = target.partition("/")
    for path in Path(directory).iterdir():
        s3.upload_file(str(path), bucket, f"{prefix}/{path.name}")


def download(source, directory):
    bucket, _, prefix = source.partition("/")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
        for found in page["Contents"]:
            s3.download_file(bucket, found["Key"], str(Path(directory, found["Key"].rpartition("/")[2])))


{"make_bucket": make_bucket, "upload": upload, "download": download}[sys.argv[1]](*sys.argv[2:])
