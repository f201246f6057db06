"""The verbs: which module has which. A module is imported when one of its verbs is called.

Each has the usage texts (``USAGE``, which are also the manual) beside the functions (``VERBS``), by verb. The functions
return exit codes; errors are raised, and printed by ``cli``.
"""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from s4raw.arguments import Arguments, Verb

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
    "run": "run",
    "health": "ring",
    "servers": "ring",
    "server": "ring",
    "local": "ring",
    "completion": "completion",
    "s3": "s3",
    "push": "push",
    "send": "send",
}
FAMILIES = ("s3", "push")  # verbs whose second word says which


def load(verb: str) -> tuple[str, Verb]:
    """A verb's usage text and function."""
    module = __import__(f"s4raw.verbs.{MODULES[verb]}", fromlist=["USAGE", "VERBS"])  # importlib's import takes 1 ms
    return module.USAGE[verb], module.VERBS[verb]


def members(family: str) -> tuple[str, dict[str, str]]:
    """The usage text of a family of verbs, and those of its members."""
    module = __import__(f"s4raw.verbs.{MODULES[family]}", fromlist=["FAMILY", "USAGE"])
    return module.FAMILY, module.USAGE


def _member(words: Sequence[str]) -> tuple[str, Verb]:
    """What ``load`` gives, of a verb of two words. Raises UsageError for one that there is not."""
    from s4raw.errors import UsageError

    text, usages = members(words[0])
    name = words[1] if len(words) > 1 else ""
    if name in usages:
        module = __import__(f"s4raw.verbs.{MODULES[words[0]]}", fromlist=["VERBS"])
        return usages[name], module.VERBS[name]
    if {"-h", "--help"} & set(words):
        return text, lambda _arguments: 0
    wrong = f"no such verb: {words[0]} {name!r}\n" if name else ""
    raise UsageError(f"{wrong}{text}")


def _spelled_out(words: Sequence[str]) -> Sequence[str]:
    """Words that name a family's member, if there is one that its name alone stands for."""
    module = __import__(f"s4raw.verbs.{MODULES[words[0]]}", fromlist=["FAMILY"])
    default = getattr(module, "DEFAULT", "")
    alone = len(words) < 2 or (words[1].startswith("-") and words[1] not in ("-h", "--help"))
    return [words[0], default, *words[1:]] if default and alone else words


def call(words: Sequence[str], prepare: Callable[[Arguments], object] = lambda _arguments: None) -> int:
    """Do what words say, the verb first; returns the exit code. ``prepare`` is shown the arguments. Raises S4Error."""
    from s4raw import arguments

    if words[0] in FAMILIES:
        words = _spelled_out(words)
        text, function = _member(words)
        name = " ".join(words[:2])
    else:
        text, function = load(words[0])
        name = words[0]
    parsed = arguments.parse(text, words, name)
    if parsed is None:
        sys.stdout.write(text)
        return 0
    prepare(parsed)
    gc.enable()
    return function(parsed)
