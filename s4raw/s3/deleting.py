"""DeleteObjects: up to a thousand objects in one request."""

from __future__ import annotations

from s4raw.errors import S4Error
from s4raw.keys import Key, check_key
from s4raw.s3 import conditions, errors, xml
from s4raw.s3.buckets import answer
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error
from s4raw.s3.objects import no_version

MAX_DELETES = 1000


def delete_objects(call: Call) -> Answer:
    """DeleteObjects: each on its own, so some may fail; in the order of the request."""
    root = xml.read(call.read_body(), "Delete")
    wanted = root.all("Object")
    if not 1 <= len(wanted) <= MAX_DELETES:
        raise xml.malformed()
    call.backend.bucket(call.key.bucket)
    quiet = (root.get("Quiet") or "").strip().lower() == "true"
    done: list[str] = []
    for node in wanted:
        name, version = node.need("Key"), node.get("VersionId") or ""
        place = xml.element("Key", name) + (xml.element("VersionId", version) if version else "")
        try:
            _delete(call, name, version, node)
        except (S3Error, S4Error) as error:
            told = error if isinstance(error, S3Error) else errors.of(error)
            done.append(f"<Error>{place}{xml.element('Code', told.code)}{xml.element('Message', told.message)}</Error>")
        else:
            if not quiet:
                done.append(f"<Deleted>{place}</Deleted>")
    return answer("DeleteResult", "".join(done))


def _delete(call: Call, name: str, version: str, node: xml.Node) -> None:
    if version not in ("", "null"):
        raise no_version(version)
    key = check_key(Key(call.key.bucket, name))
    asked = conditions.of_delete(node.get("ETag"), node.get("LastModifiedTime"), node.get("Size"))
    call.backend.delete(key, asked)
