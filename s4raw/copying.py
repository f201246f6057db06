"""What ``cp`` copies where: from two arguments to pairs of a local path and a key. The rules are s4's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from s4raw.bulk import Item
from s4raw.client import Ring
from s4raw.errors import BadKey, LocalFileError, NoSuchKey, UsageError
from s4raw.files import PART, local_error
from s4raw.keys import SCHEME, Key, parse_directory, parse_key, parse_prefix

STDIO = "-"


def is_remote(path: str) -> bool:
    """Whether a path is one of the ring's."""
    return path.startswith(SCHEME)


def upload_key(source: str, target: str) -> Key:
    """The key of a single upload: ``dir/`` and a bare bucket take the file's name. Raises BadKey, UsageError."""
    prefix = parse_prefix(target)
    if prefix.bucket and (not prefix.name or prefix.name.endswith("/")):
        name = os.path.basename(source)
        if source == STDIO or not name:
            raise UsageError(f"{target} is a directory, and {source!r} has no name to take: say the whole key")
        return parse_key(str(prefix.join(name)))
    return parse_key(target)


def download_path(key: Key, target: str) -> str:
    """The path of a single download: ``.`` and ``dir/`` (also an existing ``dir``) take the key's name."""
    if target.endswith("/") or os.path.isdir(target):
        return os.path.join(target, key.basename) if target != "." else key.basename
    return target


def plan_upload(source: str, target: str) -> Iterator[tuple[Item, int]]:
    """The files below a directory (symlinks are followed) with their keys and sizes. Raises LocalFileError, BadKey."""
    directory = parse_directory(target)
    for path, relative, size in _files(source):
        try:
            yield Item(parse_key(str(directory.join(relative))), path), size
        except BadKey as error:
            raise BadKey(f"{path} cannot be stored: {error.message}") from None


def _files(top: str) -> Iterator[tuple[str, str, int]]:
    """Every file below ``top``: its path, its path below ``top``, its size; in order of their names."""
    todo: list[tuple[str, str, frozenset[tuple[int, int]]]] = [("", top, frozenset())]
    while todo:
        relative, path, above = todo.pop()
        try:
            status = os.stat(path)
            if stat.S_ISREG(status.st_mode):
                yield path, relative, status.st_size
                continue
            if not stat.S_ISDIR(status.st_mode):
                raise LocalFileError(f"{path} is neither a file nor a directory")
            if (status.st_dev, status.st_ino) in above:
                continue  # a symlink back to a directory that it lies in
            above |= {(status.st_dev, status.st_ino)}
            for name in sorted(os.listdir(path), reverse=True):
                todo.append((os.path.join(relative, name), os.path.join(path, name), above))
        except OSError as error:
            raise local_error(error, path) from None


def plan_download(ring: Ring, source: str, target: str) -> Iterator[tuple[Item, int]]:
    """The keys below a directory with paths and sizes; ``.`` takes the directory's name. Raises NoSuchKey, BadKey."""
    directory = parse_directory(source)
    start = len(directory.name)
    if target == ".":
        start = directory.name.rstrip("/").rfind("/") + 1
    found = False
    for entry in ring.list(directory, recursive=True):
        found = True
        relative = entry.name[start:]
        if {"", ".", ".."} & set(relative.split("/")) or relative.endswith(PART):
            key = f"{SCHEME}{directory.bucket}/{entry.name}"
            raise BadKey(
                f"a key with empty, '.' or '..' parts, or one that ends in {PART!r}, has no local path", key=key
            )
        yield Item(Key(directory.bucket, entry.name), os.path.join(target, relative)), entry.size
    if not found:
        raise NoSuchKey(f"no keys below {directory}")
