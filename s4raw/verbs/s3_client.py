"""Verbs of S3's client: s3 ls, get, put, set, presign, rm, mb, rb."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence

from s4raw.arguments import Arguments, Verb
from s4raw.errors import ConfError, UsageError
from s4raw.keys import Key, check_key, check_prefix
from s4raw.output import write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from s4raw.s3.client import Client

COMMON = """\
  --endpoint URL     the S3 server (default: $S3D_ENDPOINT, or http://localhost:33333)
  --keys FILE        the key pair to sign with: the first of the file, ACCESS_KEY SECRET_KEY a line, or AWS's own format
                     (default: $S3D_ACCESS_KEY and $S3D_SECRET_KEY, or $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY)
  --anonymous        sign nothing
  --region NAME      the region to sign for (default: us-east-1)
  --ca-cert FILE     with https: trust these certificates (PEM), not the system's
  -h, --help         show this text
"""
TARGETS = """\
A bucket is BUCKET, an object BUCKET/KEY: all after the first slash is the key, byte for byte. s3:// may stand before.
"""

USAGE = {
    "status": f"""\
Show whether the daemon is there, or what is known of a bucket or an object.

Usage: s4raw s3 status [options] [--] [TARGET]

Without TARGET: its endpoint, its health and its buckets; exit code 1 if it does not answer. Of a bucket: region, time,
tags. Of an object: size, time, ETag, type, checksums, metadata, tags. Of a daemon with a write queue also what of it is
pending, those first that are parked: its ID, for how long, and what went wrong.
{TARGETS}
Options:
  --json             print a line of JSON
{COMMON}""",
    "ls": f"""\
List objects, "DATE TIMEZ SIZE NAME" a line, "  PRE name/" for a directory. Nothing found: exit code 1.

Usage: s4raw s3 ls [options] [--] [TARGET]

Without TARGET: the buckets. BUCKET or BUCKET/dir/ lists what is directly there, BUCKET/dir/pre what begins so.

Options:
  -r, --recursive    all objects below, by their whole name
  --json             print a line of JSON for each entry
{COMMON}""",
    "get": f"""\
Write an object to stdout, and what is known of it to stderr.

Usage: s4raw s3 get [options] [--] OBJECT

All of an object is verified by its checksum, or by the MD5 in its ETag, if it has one of its whole; a range by its
length alone. When the exit code is not 0, what was written is to be thrown away.
{TARGETS}
Options:
  --range RANGE      bytes FIRST-LAST, FIRST- or -COUNT, as HTTP counts them (default: all)
  -q, --quiet        nothing to stderr
  --json             what is known as a line of JSON, to stderr
{COMMON}""",
    "put": f"""\
Store stdin as an object, in place of what has the key.

Usage: s4raw s3 put [options] [--metadata KV]... [--tag KV]... [--] OBJECT

The server verifies it by a CRC32. A file goes in one request; a pipe of more than 64 MiB goes in parts, and nothing is
seen of it before its end. The bucket must be there: s4raw s3 mb BUCKET.
{TARGETS}
Options:
  --content-type TYPE  what it is (default: binary/octet-stream)
  --metadata KV      K=V to keep with it
  --tag KV           a tag K=V
  --json             print the result as a line of JSON
{COMMON}""",
    "set": f"""\
Set tags of an object or a bucket; its other tags stay.

Usage: s4raw s3 set [options] --tag KV... [--] TARGET

The tags are read and written back, so of two that set tags of one object at the same time one may be lost.
{TARGETS}
Options:
  --tag KV           K=V; K= removes the tag K
{COMMON}""",
    "presign": f"""\
Print a URL that lets its holder do one request without keys, until it expires.

Usage: s4raw s3 presign [options] [--] OBJECT

Nothing is asked of the server.
{TARGETS}
Options:
  --expires S        good for so many seconds, at most 7 days (default: 3600)
  --method METHOD    GET, HEAD, PUT or DELETE (default: GET)
{COMMON}""",
    "rm": f"""\
Delete an object. That there is none is fine, as everywhere in S3.

Usage: s4raw s3 rm [options] [--] OBJECT

{TARGETS}
Options:
{COMMON}""",
    "mb": f"""\
Make a bucket. That you have it already is fine.

Usage: s4raw s3 mb [options] [--] BUCKET

Options:
{COMMON}""",
    "rb": f"""\
Remove a bucket, which must be empty.

Usage: s4raw s3 rb [options] [--] BUCKET

Options:
{COMMON}""",
}

SCHEME = "s3://"


def client(arguments: Arguments) -> Client:
    """The client that the arguments ask for. Raises UsageError, ConfError."""
    from s4raw.s3 import credentials
    from s4raw.s3.client import Client

    pair = None
    if arguments["--keys"]:
        pair = credentials.from_file(arguments["--keys"]).first()
    elif not arguments["--anonymous"]:
        found = credentials.from_environment()
        if found is None:
            raise ConfError(
                "no S3 keys: name a file of them with --keys (one ACCESS_KEY SECRET_KEY a line), set "
                "$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, or sign nothing with --anonymous"
            )
        pair = found.first()
    endpoint = arguments["--endpoint"] or os.environ.get("S3D_ENDPOINT") or "http://localhost:33333"
    return Client(endpoint, pair, region=arguments["--region"] or "us-east-1", authorities=arguments["--ca-cert"])


def target(text: str) -> Key:
    """A bucket or an object. Raises BadKey."""
    bucket, _, name = text.removeprefix(SCHEME).partition("/")
    key = Key(bucket, name)
    check_prefix(key)
    return key


def object_of(text: str) -> Key:
    """An object. Raises BadKey."""
    return check_key(target(text))


def bucket_of(text: str) -> Key:
    """A bucket. Raises UsageError, BadKey."""
    key = target(text.removesuffix("/"))
    if not key.bucket or key.name:
        raise UsageError(f"need a bucket, got {text!r}")
    return key


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """What ``K=V`` options say; of a name that comes twice, the last counts. Raises UsageError."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"{option} needs K=V, got {text!r}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UsageError(f"{option} is UTF-8, this is not: {text!r}")
        found[name] = value
    return found


def show(found: Mapping[str, object], file: TextIO | None = None) -> None:
    """Lines of names and values; of many values, of names and values of their own, one each."""
    lines = []
    for name, value in found.items():
        for text in _texts(value):
            lines.append(f"{f'{name}:':13}{text}\n")
    (file or sys.stdout).write("".join(lines))


def _texts(value: object) -> Sequence[object]:
    if isinstance(value, dict):
        return [f"{key}={each}" for key, each in value.items()]
    return value if isinstance(value, list) else [value]


def plain(found: dict[str, object]) -> dict[str, object]:
    """The same as people read it."""
    names = {"bytes": "size", "checksums": "checksum", "tags": "tag"}
    plain = {names.get(name, name): value for name, value in found.items()}
    return plain | {"time": str(found["time"]).replace("T", " ")}


def seconds(time: str) -> str:
    """A time as S3 writes it, in whole seconds."""
    return re.sub(r"\.[0-9]+Z$", "Z", time)


def ls(arguments: Arguments) -> int:
    """List objects or buckets."""
    prefix = target(arguments["TARGET"] or "")
    recursive, found = arguments["--recursive"], False
    if recursive and not prefix.bucket:
        raise UsageError("ls -r needs a bucket, as in s4raw s3 ls -r BUCKET")
    cut = 0 if recursive else prefix.name.rfind("/") + 1
    with client(arguments) as s3:
        for entry in s3.objects(prefix, recursive) if prefix.bucket else s3.buckets():
            found = True
            whole, time = f"{prefix.bucket}/{entry.name}", seconds(entry.time)
            if not arguments["--json"]:
                line = f"{time.replace('T', ' ')} {entry.size} {entry.name[cut:]}\n"
                sys.stdout.write(f"  PRE {entry.name[cut:]}\n" if entry.is_prefix else line)
            elif not prefix.bucket:
                write_json(bucket=entry.name, time=time)
            elif entry.is_prefix:
                write_json(prefix=whole)
            else:
                write_json(key=whole, bytes=entry.size, time=time)
    sys.stdout.flush()
    return 0 if found else 1


def get(arguments: Arguments) -> int:
    """Write an object, or a range of it, to stdout."""
    from s4raw.bodies import write_all
    from s4raw.s3 import transfer
    from s4raw.s3.described import known

    key, wanted = object_of(arguments["OBJECT"]), arguments["--range"]
    headers = {"x-amz-checksum-mode": "ENABLED"}
    if wanted is not None:
        if not re.fullmatch("[0-9]+-[0-9]*|-[0-9]+", wanted, re.ASCII):
            raise UsageError(f"--range needs FIRST-LAST, FIRST- or -COUNT in bytes, got {wanted!r}")
        headers["range"] = f"bytes={wanted}"
    with client(arguments) as s3:
        answer = s3.request("GET", key, headers=headers)
        if not arguments["--quiet"]:
            found = known(key, answer)
            if arguments["--json"]:
                write_json(sys.stderr, **found)
            else:
                show(plain(found), sys.stderr)
            sys.stderr.flush()
        sys.stdout.flush()
        transfer.get(s3, answer, write_all(1), answer.status == 200)
    return 0


def put(arguments: Arguments) -> int:
    """Store stdin as an object."""
    from s4raw.errors import Refused
    from s4raw.s3 import transfer

    if not arguments.stdin_is_free:
        raise UsageError("stdin holds the lines of run, it cannot be stored; give run a file")
    key = object_of(arguments["OBJECT"])
    headers = transfer.put_headers(
        arguments["--content-type"], pairs("--metadata", arguments["--metadata"]), pairs("--tag", arguments["--tag"])
    )
    with client(arguments) as s3:
        try:
            size, etag = transfer.put(s3, key, 0, headers)
        except Refused as error:
            if error.s3_code == "NoSuchBucket":
                error.message += f"; s4raw s3 mb {key.bucket} makes it"
            raise
    if arguments["--json"]:
        write_json(verb="put", key=f"{key.bucket}/{key.name}", bytes=size, etag=etag)
    return 0


def set_tags(arguments: Arguments) -> int:
    """Set some tags of an object or a bucket."""
    key, wanted = target(arguments["TARGET"]), pairs("--tag", arguments["--tag"])
    if not key.bucket:
        raise UsageError(f"need a bucket or an object, got {arguments['TARGET']!r}")
    with client(arguments) as s3:
        tags = s3.tags(key) | wanted
        s3.set_tags(key, {name: value for name, value in tags.items() if value or name not in wanted})
    return 0


def presign(arguments: Arguments) -> int:
    """Print a URL that is good for a while."""
    key, method = object_of(arguments["OBJECT"]), (arguments["--method"] or "GET").upper()
    if method not in ("GET", "HEAD", "PUT", "DELETE"):
        raise UsageError(f"--method is GET, HEAD, PUT or DELETE, not {arguments['--method']!r}")
    with client(arguments) as s3:
        sys.stdout.write(s3.presign(method, key, arguments.count("--expires", 3600)) + "\n")
    return 0


def rm(arguments: Arguments) -> int:
    """Delete an object."""
    return _do(arguments, "DELETE", object_of(arguments["OBJECT"]))


def mb(arguments: Arguments) -> int:
    """Make a bucket."""
    return _do(arguments, "PUT", bucket_of(arguments["BUCKET"]))


def rb(arguments: Arguments) -> int:
    """Remove an empty bucket."""
    return _do(arguments, "DELETE", bucket_of(arguments["BUCKET"]))


def _do(arguments: Arguments, method: str, key: Key) -> int:
    with client(arguments) as s3:
        s3.read(method, key)
    return 0


VERBS: dict[str, Verb] = {
    "ls": ls,
    "get": get,
    "put": put,
    "set": set_tags,
    "presign": presign,
    "rm": rm,
    "mb": mb,
    "rb": rb,
}
