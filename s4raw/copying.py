"""What ``cp`` copies where: from two arguments to pairs of a local path and a key. The rules are s4's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from s4raw.bulk import Item
from s4raw.client import Ring
from s4raw.errors import BadKey, LocalFileError, NoSuchKey, UsageError
from s4raw.files import PART, local_error
from s4raw.keys import SCHEME, Key, is_glob, parse_directory, parse_glob, parse_key, parse_prefix
from s4raw.selection import Keep, Selection, has_glob, keeper

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


def is_local_glob(path: str) -> bool:
    """Whether a local path is to be taken for a glob: it looks like one, and nothing has exactly that name."""
    return is_glob(path) and not os.path.lexists(path)


def is_many(ring: Ring, source: str, recursive: bool) -> bool:
    """Whether a source stands for all that lies below it, or matches it; a local file does not, even with ``-r``."""
    if is_remote(source):
        return recursive or has_glob(ring, source)
    return is_local_glob(source) or (recursive and (source == STDIO or not os.path.isfile(source)))


def split_local(source: str) -> tuple[str, str]:
    """A local source's directory, and its glob (empty if it is none)."""
    if not is_local_glob(source):
        return source, ""
    parts = source.split("/")
    first = next(index for index, part in enumerate(parts) if is_glob(part))
    return "/".join(parts[:first]) + "/" if first else ".", "/".join(parts[first:])


def local_files(top: str, keep: Keep) -> Iterator[tuple[str, str, int]]:
    """The files below a directory that are kept: path, path below the directory, size in bytes; in order.

    Symlinks are followed. What ``cp --resume`` keeps of a download is no file. Raises LocalFileError, not for what is
    not kept.
    """
    todo: list[tuple[str, str, frozenset[tuple[int, int]]]] = [("", top, frozenset())]
    while todo:
        relative, path, above = todo.pop()
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                if (status.st_dev, status.st_ino) in above:
                    continue  # a symlink back to a directory that it lies in
                above |= {(status.st_dev, status.st_ino)}
                for name in sorted(os.listdir(path), reverse=True):
                    todo.append((os.path.join(relative, name), os.path.join(path, name), above))
            elif not _is_meant(relative, path, keep):
                continue
            elif not stat.S_ISREG(status.st_mode):
                raise LocalFileError(f"{path} is neither a file nor a directory")
            else:
                yield path, relative, status.st_size
        except OSError as error:
            if isinstance(error, FileNotFoundError) and relative and not _is_meant(relative, path, keep):
                continue  # a symlink to nothing, or gone by now
            raise local_error(error, path) from None


def _is_meant(relative: str, path: str, keep: Keep) -> bool:
    return keep(relative or os.path.basename(path)) and not (relative and relative.endswith(PART))


def plan_upload(
    source: str, target: str, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[tuple[Item, int]]:
    """The files below a directory, or that match a glob, and pass the filters, with their keys and sizes in bytes.

    Raises LocalFileError, also for a glob that nothing matches, and BadKey.
    """
    (top, glob), found = split_local(source), False
    directory = parse_directory(target)
    for path, relative, size in local_files(top, keeper(include, exclude, glob)):
        found = True
        yield Item(key_for(directory, relative, path), path), size
    if glob and not found:
        raise LocalFileError(f"no file matches {source}")


def key_for(directory: Key, relative: str, path: str) -> Key:
    """The key below a directory that a file is stored as. Raises BadKey."""
    try:
        return parse_key(str(directory.join(relative)))
    except BadKey as error:
        raise BadKey(f"{path} cannot be stored: {error.message}") from None


def select(ring: Ring, source: str, include: Sequence[str], exclude: Sequence[str]) -> Selection:
    """The keys below a directory, or that match a glob, and pass the filters. Raises BadKey, UsageError."""
    directory, glob = parse_glob(source) if has_glob(ring, source) else (parse_directory(source), "")
    return Selection(directory, directory, keeper(include, exclude, glob))


def plan_download(
    ring: Ring, source: str, target: str, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[tuple[Item, int]]:
    """The keys of ``select`` with paths and sizes; ``.`` takes the name of a directory. Raises NoSuchKey, BadKey."""
    selection = select(ring, source, include, exclude)
    directory, found = selection.directory, False
    start = len(directory.name)
    if target == "." and parse_prefix(source).name.rstrip("/") == directory.name.rstrip("/"):  # a directory, no glob
        start = directory.name.rstrip("/").rfind("/") + 1
    for entry in selection.entries(ring):
        found = True
        key = Key(directory.bucket, entry.name)
        yield Item(key, os.path.join(target, local_name(key, start))), entry.size
    if not found:
        raise NoSuchKey(f"no keys below {source if is_glob(source) else directory}")


def plan_move(
    ring: Ring, source: str, target: str, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> Iterator[tuple[Key, Key, int]]:
    """The keys of ``select``, what they become below another directory, and their sizes. Raises NoSuchKey, BadKey."""
    selection, directory = select(ring, source, include, exclude), parse_directory(target)
    found = False
    for entry in list(selection.entries(ring)):  # all of them, before the first one moves
        found = True
        key = Key(selection.directory.bucket, entry.name)
        yield key, key_for(directory, entry.name[len(selection.directory.name) :], str(key)), entry.size
    if not found:
        raise NoSuchKey(f"no keys below {source if is_glob(source) else selection.directory}")


def local_name(key: Key, start: int) -> str:
    """A key's name, from a character on, as a path below a directory. Raises BadKey."""
    relative = key.name[start:]
    if {"", ".", ".."} & set(relative.split("/")) or relative.endswith(PART):
        raise BadKey(
            f"a key with empty, '.' or '..' parts, or one that ends in {PART!r}, has no local path", key=str(key)
        )
    return relative
