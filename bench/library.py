"""What s4raw's library does in a measurement. Each function is a target of ``bench.worker``."""

from __future__ import annotations

from collections.abc import Sequence

from bench.worker import Action
from s4raw import bulk
from s4raw.client import Ring
from s4raw.keys import parse_prefix


def get_file(conf: str, key: str, path: str, connections: int | None = None, passes: int = 1) -> Action:
    """Copy a key to a file."""
    ring = Ring.from_conf(conf)

    def get() -> None:
        for _ in range(passes):
            ring.get_file(key, path, connections=connections)

    return get


def put_file(conf: str, path: str, connections: int | None = None) -> Action:
    """Copy a file to a key that is named at each run."""
    ring = Ring.from_conf(conf)

    def put(key: str) -> None:
        ring.put_file(key, path, connections=connections)

    return put


def get_each(conf: str, keys: Sequence[str], passes: int) -> Action:
    """Get small keys, one after the other."""
    ring = Ring.from_conf(conf)

    def get() -> None:
        for _ in range(passes):
            for key in keys:
                ring.get(key)

    return get


def get_many(conf: str, keys: Sequence[str], passes: int) -> Action:
    """Get keys into memory, pipelined."""
    ring = Ring.from_conf(conf)

    def get() -> None:
        for _ in range(passes):
            for _ in ring.get_many(keys):
                pass

    return get


def put_many(conf: str, path: str, count: int) -> Action:
    """Copy a file to ``count`` keys, pipelined, below a prefix that is named at each run."""
    ring = Ring.from_conf(conf)

    def put(prefix: str) -> None:
        above = parse_prefix(prefix)
        items = [bulk.Item(above._replace(name=f"{above.name}{number:06}"), path) for number in range(count)]
        bulk.transfer(ring, items, lambda _item, _size: None, upload=True)

    return put


def list_prefix(conf: str, prefix: str) -> Action:
    """List what lies directly below a prefix."""
    ring = Ring.from_conf(conf)

    def list_it() -> None:
        for _ in ring.list(prefix):
            pass

    return list_it
