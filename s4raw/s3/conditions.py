"""Conditions of requests: ETags and dates out of headers, as ``objects.base.Conditions``."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping

from s4raw.objects.base import ALWAYS, Conditions
from s4raw.s3.errors import S3Error
from s4raw.s3.headers import MONTHS

_MONTHS = {name: 1 + number for number, name in enumerate(MONTHS)}
# The three forms of RFC 9110, 5.6.7: Sun, 06 Nov 1994 08:49:37 GMT; Sunday, 06-Nov-94 08:49:37 GMT;
# Sun Nov  6 08:49:37 1994. And the one of XML: 1994-11-06T08:49:37.000Z
_FORMS = [
    re.compile(
        r"\w{3}, (?P<day>\d{1,2}) (?P<month>\w{3}) (?P<year>\d{4}) (?P<clock>\d\d:\d\d:\d\d) (?:GMT|UTC|[+-]0000)"
    ),
    re.compile(r"\w{6,9}, (?P<day>\d\d)-(?P<month>\w{3})-(?P<year>\d\d) (?P<clock>\d\d:\d\d:\d\d) GMT"),
    re.compile(r"\w{3} (?P<month>\w{3}) (?P<day>[ \d]\d) (?P<clock>\d\d:\d\d:\d\d) (?P<year>\d{4})"),
    re.compile(r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)T(?P<clock>\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)"),
]
_ETAG = re.compile(r'\s*(?:(?:W/)?"([^"]*)"|([^",\s]+))\s*(?:,|$)')


def seconds_of(text: str) -> int | None:
    """A date in one of HTTP's three forms, or XML's, in seconds since 1970; None for anything else."""
    for form in _FORMS:
        if found := form.fullmatch(text.strip()):
            month = _MONTHS.get(found["month"]) or (int(found["month"]) if found["month"].isdecimal() else 0)
            year = int(found["year"])
            if year < 100:
                year += 1900 if year >= 70 else 2000
            hours, minutes, seconds = map(int, found["clock"].split(":"))
            day = int(found["day"])
            if not (1 <= month <= 12 and 1 <= day <= 31 and hours < 24 and minutes < 60 and seconds <= 60):
                return None
            return calendar.timegm((year, month, day, hours, minutes, seconds))
    return None


def etags(text: str) -> list[str]:
    """The ETags of If-Match or If-None-Match without their quotes, which S3's clients may leave out; ``*`` is ``*``."""
    return [quoted or bare for quoted, bare in _ETAG.findall(text)]


def of(headers: Mapping[str, str], prefix: str = "") -> Conditions:
    """The conditions of a read, or with ``prefix`` those on the source of a copy. An unreadable date is no condition.

    RFC 9110, 13.1.3: "A recipient MUST ignore the If-Modified-Since header field if the received field value is not a
    valid HTTP-date".
    """
    match, none_match = headers.get(prefix + "if-match"), headers.get(prefix + "if-none-match")
    since, unmodified = headers.get(prefix + "if-modified-since"), headers.get(prefix + "if-unmodified-since")
    if match is None and none_match is None and since is None and unmodified is None:
        return ALWAYS
    return Conditions(
        if_match=None if match is None else etags(match),
        if_none_match=None if none_match is None else etags(none_match),
        if_modified_since=None if since is None else seconds_of(since),
        if_unmodified_since=None if unmodified is None else seconds_of(unmodified),
    )


def of_write(headers: Mapping[str, str]) -> Conditions:
    """The conditions of a write: ETags alone, as S3 has it."""
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is None and none_match is None:
        return ALWAYS
    return Conditions(
        if_match=None if match is None else etags(match),
        if_none_match=None if none_match is None else etags(none_match),
    )


def of_delete(etag: str | None, modified: str | None, size: str | None) -> Conditions:
    """The conditions of a delete, out of headers or of an element of DeleteObjects. Raises InvalidArgument."""
    if etag is None and modified is None and size is None:
        return ALWAYS
    seconds = None
    if modified is not None and (seconds := seconds_of(modified)) is None:
        raise S3Error("InvalidArgument", "The last modified time is not a date", ArgumentValue=modified)
    if size is not None and not (size.isascii() and size.isdecimal() and len(size) < 20):
        raise S3Error("InvalidArgument", "The size is not a number", ArgumentValue=size)
    return Conditions(
        if_match=None if etag is None else etags(etag),
        if_size=None if size is None else int(size),
        if_mtime=seconds,
    )
