"""Holes: pieces of a file that a completer should be able to write, found in the file itself.

line: the code of one line. argument: one argument of a call. body: the statements of a function,
its docstring left out. Python is read by `ast`; other text, and Python that does not parse, has
lines only. Offsets count characters of `Document.text`; prefix and suffix are the text around.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.data.counter import hash64, string_hash
from gristmill.data.document import Document, is_python

KINDS = ("line", "argument", "body")
SHORTEST = {"line": 6, "argument": 2, "body": 10}  # characters: less says nothing about a model
LONGEST = {"line": 160, "argument": 80, "body": 400}  # and nobody accepts more at once
BODY_LINES = 12
NEWLINE = re.compile(r"\r\n|\r|\n")  # where Python ends a line; str.splitlines knows more
_LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.cmpop, ast.alias)
Span = tuple[int, int]
Node = ast.expr | ast.stmt | ast.keyword


@dataclass(frozen=True, slots=True)
class Hole:
    """text[start:end] of a document, to be written from what is around it."""

    doc_id: str
    path: str
    kind: str
    start: int
    end: int


def find_holes(document: Document, kinds: Sequence[str], n: int, seed: int) -> list[Hole]:
    """Return up to `n` holes of each kind, a seeded sample, by kind and place.

    Which ones depends on (seed, document) only. Raises ValueError for an unknown kind.
    """
    found = candidates(document, kinds)
    own = string_hash(seed, document.id + document.path)
    holes = []
    for kind in kinds:
        spans = found[kind]
        starts = np.array([start for start, _ in spans], np.int64)
        ranks = hash64(own, KINDS.index(kind), starts) if spans else starts
        chosen = sorted(np.argsort(ranks, kind="stable")[:n].tolist())
        holes += [Hole(document.id, document.path, kind, *spans[i]) for i in chosen]
    return holes


def candidates(document: Document, kinds: Sequence[str]) -> dict[str, list[Span]]:
    """Return every hole (start, end) of each kind in order of place; raises ValueError."""
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"kinds {sorted(unknown)} given, allowed: {', '.join(KINDS)}")
    text = document.text
    tree = parse(text) if is_python(document.path) else None
    source = _Source(text)
    found: dict[str, list[Span]] = {kind: [] for kind in KINDS}
    strings: list[Span] = []
    if tree is not None:
        for kind, span in _spans(tree, source):
            (strings if kind == "string" else found[kind]).append(span)
    found["line"] = list(_lines(source, strings, tree is not None))
    return {kind: sorted(_fitting(kind, set(found[kind]), text)) for kind in kinds}


def _fitting(kind: str, spans: set[Span], text: str) -> Iterator[Span]:
    for start, end in spans:
        lines = text.count("\n", start, end) + 1
        if SHORTEST[kind] <= end - start <= LONGEST[kind] and lines <= BODY_LINES:
            yield start, end


@functools.lru_cache(maxsize=1)  # the same file is read for its holes and for its quality
def parse(text: str) -> ast.Module | None:
    """Return the syntax tree of Python, or None where it does not parse; not to be changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the file's escapes and literals: not ours to report
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


class _Source:
    """Turns ast's (line, UTF-8 column) into characters of the text."""

    def __init__(self, text: str) -> None:
        self.text, self.plain = text, text.isascii()
        self.starts = [0, *(match.end() for match in NEWLINE.finditer(text))]

    def at(self, line: int, column: int) -> int:
        start = self.starts[line - 1]
        if self.plain:
            return start + column
        stop = self.starts[line] if line < len(self.starts) else len(self.text)
        return start + len(self.text[start:stop].encode("utf-8")[:column].decode("utf-8"))

    def span(self, first: Node, last: Node | None = None) -> Span:
        """Return the characters from the beginning of one node to the end of another."""
        last = last or first
        end_line, end_column = last.end_lineno, last.end_col_offset
        assert end_line is not None and end_column is not None  # ast.parse sets both
        return self.at(first.lineno, first.col_offset), self.at(end_line, end_column)


def _spans(tree: ast.Module, source: _Source) -> Iterator[tuple[str, Span]]:
    """Yield arguments, bodies and strings of several lines; what is in an f-string is left out."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call):
            arguments: list[Node] = [*node.args, *node.keywords]
            for argument in arguments:
                if not isinstance(argument, ast.GeneratorExp):  # it spans the call's parentheses
                    yield "argument", source.span(argument)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            statements = node.body[1:] if ast.get_docstring(node, False) is not None else node.body
            if statements:
                yield "body", _body(statements, source)
        for name in node._fields:
            value = getattr(node, name, None)
            for child in value if isinstance(value, list) else (value,):
                if isinstance(child, ast.Constant | ast.JoinedStr):
                    if child.lineno != child.end_lineno:
                        yield "string", source.span(child)
                elif isinstance(child, ast.AST) and not isinstance(child, _LEAVES):
                    waiting.append(child)


def _body(statements: list[ast.stmt], source: _Source) -> Span:
    """Return the characters of statements; a decorator belongs to what it decorates."""
    first = statements[0]
    decorators = getattr(first, "decorator_list", [])
    start, end = source.span(first, statements[-1])
    if decorators:
        start = source.text.rindex("@", 0, source.span(decorators[0])[0])
    return start, end


def _lines(source: _Source, strings: list[Span], python: bool) -> Iterator[Span]:
    """Yield each line without its indentation; in Python none with a comment or a long string."""
    text, starts = source.text, [*source.starts, len(source.text)]
    inside = np.zeros(len(source.starts), np.bool_)
    for start, end in strings:
        first, last = np.searchsorted(source.starts, [start, end], "right")
        inside[first - 1 : last] = True
    for number, within in enumerate(inside.tolist()):
        line = text[starts[number] : starts[number + 1]]
        code = line.strip()
        if not code or within or (python and "#" in code):
            continue
        start = starts[number] + len(line) - len(line.lstrip())
        yield start, start + len(code)
