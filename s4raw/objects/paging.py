"""Pages of listings, from names in order: what backends share of prefixes, delimiters, markers and limits.

Knows no bucket and no disk. Names are texts and compare as texts, which is the order of their UTF-8 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from s4raw.objects.base import Info, Listed, Page, Query, Upload, UploadPage

_LAST = "\U0010ffff"


def roll_up(seek: Callable[[str], Iterator[str]], describe: Callable[[str], Listed | None], query: Query) -> Page:
    """The page that a query asks for.

    ``seek(start)`` gives the names from ``start`` (included) on, in order. It is called once to begin with, and again
    behind each common prefix, with ``start`` ever higher, so that a backend can skip what the prefix covers; it may
    give the same iterator each time, moved on. ``describe(name)`` gives an object's line, None if it has gone by now:
    it is called for what the page shows, and for one more.
    """
    entries: list[Listed] = []
    start = first(query)
    if query.limit <= 0 or start is None:
        return Page(entries, False)
    prefix, delimiter, limit = query.prefix, query.delimiter, query.limit
    behind = len(prefix)
    while True:
        for name in seek(start):
            if not name.startswith(prefix):
                return Page(entries, False)
            if delimiter and (at := name.find(delimiter, behind)) >= 0:
                if len(entries) == limit:
                    return Page(entries, True)
                common = name[: at + len(delimiter)]
                entries.append(Listed(common, is_prefix=True))
                start = successor(common)
                break
            if (found := describe(name)) is not None:
                if len(entries) == limit:
                    return Page(entries, True)
                entries.append(found)
        else:
            return Page(entries, False)
        if start is None:
            return Page(entries, False)


def listed(name: str, info: Info) -> Listed:
    """The line of an object."""
    attributes = info.attributes
    return Listed(
        name, info.size, info.mtime_ns, attributes.etag, sorted(attributes.checksums), attributes.checksum_type
    )


def first(query: Query) -> str | None:
    """The lowest name that a query could list; None if there is none."""
    after, prefix = query.after, query.prefix
    if after < prefix:
        return prefix
    if query.delimiter and (common := common_prefix(after, query)):
        return successor(common)
    return after + "\0" if after else prefix


def common_prefix(name: str, query: Query) -> str:
    """The common prefix that a query rolls a name up into; empty if it stands for itself, or is not asked for."""
    if not query.delimiter or not name.startswith(query.prefix):
        return ""
    at = name.find(query.delimiter, len(query.prefix))
    return name[: at + len(query.delimiter)] if at >= 0 else ""


def successor(prefix: str) -> str | None:
    """The lowest text above all that begin with ``prefix``; None if there is none, as after an empty one."""
    kept = prefix.rstrip(_LAST)
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # UTF-8 has no surrogates


def merge(pages: Iterable[Page], limit: int) -> Page:
    """One page of several that answer the same query, each up to ``limit``; common prefixes may be in many of them."""
    if limit <= 0:
        return Page([], False)
    entries: dict[str, Listed] = {}
    truncated = False
    for page in pages:
        truncated = truncated or page.truncated
        for entry in page.entries:
            entries[entry.name] = entry
    names = sorted(entries)
    return Page([entries[name] for name in names[:limit]], truncated or len(names) > limit)


def merge_uploads(pages: Iterable[UploadPage], limit: int) -> UploadPage:
    """One page of several that answer the same query about different uploads, each up to ``limit``."""
    if limit <= 0:
        return UploadPage([], [], False)
    pages = list(pages)
    found: dict[tuple[str, str], Upload | None] = {(prefix, ""): None for page in pages for prefix in page.prefixes}
    found |= {(upload.key.name, upload.id): upload for page in pages for upload in page.uploads}
    kept = [(name, found[name, upload]) for name, upload in sorted(found)][:limit]
    return UploadPage(
        [upload for _, upload in kept if upload is not None],
        [name for name, upload in kept if upload is None],
        len(found) > limit or any(page.truncated for page in pages),
    )


def roll_up_uploads(uploads: Iterable[Upload], query: Query, after_upload: str = "") -> UploadPage:
    """The page of uploads that a query asks for. ``uploads`` are those of the bucket, by key and then by id."""
    found: list[Upload] = []
    prefixes: list[str] = []
    if query.limit <= 0:
        return UploadPage(found, prefixes, False)
    start = first(query)
    for upload in uploads:
        name = upload.key.name
        again = bool(after_upload) and name == query.after and upload.id > after_upload
        if not name.startswith(query.prefix) or not (again or (start is not None and name >= start)):
            continue
        common = common_prefix(name, query)
        if common and (again or common in prefixes[-1:]):
            continue
        if len(found) + len(prefixes) == query.limit:
            return UploadPage(found, prefixes, True)
        if common:
            prefixes.append(common)
        else:
            found.append(upload)
    return UploadPage(found, prefixes, False)
