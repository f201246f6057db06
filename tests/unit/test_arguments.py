"""A verb's words, read as its usage text says."""

import docopt
import pytest

from s4raw.arguments import _Pattern, options, parse
from s4raw.errors import UsageError
from s4raw.verbs import FAMILIES, MODULES, load, members

TEXT = """\
Do it.

Usage: s4raw do [-rn N] [--name NAME] [--glob GLOB]... [-q] [--] SRC [DST]...

Options:
  -r, --recursive  all of it
  -n N             how many [default: 3]
  --name NAME      whose
  --glob GLOB      which
  -q, --quiet      no word
  -h, --help       show this text
"""


TEXTS = {verb: load(verb)[0] for verb in MODULES if verb not in FAMILIES}
for family in FAMILIES:
    TEXTS[family], usages = members(family)
    TEXTS |= {f"{family} {verb}": text for verb, text in usages.items()}


@pytest.mark.parametrize("verb", TEXTS)
def test_a_usage_text_is_read_as_docopt_reads_it(verb):
    text = TEXTS[verb]
    pattern = _Pattern(text)
    described = docopt.parse_defaults(text)
    assert pattern._options[: len(described)] == described
    theirs = docopt.parse_pattern(docopt.formal_usage(docopt.printable_usage(text)), docopt.parse_defaults(text)).fix()
    assert {repr(part) for part in theirs.flat()} == {repr(part) for part in pattern._pattern.flat()} or (
        "[options]" in text
    )


@pytest.mark.parametrize(
    "words",
    [
        "do a",
        "do a b c",
        "do -r a",
        "do a -r b",
        "do -rn4 a -q",
        "do -n 4 --recursive a",
        "do --rec a",
        "do --name=x --glob 1 a --glob=2",
        "do -- -r",
        "do a -- -r -q",
        "do",
        "do -x a",
        "do --name",
        "do --n a",
        "do --quiet=x a",
        "do -n",
        "",
    ],
)
def test_words_are_read_as_docopt_reads_them(words):
    words = words.split()
    try:
        expected = dict(docopt.docopt(TEXT, words, help=False))
    except docopt.DocoptExit:
        if not words:
            assert _Pattern(TEXT).match(words) is None
            return
        with pytest.raises(UsageError) as caught:
            parse(TEXT, words)
        assert "Usage: s4raw do [-rn N]" in caught.value.message
    else:
        for _ in range(2):  # the second time with the pattern that was kept
            assert parse(TEXT, words) == expected


@pytest.mark.parametrize("words", ["do --help", "do -h", "do a --nosuch -h", "do --help a b"])
def test_who_asks_for_help_gets_it_whatever_else_is_said(words):
    assert parse(TEXT, words.split()) is None


def test_options_have_their_names_and_say_whether_a_value_follows():
    assert options(TEXT) == [
        (["-r", "--recursive"], False),
        (["-n"], True),
        (["--name"], True),
        (["--glob"], True),
        (["-q", "--quiet"], False),
        (["-h", "--help"], False),
    ]
