"""Objects' attributes and conditions as the headers of S3 have them, there and back.

Header values are texts of which each character is a byte, as HTTP has them (Latin-1). Metadata goes through as these
bytes; what S3 itself turns into RFC 2047 words comes back as such.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import quote

from s4raw.errors import UsageError
from s4raw.objects.base import Attributes, Conditions, Info, Part
from s4raw.s3.conditions import seconds_of
from s4raw.s3.headers import DEFAULT_TYPE, META, SYSTEM, date

CHECKSUM = "x-amz-checksum-"
ALGORITHMS = ("CRC64NVME", "CRC32C", "CRC32", "SHA256", "SHA1")
_MD5 = re.compile("[0-9a-f]{32}").fullmatch
_TOKEN = re.compile("[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_PARTS = re.compile("[^-]+-([0-9]{1,5})").fullmatch


def octets(value: str) -> str:
    """A value each of whose characters is a byte: what has others is taken as UTF-8."""
    try:
        value.encode("latin-1")
        return value
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")


def kept(attributes: Attributes) -> dict[str, str]:
    """The headers that have an object keep its system headers, metadata and tags. Raises UsageError."""
    found = {name: octets(value) for name, value in attributes.headers.items() if value and name in SYSTEM}
    for name, value in attributes.metadata.items():
        lower = name.lower()
        if not _TOKEN(lower):
            raise UsageError(f"this cannot be the name of metadata: {name!r}")
        found[META + lower] = octets(value)
    if attributes.tags:
        found["x-amz-tagging"] = tag_text(attributes.tags)
    return found


def tag_text(tags: Mapping[str, str]) -> str:
    """Tags as a header has them."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags.items())


def checked(attributes: Attributes) -> dict[str, str]:
    """The headers that have the server compare a whole body with what is known of it: MD5, and one checksum."""
    found = {}
    if _MD5(attributes.etag):
        found["content-md5"] = b64encode(bytes.fromhex(attributes.etag)).decode()
    for name, value in attributes.checksums.items():
        if "-" not in value:
            found[CHECKSUM + name.lower()] = value
            break
    return found


def is_md5(etag: str) -> bool:
    """Whether an ETag is that of an object which was put as a whole."""
    return _MD5(etag) is not None


def checksums_of(headers: Mapping[str, str]) -> dict[str, str]:
    """The checksums that an answer names, by algorithm."""
    return {name: headers[header] for name in ALGORITHMS if (header := CHECKSUM + name.lower()) in headers}


def etag_of(headers: Mapping[str, str]) -> str:
    """The ETag of an answer without its quotes."""
    return headers.get("etag", "").removeprefix("W/").strip('"')


def stored(attributes: Attributes, headers: Mapping[str, str]) -> Attributes:
    """The attributes of an object that was sent with some, once the answer says what the server made of it."""
    found = checksums_of(headers) or {name: value for name, value in attributes.checksums.items() if "-" not in value}
    kind = headers.get(CHECKSUM + "type", "FULL_OBJECT") if found else ""
    return attributes._replace(etag=etag_of(headers) or attributes.etag, checksums=found, checksum_type=kind)


class LazyTags(Mapping[str, str]):
    """Tags of which an answer told only the number, or (None) nothing; they are asked for when they are looked at."""

    def __init__(self, count: int | None, fetch: Callable[[], Mapping[str, str]]) -> None:
        self._count = count
        self._fetch = fetch
        self._found: Mapping[str, str] | None = None

    def _all(self) -> Mapping[str, str]:
        if self._found is None:
            self._found = self._fetch()
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all()) if self._found is not None or self._count is None else self._count

    def __repr__(self) -> str:
        return repr(dict(self._all()))


class LazyParts(Sequence[Part]):
    """The parts of an object, of which an answer told only the number; they are asked for when they are looked at."""

    def __init__(self, count: int, fetch: Callable[[], Sequence[Part]]) -> None:
        self._count = count
        self._fetch = fetch
        self._found: Sequence[Part] | None = None

    def _all(self) -> Sequence[Part]:
        if self._found is None:
            self._found = self._fetch()
        return self._found

    def __getitem__(self, at):  # type: ignore[no-untyped-def]  # an index or a slice
        return self._all()[at]

    def __len__(self) -> int:
        return self._count if self._found is None else len(self._found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self._all()] == [*other]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr([*self._all()])


def info_of(
    headers: Mapping[str, str],
    size: int,
    tags: Callable[[], Mapping[str, str]],
    parts: Callable[[int, str], Sequence[Part]],
) -> Info:
    """The object that an answer to GET or HEAD describes; ``tags`` and ``parts`` ask for more, where there is more."""
    system: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for name, value in headers.items():
        if name in SYSTEM:
            system[name] = value
        elif name.startswith(META):
            metadata[name[len(META) :]] = value
    if system.get("content-type") == DEFAULT_TYPE:
        del system["content-type"]  # what S3 says of an object without one
    if system.get("x-amz-storage-class") == "STANDARD":
        del system["x-amz-storage-class"]
    etag, tag_count = etag_of(headers), headers.get("x-amz-tagging-count", "0")
    found = checksums_of(headers)
    seconds = seconds_of(headers.get("last-modified", "")) or 0
    many = _PARTS(etag)
    return Info(
        size,
        seconds * 1_000_000_000,
        Attributes(
            etag,
            system,
            metadata,
            LazyTags(int(tag_count), tags) if tag_count.isdecimal() and tag_count != "0" else {},
            found,
            headers.get(CHECKSUM + "type", "FULL_OBJECT") if found else "",
            LazyParts(int(many[1]), lambda: parts(int(many[1]), etag)) if many else (),
        ),
    )


def etag_list(etags: Sequence[str]) -> str:
    """ETags as If-Match has them."""
    return ", ".join("*" if etag == "*" else f'"{etag}"' for etag in etags)


def read_conditions(conditions: Conditions, prefix: str = "") -> tuple[dict[str, str], Conditions | None]:
    """The headers that ask a server to look at the conditions of a read (with ``prefix``: of a copy's source).

    And those conditions that no header can say, None if there are none.
    """
    found = {}
    if conditions.if_match:
        found[prefix + "if-match"] = etag_list(conditions.if_match)
    if conditions.if_none_match:
        found[prefix + "if-none-match"] = etag_list(conditions.if_none_match)
    if conditions.if_modified_since is not None:
        found[prefix + "if-modified-since"] = date(conditions.if_modified_since)
    if conditions.if_unmodified_since is not None:
        found[prefix + "if-unmodified-since"] = date(conditions.if_unmodified_since)
    rest = conditions._replace(if_modified_since=None, if_unmodified_since=None)
    return found, _unsaid(rest, conditions)


def write_conditions(conditions: Conditions) -> tuple[dict[str, str], Conditions | None]:
    """The same for a write: S3 knows ETags alone."""
    found = {}
    if conditions.if_match:
        found["if-match"] = etag_list(conditions.if_match)
    if conditions.if_none_match:
        found["if-none-match"] = etag_list(conditions.if_none_match)
    return found, _unsaid(conditions, conditions)


def delete_conditions(conditions: Conditions) -> tuple[dict[str, str], Conditions | None]:
    """The same for a delete."""
    found = {}
    if conditions.if_match:
        found["if-match"] = etag_list(conditions.if_match)
    if conditions.if_size is not None:
        found["x-amz-if-match-size"] = str(conditions.if_size)
    if conditions.if_mtime is not None:
        found["x-amz-if-match-last-modified-time"] = date(conditions.if_mtime)
    said = conditions._replace(if_size=None, if_mtime=None)
    plain = conditions.if_none_match is None
    return found, _unsaid(said, conditions) if plain else conditions


def _unsaid(rest: Conditions, whole: Conditions) -> Conditions | None:
    """All of the conditions if a header cannot say one of the rest: a list of no ETags, a time, a size."""
    times = (rest.if_modified_since, rest.if_unmodified_since, rest.if_size, rest.if_mtime)
    empty = [] in (rest.if_match, rest.if_none_match) or () in (rest.if_match, rest.if_none_match)
    return whole if empty or any(value is not None for value in times) else None
