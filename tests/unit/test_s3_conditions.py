"""ETags and dates out of headers."""

import time

import pytest

from s4raw.s3.conditions import etags, of, of_delete, seconds_of
from s4raw.s3.errors import S3Error
from s4raw.s3.headers import date


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "1994-11-06T08:49:37.000Z",
        "1994-11-06T08:49:37Z",
        " Sun, 06 Nov 1994 08:49:37 GMT ",
    ],
)
def test_dates(text: str) -> None:
    assert seconds_of(text) == 784111777


@pytest.mark.parametrize(
    "text",
    [
        *("", "today", "784111777", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 36 Nov 1994 08:49:37 GMT"),
        *("Sun, 06 Nov 1994 28:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET", "1994-13-06T08:49:37Z"),
    ],
)
def test_what_is_no_date(text: str) -> None:
    assert seconds_of(text) is None
    assert of({"if-modified-since": text}).if_modified_since is None


def test_dates_as_they_are_written_are_read() -> None:
    for seconds in (0, 784111777, 951782400, 4102444800):
        assert seconds_of(date(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"a"', ["a"]),
        ("a", ["a"]),
        ("*", ["*"]),
        ('"a", "b,c" , d', ["a", "b,c", "d"]),
        ('W/"a"', ["a"]),
        ('""', [""]),
    ],
)
def test_etags(text: str, found: list[str]) -> None:
    assert etags(text) == found


def test_conditions_of_deletes_are_checked() -> None:
    for wrong in ((None, "today", None), (None, None, "x"), (None, None, "-1")):
        with pytest.raises(S3Error, match="InvalidArgument"):
            of_delete(*wrong)


@pytest.mark.parametrize(
    "text", ["a" * 20_000 + " b", '"' + " " * 1_000_000 + "b", "W/" * 500_000 + '"', "a, " * 300_000]
)
def test_long_etags_take_no_time(text: str) -> None:
    began = time.process_time()
    etags(text)
    assert time.process_time() - began < 2
