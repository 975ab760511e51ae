"""Where a completion of each kind ends, so that all who complete are cut by the same rule.

An editor knows the kind of place the cursor is in, and nothing of what follows from the truth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from gristmill.data.holes import NEWLINE

_OPEN, _CLOSE = "([{", ")]}"
_QUOTES = "\"'"
# what a line break means nothing in: strings, open ones to their end; and comments
_WHOLE = "|".join(
    [r"#[^\r\n]*"]
    + [rf"{q * 3}(?:\\(?:\r\n|.)|[^\\])*?(?:{q * 3}|\Z)" for q in _QUOTES]
    + [rf"{q}(?:\\(?:\r\n|.)|[^{q}\\\r\n])*+{q}?" for q in _QUOTES]
)
_PARTS = re.compile(rf"(?P<end>{NEWLINE.pattern})|{_WHOLE}", re.DOTALL)
_INDENT = re.compile(r"[^\S\r\n]*(?=\S)")  # of a line that is not blank


def ending(kind: str, prefix: str, text: str) -> int | None:
    """Return the number of characters of `text` that belong to the hole, None while it goes on.

    line: up to the line break. argument: up to a comma or closing bracket that closes nothing in it
    (strings are skipped). body: up to the first line that is indented less than its first line,
    blank lines and lines that begin inside a string aside. Lines end where Python ends them.
    Raises ValueError for another kind.
    """
    if kind == "line":
        return _line_end(text)
    if kind == "argument":
        return _argument_end(text)
    if kind == "body":
        return _body_end(prefix, text)
    raise ValueError(f"kind of hole {kind!r} given, allowed: line, argument, body")


def _argument_end(text: str) -> int | None:
    depth, quote, at = 0, "", 0
    while at < len(text):
        char = text[at]
        if quote:
            if char == "\\":
                at += 1
            elif text.startswith(quote, at):
                at += len(quote) - 1
                quote = ""
            elif char in "\r\n" and len(quote) == 1:  # an unclosed string ends with its line
                quote = ""
        elif char in _QUOTES:
            quote = char * 3 if text.startswith(char * 3, at) else char
            at += len(quote) - 1
        elif char in _OPEN:
            depth += 1
        elif depth == 0 and (char == "," or char in _CLOSE):
            return at
        elif char in _CLOSE:
            depth -= 1
        at += 1
    return None


def _line_end(text: str) -> int | None:
    found = NEWLINE.search(text)
    return found.start() if found else None


def _body_end(prefix: str, text: str) -> int | None:
    """A line is judged at its first character that is not white space."""
    before = prefix[max(prefix.rfind("\n"), prefix.rfind("\r")) + 1 :]
    if before.strip():  # the body stands on the line of its header
        return _line_end(text)
    body = None
    for start in _line_starts(text):
        indent = _INDENT.match(text, start)
        if indent is None:
            continue
        column = len(indent.group()) + (len(before) if start == 0 else 0)
        if body is None:
            body = column
        elif column < body:
            return start
    return None


def _line_starts(text: str) -> Iterator[int]:
    """Yield where lines begin, but for those that begin inside a string."""
    yield 0
    for part in _PARTS.finditer(text):
        if part["end"]:
            yield part.end()
