"""Prose rules: each takes out what it is for, names value and bar, and can be switched off."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydantic")

from hypothesis import given
from hypothesis import strategies as st

from gristmill.data import cleaning
from gristmill.data.document import Document
from gristmill.data.prose_rules import check_language, check_prose, check_web, keep_lines
from gristmill.data.prose_settings import LanguageStep, ProseStep, RepetitionStep, WebStep
from gristmill.data.repetition import (
    _numbered,
    check_repetition,
    repeated_pieces,
    repeated_runs,
    top_run,
)
from gristmill.errors import ConfigError

GOOD = """The mill stands at the end of the valley, where two rivers meet below an old bridge.

For three hundred years people have brought their grain here. The stones were cut from one block,
and they have been dressed by hand each winter. Nobody remembers who laid the first of them.

"Flour wants patience," said the miller. She told us that good flour is never hot, so the stones
must turn slowly. A fast mill burns what it grinds! We watched with wonder as the wheel began to
move, and the whole house trembled a little.
"""


def prose(**options: Any) -> ProseStep:
    return ProseStep(use="prose", **options)


def test_good_text_breaks_nothing() -> None:
    assert check_prose(GOOD, prose()) is None
    assert check_repetition(GOOD, RepetitionStep(use="repetition")) is None
    flat = GOOD.replace(",\n", ", ").replace("\nand", " and").replace("\nmust", " must")
    assert check_web(flat.replace("\nmove", " move"), WebStep(use="web")) is None


@pytest.mark.parametrize(
    ("text", "rule", "value", "threshold", "off"),
    [
        ("the miller and the stone", "min_words", "5", ">= 50", {"min_words": 0}),
        (GOOD * 2, "max_words", "192", "<= 100", {"max_words": 0}),
        ("a b of the " * 20, "min_word", "1.75", ">= 3", {"min_word": 0.0}),
        (("the of " + "internationalization " * 2) * 20, "max_word", "11.25", "<= 10",
         {"max_word": 0.0}),
        (GOOD + "# " * 20, "max_symbols", "0.172", "<= 0.1", {"max_symbols": 1.0}),
        (GOOD + "so ... " * 20, "max_symbols", "0.147", "<= 0.1", {"max_symbols": 1.0}),
        ("• " + GOOD.strip().replace("\n\n", "\n").replace("\n", "\n• "), "max_bullets", "1.000",
         "<= 0.9", {"max_bullets": 1.0}),
        (GOOD.replace(".\n", "...\n").replace("winter.", "winter…"), "max_ellipses", "0.500",
         "<= 0.3", {"max_ellipses": 1.0}),
        (GOOD + "123,4 " * 40, "min_alphabetic", "0.706", ">= 0.8", {"min_alphabetic": 0.0}),
        ("lorem ipsum dolor sit amet " * 20, "min_stop_words", "0", ">= 2",
         {"min_stop_words": 0}),
    ],
)  # fmt: skip
def test_prose(text: str, rule: str, value: str, threshold: str, off: dict[str, Any]) -> None:
    strict: dict[str, Any] = {"max_words": 100} if rule == "max_words" else {}
    broken = check_prose(text, prose(**strict))
    assert broken == (rule, value, threshold)
    assert check_prose(text, prose(**{**strict, **off})) is None


def test_stop_words_stand_among_signs() -> None:
    text = '"The" ' + "gristmill " * 60 + "(with)."
    assert check_prose(text, prose()) is None
    german = prose(stop_words=["der", "und"])
    assert check_prose(text, german) == ("min_stop_words", "0", ">= 2")


def repetition(**options: Any) -> RepetitionStep:
    names = ("max_lines", "max_line_characters", "max_paragraphs", "max_paragraph_characters")
    off = {**dict.fromkeys(names, 1.0), "max_top": [1.0] * 3, "max_runs": [1.0] * 6}
    return RepetitionStep(use="repetition", **{**off, **options})


@pytest.mark.parametrize(
    ("text", "rule", "value", "bar"),
    [
        ("a\nb\na\na\n", "max_lines", "0.500", 0.3),
        ("aaaa\nb\naaaa\n", "max_line_characters", "0.444", 0.2),
        ("one\ntwo\n\none\ntwo\n\nthree", "max_paragraphs", "0.333", 0.3),
        ("one\ntwo\n\none\ntwo\n\nthree", "max_paragraph_characters", "0.368", 0.2),
        ("x yy a b x yy c d e x yy", "max_top 2 words", "0.643", 0.2),
        ("a b c d e f a b c d e", "max_runs 5 words", "0.455", 0.15),
    ],
)
def test_each_rule_of_repetition(text: str, rule: str, value: str, bar: float) -> None:
    name, _, n = rule.partition(" ")
    given: Any = bar
    if n:
        size, low = (3, 2) if name == "max_top" else (6, 5)
        given = [1.0] * size
        given[int(n.split()[0]) - low] = bar
    assert check_repetition(text, repetition(**{name: given})) == (rule, value, f"<= {bar:g}")
    assert check_repetition(text, repetition()) is None


def test_published_bars() -> None:
    """Rae et al. 2021, table A1 and appendix A.1.1; Raffel et al. 2020; Penedo et al. 2024."""
    step = RepetitionStep(use="repetition")
    assert (step.max_lines, step.max_paragraphs) == (0.30, 0.30)
    assert (step.max_line_characters, step.max_paragraph_characters) == (0.20, 0.20)
    assert step.max_top == (0.20, 0.18, 0.16)
    assert step.max_runs == (0.15, 0.14, 0.13, 0.12, 0.11, 0.10)
    p = prose()
    assert (p.min_words, p.max_words, p.min_word, p.max_word) == (50, 100_000, 3, 10)
    assert (p.max_symbols, p.max_bullets, p.max_ellipses) == (0.1, 0.9, 0.3)
    assert (p.min_alphabetic, p.min_stop_words, len(p.stop_words)) == (0.8, 2, 8)
    w = WebStep(use="web")
    assert (w.min_sentences, w.min_line_words) == (5, 3)
    assert (w.min_ended, w.max_short, w.short_line, w.max_line_characters) == (0.12, 0.67, 30, 0.1)


def by_hand(words: list[str], n: int, *, top: bool) -> float:
    """Straight from the definition, with sets of places."""
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    covered: set[int] = set()
    counts = Counter(runs)
    if top:
        most = max(counts.values(), default=0)
        if most < 2:
            return 0.0
        places = [
            {i + k for i, other in enumerate(runs) if other == run for k in range(n)}
            for run in counts
            if counts[run] == most
        ]
        covered = max(places, key=lambda some: sum(len(words[i]) for i in some))
    else:
        for i, run in enumerate(runs):
            if run in runs[:i]:
                covered |= set(range(i, i + n))
    return sum(len(words[i]) for i in covered) / sum(map(len, words))


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), min_size=1, max_size=40),
       st.integers(2, 10))  # fmt: skip
def test_runs_of_words_as_defined(words: list[str], n: int) -> None:
    ids, sizes = _numbered(words)
    assert repeated_runs(ids, sizes, n) == pytest.approx(by_hand(words, n, top=False))
    assert top_run(ids, sizes, n) == pytest.approx(by_hand(words, n, top=True))


@given(st.text(max_size=80))
def test_any_text_can_be_measured(text: str) -> None:
    check_prose(text, prose(min_words=0))
    check_repetition(text, RepetitionStep(use="repetition"))
    check_web(text, WebStep(use="web"))


def test_pieces() -> None:
    assert repeated_pieces([]) == (0.0, 0.0)
    assert repeated_pieces(["ab", "c", "ab"]) == (1 / 3, 2 / 5)
    assert np.isclose(repeated_pieces(["x"] * 10)[0], 0.9)


LINES = [f"This is sentence number {n} of the page about mills." for n in range(9)]
PAGE = "\n".join(LINES)


@pytest.mark.parametrize(
    ("text", "rule", "off"),
    [
        (PAGE + "\nLorem Ipsum dolor.", "lorem_ipsum", {"lorem_ipsum": False}),
        (PAGE + "\nif (x) { y }", "braces", {"braces": False}),
        (LINES[0] + "".join(f"\nthis is a longer line without end {n}" for n in range(9)),
         "min_ended", {"min_ended": 0.0, "min_sentences": 0}),
        (PAGE + "\n" + "\n".join(f"Menu item {n}." for n in range(30)), "max_short",
         {"max_short": 1.0}),
        (PAGE + "\n" + LINES[0] + "\n" + LINES[1], "max_line_characters",
         {"max_line_characters": 1.0}),
        ("\n".join(LINES[:4]), "min_sentences", {"min_sentences": 4}),
    ],
)  # fmt: skip
def test_web(text: str, rule: str, off: dict[str, Any]) -> None:
    broken = check_web(text, WebStep(use="web"))
    assert broken is not None and broken.rule == rule
    assert check_web(text, WebStep(use="web", **off)) is None


def test_lines_that_go_are_counted() -> None:
    menu = "Home\nPlease enable JavaScript to see it.\nWe use cookies on it.\nOh no.\n"
    text, counts = keep_lines(menu + PAGE + "\nand so on...", WebStep(use="web"))
    assert text == PAGE
    assert counts == {"line without an end": 2, "short line": 1, "policy or script line": 2}


def row(number: int, text: str) -> Document:
    head = (f"{number:064x}", "src", f"{number}.txt", ".", "MIT", "test")
    return Document(*head, len(text), 1, 2, "utf-8", text)


def test_steps_write_the_ledger() -> None:
    documents = [row(1, PAGE), row(2, "too short"), row(3, "Menu\n" + PAGE), row(4, "ab. " * 200)]
    steps: list[Any] = [prose(min_words=10), RepetitionStep(use="repetition"), WebStep(use="web")]
    done = cleaning.clean(documents, [steps[0], steps[2]], seed=1)
    assert [d.path for d in done.documents] == ["1.txt", "3.txt"]
    assert [(r.path, r.step, r.rule) for r in done.removed] == [
        ("2.txt", "1-prose", "min_words"),
        ("4.txt", "1-prose", "min_stop_words"),
    ]
    assert done.documents[1].text == PAGE
    assert [r[2:] for r in done.repairs] == [("3.txt", "2-web", "line without an end gone", 1)]
    assert [(s.step, s.rows_in, s.removed, s.changed) for s in done.steps] == [
        ("1-prose", 4, 2, 0),
        ("2-web", 2, 0, 1),
    ]


GERMAN = "Die Mühle steht am Ende des Tals, wo sich zwei Flüsse unter einer alten Brücke treffen. "


def test_language() -> None:
    pytest.importorskip("py3langid")
    step = LanguageStep(use="language")
    assert check_language(GOOD, step) is None
    broken = check_language(GERMAN * 3, step)
    assert broken is not None and broken.rule == "language"
    assert broken.value == "de 1.000, allowed together 0.000" and broken.threshold == "en >= 0.65"
    assert check_language(GERMAN * 3, LanguageStep(use="language", languages=["de", "en"])) is None
    with pytest.raises(ConfigError, match=r"xx given; py3langid knows .*\bde\b"):
        check_language(GOOD, LanguageStep(use="language", languages=["en", "xx"]))
