"""What the options of find ask of an entry."""

import time

import pytest

from s4raw.errors import UsageError
from s4raw.keys import Entry
from s4raw.verbs.find import criteria, moment

DAY = 86400


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("0", [0]),
        ("1024", [1024]),
        ("1K", [1024]),
        ("+1k", [1025, 1 << 20]),
        ("-1KiB", [0, 1023]),
        ("-2kb", [0, 1023, 1024, 1025]),
        ("+0M", [1023, 1024, 1025, 1 << 20]),
        ("1MiB", [1 << 20]),
    ],
)
def test_sizes(text, sizes):
    [test] = criteria([text], None, None)
    assert [size for size in (0, 1023, 1024, 1025, 1 << 20) if test(Entry("k", size, 0))] == sizes


def test_times_are_ages_or_dates():
    now = time.time()
    for text, seconds in {"90s": 90, "10m": 600, "1.5h": 5400, "2d": 2 * DAY, "1w": 7 * DAY}.items():
        assert abs(moment("--newer", text) / 1e9 - (now - seconds)) < 60
    for text in ("2001-09-09T01:46:40Z", "2001-09-09T01:46:40", "2001-09-09 03:46:40+02:00"):
        assert moment("--older", text) == 10**18


def test_an_entry_of_that_moment_is_newer_and_not_older():
    [newer] = criteria([], "2001-09-09T01:46:40Z", None)
    [older] = criteria([], None, "2001-09-09T01:46:40Z")
    assert newer(Entry("k", 0, 10**18)) and not older(Entry("k", 0, 10**18))
    assert older(Entry("k", 0, 10**18 - 1)) and not newer(Entry("k", 0, 10**18 - 1))


@pytest.mark.parametrize("text", ["", "1X", "++1", "1.5M", "M", "-", "1 K"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="--size"):
        criteria([text], None, None)


@pytest.mark.parametrize("text", ["", "1y", "soon", "2026-13-01", "-1h"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UsageError, match="--newer"):
        moment("--newer", text)
