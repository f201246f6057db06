"""Names on disk: which file below a bucket's directory keeps a key, and back again.

An ordinary key is its own path. A name that begins with ``%`` is one that a file system could not say:

    %            an empty part, as between the slashes of ``a//b`` or after the last of ``trail/``
    %.  %..      the parts ``.`` and ``..``
    %%...        a part that begins with ``%`` itself
    %+...        the first 240 bytes or less of a part that is too long for one name; the rest lies in this directory
    %-...        the last piece of such a part
    %=           a key that is named like the directory it lies in: the key ``a`` beside the key ``a/b``
"""

from __future__ import annotations

import re

from s4raw.keys import MAX_NAME_BYTES

PIECE_BYTES = 240
_ORDINARY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")  # nothing to escape
SELF = "%="  # the file of the key that has its directory's name


def to_path(bucket: str, key_name: str) -> str | None:
    """The path of a key below the data directory, if it is so ordinary that no rule needs a look; else None."""
    path = f"{bucket}/{key_name}"
    if len(path) > MAX_NAME_BYTES or "/" in bucket or not _ORDINARY.fullmatch(path):
        return None
    return path


def to_names(key_name: str) -> list[str]:
    """The path of a key below its bucket: directories, then the file."""
    names: list[str] = []
    for part in key_name.split("/"):
        names.extend(_encode(part))
    return names


def _encode(part: str) -> list[str]:
    escaped = "%" + part if part in ("", ".", "..") or part.startswith("%") else part
    if len(escaped.encode()) <= MAX_NAME_BYTES:
        return [escaped]
    pieces = _pieces(part)
    return [f"%+{piece}" for piece in pieces[:-1]] + [f"%-{pieces[-1]}"]


def _pieces(part: str) -> list[str]:
    pieces, piece, size = [], "", 0
    for character in part:
        width = len(character.encode())
        if size + width > PIECE_BYTES:
            pieces.append(piece)
            piece, size = "", 0
        piece += character
        size += width
    return [*pieces, piece]


def directory_prefix(name: str) -> str:
    """What a directory's name contributes to the keys in it: ``dir`` gives ``dir/``."""
    return name[2:] if name.startswith("%+") else decode(name) + "/"


def decode(name: str) -> str:
    """What a file's name contributes to its key: ``file`` gives ``file``, ``%..`` gives ``..``."""
    if not name.startswith("%"):
        return name
    return name[2:] if name.startswith("%-") else name[1:]
