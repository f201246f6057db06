"""PostObject: a browser's form becomes an object, streamed, once its policy allows it.

Sources: Amazon S3 API Reference, "POST Object" and "Creating an HTML form (using AWS signature version 4)".
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, urlsplit

from s4raw.errors import Refused
from s4raw.keys import Key, check_key
from s4raw.objects.base import Attributes
from s4raw.s3 import headers as object_headers
from s4raw.s3 import xml
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error
from s4raw.s3.formdata import Form, boundary_of
from s4raw.s3.payload import Payload
from s4raw.s3.policy import Policy, check_form, check_length

MAX_FILE = 5 << 30  # bytes
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # of a header: a token (RFC 9110, 5.6.2), in lower case
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # of a header's value (RFC 9110, 5.5)
_OF_THE_FORM = frozenset(
    ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-security-token", "x-amz-signature")
)
_OF_THE_OBJECT = object_headers.SYSTEM | {"content-md5"}


def post_object(call: Call) -> Answer:
    """PostObject: POST of multipart/form-data to a bucket."""
    boundary = boundary_of(call.headers.get("content-type", ""))
    try:
        call.backend.bucket(call.key.bucket)
    except Refused as error:
        if error.http != 403:  # whoever may not look at a bucket may still write to it
            raise
    form = Form(call.pieces(), boundary)
    fields = _fields(form)
    policy = _allowed(call, fields)
    key = check_key(Key(call.key.bucket, fields["key"]))
    headers = _headers(fields)
    attributes = _attributes(fields, headers)
    with Payload(_within(form.file(), policy), headers, None, None, attributes, chunked=True) as source:
        info = call.backend.put(key, source)
    form.drain()
    return _answer(call, key, fields, info.attributes)


def _allowed(call: Call, fields: Mapping[str, str]) -> Policy | None:
    """The policy that allows the form. Raises InvalidArgument without a key, and what ``check_form`` does."""
    if not fields.get("key"):
        raise S3Error(
            "InvalidArgument",
            "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields.",
            ArgumentName="key",
            ArgumentValue="",
        )
    settings = call.settings
    _, policy = check_form(
        fields,
        call.key.bucket,
        settings.credentials,
        time.time(),
        region=settings.region,
        anonymous=settings.anonymous,
    )
    return policy


def _fields(form: Form) -> dict[str, str]:
    """The fields before the file, names in lower case, with the file's name where they ask for it.

    Raises InvalidArgument for one that is there twice or lacks, as S3 does, and what ``Form`` raises.
    """
    found: dict[str, str] = {}
    for field in form.fields():
        name = field.name.lower()
        if name in found:
            raise S3Error(
                "InvalidArgument",
                "POST requires exactly one of each field.",
                ArgumentName=field.name,
                ArgumentValue=field.value,
            )
        found[name] = field.value
    filename = form.filename.rpartition("/")[2].rpartition("\\")[2]  # some browsers send a path
    return {name: value.replace("${filename}", filename) for name, value in found.items()}


def _headers(fields: Mapping[str, str]) -> dict[str, str]:
    """What the fields say of the object, as the headers of a PutObject would. Raises InvalidArgument.

    Texts are as headers have them: UTF-8 seen as latin-1. What cannot stand in a header could not be answered later.
    """
    found = {}
    for name, value in fields.items():
        if name == "acl":
            name = "x-amz-acl"
        elif name in _OF_THE_FORM or not (name in _OF_THE_OBJECT or name.startswith("x-amz-")):
            continue
        if not _NAME.fullmatch(name) or _CONTROLS.search(value):
            raise S3Error("InvalidArgument", ArgumentName=name, ArgumentValue=value)
        found[name] = value.strip().encode().decode("latin-1")
    return found


def _attributes(fields: Mapping[str, str], headers: Mapping[str, str]) -> Attributes:
    """What is kept with the object. Raises MalformedXML, InvalidTag, and what a PutObject's headers do."""
    attributes = object_headers.attributes(headers)
    tagging = fields.get("tagging")
    if not tagging:
        return attributes
    node = xml.read(tagging.strip().encode(), "Tagging").find("TagSet")
    if node is None:
        raise xml.malformed()
    pairs = [(tag.need("Key"), tag.need("Value")) for tag in node.all("Tag")]
    return attributes._replace(tags=object_headers.check_tags(pairs))


def _within(pieces: Iterable[memoryview], policy: Policy | None) -> Iterator[memoryview]:
    """Pass a file on that has as many bytes as it may. Raises EntityTooLarge as soon as it has more, EntityTooSmall."""
    largest = min(MAX_FILE, policy.largest) if policy is not None and policy.largest is not None else MAX_FILE
    count = 0
    for piece in pieces:
        count += len(piece)
        if count > largest:
            raise S3Error("EntityTooLarge", ProposedSize=str(count), MaxSizeAllowed=str(largest))
        yield piece
    check_length(policy, count)


def _answer(call: Call, key: Key, fields: Mapping[str, str], attributes: Attributes) -> Answer:
    """What the form asks to be answered: elsewhere, or by a status; 204 if it asks for nothing, or for what is not."""
    etag = f'"{attributes.etag}"'
    wanted = fields.get("success_action_redirect") or fields.get("redirect", "")
    if wanted and (place := _redirect(wanted, key, etag)):
        return Answer(303, [("Location", place), ("ETag", etag)])
    location = call.url(key.name, safe="")
    headers = [("Location", location), ("ETag", etag), *object_headers.of_checksums(attributes)]
    status = fields.get("success_action_status", "")
    if status != "201":
        return Answer(200 if status == "200" else 204, headers)
    body = [
        xml.element("Location", location),
        xml.element("Bucket", key.bucket),
        xml.element("Key", key.name),
        xml.element("ETag", etag),
    ]
    told = f"{xml.DECLARATION}<PostResponse>{''.join(body)}</PostResponse>"  # in no namespace, unlike all else
    return Answer(201, [*headers, ("Content-Type", "application/xml")], told.encode())


def _redirect(url: str, key: Key, etag: str) -> str:
    """Where the client is sent, told what was stored; empty when the URL is none, which S3 treats as not given."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.netloc or not url.isascii() or _CONTROLS.search(url):
        return ""
    stored = f"bucket={quote(key.bucket)}&key={quote(key.name, safe='')}&etag={quote(etag)}"
    return parts._replace(query=f"{parts.query}&{stored}" if parts.query else stored).geturl()
