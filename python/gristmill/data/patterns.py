"""Path patterns as git and editors read them: `**` crosses folders, `*` and `?` do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache

MAGIC = frozenset("*?[")


def has_magic(text: str) -> bool:
    """Say whether `text` is a pattern and not a plain path."""
    return not MAGIC.isdisjoint(text)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of one pattern over '/'-separated relative paths."""
    parts, index = [], 0
    while index < len(pattern):
        if pattern.startswith("**/", index) and (index == 0 or pattern[index - 1] == "/"):
            parts.append("(?:[^/]+/)*")
            index += 3
        elif pattern.startswith("**", index):
            parts.append(".*")
            index += 2
        elif (end := pattern.find("]", index + 2)) > 0 and pattern[index] == "[":
            body = pattern[index + 1 : end].replace("\\", "\\\\")
            body = body.replace("^", "\\^").replace("[", "\\[")
            parts.append("[^" + body[1:] + "]" if body[0] == "!" else "[" + body + "]")
            index = end + 1
        else:
            sign = pattern[index]
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(sign) or re.escape(sign))
            index += 1
    return re.compile("".join(parts))


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return a test for relative paths; a pattern without '/' is compared with the name alone.

    Raises ValueError for a pattern that is none, such as a reversed range.
    """
    named: list[re.Pattern[str]] = []
    whole: list[re.Pattern[str]] = []
    for pattern in patterns:
        try:
            compiled = _compiled(pattern.removeprefix("./").lstrip("/"))
        except re.error as error:
            raise ValueError(f"{pattern!r} is no pattern: {error}") from None
        (whole if "/" in pattern or "**" in pattern else named).append(compiled)

    def matches(path: str) -> bool:
        name = path.rpartition("/")[2]
        return any(p.fullmatch(path) for p in whole) or any(p.fullmatch(name) for p in named)

    return matches


def split_glob(text: str) -> tuple[str, str]:
    """Return (folder without magic, pattern below it): 'a/b/**/*.py' gives ('a/b', '**/*.py')."""
    parts = text.split("/")
    first = next(index for index, part in enumerate(parts) if has_magic(part))
    folder = "/".join(parts[:first]) or ("/" if text.startswith("/") else ".")
    return folder, "/".join(parts[first:])
