"""DeleteObjects: up to a thousand objects in one request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from s4raw.errors import NoSuchBucket, S4Error
from s4raw.keys import Key, check_key
from s4raw.s3 import conditions, errors, xml
from s4raw.s3.buckets import answer
from s4raw.s3.call import Answer, Call
from s4raw.s3.errors import S3Error
from s4raw.s3.objects import no_version
from s4raw.via import VIA

MAX_DELETES = 1000


def delete_objects(call: Call) -> Answer:
    """DeleteObjects: each on its own, so some may fail; told in the order of the request."""
    root = xml.read(call.read_body(), "Delete")
    wanted = root.all("Object")
    if not 1 <= len(wanted) <= MAX_DELETES:
        raise xml.malformed()
    quiet = (root.get("Quiet") or "").strip().lower() == "true"
    one = partial(_told, call, quiet)
    at_once = min(len(wanted), call.settings.deletes_at_once)
    if at_once == 1:
        return answer("DeleteResult", "".join(map(one, wanted)))
    with ThreadPoolExecutor(at_once, initializer=VIA.set, initargs=(VIA.get(),)) as threads:
        return answer("DeleteResult", "".join(threads.map(one, wanted)))


def _told(call: Call, quiet: bool, node: xml.Node) -> str:
    """Delete an object; what is told of it. Raises NoSuchBucket: so there is none of the others, either."""
    name, version = node.need("Key"), node.get("VersionId") or ""
    place = xml.element("Key", name) + (xml.element("VersionId", version) if version else "")
    try:
        _delete(call, name, version, node)
    except NoSuchBucket:
        raise
    except (S3Error, S4Error) as error:
        told = error if isinstance(error, S3Error) else errors.of(error)
        return f"<Error>{place}{xml.element('Code', told.code)}{xml.element('Message', told.message)}</Error>"
    return "" if quiet else f"<Deleted>{place}</Deleted>"


def _delete(call: Call, name: str, version: str, node: xml.Node) -> None:
    if version not in ("", "null"):
        raise no_version(version)
    key = check_key(Key(call.key.bucket, name))
    asked = conditions.of_delete(node.get("ETag"), node.get("LastModifiedTime"), node.get("Size"))
    call.backend.delete(key, asked)
