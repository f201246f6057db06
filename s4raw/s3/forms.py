"""PostObject: a browser's form becomes an object, streamed, once its policy allows it.

Sources: Amazon S3 API Reference, "POST Object" and "Creating an HTML form (using AWS signature version 4)".
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, urlsplit

from s4raw.keys import Key
from s4raw.objects.base import Attributes
from s4raw.s3 import conditions, xml
from s4raw.s3 import headers as object_headers
from s4raw.s3.buckets import tags_in
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error
from s4raw.s3.formdata import Form, boundary_of
from s4raw.s3.payload import Payload
from s4raw.s3.policy import Limits, check_form

MAX_OBJECT = 5 << 30  # bytes of a file


def post_object(call: Call) -> Answer:
    """PostObject: POST of multipart/form-data to a bucket."""
    boundary = boundary_of(call.headers.get("content-type", ""))
    call.backend.bucket(call.key.bucket)
    form = Form(call.pieces(), boundary)
    fields = _fields(form)
    limits = _allowed(call, fields)
    key = Key(call.key.bucket, fields["key"])
    attributes = _attributes(fields)
    told = _told(fields)  # before the body, since a field may be wrong
    with Payload(_within(form.file(), limits), told, None, None, attributes, chunked=True) as source:
        info = call.backend.put(key, source, conditions.of_write(told))
    form.drain()
    return _answer(call, key, fields, info.attributes)


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
