"""Holes: what is cut out is what its kind says, and which ones depends on seed and file only."""

from __future__ import annotations

import ast
import json
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from hypothesis import given
from hypothesis import strategies as st

from gristmill.data.document import Document
from gristmill.data.holes import KINDS, LONGEST, SHORTEST, candidates, find_holes

FILES = [Path(m.__file__) for m in (json.decoder, json.encoder, ast) if m.__file__]


def document(text: str, path: str = "a/b.py") -> Document:
    return Document("0" * 64, "s", path, "a", "MIT", "test", len(text), 0, 0, "utf-8", text)


def pieces(text: str, kind: str, path: str = "a/b.py") -> list[str]:
    return [text[a:b] for a, b in candidates(document(text, path), [kind])[kind]]


SAMPLE = '''\
# naïve comment
import os

@decorate(first, second=2 + 2)
def größe(links, rechts=None):
    """Says

    nothing."""
    wert = max(links, "längs", *rechts, **{})  # tail
    return f"{max(links, rechts)}" + call((links + 1), (i for i in links))

class A:
    text = """one
    two = three
    """
    def one(self): return self.text

    def two(self):
        @inner
        def deep():
            pass
        return deep(\r\n            self.text)
'''


def test_kinds_of_python() -> None:
    assert pieces(SAMPLE, "argument") == [
        *("first", "second=2 + 2", "links", '"längs"', "*rechts", "**{}", "links + 1", "self.text")
    ]
    assert pieces(SAMPLE, "line") == [
        *("import os", "@decorate(first, second=2 + 2)", "def größe(links, rechts=None):"),
        'return f"{max(links, rechts)}" + call((links + 1), (i for i in links))',
        *("class A:", "def one(self): return self.text", "def two(self):", "@inner"),
        *("def deep():", "return deep(", "self.text)"),
    ]
    body = pieces(SAMPLE, "body")
    assert body[0].startswith("wert = max") and body[0].endswith("(i for i in links))")
    assert body[1] == "return self.text"
    assert body[2].startswith("@inner\n") and body[2].endswith("self.text)")
    assert len(body) == 3  # `pass` is too short


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_every_argument_and_body_parses_in_place(file: Path) -> None:
    text = file.read_text("utf-8")
    found = candidates(document(text), KINDS)
    assert all(len(found[kind]) > 2 for kind in KINDS)
    for start, end in found["argument"]:
        ast.parse(f"f({text[start:end]}\n)")
        assert text[end:].lstrip()[0] in ",)", text[start : end + 5]
    for start, end in found["body"]:
        begin = text.rfind("\n", 0, start) + 1
        indent = text[begin:start] if not text[begin:start].strip() else ""
        ast.parse("def f():\n" + (indent or " ") + text[start:end])
    for kind in KINDS:
        for start, end in found[kind]:
            assert SHORTEST[kind] <= end - start <= LONGEST[kind]
            assert text[start:end] == text[start:end].strip()


def test_text_that_is_no_python_has_lines_only() -> None:
    text = "# Title\n\n  first words\nend\r\nlast words here"
    for path in ("read.md", "broken.py"):
        found = candidates(document(text, path), KINDS)
        assert found["argument"] == found["body"] == []
    assert pieces(text, "line", "read.md") == ["# Title", "first words", "last words here"]


@pytest.mark.parametrize("text", ["", "\n", "\x00", "x = (" * 500, "\ufeffx = 1234\n"])
def test_strange_text(text: str) -> None:
    assert set(candidates(document(text), KINDS)) == set(KINDS)


@given(st.text())
def test_any_text(text: str) -> None:
    for path in ("a.py", "a.txt"):
        for start, end in candidates(document(text, path), ["line"])["line"]:
            assert text[start:end].strip() == text[start:end]
            assert "\n" not in text[start:end]


@given(st.integers(0, 9), st.integers(0, 2**63), st.permutations(KINDS))
def test_a_sample_is_seeded_and_a_part_of_all(n: int, seed: int, kinds: Sequence[str]) -> None:
    own = document(SAMPLE)
    holes = find_holes(own, kinds, n, seed)
    assert holes == find_holes(own, kinds, n, seed)
    everything = candidates(own, kinds)
    for kind in kinds:
        spans = [(h.start, h.end) for h in holes if h.kind == kind]
        assert len(spans) == min(n, len(everything[kind]))
        assert spans == sorted(spans) and set(spans) <= set(everything[kind])
    fewer = find_holes(own, kinds, max(0, n - 1), seed)
    assert set(fewer) <= set(holes)


def test_other_seeds_take_other_holes() -> None:
    file = Path(sysconfig.get_paths()["stdlib"]) / "ast.py"
    own = document(file.read_text("utf-8"))
    first, second = (find_holes(own, ["line"], 20, seed) for seed in (1, 2))
    assert len(first) == len(second) == 20
    assert set(first) != set(second)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="allowed: line, argument, body"):
        find_holes(document(SAMPLE), ["word"], 3, 1)
