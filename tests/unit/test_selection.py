"""Which paths the globs and filters keep."""

import pytest

from s4raw.selection import everything, keeper

PATHS = ["a_1", "b_2", "deep/a_1", "deep/er/[x]"]


@pytest.mark.parametrize(
    ("include", "exclude", "glob", "kept"),
    [
        ([], [], "", PATHS),
        ([], [], "*", PATHS),
        ([], [], "*_1", ["a_1", "deep/a_1"]),
        ([], [], "deep/**", ["deep/a_1", "deep/er/[x]"]),
        ([], [], "*[[]x]", ["deep/er/[x]"]),
        (["*_1", "*_2"], [], "", ["a_1", "b_2", "deep/a_1"]),
        (["*_1"], ["deep/*"], "", ["a_1"]),
        ([], ["*_1", "b*"], "", ["deep/er/[x]"]),
        (["*_1"], [], "deep/*", ["deep/a_1"]),
        (["A*"], [], "", []),
    ],
)
def test_a_path_is_kept_if_any_include_matches_and_no_exclude(include, exclude, glob, kept):
    keep = keeper(include, exclude, glob)
    assert [path for path in PATHS if keep(path)] == kept


def test_without_globs_nothing_is_compiled():
    assert keeper() is everything
