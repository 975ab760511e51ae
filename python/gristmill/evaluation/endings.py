"""Where a completion of each kind ends, so that all who complete are cut by the same rule.

An editor knows the kind of place the cursor is in, and nothing of what follows from the truth.
"""

from __future__ import annotations

_OPEN, _CLOSE = "([{", ")]}"
_QUOTES = "\"'"


def ending(kind: str, prefix: str, text: str) -> int | None:
    """Return the number of characters of `text` that belong to the hole, None while it goes on.

    line: up to the line break. argument: up to a comma or closing bracket that closes nothing in it
    (strings are skipped). body: up to the first line that is indented less than its first line,
    blank lines aside. Raises ValueError for another kind.
    """
    if kind == "line":
        at = text.find("\n")
        return None if at < 0 else at
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
            elif char == "\n" and len(quote) == 1:  # an unclosed string ends with its line
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


def _body_end(prefix: str, text: str) -> int | None:
    """A line is judged at its first character that is not white space."""
    line_start = prefix.rfind("\n") + 1
    before = prefix[line_start:]
    if before.strip():  # the body stands on the line of its header
        at = text.find("\n")
        return None if at < 0 else at
    body = None
    start = 0
    for line in text.splitlines(keepends=True):
        ink = line.lstrip()
        if ink:
            column = len(line) - len(ink) + (len(before) if start == 0 else 0)
            if body is None:
                body = column
            elif column < body:
                return start
        start += len(line)
    return None
