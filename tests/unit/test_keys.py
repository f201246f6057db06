"""The grammar of keys: what is taken, what is refused, and what places a key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import timeless

from s4raw.errors import BadKey, UsageError
from s4raw.keys import (
    Key,
    check_key,
    check_prefix,
    common_suffix,
    key_prefix,
    key_suffix,
    parse_directory,
    parse_glob,
    parse_key,
    parse_prefix,
)

NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=256)


@pytest.mark.parametrize(
    ("basename", "prefix", "suffix"),
    [
        ("12_a", "12", "_a"),
        ("00012_a_b", "00012", "_a_b"),
        ("12", "12", ""),
        ("12_", "12", "_"),
        ("0", "0", ""),
        ("12a", "12a", ""),
        ("12a_3", "12a_3", ""),
        ("name_1", "name_1", ""),
        ("_1", "_1", ""),
        ("_", "_", ""),
        ("-1_a", "-1_a", ""),
        ("1.5_a", "1.5_a", ""),
        ("12.csv", "12.csv", ""),
        ("12\n", "12\n", ""),
        (" 12_a", " 12_a", ""),
        ("١٢_a", "١٢_a", ""),
        ("²_a", "²_a", ""),
    ],
)
def test_a_key_is_placed_by_its_leading_digits_or_its_basename(basename, prefix, suffix):
    assert (key_prefix(basename), key_suffix(basename)) == (prefix, suffix)


@pytest.mark.parametrize(
    ("basenames", "suffix"),
    [
        (["1_a", "1_a"], "_a"),
        (["1_a"], "_a"),
        (["1_a", "1_b"], ""),
        (["1", "1_a"], ""),
        (["1", "1"], ""),
        (["name", "name"], ""),
        (["1_a_b", "1_a"], ""),
    ],
)
def test_the_suffix_of_a_merge_is_the_one_all_inputs_share(basenames, suffix):
    assert common_suffix(basenames) == suffix


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("s4://bucket/key", Key("bucket", "key")),
        ("s4://bucket/dir/key", Key("bucket", "dir/key")),
        ("s4://bucket//dir///key", Key("bucket", "dir/key")),
        ("s4://b/_key", Key("b", "_key")),
        ("s4://b/a.b..c/...", Key("b", "a.b..c/...")),
        ("s4://b/é/😀", Key("b", "é/😀")),
        ("s4://b/*?[", Key("b", "*?[")),
        ("s4://b/" + "k" * 1024, Key("b", "k" * 1024)),
        ("s4://" + "b" * 255 + "/k", Key("b" * 255, "k")),
    ],
)
def test_a_key_is_parsed(text, key):
    assert parse_key(text) == key


@pytest.mark.parametrize(
    "text",
    [
        *("", "bucket/key", "/bucket/key", "s3://bucket/key", "S4://bucket/key", "s4:/bucket/key"),
        *("s4://", "s4:///key", "s4://bucket", "s4://bucket/", "s4://bucket/dir/", "s4://bucket/dir//"),
        *("s4://_bucket/key", "s4://_tmp/key", "s4://_/key"),
        *("s4://./key", "s4://../key", "s4://b/../key", "s4://b/./key", "s4://b/key/..", "s4://b/dir/."),
        *("s4://b/a key", "s4://b/key ", " s4://b/key", "s4://b/a\tb", "s4://b/a\nb", "s4://b/key\n", "s4://b b/key"),
        *("s4://b/a\0b", "s4://b\0/a", "s4://b/a\x01", "s4://b/a\x7f", "s4://b/a\u00a0b", "s4://b/a\u2028b"),
        *("s4://b/\udcff", "s4://\udcff/k"),
        *("s4://b/" + "k" * 1025, "s4://b/" + "é" * 513, "s4://" + "b" * 256 + "/k", "s4://" + "é" * 128 + "/k"),
    ],
)
def test_a_bad_key_is_refused(text):
    with pytest.raises(BadKey):
        parse_key(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("s4://", Key("", "")),
        ("s4://b", Key("b", "")),
        ("s4://b/", Key("b", "")),
        ("s4://b/dir/pre", Key("b", "dir/pre")),
        ("s4://b/dir//", Key("b", "dir/")),
    ],
)
def test_a_prefix_is_parsed(text, key):
    assert parse_prefix(text) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("s4://b", Key("b", "")),
        ("s4://b/", Key("b", "")),
        ("s4://b/dir", Key("b", "dir/")),
        ("s4://b/dir/", Key("b", "dir/")),
    ],
)
def test_a_directory_ends_in_a_slash_or_is_the_bucket(text, key):
    assert parse_directory(text) == key


@pytest.mark.parametrize("text", ["s4://", "s4:///dir", "dir", "s4://b/a b", "s4://b/..", "s4://_b"])
def test_a_bad_directory_is_refused(text):
    with pytest.raises(BadKey):
        parse_directory(text)


@pytest.mark.parametrize(
    ("text", "directory", "glob"),
    [
        ("s4://b/in/", Key("b", "in/"), ""),
        ("s4://b/in", Key("b", "in/"), ""),
        ("s4://b", Key("b", ""), ""),
        ("s4://b/*", Key("b", ""), "*"),
        ("s4://b/in/*_1", Key("b", "in/"), "*_1"),
        ("s4://b/in/a?/x", Key("b", "in/"), "a?/x"),
        ("s4://b/a/b/[0-9]*/c", Key("b", "a/b/"), "[0-9]*/c"),
        ("s4://b/in*/", Key("b", ""), "in*/"),
    ],
)
def test_a_glob_begins_at_the_first_part_that_holds_one(text, directory, glob):
    assert parse_glob(text) == (directory, glob)


@pytest.mark.parametrize("text", ["s4://*/x", "s4://b?", "s4://[a]/in/"])
def test_a_glob_in_the_bucket_is_refused(text):
    with pytest.raises((UsageError, BadKey)):
        parse_glob(text)


@pytest.mark.parametrize(
    "key",
    [
        *(Key("", "k"), Key("b", ""), Key("_b", "k"), Key(".", "k"), Key("..", "k"), Key("a/b", "k")),
        *(Key("a\0", "k"), Key("b", "k\0"), Key("b", "k" * 1025), Key("b", "é" * 513), Key("b" * 256, "k")),
        *(Key("b", "\ud800"), Key("\udcff", "k")),
    ],
)
def test_the_store_refuses_what_is_no_key(key):
    with pytest.raises(BadKey):
        check_key(key)


@pytest.mark.parametrize(
    "name", ["a", "a b", "/", "//", "/lead", "trail/", "a//b", ".", "..", "../..", "\n", "é" * 512]
)
def test_the_store_takes_any_other_key(name):
    assert check_key(Key("b", name)) == Key("b", name)


def test_a_prefix_may_be_empty():
    check_prefix(Key("", ""))
    check_prefix(Key("b", ""))


@timeless
@given(NAME)
def test_what_places_a_key_is_a_part_of_it_and_starts_it(basename):
    prefix, suffix = key_prefix(basename), key_suffix(basename)
    assert prefix + suffix == basename
    assert not suffix or (prefix.isdigit() and prefix.isascii() and suffix.startswith("_"))


@timeless
@given(st.text(max_size=64))
def test_a_key_that_is_parsed_is_read_back_from_its_text(text):
    try:
        key = parse_key("s4://" + text)
    except BadKey:
        return
    assert parse_key(str(key)) == key == check_key(key)


def test_a_key_knows_its_basename_and_what_lies_below():
    assert Key("b", "dir/name").basename == Key("b", "name").basename == "name"
    assert Key("b", "dir/").basename == ""
    assert Key("b", "dir").join("x/y") == Key("b", "dir/").join("x/y") == Key("b", "dir/x/y")
    assert Key("b", "").join("x") == Key("b", "x")
