"""Requests as the S3 daemon gets them, made by hand or by botocore's signers."""

import re
from urllib.parse import urlsplit

import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from s4raw.s3.credentials import Credentials
from s4raw.s3.errors import S3Error

# The key pair, the time and the bucket of the examples in the Amazon S3 API Reference.
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EXAMPLE_TIME = 1369353600.0
KEYS = Credentials({ACCESS_KEY: SECRET_KEY, "other": "secret"})
BOTO = BotoCredentials(ACCESS_KEY, SECRET_KEY)
HOST = "examplebucket.s3.amazonaws.com"


class Asked:
    """A request, of which only the head counts."""

    def __init__(self, method: str, path: str, query: str = "", headers: dict[str, str] | None = None) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers or {}


def from_boto(request: AWSRequest) -> Asked:
    """What a server gets of a request that botocore has signed."""
    parts = urlsplit(request.url)
    headers = {name.lower(): str(value).strip(" ") for name, value in request.headers.items()}
    return Asked(request.method, parts.path, parts.query, {"host": parts.netloc, **headers})


def refused(code: str, status: int = 403, match: str = "") -> "pytest.RaisesExc[S3Error]":
    """Expects an S3Error of this code and status."""
    return pytest.raises(
        S3Error,
        match=f"^{re.escape(code)}: .*{re.escape(match)}",
        check=lambda error: error.status == status,
    )
