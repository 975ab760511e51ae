"""Named evaluation sets: read from any file, found in documents, removed with a ledger line."""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")

from hypothesis import given
from hypothesis import strategies as st

from gristmill.data import cleaning
from gristmill.data.contaminated import find
from gristmill.data.document import Document
from gristmill.data.evaluation_sets import Example, read_set
from gristmill.data.prose_settings import ContaminationStep, EvaluationSet
from gristmill.data.table import write_table
from gristmill.errors import DataError

QUESTION = "How many sacks of flour does the old mill grind in three days of seven hours each?"
CHAT = json.dumps({"messages": [{"role": "user", "content": QUESTION}]})


def step(path: Path | str = "x.jsonl", fields: Any = (), **options: Any) -> ContaminationStep:
    sets = [EvaluationSet(name="mill", path=str(path), fields=list(fields))]
    return ContaminationStep(use="contamination", set=sets, **options)


def document(number: int, text: str, path: str = "") -> Document:
    path = path or f"{number}.txt"
    return Document(f"{number:064x}", "src", path, ".", "MIT", "t", 1, 1, 1, "utf-8", text)


def shared(text: str, examples: list[str], **options: Any) -> list[tuple[int, str]]:
    found, _ = find([text], [Example("s", str(i), e) for i, e in enumerate(examples)],
                    step(**options))  # fmt: skip
    return [(hit.example, hit.shared) for hit in found]


def test_words_do_not_look_at_case_and_signs() -> None:
    text = "Asked: HOW MANY sacks -- of flour, does the old mill\ngrind in three days? Nobody knew."
    run = "how many sacks of flour does the old mill grind in three days"
    assert shared(text, [QUESTION], run=13) == [(0, run)]
    assert shared(text, [QUESTION], run=14) == []
    assert shared(text.replace("flour", "flower"), [QUESTION], run=13) == []


@pytest.mark.parametrize("unit", ["words", "characters"])
@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: text.replace("ou", "o\u00adu").replace("il", "i\u200bl"),  # soft, zero width
        lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() and c < "{" else c for c in text),
        lambda text: text.replace("fl", "\ufb02"),  # ligature
    ],
)
def test_the_same_letters_in_another_writing(unit: str, disguise: Any) -> None:
    asked = QUESTION.replace("mill", "moulin à café, près de là,")
    other = disguise(asked)
    assert other != asked
    words = len(re.findall(r"\w+", asked))
    run = words if unit == "words" else len("".join(re.findall(r"\w+", asked)))
    for text, example in ((other, asked), (asked, other)):
        assert len(shared(text, [example], unit=unit, run=run)) == 1


def test_characters_do_not_look_at_space_either() -> None:
    text = "how manysacks of flour-does the o l d mill grind in 3 days"
    run = "howmanysacksofflourdoestheoldmillgrindin"
    assert shared(text, [QUESTION], unit="characters", run=len(run)) == [(0, run)]
    assert shared(text, [QUESTION], unit="characters", run=len(run) + 1) == []


def test_short_examples_are_looked_for_whole() -> None:
    short = ["the old mill grinds slowly but it grinds fine", "too short to say"]
    examples = [Example("s", str(i), e) for i, e in enumerate(short)]
    texts = ["They say the old mill grinds slowly, but it grinds fine.", "the old mill grinds"]
    found, skipped = find(texts, examples, step())
    assert [(hit.document, hit.example) for hit in found] == [(0, 0)]
    assert skipped == {1}


@given(st.lists(st.text("ab ", max_size=30), min_size=1, max_size=5),
       st.lists(st.text("ab ", max_size=30), min_size=1, max_size=3),
       st.integers(1, 6), st.sampled_from(["words", "characters"]))  # fmt: skip
def test_equals_the_definition(texts: list[str], given: list[str], run: int, unit: str) -> None:
    def units(text: str) -> list[str]:
        return text.split() if unit == "words" else list(text.replace(" ", ""))

    def holds(text: str, example: str) -> bool:
        ours, theirs = units(text), units(example)
        n = min(run, len(theirs))
        if len(theirs) < min(run, 2):
            return False
        runs = {tuple(theirs[i : i + n]) for i in range(len(theirs) - n + 1)}
        return any(tuple(ours[i : i + n]) in runs for i in range(len(ours) - n + 1))

    examples = [Example("s", str(i), e) for i, e in enumerate(given)]
    found, _ = find(texts, examples, step(run=run, shortest=2, unit=unit))
    expected = [(i, j) for i, t in enumerate(texts) for j, e in enumerate(given) if holds(t, e)]
    assert [(hit.document, hit.example) for hit in found] == expected


# ------------------------------------------------------------------------------------ files


ROWS = [{"q": "one", "choices": ["a", "b"], "n": 3}, {"q": "two", "choices": [], "n": 4}]


def test_every_kind_of_file(tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, ROWS))
    (tmp_path / "a.jsonl").write_text(lines + "\n\n")
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    (tmp_path / "c.txt").write_text("one\nmore\n\n\n\ntwo\n")
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as stream:
        stream.write(lines)
    write_table(tmp_path / "e.parquet", {"q": "VARCHAR", "n": "BIGINT"}, [("one", 3), ("two", 4)])

    def read(name: str, *fields: str) -> list[tuple[str, str]]:
        path = str(tmp_path / name)
        examples = read_set(EvaluationSet(name="s", path=path, fields=list(fields)))
        return [(example.place, example.text) for example in examples]

    assert read("a.jsonl") == [("a.jsonl:1", "one\na\nb"), ("a.jsonl:2", "two")]
    assert read("a.jsonl", "q") == [("a.jsonl:1", "one"), ("a.jsonl:2", "two")]
    assert read("a.jsonl", "choices") == [("a.jsonl:1", "a\nb")]
    assert read("b.json", "q") == [("b.json:1", "one"), ("b.json:2", "two")]
    assert read("c.txt") == [("c.txt:1", "one\nmore"), ("c.txt:2", "two\n")]
    assert read("d.jsonl.gz", "q") == [("d.jsonl.gz:1", "one"), ("d.jsonl.gz:2", "two")]
    assert read("e.parquet", "q") == [("e.parquet:1", "one"), ("e.parquet:2", "two")]
    assert len(read("*.jsonl*", "q")) == 4


@pytest.mark.parametrize(
    ("name", "content", "fields", "said"),
    [
        ("absent.jsonl", None, [], "no file at"),
        ("a.jsonl", b"", [], "no example with text"),
        ("a.jsonl", b'{"n": 3}\n', [], "no example with text"),
        ("a.jsonl", b"{", [], "is not JSON"),
        ("a.jsonl", b'{"q": "x"}', ["answer"], r"a.jsonl:1 has no field answer; it has q"),
        ("a.jsonl", b"\xff", [], "not UTF-8"),
        ("a.jsonl.gz", b"no gzip", [], "damaged gz"),
        ("a.parquet", b"PAR1", [], "cannot read"),
        ("a.csv", b"x", [], r"none of .jsonl, .json, .parquet, .txt"),
    ],
)
def test_a_set_that_cannot_be_read_is_an_error(
    name: str, content: bytes | None, fields: list[str], said: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"evaluation set mill: .*{said}"):
        read_set(step(tmp_path / name, fields).set[0])


# ----------------------------------------------------------------------------------- ledger


def cleaned(tmp_path: Path, **options: Any) -> cleaning.Cleaned:
    lines = [{"q": QUESTION}, {"q": "Another example that nobody wrote down anywhere, as we hope"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    documents = [
        document(1, f"A page. {QUESTION} And more."),
        document(2, "Nothing of the kind."),
        document(3, CHAT, "b.jsonl#1.messages"),
    ]
    return cleaning.clean(documents, [step(tmp_path / "x.jsonl", ["q"], **options)], seed=1)


def test_removed_with_example_and_place(tmp_path: Path) -> None:
    done = cleaned(tmp_path)
    assert [d.path for d in done.documents] == ["2.txt"]
    run = "how many sacks of flour does the old mill grind in three days"
    row = done.removed[0]
    assert (row.path, row.step, row.rule) == ("1.txt", "1-contamination", "contamination")
    assert row.value == f"mill x.jsonl:1: {run}"
    assert row.threshold == "no 13 words in common"
    assert [(r[2], r[5], r[7]) for r in done.contamination] == [
        ("x.jsonl:1", "1.txt", "remove"),
        ("x.jsonl:1", "b.jsonl#1.messages", "remove"),
    ]
    (facts,) = done.sets
    assert (facts["examples"], facts["contaminated"], facts["documents"]) == (2, 1, 2)


def test_or_only_listed(tmp_path: Path) -> None:
    done = cleaned(tmp_path, action="list")
    assert len(done.documents) == 3 and not done.removed
    assert [row[-1] for row in done.contamination] == ["list", "list"]
    assert done.sets[0]["documents"] == 2


def test_settings() -> None:
    assert (step().length, step().least) == (13, 8)
    assert (step(unit="characters").length, step(unit="characters").least) == (50, 30)
    assert (step(run=5).length, step(run=5).least) == (5, 5)
    twice = [{"name": "a", "path": "x"}] * 2
    with pytest.raises(ValueError, match="give each its own name"):
        ContaminationStep(use="contamination", set=twice)
