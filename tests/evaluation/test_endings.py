"""Where completions end: the truth of every hole found in real files is its own completion."""

from __future__ import annotations

import inspect
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.data import document, loader, table
from gristmill.data.document import Document
from gristmill.data.holes import KINDS, find_holes
from gristmill.evaluation.chosen import choose_bytes, choose_documents, choose_holes
from gristmill.evaluation.endings import ending

FILES = [
    Document(str(n), "s", f"{n}.py", "a", "l", "w", 1, 0, 0, "utf-8", inspect.getsource(module))
    for n, module in enumerate((document, loader, table, textwrap))
]


@pytest.mark.parametrize(
    ("kind", "prefix", "text", "kept"),
    [
        ("line", "x = ", "1 + 2\ny = 3", "1 + 2"),
        ("line", "x = ", "1 + 2", None),
        ("argument", "f(", "a, b)", "a"),
        ("argument", "f(", "g(a, b)[0])", "g(a, b)[0]"),
        ("argument", "f(", '",)\\"", x)', '",)\\""'),
        ("argument", "f(", "'''),''', x)", "'''),'''"),
        ("argument", "f(", "'open\n), x", "'open\n"),
        ("argument", "f(", "{1: 2", None),
        ("body", "def f():\n    ", "a = 1\n\n    return a\n\ndef g", "a = 1\n\n    return a\n\n"),
        ("body", "def f():\n", "    a = 1\n    b\nc", "    a = 1\n    b\n"),
        ("body", "def f():\n    ", "if a:\n        b\n    c", None),
        ("body", "def f(): ", "return 1\n    more", "return 1"),
        ("body", "    def f():\n        ", "a\n    b", "a\n"),
        ("line", "x = ", "'a\x0cb\u2028c'\ry", "'a\x0cb\u2028c'"),
        ("body", "def f():\r    ", "a\r    b\rc", "a\r    b\r"),
        ("body", "def f():\n    ", "a = 'x\x0cy\u2028z'\n    b\nc", "a = 'x\x0cy\u2028z'\n    b\n"),
        ("body", "def f():\n    ", 'a = """\nx\n"""\n    b\nc', 'a = """\nx\n"""\n    b\n'),
        ("body", "def f():\n    ", 'a = """\nx\n', None),
        ("body", "def f():\n    ", "a = 'x\\\ny'\n    b\nc", "a = 'x\\\ny'\n    b\n"),
        ("body", "def f():\n    ", 'a  # """ don\'t\n    b\nc', 'a  # """ don\'t\n    b\n'),
    ],
)
def test_by_hand(kind: str, prefix: str, text: str, kept: str | None) -> None:
    end = ending(kind, prefix, text)
    assert (None if end is None else text[:end]) == kept


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_not_cut_and_what_follows_is(kind: str) -> None:
    """Given the rest of the file as completion, the cut gives back the truth of every hole."""
    seen = 0
    for file in FILES:
        for hole in find_holes(file, [kind], 1000, 1):
            prefix, rest = file.text[: hole.start], file.text[hole.start :]
            end = ending(kind, prefix, rest)
            truth = file.text[hole.start : hole.end]
            got = rest[:end].rstrip()
            # a comment may follow a truth on its line, or stand behind a body at its indentation
            assert got == truth or (got.startswith(truth) and "#" in got[len(truth) :]), (hole, got)
            seen += 1
    assert seen >= 20


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'word' given"):
        ending("word", "", "x")


def test_chosen_holes_are_spread_and_grow() -> None:
    few, _ = choose_holes(FILES, ["line", "body"], 3, 5)
    many, _ = choose_holes(FILES, ["line", "body"], 12, 5)
    assert [h.kind for h in few] == ["line"] * 3 + ["body"] * 3
    assert len({h.doc_id for h in few if h.kind == "line"}) == 3  # each from another file
    assert len([h for h in many if h.kind == "line"]) == 12
    assert choose_holes(list(reversed(FILES)), ["line"], 3, 5)[0] != []
    assert {h.start for h in choose_holes(FILES, ["line"], 3, 6)[0]} != {h.start for h in few[:3]}
    assert choose_holes(FILES, ["line"], 0, 5) == choose_holes([], ["line"], 3, 5) == ([], 0)


def test_holes_whose_truth_would_be_cut_are_passed_over_and_counted() -> None:
    """The brackets of one body go on further left: no rule without the truth can know its end."""
    left = "def f(a):\n    b = [\n  1,\n    ]\n    return a + b\n\n\n"
    plain = "def g(a):\n    b = a + 1\n    return a * b\n"
    document = Document("1", "s", "1.py", "a", "l", "w", 1, 0, 0, "utf-8", left + plain)
    assert len(find_holes(document, ["body"], 9, 5)) == 2
    (hole,), passed = choose_holes([document], ["body"], 9, 5)
    assert (hole.start > len(left), passed) == (True, 1)


def test_training_files_are_not_preferred_for_being_short() -> None:
    """Each that still fits would take all 10 of 50 bytes; the beginning of an order does not."""
    sizes = [50, 1000] * 10
    ids = [str(i) for i in range(20)]
    for seed in range(20):
        chosen = choose_bytes(ids, sizes, 1600, seed)
        assert chosen == choose_documents(ids, len(chosen), seed)
        assert sum(sizes[i] for i in chosen) <= 1600
        more = choose_documents(ids, len(chosen) + 1, seed)
        assert sum(sizes[i] for i in more) > 1600
    assert len(choose_bytes(ids, sizes, 1, 0)) == 1


@given(ids=st.lists(st.text(max_size=4), unique=True, max_size=30), n=st.integers(1, 30))
def test_chosen_documents_nest(ids: list[str], n: int) -> None:
    chosen = choose_documents(ids, n, 3)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(n, len(ids))
    assert set(chosen) <= set(choose_documents(ids, n + 1, 3))
    assert choose_documents(ids, 0, 3) == list(range(len(ids)))
