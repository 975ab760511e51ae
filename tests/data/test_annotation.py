"""Annotation: votes, their coverage and conflict, and accuracy only where people looked."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("duckdb")

from hypothesis import given
from hypothesis import strategies as st

from gristmill.data import annotation
from gristmill.data.annotation import FAIR, UNAUDITED, UNLABELLED, Audit, Label
from gristmill.data.audit_file import empty_audit, read_audit
from gristmill.data.document import Document
from gristmill.data.label_functions import FUNCTIONS, GOOD, POOR, Facts, Vote
from gristmill.errors import DataError

VOTES = st.lists(
    st.sampled_from([GOOD, POOR, None]), min_size=len(FUNCTIONS), max_size=len(FUNCTIONS)
)


def document(text: str, path: str = "a/b.py", number: int = 0) -> Document:
    id = f"{number:064d}"
    return Document(id, "s", path, "a", "MIT", "test", len(text), 5, 77, "utf-8", text)


def vote(name: str, text: str, path: str = "a/b.py") -> Vote:
    function = next(f for f in FUNCTIONS if f.__name__ == name)
    return function(Facts(document(text, path)))


NICE = "".join(
    f'def get_{name}(left, right):\n    """Say {name}."""\n    return left.{name}(right)\n\n'
    for name in ("addition", "difference", "product", "quotient", "remainder", "power")
)
UGLY = "from os import *\n" + "".join(
    f"def f{i}(a, b):\n    x = 1\n    return x\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("name", "good", "poor", "abstains"),
    [
        ("documented", NICE, UGLY, "x = 1\n"),
        ("short_functions", NICE, "def f():\n" + "    x = 1\n" * 200, "x = 1\n"),
        ("narrow_lines", NICE, ("x = 1\n" * 8 + "y" * 101 + "\n") * 9, ""),
        ("varied", NICE + "a = 1\nb = 2\n" * 2, "x = 1\n" * 30, "x = 1\n"),
        ("telling_names", NICE, UGLY, "x = 1\n"),
        ("no_table", NICE, "T = '\\x00\\x01\\x02'\n", ""),
        ("explicit", None, "try:\n    x = 1\nexcept:\n    pass\n", NICE),
        ("explicit", None, UGLY, NICE),
        ("finished", None, "# TODO one\n# FIXME two\n", NICE),
    ],
)
def test_what_the_functions_say(name: str, good: str | None, poor: str, abstains: str) -> None:
    assert good is None or vote(name, good) == GOOD
    assert vote(name, poor) == POOR
    assert vote(name, abstains) is None


@pytest.mark.parametrize("path", ["a.py", "a.md"])
@pytest.mark.parametrize("text", ["", "\n", "def (:\n", "x" * 5000, "match x:\n    case 1: pass\n"])
def test_any_text_gets_an_answer(path: str, text: str) -> None:
    for function in FUNCTIONS:
        assert function(Facts(document(text, path))) in (GOOD, POOR, None)


def test_labels_say_who_when_and_by_what_guideline() -> None:
    documents = [document(NICE, number=1), document(UGLY, number=2)]
    done = annotation.annotate(documents, ["line", "body"], "rules", "hash")
    assert done.quality == ["good", "poor"]
    by_vote = [label for label in done.labels if label.source == "vote"]
    assert [(x.id, x.label, x.annotator) for x in by_vote] == [
        (documents[0].id, "good", "rules"),
        (documents[1].id, "poor", "rules"),
    ]
    assert {(x.time, x.guideline) for x in done.labels} == {(77, "hash")}
    bodies = [x.label for x in done.labels if x.task == "holes.body"]
    assert bodies == ["6", "9"]
    assert not [x for x in done.labels if x.task == "holes.argument"]
    rules = [x for x in done.labels if x.source == "rule" and x.task == "quality"]
    assert len(rules) == sum(vote is not None for own in done.votes for vote in own)
    assert all(x.annotator.startswith("rules.") for x in rules)


@given(VOTES)
def test_verdict(votes: list[Vote]) -> None:
    good, poor = votes.count(GOOD), votes.count(POOR)
    found = annotation.verdict(votes)
    if not good + poor:
        assert found == UNLABELLED
    else:
        share = good / (good + poor)
        assert found == (GOOD if share >= 0.8 else FAIR if share >= 0.5 else POOR)


@given(st.lists(VOTES, max_size=8))
def test_coverage_overlap_conflict_and_agreement_by_their_definitions(
    rows: list[list[Vote]],
) -> None:
    documents = [document("", number=i) for i in range(len(rows))]
    described = annotation.describe(documents, rows, None)
    n = max(1, len(rows))
    for number, facts in enumerate(described):
        voted = [row for row in rows if row[number]]
        other = [[v for i, v in enumerate(row) if v and i != number] for row in voted]
        assert facts["coverage"] == len(voted) / n
        assert facts["overlap"] == sum(map(bool, other)) / n
        conflicts = [set(o) - {row[number]} for o, row in zip(other, voted, strict=True)]
        assert facts["conflict"] == sum(map(bool, conflicts)) / n
        assert facts["conflict"] <= facts["overlap"] <= facts["coverage"]
        assert facts["good"] + facts["poor"] == len(voted)
        assert facts["accuracy"] == UNAUDITED
    shares = []
    for row in rows:
        given_votes = [v for v in row if v]
        pairs = [a == b for i, a in enumerate(given_votes) for b in given_votes[i + 1 :]]
        shares += [sum(pairs) / len(pairs)] if pairs else []
    expected = sum(shares) / len(shares) if shares else None
    assert annotation.agreement(rows) == (expected if expected is None else pytest.approx(expected))


# -------------------------------------------------------------------------------- the audit

SAMPLE = [document("x = 1\n", f"f{i}.py", i) for i in range(40)]


def human(number: int, label: str, who: str = "ann") -> Label:
    return Label(SAMPLE[number].id, "", "quality", label, who, 1, "human", "hash")


@given(st.integers(0, 2**63), st.integers(1, 39))
def test_the_audit_sample_is_seeded_and_stable(seed: int, size: int) -> None:
    sample = annotation.audit_sample(SAMPLE, size, seed)
    assert len(sample) == size
    assert annotation.audit_sample(SAMPLE[::-1], size, seed) == sample
    assert annotation.audit_sample(SAMPLE, size + 1, seed)[:size] == sample


def test_only_labels_on_the_sample_count() -> None:
    rows = [human(0, "good"), human(1, "poor"), human(2, ""), human(9, "good"), human(3, "good")]
    rows += [human(3, "poor", "bob"), human(0, "good", "bob")]
    audit = annotation.use_audit(rows, SAMPLE[:5])
    assert audit.truth == {SAMPLE[0].id: "good", SAMPLE[1].id: "poor"}
    assert audit.unused == {
        "not labelled yet": 1, "not in the audit sample": 1, "people are divided": 2
    }  # fmt: skip
    assert len(audit.rows) == 5
    given_labels = [(SAMPLE[0].id, "good"), (SAMPLE[1].id, "good"), (SAMPLE[4].id, "good")]
    found = annotation.accuracy(given_labels, audit)
    assert isinstance(found, dict) and (found["value"], found["n"]) == (0.5, 2)


def test_without_audit_the_answer_is_unaudited() -> None:
    assert annotation.accuracy([("a", "good")], None) == UNAUDITED
    assert annotation.accuracy([("a", "good")], Audit({"b": "good"})) == UNAUDITED
    assert annotation.accuracy([("b", None)], Audit({"b": "good"})) == UNAUDITED


def test_human_labels_stand_beside_the_others() -> None:
    audit = annotation.use_audit([human(0, "poor")], SAMPLE)
    done = annotation.annotate(SAMPLE, ["line"], "rules", "hash", audit)
    assert [x for x in done.labels if x.source == "human"] == [human(0, "poor")]
    table = {facts["name"]: facts["accuracy"] for facts in done.functions}
    assert table["narrow_lines"]["value"] == 0.0  # it says good
    assert table["documented"] == UNAUDITED  # it does not vote on this file


def test_wilson_interval() -> None:
    low, high = annotation.wilson(81, 263)
    assert (low, high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert annotation.wilson(0, 10)[0] == 0.0
    assert annotation.wilson(10, 10)[1] == pytest.approx(1.0)


def fill(path: Path, changes: dict[str, str]) -> Path:
    rows = list(csv.DictReader(io.StringIO(empty_audit(SAMPLE[:2], "hash"))))
    rows[0].update({"label": "good", "annotator": "ann", "time": "99"} | changes)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_the_file_that_is_filled_in_is_read(tmp_path: Path) -> None:
    rows = read_audit(fill(tmp_path / "a.csv", {}), "hash")
    assert rows[0] == replace(human(0, "good"), path="f0.py", time=99)
    assert rows[1].label == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "great"}, "line 2: label 'great'; allowed: good, fair, poor"),
        ({"annotator": " "}, "line 2: a label without annotator"),
        ({"time": "today"}, "line 2: time 'today'; allowed: unix seconds"),
        ({"time": "-5"}, "unix seconds"),
        ({"guideline": "old"}, "line 2: labelled by guideline 'old', the guideline now is 'hash'"),
    ],
)
def test_mistakes_in_the_file_are_named(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_audit(fill(tmp_path / "a.csv", changes), "hash")


def test_files_that_are_no_audit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        read_audit(tmp_path / "absent.csv", "hash")
    (tmp_path / "a.csv").write_text("id;label\n")
    with pytest.raises(DataError, match="lacks the columns id, label, annotator, time, guideline"):
        read_audit(tmp_path / "a.csv", "hash")
    (tmp_path / "a.csv").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        read_audit(tmp_path / "a.csv", "hash")
