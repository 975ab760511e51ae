"""Compare: paired differences on the same files and holes, cost, settings, and what it refuses."""

from __future__ import annotations

import html.parser
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("duckdb")
pytest.importorskip("pydantic")
pytest.importorskip("matplotlib")

from gristmill import cli
from gristmill.artifacts import read_json, write_json
from gristmill.data.document import Document
from gristmill.data.holes import Hole
from gristmill.data.table import write_table
from gristmill.errors import ArtifactError, DataError
from gristmill.evaluation.bits import Bits
from gristmill.evaluation.bootstrap import paired_difference
from gristmill.evaluation.complete import Completion
from gristmill.evaluation.measured import DOCUMENTS, split_digest, write_measured
from gristmill.evaluation.scores import per_document
from gristmill.selection.comparing import compare
from gristmill.stages.evaluate import COLUMNS

FILES = 12


def document(number: int) -> Document:
    head = (f"{number:064x}", "src", f"f{number}.py", ".", "MIT", "test")
    return Document(*head, 9, 1, 2, "utf-8", "x" * (50 + 7 * number))


TEXTS = [document(number) for number in range(FILES)]
BYTES = np.array([len(d.text) for d in TEXTS], np.int64)
HARD = np.random.default_rng(3).uniform(1.0, 4.0, FILES)  # bits per byte of each file


def completions(right: int) -> list[Completion]:
    """Two holes a file, the first `right` of all filled exactly."""
    found = []
    for number in range(2 * FILES):
        hole = Hole(TEXTS[number // 2].id, "f.py", "line", number, number + 4)
        good = number < right
        keys = 1 if good else 4
        parses = None if number % 3 == 0 else good
        found.append(Completion(hole, "abcd" if good else "", "abcd", good, 0.9, keys, parses))
    return found


def make_run(
    root: Path,
    name: str,
    *,
    scale: float = 1.0,
    right: int = 4,
    documents: list[Document] = TEXTS,
    lr: float = 1e-3,
    skip: int = 0,
) -> Path:
    """A run folder as the stages leave it, as far as compare reads it."""
    run = root / name
    test = run / "10_test"
    test.mkdir(parents=True)
    sizes = BYTES[skip:]
    others = {method: Bits(5.0 * sizes, sizes) for method in ("ngram", "bz2", "xz")}
    bits = {"bits": Bits((scale * HARD * BYTES)[skip:], sizes), **others}
    write_measured(test / DOCUMENTS, documents[skip:], bits)
    rows = [
        (who, c.hole.kind, c.hole.path, c.hole.doc_id, c.hole.start, c.hole.end, c.truth, c.text,
         c.exact, c.similarity, c.keystrokes, c.parses)
        for who, done in (("model", completions(right)), ("copy", completions(0)))
        for c in done
    ]  # fmt: skip
    write_table(test / "holes.parquet", COLUMNS, rows)
    write_json(test / "metrics.json", {"split": split_digest(documents)})
    write_json(
        test / "manifest.json",
        {"stage": "evaluate", "seconds": 2.0, "energy": {"joules": 3.0}, "outputs": {}},
    )
    config = {
        "project": {"seed": 5, "name": "x"},
        "train": {"lr": lr},
        "clean": {"step": [{"use": "exact"}]},
        "evaluate": {"bootstrap": 200, "confidence": 0.9},
    }
    write_json(run / "run.json", {"config": config, "stages": {}})
    return run


def test_differences_are_paired_on_files_and_holes(tmp_path: Path) -> None:
    found = compare([make_run(tmp_path, "a"), make_run(tmp_path, "b", scale=0.98, right=9)])
    by_figure = {d.figure: d for d in found.differences}
    bits = by_figure["bits per byte"]
    options: dict[str, Any] = {"resamples": 200, "confidence": 0.9, "seed": 5}
    assert bits.interval == paired_difference(0.98 * HARD * BYTES, HARD * BYTES, BYTES, **options)
    # the runs apart overlap widely: 2 % is small beside the spread of files; paired it is clear
    apart = [found.figures[name]["bits per byte"] for name in "ab"]
    assert apart[0].low is not None and apart[0].low < apart[1].value
    assert (bits.verdict, bits.count) == ("better", FILES)
    exact = by_figure["holes: exact"]
    assert exact.interval.value == pytest.approx(5 / 24)
    above, below = per_document("exact", completions(9))
    other, _ = per_document("exact", completions(4))
    assert exact.interval == paired_difference(above, other, below, **options)
    assert by_figure["holes: parses"].count == 16  # a third of the holes is no Python
    assert by_figure["holes: similarity"].verdict == "no difference"


def test_only_settings_that_differ_are_told(tmp_path: Path) -> None:
    same = compare([make_run(tmp_path, "a"), make_run(tmp_path, "b")])
    assert same.settings == []
    found = compare([tmp_path / "a", make_run(tmp_path, "c", lr=3e-3)])
    assert found.settings == [["train.lr", 1e-3, 3e-3]]


def test_runs_that_measured_a_part_are_paired_on_what_both_have(tmp_path: Path) -> None:
    found = compare([make_run(tmp_path, "a"), make_run(tmp_path, "b", skip=4, scale=2.0)])
    (bits,) = (d for d in found.differences if d.figure == "bits per byte")
    assert bits.count == FILES - 4
    assert bits.interval.value == pytest.approx(float((HARD * BYTES)[4:].sum() / BYTES[4:].sum()))
    assert bits.verdict == "worse"


def test_other_test_files_are_refused_naming_both(tmp_path: Path) -> None:
    changed = [*TEXTS[:-1], replace(TEXTS[-1], text=TEXTS[-1].text + "y")]
    a, b = make_run(tmp_path, "a"), make_run(tmp_path, "b", documents=changed)
    digests = [split_digest(d)[:16] for d in (TEXTS, changed)]
    with pytest.raises(DataError, match=rf"(?s)a and b.*{digests[0]}.*{digests[1]}"):
        compare([a, b])
    moved = [replace(d, retrieved_at=9, cluster=3) for d in TEXTS]
    assert split_digest(moved) == split_digest(TEXTS)  # the texts count, nothing else


def test_one_run_stands_beside_methods_without_a_network(tmp_path: Path) -> None:
    found = compare([make_run(tmp_path, "a", right=24)])
    against = {(d.against, d.figure): d.verdict for d in found.differences}
    assert against["ngram", "bits per byte"] == "better"
    assert against["copy", "holes: exact"] == "better"
    assert found.runs[0].cost["joules"] == 3.0


def test_a_run_that_was_not_tested_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a")
    write_json(run / "10_test" / "metrics.json", {})
    with pytest.raises(ArtifactError, match="older gristmill"):
        compare([run])
    (run / "10_test" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="has not been tested"):
        compare([run])


def test_table_page_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, "a")
    make_run(tmp_path, "<b>", scale=0.9, lr=2e-3)
    words = ["compare", "a", "<b>", "--runs", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "train.lr" in shown and "better" in shown
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "<b>" not in page and "&lt;b&gt;" in page
    html.parser.HTMLParser().feed(page)
    facts = read_json(tmp_path / "out" / "compare.json")
    assert facts["settings"] == {"train.lr": {"a": 1e-3, "<b>": 2e-3}}
    assert facts["runs"]["<b>"]["cost"]["seconds"] == 2.0
    assert cli.main(["compare", "a", "a", "--runs", str(tmp_path)]) == 2
