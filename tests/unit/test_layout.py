"""Where keys lie on disk: every key has one place, and a place says which key it is."""

import pytest
from hypothesis import example, given
from nasty import NAMES, PARTS, is_key_name, key_names
from support import timeless

from s4raw.keys import MAX_NAME_BYTES
from s4raw.layout import SELF, decode, directory_prefix, to_names


def key_of(names: list[str]) -> str:
    """The key that lies at a path."""
    return "".join(map(directory_prefix, names[:-1])) + decode(names[-1])


# What is on the disks of users: a difference is a new version of the data directory's format.
@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("file", ["file"]),
        ("dir/file", ["dir", "file"]),
        ("a b/é\n😀", ["a b", "é\n😀"]),
        ("a//b", ["a", "%", "b"]),
        ("trail/", ["trail", "%"]),
        ("/lead", ["%", "lead"]),
        ("/", ["%", "%"]),
        ("../.", ["%..", "%."]),
        ("%", ["%%"]),
        ("%=/%.", ["%%=", "%%."]),
        ("...", ["..."]),
        ("p" * 255, ["p" * 255]),
        ("p" * 256, ["%+" + "p" * 240, "%-" + "p" * 16]),
        ("p" * 256 + "/f", ["%+" + "p" * 240, "%-" + "p" * 16, "f"]),
        ("%" + "p" * 254, ["%+%" + "p" * 239, "%-" + "p" * 15]),
        ("é" * 128, ["%+" + "é" * 120, "%-" + "é" * 8]),
        ("p" * 239 + "é" * 9, ["%+" + "p" * 239, "%-" + "é" * 9]),
        ("p" * 1024, ["%+" + "p" * 240] * 4 + ["%-" + "p" * 64]),
    ],
)
def test_a_key_lies_where_it_always_lay(key, names):
    assert to_names(key) == names
    assert key_of(names) == key


@timeless
@given(key_names)
@example("/" * 1024)
@example("%" * 1024)
def test_a_place_on_disk_says_which_key_it_is(key):
    names = to_names(key)
    assert key_of(names) == key
    for name in names:
        assert 0 < len(name.encode()) <= MAX_NAME_BYTES
        assert name not in (".", "..", SELF)
        assert not {"/", "\0"} & set(name)


@timeless
@given(key_names, key_names)
def test_two_keys_never_share_a_place(one, other):
    assert (to_names(one) == to_names(other)) == (one == other)


def test_no_two_of_the_nasty_keys_share_a_place():
    names = {name for name in [*NAMES, *PARTS] if is_key_name(name)}
    assert len({tuple(to_names(name)) for name in names}) == len(names)


@timeless
@given(key_names)
def test_a_key_lies_below_its_directory(key):
    directory, slash, _ = key.rpartition("/")
    if slash:
        above = to_names(directory)
        assert to_names(key)[: len(above)] == above
