"""s4raw: ephemeral data on the disks of a few machines, and ordinary commands where the data lies.

``Ring`` is the client, ``LocalRing`` an embedded ring of servers; both are imported when they are first used.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["LocalRing", "Ring", "S4Error", "__version__"]

_HOMES = {"Ring": "s4raw.client", "LocalRing": "s4raw.local", "S4Error": "s4raw.errors"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 's4raw' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
