"""What tests of backends share: bodies, reading back, uploads, and listings as they must be."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence

from s4raw.keys import Key
from s4raw.objects.base import (
    ALWAYS,
    Attributes,
    Backend,
    Conditions,
    Info,
    Listed,
    Page,
    Part,
    Query,
    Range,
)

KEY = Key("bucket", "dir/key")


def etag_of(content: bytes) -> str:
    """The ETag of a plain put."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


class Body:
    """A Source with a known content, which sees to it that its reader keeps the rules.

    Its pieces lie in one buffer, overwritten for each next one. ``breaks`` is raised in place of the piece at
    ``breaks_at``, ``denies`` by ``seal``; ``between`` is called before each piece, and before the end.
    """

    def __init__(
        self,
        content: bytes,
        attributes: Attributes | None = None,
        *,
        sized: bool = True,
        piece: int = 1 << 18,
        breaks: Exception | None = None,
        breaks_at: int = 0,
        denies: Exception | None = None,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self.size = len(content) if sized else None
        self.content, self.piece = content, piece
        self.attributes = self.known = Attributes(etag_of(content)) if attributes is None else attributes
        self.breaks, self.breaks_at, self.denies, self.between = breaks, breaks_at, denies, between
        self.asked = self.ended = False
        self.seals = 0

    def __iter__(self) -> Iterator[memoryview]:
        assert not self.asked, "a body is read once"
        self.asked = True
        buffer = bytearray(min(self.piece, len(self.content)))
        for start in range(0, len(self.content), self.piece):
            self.between()
            if self.breaks and start >= self.breaks_at:
                raise self.breaks
            part = self.content[start : start + self.piece]
            buffer[: len(part)] = part
            yield memoryview(buffer)[: len(part)]
            buffer[:] = b"\xff" * len(buffer)
        self.between()
        if self.breaks:
            raise self.breaks
        self.ended = True

    def seal(self) -> Attributes:
        assert self.ended, "sealed before the last piece was taken"
        self.seals += 1
        assert self.seals == 1, "sealed twice"
        if self.denies:
            raise self.denies
        return self.attributes


def put(
    backend: Backend, key: Key, content: bytes = b"", conditions: Conditions = ALWAYS, **attributes: object
) -> Info:
    """Store bytes, with the ETag of a plain put and these attributes."""
    return backend.put(key, Body(content, Attributes(**{"etag": etag_of(content), **attributes})), conditions)


def read(backend: Backend, key: Key, wanted: Range | None = None, conditions: Conditions = ALWAYS) -> bytes:
    """The bytes of an object or of a range of it, which a file must agree with."""
    with backend.get(key, wanted, conditions) as reading:
        content = b"".join(bytes(piece) for piece in reading.pieces())
        assert len(content) == reading.end - reading.start
        assert wanted or (reading.start, reading.end) == (0, reading.info.size)
        if (fd := reading.file()) is not None:
            assert os.pread(fd, len(content) + 1, reading.start)[: len(content)] == content
        return content


def begin(backend: Backend, key: Key, contents: Sequence[bytes] = (), **attributes: object) -> tuple[str, list[Part]]:
    """An upload's id and its parts, numbered from 1."""
    upload = backend.create_upload(key, Attributes(**attributes))
    return upload, [backend.put_part(key, upload, at, Body(content)) for at, content in enumerate(contents, 1)]


def whole(parts: Sequence[Part], **attributes: object) -> Attributes:
    """The attributes of an object made of parts."""
    etags = b"".join(bytes.fromhex(part.etag) for part in parts)
    return Attributes(**{"etag": f"{etag_of(etags)}-{len(parts)}", "parts": tuple(parts), **attributes})


def plain(attributes: Attributes) -> Attributes:
    """Attributes that compare by value, with what an object keeps of its parts."""
    return Attributes(
        attributes.etag,
        dict(attributes.headers),
        dict(attributes.metadata),
        dict(attributes.tags),
        dict(attributes.checksums),
        attributes.checksum_type,
        [Part(part.number, part.size, checksums=dict(part.checksums)) for part in attributes.parts],
    )


def lines(page: Page) -> tuple[list[Listed], bool]:
    """A page that compares by value, without times."""
    entries = [entry._replace(mtime_ns=0, checksums=sorted(entry.checksums)) for entry in page.entries]
    return entries, page.truncated


def names(page: Page) -> list[str]:
    """The names on a page, of objects and common prefixes."""
    return [entry.name for entry in page.entries]


def rolled(all_names: Sequence[str], query: Query) -> list[tuple[str, bool]]:
    """What a query without a limit must list, and which of it are common prefixes: from the definition, not fast."""
    found = set()
    for name in all_names:
        if not name.startswith(query.prefix):
            continue
        head, delimiter, _ = name[len(query.prefix) :].partition(query.delimiter or "\0")
        if delimiter:
            found.add((query.prefix + head + delimiter, True))
        else:
            found.add((name, False))
    listed = {
        (name, is_prefix)
        for name, is_prefix in found
        if name.encode() > query.after.encode() and not (is_prefix and query.after.startswith(name))
    }
    return sorted(listed, key=lambda entry: entry[0].encode())


def expected(all_names: Sequence[str], query: Query) -> tuple[list[tuple[str, bool]], bool]:
    """The page that a query must give."""
    listed = rolled(all_names, query)
    return listed[: query.limit], 0 < query.limit < len(listed)


def shown(page: Page) -> tuple[list[tuple[str, bool]], bool]:
    """A page as ``expected`` gives it."""
    return [(entry.name, entry.is_prefix) for entry in page.entries], page.truncated
