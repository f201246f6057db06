"""The verb that moves: mv."""

from __future__ import annotations

import os

from s4raw import bulk
from s4raw.arguments import COMMON, FILTERS, GLOBS, Arguments, Verb
from s4raw.client import Ring
from s4raw.copying import (
    STDIO,
    download_path,
    is_many,
    is_remote,
    plan_download,
    plan_move,
    plan_upload,
    split_local,
    upload_key,
)
from s4raw.errors import LocalFileError, UsageError
from s4raw.files import lies_below, local_error
from s4raw.keys import Key, parse_key
from s4raw.moving import move
from s4raw.output import write_json
from s4raw.pipeline import remove_all, stat_all
from s4raw.progress import ProgressLine

USAGE = {
    "mv": f"""\
Move a key or a file: from one key to another, from a file to a key, or from a key to a file; with -r a tree.

Usage: s4raw mv [-r] [--include GLOB]... [--exclude GLOB]... [-q] [--json] [-c FILE] [--] SRC DST

Names are made as in cp. From key to key it is a rename where both are placed on one server (by their basenames), else
a copy that is verified, and a delete. A source is deleted when its target is whole. A key that exists is not replaced;
a local file is. Directories that become empty stay. A tree with a symlink to a directory is refused: files elsewhere
would be deleted through it.

If SRC is a glob, DST is a directory: "mv 's4://b/x/*_1' s4://b/y/" makes y/<paths below x/>.
{GLOBS}
Options:
  -r, --recursive    move all that is below a directory
{FILTERS}  -q, --quiet        no progress line
  --json             print a line of JSON for each file
{COMMON}""",
}


class _Mover:
    """Moves, and says so."""

    def __init__(self, ring: Ring, line: ProgressLine, json: bool) -> None:
        self._ring = ring
        self._line = line
        self._json = json

    def _tell(self, source: str, target: str) -> None:
        if self._json:
            write_json(verb="mv", source=source, target=target)

    def rename(self, pairs: list[tuple[Key, Key, int]]) -> None:
        """From key to key; sizes in bytes."""
        self._line.update(0, sum(size for _, _, size in pairs))
        for source, target, size in pairs:
            move(self._ring, source, target)
            self._line.add(size)
            self._tell(str(source), str(target))

    def upload(self, items: list[bulk.Item]) -> None:
        """From files to keys. Raises LocalFileError for a file that changed meanwhile: it stays."""
        before = {item.file: _version(str(item.file)) for item in items}

        def done(item: bulk.Item, size: int) -> None:
            path = str(item.file)
            if _version(path) != before[item.file]:
                raise LocalFileError(f"{path} changed while it was copied to {item.key}: it was not deleted")
            try:
                os.unlink(path)
            except OSError as error:
                raise local_error(error, path) from None
            self._line.add(size)
            self._tell(path, str(item.key))

        self._line.update(0, sum(size for _, size, _ in before.values()))
        if len(items) == 1:  # over several connections, if it is large
            [item] = items
            done(item, self._ring.put_file(item.key, str(item.file)))
        else:
            bulk.transfer(self._ring, items, done, upload=True)

    def download(self, items: list[bulk.Item]) -> None:
        """From keys to files. What came down before an error is deleted from the ring all the same.

        Deleted is the content that was there when this began: a key put again meanwhile stays. Raises KeyChanged.
        """
        came: dict[Key, str] = {}
        digests = {key: found.digest for key, found in stat_all(self._ring.pool, [item.key for item in items]).items()}

        def done(item: bulk.Item, size: int) -> None:
            came[item.key] = str(item.file)
            self._line.add(size)

        try:
            if len(items) == 1:
                [item] = items
                done(item, self._ring.get_file(item.key, str(item.file)))
            else:
                bulk.transfer(self._ring, items, done, upload=False)
        finally:
            remove_all(self._ring.pool, list(came), lambda key: self._tell(str(key), came[key]), digests)


def _lying_below(source: str, items: list[bulk.Item]) -> list[bulk.Item]:
    """The same items, all of which lie in the source's directory itself. Raises LocalFileError."""
    top, checked = split_local(source)[0], set()
    for item in items:
        path = str(item.file)
        if (parent := os.path.dirname(path)) not in checked and not lies_below(path, top):
            raise LocalFileError(f"{path} lies behind a symlink, mv would delete it there; exclude it, or use cp")
        checked.add(parent)
    return items


def _version(path: str) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except OSError as error:
        raise local_error(error, path) from None
    return status.st_ino, status.st_size, status.st_mtime_ns


def mv(arguments: Arguments) -> int:
    """Move keys and files."""
    source, target = arguments["SRC"], arguments["DST"]
    if not is_remote(source) and not is_remote(target):
        raise UsageError(f"one of the paths must begin with s4://, got {source!r} and {target!r}")
    if STDIO in (source, target):
        raise UsageError("mv moves files: - is none")
    line = ProgressLine(f"mv {source}", "bytes", arguments.shows_progress)
    with arguments.ring() as ring:
        many = is_many(ring, source, arguments["--recursive"])
        if any(arguments.filters()) and not many:
            raise UsageError("--include and --exclude need a directory with -r, or a glob")
        filters = arguments.filters()
        mover = _Mover(ring, line, arguments["--json"])
        try:
            if not is_remote(source):
                if many:
                    mover.upload(_lying_below(source, [item for item, _ in plan_upload(source, target, *filters)]))
                else:
                    mover.upload([bulk.Item(upload_key(source, target), source)])
            elif not is_remote(target):
                if many:
                    mover.download([item for item, _ in plan_download(ring, source, target, *filters)])
                else:
                    key = parse_key(source)
                    mover.download([bulk.Item(key, download_path(key, target))])
            elif many:
                mover.rename(list(plan_move(ring, source, target, *filters)))
            else:
                mover.rename([(parse_key(source), upload_key(source, target), 0)])
        finally:
            line.close()
    return 0


VERBS: dict[str, Verb] = {"mv": mv}
