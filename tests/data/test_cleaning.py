"""Clean as a whole: the ledger closes, steps keep their order, the right row stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")
pytest.importorskip("rensa")

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from gristmill.artifacts import sha256_json
from gristmill.data import cleaning, dedup
from gristmill.data.clean_settings import CleanStep, default_steps
from gristmill.data.cleaning import check_ledger, clean
from gristmill.data.document import Document, Removal
from gristmill.errors import ArtifactError, DataError

STEP: TypeAdapter[CleanStep] = TypeAdapter(CleanStep)


def step(use: str, **options: Any) -> CleanStep:
    return STEP.validate_python({"use": use, **options})


def row(path: str, text: str, modified: int = 0, source: str = "s") -> Document:
    return Document(
        id=sha256_json([path, text]),
        source=source,
        path=path,
        area=".",
        licence="MIT",
        why="test",
        bytes=len(text),
        modified=modified,
        retrieved_at=modified,
        encoding="utf-8",
        text=text,
    )


def code(words: int, start: int = 0) -> str:
    return "\n".join(f"name{i} = value{i} + {i}" for i in range(start, start + words)) + "\n"


def kept(documents: list[Document], *steps: CleanStep) -> list[str]:
    return [d.path for d in clean(documents, steps, 1).documents]


def test_each_removal_names_step_rule_value_and_threshold() -> None:
    rows = [
        row("good.py", code(30)),
        row("bad.py", "def f(:\n" + code(9)),
        row("copy.py", code(30)),
        row("near.py", code(29) + "other = 1\n"),
        row("lost.py", "\ufffd" * 50 + code(9)),
    ]
    done = clean(rows, default_steps(), 1)
    assert [d.path for d in done.documents] == ["good.py"]
    ledger = {r.path: (r.step, r.rule, r.threshold) for r in done.removed}
    assert ledger == {
        "lost.py": ("1-unicode", "max_bad", "<= 0.01"),
        "bad.py": ("2-code", "parses", "Python parses it"),
        "copy.py": ("3-exact", "exact", "each text once"),
        "near.py": ("4-near", "near", "< 0.8"),
    }
    values = {r.path: r.value for r in done.removed}
    assert values["copy.py"] == "same text as s/good.py"
    assert values["near.py"].endswith("to s/good.py")
    assert 0.8 <= float(values["near.py"].split()[0]) < 1.0
    assert [(s.rows_in, s.removed) for s in done.steps][:4] == [(5, 1), (4, 1), (3, 1), (2, 1)]


def test_steps_run_in_their_order() -> None:
    rows = [row("a.py", code(9)), row("b.py", code(9).replace("\n", "\r\n"))]
    assert kept(rows, step("exact"), step("unicode")) == ["a.py", "b.py"]
    assert kept(rows, step("unicode"), step("exact")) == ["a.py"]


@pytest.mark.parametrize(("keep", "stays"), [("first", "a.py"), ("newest", "b.py")])
def test_exact_keeps(keep: str, stays: str) -> None:
    rows = [row("a.py", code(9), 1), row("b.py", code(9), 9), row("c.py", code(9), 3)]
    assert kept(rows, step("exact", keep=keep)) == [stays]


@pytest.mark.parametrize(
    ("keep", "stays"),
    [("first", ["a.py"]), ("longest", ["b.py"]), ("newest", ["c.py"]), ("all", list("abc"))],
)
def test_near_keeps(keep: str, stays: list[str]) -> None:
    rows = [
        row("a.py", code(60), 1),
        row("b.py", code(61) + "x = 1\n", 2),
        row("c.py", code(60) + "y\n", 3),
    ]
    got = kept(rows, step("near", keep=keep))
    assert got == ([f"{s}.py" for s in stays] if keep == "all" else stays)


def test_near_chain_leaves_no_two_similar_and_no_orphan() -> None:
    """a~b~c~d with a, d unlike: what goes has a like that stays; what stays has none."""
    rows = [row(f"{i:02}.py", code(100, 5 * i)) for i in range(12)]
    done = clean(rows, [step("near", threshold=0.8, keep="first")], 1)
    texts = {r.path: r.text for r in rows}
    names = [d.path for d in done.documents]
    assert 1 < len(names) < 12
    assert dedup.similar_pairs([texts[name] for name in names], 0.8) == []
    for removal in done.removed:
        winner = removal.value.rpartition("/")[2]
        assert winner in names
        assert dedup.similar_pairs([texts[winner], texts[removal.path]], 0.8)
    assert len({d.cluster for d in done.documents}) == 1  # grouped through what was removed


def test_clusters_number_groups_by_first_appearance() -> None:
    half = code(40) + code(12, 500)
    rows = [row("a.py", code(30, 900)), row("b.py", code(40)), row("c.py", code(30, 2000))]
    rows.append(row("d.py", half))
    done = clean(rows, [step("near", threshold=0.9, group=0.5)], 1)
    assert [d.cluster for d in done.documents] == [0, 1, 2, 1]
    assert [d.cluster for d in clean(rows, [], 1).documents] == [0, 1, 2, 3]


def test_private_values_go_to_the_audit_without_the_value() -> None:
    rows = [row("a.py", "# by bob@uni.de\n" + code(5))]
    done = clean(rows, [step("private")], 1)
    text = done.documents[0].text
    assert "bob" not in text
    assert [(entry[2], entry[3]) for entry in done.audit] == [("a.py", "email")]
    start, token = done.audit[0][4], done.audit[0][6]
    assert text[start:].startswith(token)
    assert "bob" not in repr(done.audit)
    assert done.steps[0].changed == 1
    assert done.documents[0].id == rows[0].id


def test_repairs_are_recorded() -> None:
    done = clean([row("a.py", "x = 'cafÃ©'\r\n")], [step("unicode")], 1)
    assert done.documents[0].text == "x = 'café'\n"
    assert [entry[4:] for entry in done.repairs] == [("line ends", 1), ("mojibake", 1)]


def test_learned_transforms_are_only_declared() -> None:
    rows = [row("a.py", code(9))]
    quantile = step("quantile", name="length", column="lines", at=[0.9, 0.1])
    done = clean(rows, [quantile], 1)
    assert done.transforms == [
        {"name": "length", "kind": "quantile", "column": "lines", "at": [0.1, 0.9]}
    ]
    assert [d.text for d in done.documents] == [rows[0].text]


def test_a_text_that_vanishes_is_removed_and_recorded() -> None:
    rows = [row("a.py", "\x07\x07"), row("b.py", code(9))]
    done = clean(rows, [step("unicode")], 1)
    assert [(r.path, r.rule) for r in done.removed] == [("a.py", "text")]


def test_nothing_left_is_an_error_with_the_rules() -> None:
    with pytest.raises(DataError, match=r"2-code removed every file \(2 by parses"):
        clean([row("a.py", "(((" * 9), row("b.py", ")))" * 9)], [step("unicode"), step("code")], 1)


def test_the_same_path_in_two_sources_is_two_rows() -> None:
    rows = [row("a.py", code(9)), row("a.py", code(9), source="t")]
    done = clean(rows, default_steps(), 1)
    assert [(d.source, d.path) for d in done.documents] == [("s", "a.py")]
    assert [(r.source, r.path) for r in done.removed] == [("t", "a.py")]


# ---------------------------------------------------------------------------------- ledger


def _removal(document: Document) -> Removal:
    return Removal(document.id, document.path, document.source, "s", "r", "v", "t")


def test_the_ledger_catches_lost_and_doubled_rows() -> None:
    rows = [row(f"{i}.py", code(i + 1)) for i in range(4)]
    check_ledger(rows, rows[:3], [_removal(rows[3])])
    wrong: list[tuple[list[Document], list[Document], str]] = [
        (rows[:3], [], "1 rows neither"),
        (rows, [rows[0]], "1 rows twice"),
        ([*rows, rows[1]], [], "1 rows twice"),
        ([*rows[:3], replace(rows[3], id="0" * 64)], [], "1 rows neither.*1 rows twice"),
    ]
    for stays, goes, said in wrong:
        with pytest.raises(ArtifactError, match=said):
            check_ledger(rows, stays, [_removal(d) for d in goes])


def test_a_step_that_loses_a_row_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(done: cleaning.Cleaned, *rest: Any) -> None:
        done.documents = done.documents[1:]

    monkeypatch.setitem(cleaning._STEPS, type(step("exact")), lose)
    with pytest.raises(ArtifactError, match="ledger does not close"):
        clean([row("a.py", code(9)), row("b.py", code(8))], [step("exact")], 1)


PIECES = ["x = 1\n", "def f(:\n", "# bob@uni.de\n", "cafÃ©\r\n", "\0", "\ufffd", "y" * 90, code(6)]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=5).map("".join), max_size=8))
@settings(max_examples=60)
def test_kept_and_removed_are_the_input(texts: list[str]) -> None:
    rows = [row(f"{i}.py", text) for i, text in enumerate(texts)]
    try:
        done = clean(rows, default_steps(), 1)
    except DataError as error:
        assert "removed every file" in str(error)
        return
    everyone = sorted([d.path for d in done.documents] + [r.path for r in done.removed])
    assert everyone == sorted(d.path for d in rows)
    assert sum(s.removed for s in done.steps) == len(done.removed)
    again = clean(rows, default_steps(), 1)
    assert again == done


@given(st.permutations(range(6)))
@settings(max_examples=20)
def test_what_stays_of_near_duplicates_does_not_depend_on_their_order(order: list[int]) -> None:
    rows = [row(f"{i}.py", code(60) + code(i, 300)) for i in range(4)]
    rows += [row("4.py", code(40, 800)), row("5.py", code(41, 800))]
    done = clean([rows[i] for i in order], [step("near")], 1)
    assert {d.path for d in done.documents} == {"3.py", "5.py"}
