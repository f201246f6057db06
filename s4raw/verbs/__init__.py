"""The verbs: which module has which. A module is imported when one of its verbs is called.

Each has the usage texts (``USAGE``, which are also the manual) beside the functions (``VERBS``), by verb. The functions
return exit codes; errors are raised, and printed by ``cli``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from s4raw.arguments import Verb

MODULES = {
    "cp": "copy",
    "get": "copy",
    "cat": "copy",
    "mv": "move",
    "sync": "sync",
    "ls": "keys",
    "rm": "keys",
    "stat": "keys",
    "find": "find",
    "du": "find",
    "scrub": "scrub",
    "eval": "compute",
    "map": "maps",
    "map-to-n": "maps",
    "map-from-n": "maps",
    "jobs": "jobs",
    "cancel": "jobs",
    "health": "ring",
    "servers": "ring",
    "server": "ring",
    "local": "ring",
}


def load(verb: str) -> tuple[str, Verb]:
    """A verb's usage text and function."""
    from importlib import import_module

    module = import_module(f"s4raw.verbs.{MODULES[verb]}")
    return module.USAGE[verb], module.VERBS[verb]
