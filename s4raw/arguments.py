"""A verb's arguments: parsed as its usage text says, and read as rings, numbers and times."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from s4raw.client import Ring
from s4raw.connection import DEFAULT_TIMEOUT
from s4raw.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Parsed = dict[str, Any]
else:
    Parsed = dict

TIMEOUT_VARIABLE = "S4_TIMEOUT"

_UNITS = {"": 0, "B": 0} | {
    unit + suffix: 10 * power for power, unit in enumerate("KMGT", 1) for suffix in ("", "B", "IB")
}

# The end of (nearly) every usage text.
COMMON = """\
  -c, --conf FILE    the ring's conf (default: $S4_CONF_PATH, or ~/.s4.conf)
  -h, --help         show this text
"""

FILTERS = """\
  --include GLOB     only what matches GLOB (any of them, if there are several), in its path below the directory
  --exclude GLOB     not what matches GLOB (any of them), whatever is included
"""
GLOBS = """\
Globs: * and ? match / too, [*] is a * itself, and a key or directory that has exactly this name is meant before all
that match.
"""


class Arguments(Parsed):
    """What docopt made of the words: options by their long name, positional arguments by theirs."""

    shared: Ring | None = None  # the ring of whoever calls many verbs
    stdin_is_free = True  # and does not hold the lines that call them
    alone = True  # on the terminal: several progress lines cannot share one

    def ring(self) -> AbstractContextManager[Ring]:
        """The ring to work on: the shared one, unless the arguments name a conf. Raises ConfError."""
        if self.shared is not None and self["--conf"] is None:
            return nullcontext(self.shared)
        return Ring.from_conf(self["--conf"])

    @property
    def shows_progress(self) -> bool:
        """Whether a progress line is wanted, and has a terminal to itself."""
        return self.alone and not self["--quiet"]

    def filters(self) -> tuple[list[str], list[str]]:
        """The globs to include and to exclude."""
        return self["--include"], self["--exclude"]

    def number(self, option: str, default: float) -> float:
        """An option's positive number. Raises UsageError."""
        return default if self[option] is None else _positive(option, self[option])

    def count(self, option: str, default: int) -> int:
        """An option's positive whole number. Raises UsageError."""
        number = self.number(option, default)
        if number != int(number):
            raise UsageError(f"{option} needs a whole number, got {self[option]!r}")
        return int(number)

    def real(self, option: str, variable: str, default: float) -> float:
        """An option's positive number, or else an environment variable's. Raises UsageError."""
        if self[option] is None and os.environ.get(variable):
            return _positive(f"${variable}", os.environ[variable])
        return self.number(option, default)

    def whole(self, option: str, variable: str, default: int) -> int:
        """An option's positive whole number, or else an environment variable's. Raises UsageError."""
        number = self.real(option, variable, default)
        if number != int(number):
            raise UsageError(f"{option} (${variable}) needs a whole number, got {number}")
        return int(number)

    def timeout(self) -> float:
        """How many seconds a command may take. Raises UsageError."""
        if self["--timeout"] is None and TIMEOUT_VARIABLE in os.environ:
            return _positive(TIMEOUT_VARIABLE, os.environ[TIMEOUT_VARIABLE])
        return self.number("--timeout", DEFAULT_TIMEOUT)


Verb = Callable[[Arguments], int]  # what is done with the arguments; returns the exit code


class _Pattern:
    """A usage text as docopt understands it.

    ``docopt()`` would read the text at every call, which takes 20 times as long as matching it; and it would read it
    with five regular expressions, which take 2 ms to compile. So the text is cut up here, and docopt does the rest.
    """

    def __init__(self, text: str) -> None:
        import docopt

        self._docopt = docopt
        self._options = _described(text)
        usage = text[text.index("Usage:") :].partition("\n\n")[0].removeprefix("Usage:")
        for mark in ("[", "]", "..."):  # the other marks of docopt's language are not used
            usage = usage.replace(mark, f" {mark} ")
        tokens = docopt.TokenStream(usage.split()[1:], docopt.DocoptLanguageError)
        self._pattern = docopt.Required(*docopt.parse_expr(tokens, self._options))
        named = set(self._pattern.flat(docopt.Option))
        for options in self._pattern.flat(docopt.AnyOptions):
            options.children = list(set(_described(text)) - named)
        self._pattern.fix()

    def match(self, words: Sequence[str]) -> Arguments | None:
        """The arguments, or None if they are not what the text asks for."""
        docopt = self._docopt
        try:
            given = docopt.parse_argv(docopt.TokenStream(words, docopt.DocoptExit), list(self._options))
        except docopt.DocoptExit:
            return None
        matched, left, collected = self._pattern.match(given)
        if not matched or left:
            return None
        return Arguments((part.name, part.value) for part in self._pattern.flat() + collected)


_patterns: dict[str, _Pattern] = {}


def parse(text: str, words: Sequence[str], name: str = "") -> Arguments | None:
    """Parse words, the verb first, as a usage text says; None when they ask for that text. Raises UsageError.

    ``name`` is that of the verb, if it is not the first word alone.
    """
    pattern = _patterns.get(text)
    if pattern is None:
        pattern = _patterns[text] = _Pattern(text)
    arguments = pattern.match(words)
    if arguments is None:
        if _asks_for_help(words[1:]):
            return None
        usage = text[text.index("Usage:") :].partition("\n\n")[0]
        raise UsageError(f"wrong arguments for {name or words[0]}; see s4raw {name or words[0]} --help\n{usage}")
    return None if arguments.get("--help") else arguments


def bytes_of(text: str) -> int | None:
    """A size as options give it, ``12``, ``10K`` or ``3GiB``, in bytes; None if it is none."""
    digits = text.rstrip("iBKMGTbkmgt")
    unit = text[len(digits) :].upper()
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS:
        return None
    return int(digits) << _UNITS[unit]


def options(text: str) -> list[tuple[list[str], bool]]:
    """The options that a usage text describes: how each is written, short and long, and whether a value follows."""
    return [([name for name in (each.short, each.long) if name], bool(each.argcount)) for each in _described(text)]


def _described(text: str) -> list[Any]:
    """The options of a usage text, as docopt has them: ``  -c, --conf FILE  what it is [default: this]``."""
    from docopt import Option

    found = []
    for line in text.splitlines():
        written, _, description = line.strip().partition("  ")
        if written.startswith("-"):
            words = written.replace(",", " ").split()
            short = next((word for word in words if word[0] == "-" and word[1] != "-"), None)
            long = next((word for word in words if word.startswith("--")), None)
            takes_value = not words[-1].startswith("-")
            default = description.partition("[default: ")[2].partition("]")[0] or None
            found.append(Option(short, long, int(takes_value), default if takes_value else False))
    return found


def _positive(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 1e9:
        raise UsageError(f"{name} needs a positive number, got {text!r}")
    return number


def _asks_for_help(words: Sequence[str]) -> bool:
    return bool({"-h", "--help"} & set(words[: words.index("--")] if "--" in words else words))
