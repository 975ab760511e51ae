"""Path patterns: what `**`, `*`, `?` and ranges match."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.data.patterns import has_magic, matcher, split_glob


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.py", ["a.py", "x/y/a.py"], ["a.pyi", "py"]),
        ("**/*.py", ["a.py", "x/y/a.py"], ["a.pyc"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "a.py", "lib/src/a.py"]),
        ("src/**", ["src/a", "src/x/y"], ["src", "asrc/a"]),
        ("src/**/test_?.py", ["src/test_a.py", "src/x/y/test_b.py"], ["src/test_ab.py"]),
        ("**", ["a", "x/y"], []),
        ("[a-c].py", ["b.py"], ["d.py"]),
        ("[!a-c].py", ["d.py"], ["b.py"]),
        ("a+b(1).py", ["a+b(1).py"], ["aab1.py"]),
        ("[.py", ["[.py"], ["a.py"]),
    ],
)
def test_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    matches = matcher([pattern])
    assert [path for path in yes if not matches(path)] == []
    assert [path for path in no if matches(path)] == []


@given(st.text("ab*?.", max_size=8), st.text("ab.", min_size=1, max_size=8))
def test_names_match_as_in_fnmatch(pattern: str, name: str) -> None:
    if "**" not in pattern:
        assert matcher([pattern])(name) == fnmatch.fnmatchcase(name, pattern)


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(ValueError, match="no pattern"):
        matcher(["[z-a].py"])


def test_split_glob() -> None:
    assert split_glob("a/b/**/*.py") == ("a/b", "**/*.py")
    assert split_glob("*.py") == (".", "*.py")
    assert split_glob("/*.py") == ("/", "*.py")
    assert has_magic("a?")
    assert not has_magic("a.py")
