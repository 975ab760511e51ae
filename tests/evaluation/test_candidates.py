"""Choosing a checkpoint, figures of holes, documents beside tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gristmill.evaluation.bits import Bits
from gristmill.evaluation.candidates import choose

SIZE = np.array([100, 200, 50, 400] * 8, np.int64)


def bits(per_byte: float, noise: float = 0.0) -> Bits:
    wobble = np.random.default_rng(1).normal(0.0, noise, len(SIZE)) if noise else 0.0
    return Bits(SIZE * (per_byte + wobble), SIZE)


def test_the_fewest_bits_win_and_the_first_of_equals() -> None:
    options = {"resamples": 200, "confidence": 0.95, "seed": 3}
    one = choose({"best": bits(1.5), "last": bits(1.4)}, **options)  # type: ignore[arg-type]
    assert one.name == "last" and one.verdicts() == {"best": "worse"}
    assert one.differences["best"].value == pytest.approx(0.1)
    same = choose({"best": bits(1.5), "last": bits(1.5)}, **options)  # type: ignore[arg-type]
    assert same.name == "best" and same.verdicts() == {"last": "same"}
    unsure = choose({"best": bits(1.5), "last": bits(1.5001, 0.3)}, **options)  # type: ignore[arg-type]
    assert next(iter(unsure.verdicts().values())) == "not shown to differ"
    plain = unsure.plain()
    assert plain["chosen"] in plain["intervals"] and len(plain["paired"]) == 1


def test_one_file_is_no_certainty() -> None:
    """Every resample of one document is that document: its interval would have no width."""
    for n, verdict in ((1, "too few files"), (4, "too few files"), (5, "worse")):
        measured = {k: Bits(SIZE[:n] * b, SIZE[:n]) for k, b in (("best", 1.5), ("last", 1.4))}
        choice = choose(measured, resamples=200, confidence=0.95, seed=3)
        assert (choice.name, choice.verdicts()) == ("last", {"best": verdict})
        assert (choice.bits["last"].low is None) == (n < 5)


def test_only_the_same_documents_are_compared() -> None:
    other = Bits(np.ones(2), np.ones(2, np.int64))
    with pytest.raises(ValueError, match="different documents: best, last"):
        choose({"best": bits(1.0), "last": other}, resamples=100, confidence=0.9, seed=1)
    with pytest.raises(ValueError, match="no checkpoint"):
        choose({}, resamples=100, confidence=0.9, seed=1)


def test_figures_of_holes_by_hand() -> None:
    from gristmill.data.holes import Hole
    from gristmill.evaluation import scores
    from gristmill.evaluation.complete import Completion

    def one(doc: str, kind: str, exact: bool, keys: int, parses: bool | None) -> Completion:
        hole = Hole(doc, doc + ".py", kind, 0, 4)
        return Completion(hole, "text", "true", exact, 1.0 if exact else 0.5, keys, parses)

    done = [
        one("a", "line", True, 1, True), one("a", "line", False, 4, False),
        one("b", "line", False, 3, None), one("b", "body", False, 4, None),
    ]  # fmt: skip
    found = scores.by_kind(done, resamples=100, confidence=0.95, seed=1)
    assert list(found) == ["line", "body", "all"]
    assert found["line"]["exact"]["value"] == pytest.approx(1 / 3)
    assert found["line"]["keystrokes_saved"]["value"] == pytest.approx(4 / 12)
    assert found["all"]["similarity"]["value"] == pytest.approx(2.5 / 4)
    assert found["line"]["parses"]["value"] == pytest.approx(0.5)
    assert "parses" not in found["body"]  # no Python among them
    assert scores.by_kind([], resamples=100, confidence=0.95, seed=1) == {}
    assert found["all"]["exact"]["low"] is None  # of two files
    table = scores.table("t", {"model": found})
    assert table["rows"][0][3] == "0.333 (too few files)"
    assert [row[:3] for row in table["rows"]] == [
        ["model", "line", 3], ["model", "body", 1], ["model", "all", 4]
    ]  # fmt: skip
    assert table["rows"][1][-1] == "–"


def test_tokens_and_documents_must_belong_together(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    pytest.importorskip("tokenizers")
    from gristmill.data.document import Document, write_documents
    from gristmill.data.shards import write_shard
    from gristmill.data.tokenizer import train_tokenizer
    from gristmill.errors import ArtifactError
    from gristmill.evaluation.corpus import byte_lengths, open_corpus, texts

    tokenizer = train_tokenizer(["naïve text"], 270)
    document = Document("i", "s", "a.txt", "a", "l", "w", 3, 1, 2, "utf-8", "naïve text\n")
    ids = [*tokenizer.encode(document.text), tokenizer.eos]
    write_shard(tmp_path, [ids], tokenizer.vocab_size)
    write_documents(tmp_path / "documents.parquet", [document])
    corpus = open_corpus(tmp_path)
    assert byte_lengths(tokenizer)[corpus.ids([0])[0]].sum() == len(corpus.bytes()[0]) == 12
    assert texts(corpus.some([0])) == {"i": document.text}
    write_documents(tmp_path / "documents.parquet", [document, document])
    with pytest.raises(ArtifactError, match="2 documents and tokens of 1"):
        open_corpus(tmp_path)
