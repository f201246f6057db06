"""What ``sync`` does: the steps that make keys like the files of a directory, or files like the keys of a prefix.

Files and keys are the same if their sizes are and then, which is only asked of those, their digests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from s4raw import bulk
from s4raw.client import Ring
from s4raw.copying import key_for, local_files, local_name
from s4raw.digest import digest_file
from s4raw.errors import LocalFileError, NoSuchKey
from s4raw.files import lies_below, local_error, reading
from s4raw.keys import Entry, Key
from s4raw.pipeline import remove_all, stat_all
from s4raw.record import NamedTuple
from s4raw.selection import Keep, Selection

UPLOAD, DOWNLOAD, DELETE_KEY, DELETE_FILE = "upload", "download", "delete key", "delete file"
BATCH = 64  # changed keys that are deleted and put again together


class Step(NamedTuple):
    """One thing to do: a file and a key, one of which is empty in deletions; the size of what is copied."""

    action: str
    key: Key
    path: str
    size: int
    replaces: bool = False  # a key that has to be deleted first


Done = Callable[[Step], None]  # is told of each step that is done, from several threads
_NOTHING = Key("", "")


def plan_up(ring: Ring, source: str, target: Key, keep: Keep, delete: bool) -> list[Step]:
    """The steps that make the keys below ``target`` like the files below ``source``. Raises LocalFileError, BadKey."""
    found = {relative: (path, size) for path, relative, size in local_files(source, keep)}
    there = _entries(ring, target, keep)
    for relative, (path, _) in found.items():
        key_for(target, relative, path)  # all of them, before anything is done
    same = _same(
        ring, target, {name: (path, size, there[name]) for name, (path, size) in found.items() if name in there}
    )
    steps = [
        Step(UPLOAD, target.join(relative), path, size, relative in there)
        for relative, (path, size) in found.items()
        if relative not in same
    ]
    if delete:
        steps += [Step(DELETE_KEY, target.join(name), "", 0) for name in there if name not in found]
    return steps


def plan_down(ring: Ring, source: Key, target: str, keep: Keep, delete: bool) -> list[Step]:
    """The steps that make the files below ``target`` like the keys below ``source``. Raises NoSuchKey, BadKey."""
    wanted = _entries(ring, source, keep)
    if not wanted:
        raise NoSuchKey(f"no keys below {source}")
    found: dict[str, tuple[str, int]] = {}
    if os.path.lexists(target):
        found = {relative: (path, size) for path, relative, size in local_files(target, keep)}
    for name in wanted:
        local_name(source.join(name), len(source.name))
    both = {name: (*found[name], entry) for name, entry in wanted.items() if name in found}
    same = _same(ring, source, both)
    steps = [
        Step(DOWNLOAD, source.join(name), os.path.join(target, name), entry.size)
        for name, entry in wanted.items()
        if name not in same
    ]
    if delete:
        extra = [path for name, (path, _) in found.items() if name not in wanted]
        steps += [Step(DELETE_FILE, _NOTHING, path, 0) for path in extra if lies_below(path, target)]
    return steps


def _entries(ring: Ring, directory: Key, keep: Keep) -> dict[str, Entry]:
    cut = len(directory.name)
    return {entry.name[cut:]: entry for entry in Selection(directory, directory, keep).entries(ring)}


def _same(ring: Ring, directory: Key, both: dict[str, tuple[str, int, Entry]]) -> set[str]:
    """The names whose file and key have the same content."""
    alike = {name: path for name, (path, size, entry) in both.items() if size == entry.size}
    recorded = stat_all(ring.pool, [directory.join(name) for name in alike])
    same = set()
    for name, path in alike.items():
        known = recorded.get(directory.join(name))
        if known is not None and known.digest == _read(path, known.size):
            same.add(name)
    return same


def _read(path: str, size: int) -> bytes:
    """The digest of a file of ``size`` bytes, all of which were read. Raises LocalFileError."""
    with reading(path) as fd:
        state = digest_file(fd)
    if state.size != size:
        raise LocalFileError(f"local file {path}: {state.size} bytes could be read, it had {size}")
    return state.digest()


def carry_out(ring: Ring, steps: Sequence[Step], done: Done) -> None:
    """Do the steps: first what is new, then what has changed, deletions last."""
    by_action: dict[str, list[Step]] = {UPLOAD: [], DOWNLOAD: [], DELETE_KEY: [], DELETE_FILE: []}
    for step in steps:
        by_action[step.action].append(step)
    _transfer(ring, [step for step in by_action[UPLOAD] if not step.replaces], done, upload=True)
    for batch in _batches([step for step in by_action[UPLOAD] if step.replaces]):
        for step in batch:
            _read(step.path, step.size)  # a key is deleted only when all of its new content can be read
        remove_all(ring.pool, [step.key for step in batch], lambda _key: None)
        _transfer(ring, batch, done, upload=True)
    _transfer(ring, by_action[DOWNLOAD], done, upload=False)
    steps_of = {step.key: step for step in by_action[DELETE_KEY]}
    remove_all(ring.pool, steps_of, lambda key: done(steps_of[key]))
    for step in by_action[DELETE_FILE]:
        _unlink(step.path)
        done(step)


def _batches(steps: list[Step]) -> Iterator[list[Step]]:
    return (steps[at : at + BATCH] for at in range(0, len(steps), BATCH))


def _transfer(ring: Ring, steps: Iterable[Step], done: Done, upload: bool) -> None:
    items = {bulk.Item(step.key, step.path): step for step in steps}
    bulk.transfer(ring, items, lambda item, _size: done(items[item]), upload)


def _unlink(path: str) -> None:
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise local_error(error, path) from None
