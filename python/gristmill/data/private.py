"""Personal data and secrets become keyed tokens: same value, same token, in any order of files.

A token such as <EMAIL:3f2a> ends in 16 bits of a hash keyed by the seed. That is enough to tell two
values in a file apart, and too few to find a value by trying all there are: every token stands for
one in 65,536 of them. The audit says where and what kind, never the value.
"""

from __future__ import annotations

import io
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.data.clean_settings import PrivateRule
from gristmill.data.code_rules import syntax_error
from gristmill.data.counter import string_hash
from gristmill.data.document import is_python
from gristmill.data.private_rules import FINDERS, Span

AUDIT_SCHEMA = {
    "id": "VARCHAR",
    "source": "VARCHAR",
    "path": "VARCHAR",
    "rule": "VARCHAR",
    "start": "BIGINT",
    "length": "BIGINT",
    "token": "VARCHAR",
}


@dataclass(frozen=True, slots=True)
class Replacement:
    """One value that was replaced: `start` of its token in the new text, length of the old value.

    Both count characters.
    """

    rule: PrivateRule
    start: int
    length: int
    token: str


def token_for(rule: PrivateRule, value: str, seed: int) -> str:
    """Return the token that stands for `value`: <LABEL:hhhh>, a function of (seed, rule, value)."""
    digest = string_hash(seed, f"{rule}\0{value}") & 0xFFFF
    return f"<{FINDERS[rule].label}:{digest:04x}>"


def replace_private(
    text: str, path: str, rules: Sequence[PrivateRule], seed: int
) -> tuple[str, list[Replacement]]:
    """Return the text with every value replaced by its token, and what was replaced, in order.

    Where two rules claim the same characters, the one named first wins. Where replacing breaks
    Python, values that begin or end in code (`a@b.tv`, 4111111111111111) stay; a key over several
    strings does not.
    """
    found = find(text, rules)
    if not found:
        return text, []
    new, replaced = _substitute(text, found, seed)
    if is_python(path) and syntax_error(new) and not syntax_error(text):
        quoted = _quoted_spans(text)
        found = [(rule, span) for rule, span in found if _quoted(span, quoted)]
        new, replaced = _substitute(text, found, seed)
    return new, replaced


def find(text: str, rules: Sequence[PrivateRule]) -> list[tuple[PrivateRule, Span]]:
    """Return (rule, span) of every value, by position, without overlaps."""
    taken: list[tuple[PrivateRule, Span]] = []
    for rule in rules:
        for start, end in FINDERS[rule].find(text):
            if all(end <= first or start >= last for _, (first, last) in taken):
                taken.append((rule, (start, end)))
    return sorted(taken, key=lambda item: item[1])


def _substitute(
    text: str, found: Sequence[tuple[PrivateRule, Span]], seed: int
) -> tuple[str, list[Replacement]]:
    parts: list[str] = []
    replaced = []
    here = length = 0
    for rule, (start, end) in found:
        token = token_for(rule, text[start:end], seed)
        length += start - here
        parts += [text[here:start], token]
        replaced.append(Replacement(rule, length, end - start, token))
        length += len(token)
        here = end
    return "".join([*parts, text[here:]]), replaced


def _quoted_spans(text: str) -> list[Span]:
    """Return the spans of strings and comments of Python that parses."""
    starts = [0]
    for line in io.StringIO(text, newline=""):
        starts.append(starts[-1] + len(line))
    spans = []
    for token in tokenize.generate_tokens(io.StringIO(text, newline="").readline):
        name = tokenize.tok_name[token.type]
        if name in ("STRING", "COMMENT") or name.startswith("FSTRING"):
            (first, column), (last, end) = token.start, token.end
            spans.append((starts[first - 1] + column, starts[last - 1] + end))
    return spans


def _quoted(span: Span, spans: Sequence[Span]) -> bool:
    """Say whether the first and the last character are quoted, maybe in different strings."""
    return all(any(a <= at < b for a, b in spans) for at in (span[0], span[1] - 1))
