"""What s4raw's library does in a measurement. Each function is a target of ``bench.worker``."""

from __future__ import annotations

from collections.abc import Sequence

from bench.worker import Action
from s4raw import bulk
from s4raw.client import Ring
from s4raw.keys import parse_key


def get_file(conf: str, key: str, path: str) -> Action:
    """Copy a key to a file."""
    ring = Ring.from_conf(conf)

    def get() -> None:
        ring.get_file(key, path)

    return get


def put_file(conf: str, path: str) -> Action:
    """Copy a file to a key that is named at each run."""
    ring = Ring.from_conf(conf)

    def put(key: str) -> None:
        ring.put_file(key, path)

    return put


def get_each(conf: str, keys: Sequence[str], passes: int) -> Action:
    """Get small keys, one after the other."""
    ring = Ring.from_conf(conf)

    def get() -> None:
        for _ in range(passes):
            for key in keys:
                ring.get(key)

    return get


def get_train(conf: str, keys: Sequence[str], passes: int) -> Action:
    """Get small keys, pipelined, from all servers at once, to /dev/null."""
    ring = Ring.from_conf(conf)
    items = [bulk.Item(parse_key(key), "/dev/null") for key in keys] * passes

    def get() -> None:
        bulk.transfer(ring, items, lambda _item, _size: None, upload=False)

    return get
