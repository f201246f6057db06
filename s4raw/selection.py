"""Which keys an argument names: itself, what matches its glob, what lies below it; ``--include`` and ``--exclude``.

Globs are those of ``fnmatch``, as in map calls: ``*`` and ``?`` match ``/`` too, ``[*]`` is a ``*`` itself. They are
matched with the whole path below a directory. As in s5cmd, a path is meant if it matches any of the globs to include
(or there are none) and none of those to exclude, in whatever order they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from s4raw.client import Ring
from s4raw.errors import BadKey, NoSuchKey, UsageError
from s4raw.keys import Entry, Key, is_glob, parse_directory, parse_glob, parse_key, parse_prefix
from s4raw.record import NamedTuple

Keep = Callable[[str], bool]  # is a path below the directory meant?


def everything(_path: str) -> bool:
    """No filter at all."""
    return True


def keeper(include: Sequence[str] = (), exclude: Sequence[str] = (), glob: str = "") -> Keep:
    """A filter of paths: what matches the glob and any of ``include``, if they are given, and none of ``exclude``."""
    needed = [_matcher(globs) for globs in ([glob] if glob else [], include) if globs]
    refused = _matcher(exclude) if exclude else None
    if not needed and not refused:
        return everything
    return lambda path: all(match(path) for match in needed) and not (refused and refused(path))


def _matcher(globs: Sequence[str]) -> Callable[[str], object]:
    import re
    from fnmatch import translate

    return re.compile("|".join(map(translate, globs))).match


class Selection(NamedTuple):
    """Keys that were asked for: those of ``directory`` whose path below it is kept; ``prefix`` is where to look."""

    prefix: Key
    directory: Key
    keep: Keep

    def entries(self, ring: Ring) -> Iterator[Entry]:
        """The entries of the keys, in order of their names."""
        cut = len(self.directory.name)
        for entry in ring.list(self.prefix, recursive=True):
            if self.keep(entry.name[cut:]):
                yield entry

    def keys(self, ring: Ring) -> Iterator[Key]:
        """The keys, in order of their names."""
        return (Key(self.prefix.bucket, entry.name) for entry in self.entries(ring))


def _exists(ring: Ring, text: str) -> bool:
    """Whether a key or a directory has exactly this name."""
    try:
        ring.stat(parse_key(text))
    except (BadKey, NoSuchKey):
        return any(True for _ in ring.list(parse_directory(text)))
    return True


def has_glob(ring: Ring, text: str) -> bool:
    """Whether an argument is to be taken for a glob: it looks like one, and nothing has exactly that name."""
    return is_glob(text) and not _exists(ring, text)


def below(ring: Ring, text: str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Selection:
    """Every key that begins with a prefix, or matches a glob, and passes the filters. Raises BadKey, UsageError.

    With filters a prefix has to be a directory: their globs are matched with the path below it, and of ``s4://b/data``
    nobody can tell whether that begins before or after ``data/``.
    """
    if has_glob(ring, text):
        directory, glob = parse_glob(text)
        return Selection(directory, directory, keeper(include, exclude, glob))
    prefix = parse_prefix(text)
    if not prefix.bucket:
        raise UsageError(f"need a bucket, as in s4://bucket/dir/, got {text!r}")
    if (include or exclude) and prefix.name and not prefix.name.endswith("/"):
        raise UsageError(f"--include and --exclude need a directory: end {text} with /")
    directory = Key(prefix.bucket, prefix.name[: prefix.name.rfind("/") + 1])
    return Selection(prefix, directory, keeper(include, exclude))


def named(ring: Ring, texts: Iterable[str]) -> Iterator[tuple[Key, Entry | None]]:
    """The keys that arguments name, in order, each a key or a glob; with its entry where a listing gave it.

    Raises BadKey, UsageError, and NoSuchKey for a glob that nothing matches.
    """
    for text in texts:
        if not has_glob(ring, text):
            yield parse_key(text), None
            continue
        directory, glob = parse_glob(text)
        selection, found = Selection(directory, directory, keeper(glob=glob)), False
        for entry in selection.entries(ring):
            found = True
            yield Key(selection.prefix.bucket, entry.name), entry
        if not found:
            raise NoSuchKey(f"no key matches {text}")
