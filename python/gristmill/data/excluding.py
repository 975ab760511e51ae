"""What collect.exclude leaves out, in whatever source it stands: files and rows, by SOURCE/PATH."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gristmill.data.patterns import MAGIC, matcher
from gristmill.errors import ConfigError

REASON = "in collect.exclude"


def excluded(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a test for "source/path" (a row is "source/path#row"); raises ConfigError.

    A pattern with '#' names one row; any other names whole files, and so their rows.
    """
    try:
        return matcher(patterns)
    except ValueError as error:
        raise ConfigError(f"collect.exclude: {error}") from None


def literal(place: str) -> str:
    """Return the pattern that fits this place and no other."""
    return "".join(f"[{sign}]" if sign in MAGIC else sign for sign in place)
