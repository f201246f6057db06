"""Reads multipart/form-data as it comes in: small fields first, then one file, of any size, in pieces.

Bytes in, fields out: it knows nothing of S3's fields but that ``file`` is the last one (RFC 7578; what browsers send:
the HTML standard, "Multipart form data").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote

from s4raw.s3.errors import S3Error

MAX_FIELDS = 20 << 10  # bytes of all that stands before the file's (Amazon S3 API Reference, "POST Object")
_END_OF_HEAD = b"\r\n\r\n"
_BOUNDARY = re.compile(r'(?:^|;)\s*boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))\s*(?=;|$)', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:\\"|[^"])*)"|([^;\s]*))')


class Field(NamedTuple):
    """A field of a form: its name as sent, and its value; for the file its name, and no value."""

    name: str
    value: str = ""
    filename: str = ""


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type of multipart/form-data names. Raises RequestIsNotMultiPartContent.

    It has 1 to 70 characters (RFC 2046, 5.1.1).
    """
    kind, _, parameters = content_type.partition(";")
    match = _BOUNDARY.search(parameters)
    if kind.strip().lower() != "multipart/form-data" or match is None:
        raise S3Error("RequestIsNotMultiPartContent")
    return (match[1] or match[2]).encode("latin-1", "replace")


class Form:
    """A form that is being received: read ``fields`` to its end, then ``file``, then ``drain``.

    ``filename`` is the name that came with the file, empty if none did. The pieces that it is given are used up before
    the next one is asked for.
    """

    def __init__(self, pieces: Iterable[memoryview], boundary: bytes) -> None:
        self.filename = ""
        self._pieces = iter(pieces)
        self._delimiter = b"\r\n--" + boundary
        self._buffer = b"\r\n"  # so that the first boundary looks like the others
        self._at = 0  # of the buffer, what was read
        self._taken = 0

    def fields(self) -> Iterator[Field]:
        """The fields before the file, in order; ends where the file's bytes begin.

        Raises MalformedPOSTRequest, MaxPostPreDataLengthExceededError, and where there is no file
        IncorrectNumberOfFilesInPostRequest.
        """
        self._until(self._delimiter)  # what stands before the first boundary means nothing
        while not self._last():
            field = _field(self._until(_END_OF_HEAD))
            if field.name.lower() == "file":
                self.filename = field.filename
                return
            yield field._replace(value=_text(self._until(self._delimiter)))
        raise S3Error("IncorrectNumberOfFilesInPostRequest")

    def file(self) -> Iterator[memoryview]:
        """The bytes of the file. Raises MalformedPOSTRequest when the body ends in the middle of it."""
        delimiter = self._delimiter
        kept = len(delimiter) - 1
        data = self._buffer[self._at :]
        while (end := data.find(delimiter)) < 0:
            if len(data) > kept:
                yield memoryview(data)[:-kept]
                data = data[-kept:]
            piece = next(self._pieces, None)
            if piece is None:
                raise _malformed()
            data += piece
        if end:
            yield memoryview(data)[:end]

    def drain(self) -> None:
        """Read to the end of the body: fields after the file are ignored, as S3 does."""
        for _ in self._pieces:
            pass

    def _last(self) -> bool:
        """Whether the boundary that was just read ends the form; if not, its line is read up to its CR LF."""
        while len(self._buffer) - self._at < 2:
            self._more()
        if self._buffer.startswith(b"--", self._at):
            return True
        if self._until(b"\r\n").strip(b" \t"):  # blanks may stand behind a boundary (RFC 2046, 5.1.1)
            raise _malformed()
        self._at -= 2  # a head's last line ends so, and it may have no line
        return False

    def _until(self, mark: bytes) -> bytes:
        """What stands before a mark, which is read too."""
        while (end := self._buffer.find(mark, self._at)) < 0:
            self._more()
        found = self._buffer[self._at : end]
        self._at = end + len(mark)
        if self._taken + self._at > MAX_FIELDS:
            raise S3Error("MaxPostPreDataLengthExceededError")
        return found

    def _more(self) -> None:
        if self._taken + len(self._buffer) > MAX_FIELDS:
            raise S3Error("MaxPostPreDataLengthExceededError")
        piece = next(self._pieces, None)
        if piece is None:
            raise _malformed()
        self._taken += self._at
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0


def _field(head: bytes) -> Field:
    """The field whose head this is: lines that begin with CR LF."""
    for line in _text(head).split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            found = {match[1].lower(): _unquoted(match) for match in _PARAMETER.finditer(value)}
            if "name" in found:
                return Field(found["name"], filename=_extended(found) or found.get("filename", ""))
    raise _malformed()


def _unquoted(match: re.Match[str]) -> str:
    """A parameter's value. Browsers write quotes and line ends in it as %22, %0D, %0A, others escape quotes by \\."""
    value = match[2] if match[2] is not None else match[3]
    return value.replace('\\"', '"').replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


def _extended(parameters: dict[str, str]) -> str:
    """``filename*=UTF-8''%e2%82%ac`` (RFC 5987), which some clients send; empty if there is none."""
    charset, _, rest = parameters.get("filename*", "").partition("'")
    return unquote(rest.partition("'")[2]) if charset.lower() == "utf-8" else ""


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _malformed() from None


def _malformed() -> S3Error:
    return S3Error("MalformedPOSTRequest")
