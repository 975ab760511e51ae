"""Labelling functions for the quality of a source file: each looks at one thing and may abstain.

The thresholds are judgements, not fits; coverage, overlap and conflict of every function are
measured by `annotation`, and its accuracy where a human audited a sample.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cached_property

from gristmill.data.document import Document, is_python
from gristmill.data.holes import parse

GOOD, POOR = "good", "poor"
Vote = str | None  # GOOD, POOR, or no opinion
_DIGITS = re.compile(r"[0-9]|\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}")
_UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Facts:
    """What the functions look at; `statements` is empty where the file is no Python."""

    def __init__(self, document: Document) -> None:
        """Parse the document if it is Python."""
        self.text = document.text
        tree = parse(document.text) if is_python(document.path) else None
        self.statements = list(_statements(tree)) if tree else []

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not blank, without indentation."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @cached_property
    def definitions(self) -> list[_Definition]:
        """Functions and classes, also inner ones."""
        return [node for node in self.statements if isinstance(node, _Definition)]


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield every statement; expressions, nine tenths of a tree, are not walked."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            children = getattr(node, name, ())
            if isinstance(children, list):
                waiting.extend(children)


def _between(value: float, good: float, poor: float) -> Vote:
    """Vote by two thresholds; good < poor means that less is better."""
    low, high = (POOR, GOOD) if good > poor else (GOOD, POOR)
    return high if value >= max(good, poor) else low if value <= min(good, poor) else None


def documented(facts: Facts) -> Vote:
    """At least half of the definitions have a docstring; poor: at most a tenth."""
    own = [d for d in facts.definitions if not d.name.startswith("_")]
    if len(own) < 3:
        return None
    return _between(sum(ast.get_docstring(d, False) is not None for d in own) / len(own), 0.5, 0.1)


def short_functions(facts: Facts) -> Vote:
    """No function is longer than 60 lines; poor: one of 200 or more."""
    sizes = [
        (d.end_lineno or d.lineno) - d.lineno + 1
        for d in facts.definitions
        if not isinstance(d, ast.ClassDef)
    ]
    return _between(max(sizes), 60, 200) if sizes else None


def narrow_lines(facts: Facts) -> Vote:
    """At most 1 % of the lines are wider than 100 characters; poor: a tenth."""
    if not facts.lines:
        return None
    lines = facts.text.split("\n")
    return _between(sum(len(line) > 100 for line in lines) / len(facts.lines), 0.01, 0.1)


def varied(facts: Facts) -> Vote:
    """At least 70 % of the lines are unlike each other; poor: at most 40 %."""
    if len(facts.lines) < 20:
        return None
    return _between(len(set(facts.lines)) / len(facts.lines), 0.7, 0.4)


def telling_names(facts: Facts) -> Vote:
    """At least 80 % of the names given have three letters or more; poor: at most half."""
    names = [d.name for d in facts.definitions]
    for d in facts.definitions:
        if not isinstance(d, ast.ClassDef):
            arguments = (*d.args.posonlyargs, *d.args.args, *d.args.kwonlyargs)
            names += [a.arg for a in arguments if a.arg not in ("self", "cls")]
    if len(names) < 5:
        return None
    return _between(sum(len(name.strip("_")) >= 3 for name in names) / len(names), 0.8, 0.5)


def no_table(facts: Facts) -> Vote:
    """At most 5 % of the text is digits and escapes; poor: a quarter."""
    text = facts.text
    if not text:
        return None
    return _between(
        sum(m.end() - m.start() for m in _DIGITS.finditer(text)) / len(text), 0.05, 0.25
    )


def explicit(facts: Facts) -> Vote:
    """Poor: imports every name of a module, or catches every exception without a name."""
    for node in facts.statements:
        if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
            return POOR
        if isinstance(node, ast.Try | ast.TryStar) and any(h.type is None for h in node.handlers):
            return POOR
    return None


def finished(facts: Facts) -> Vote:
    """Poor: announces unfinished work more than once in 100 lines."""
    marks = len(_UNFINISHED.findall(facts.text))
    return POOR if marks > 1 and marks > len(facts.lines) / 100 else None


FUNCTIONS: tuple[Callable[[Facts], Vote], ...] = (
    documented,
    short_functions,
    narrow_lines,
    varied,
    telling_names,
    no_table,
    explicit,
    finished,
)
