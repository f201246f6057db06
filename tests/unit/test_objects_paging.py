"""Listings rolled up from names in order are what their definition says."""

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from objects_support import expected, shown
from support import timeless

from s4raw.keys import Key
from s4raw.objects.base import Listed, Page, Query, Upload
from s4raw.objects.paging import merge, roll_up, roll_up_uploads, successor

ALPHABET = ["a", "b", "/", "é", "\ud7ff", "\ue000", "\U0010ffff"]
names = st.text(st.sampled_from(ALPHABET), max_size=5)
name_sets = st.sets(names.filter(bool), max_size=30).map(sorted)
queries = st.builds(
    Query,
    prefix=st.text(st.sampled_from(ALPHABET), max_size=2),
    delimiter=st.sampled_from(["", "/", "/", "a", "//", "a/", "\U0010ffff"]),
    after=names,
    limit=st.integers(0, 8),
)


def page_of(all_names: list[str], query: Query) -> Page:
    return roll_up(lambda start: iter(all_names[bisect_left(all_names, start) :]), Listed, query)


@timeless
@given(name_sets, queries)
def test_a_page_is_what_its_definition_says(all_names, query):
    assert shown(page_of(all_names, query)) == expected(all_names, query)


@timeless
@given(name_sets, queries, st.integers(1, 3))
def test_pages_follow_each_other_without_gap_or_repetition(all_names, query, limit):
    found, after, more = [], query.after, True
    while more:
        entries, more = shown(page_of(all_names, query._replace(after=after, limit=limit)))
        assert entries or not more
        found += entries
        after = found[-1][0] if found else ""
    assert found == expected(all_names, query._replace(limit=1000))[0]


@timeless
@given(st.lists(name_sets, min_size=1, max_size=4), queries)
def test_pages_of_several_places_merge_into_the_page_of_all(places, query):
    pages = [page_of(place, query) for place in places]
    together = sorted(set().union(*places))
    assert shown(merge(pages, query.limit)) == expected(together, query)


@timeless
@given(name_sets, queries)
def test_uploads_roll_up_as_objects_do(all_names, query):
    page = roll_up_uploads([Upload(Key("b", name), "id", 0) for name in all_names], query)
    entries = [(upload.key.name, False) for upload in page.uploads] + [(name, True) for name in page.prefixes]
    assert (sorted(entries), page.truncated) == expected(all_names, query)


@timeless
@given(names, names)
def test_the_successor_of_a_prefix_is_the_lowest_name_behind_it(prefix, name):
    following = successor(prefix)
    assert following is None or following.encode()
    if name.startswith(prefix):
        assert following is None or name < following
    elif name > prefix:
        assert following is not None and name >= following


def test_what_a_common_prefix_covers_is_skipped():
    asked = []

    def seek(start):
        asked.append(start)
        return iter([name for name in ["a/1", "a/2", "b", "c/1"] if name >= start])

    assert shown(roll_up(seek, Listed, Query(delimiter="/")))[0] == [("a/", True), ("b", False), ("c/", True)]
    assert asked == ["", "a0", "c0"]


@pytest.mark.parametrize("limit", [1, 2])
def test_a_page_is_not_truncated_by_what_has_gone(limit):
    present = {"a": Listed("a"), "b": None, "c": None}
    page = roll_up(lambda start: iter([n for n in present if n >= start]), present.__getitem__, Query(limit=limit))
    assert shown(page) == ([("a", False)], False)
