"""Stages 3 and 4 on a small corpus: files, gates, the same bytes twice, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("duckdb")
pytest.importorskip("rensa")
pytest.importorskip("pydantic")
pytest.importorskip("tokenizers")

from gristmill.artifacts import Result, StageContext, describe_files, digest_of, write_json
from gristmill.data.document import Document, write_documents
from gristmill.data.settings import AnnotateConfig, SplitConfig
from gristmill.data.shards import Shard
from gristmill.data.splitting import SPLITS
from gristmill.data.table import read_table
from gristmill.data.tokenizer import Tokenizer
from gristmill.data.transforms import fit_transforms
from gristmill.errors import ArtifactError, DataError
from gristmill.stages import annotate, split
from gristmill.training.settings import InitializeConfig

QUARTILES = {"name": "length", "kind": "quantile", "column": "characters", "at": [0.25, 0.5]}


def documents(n: int = 40) -> list[Document]:
    found = []
    for i in range(n):
        text = f'"""Part {i}."""\n' + "".join(
            f"def name{i}_{j}(value):\n    return value * {i * 31 + j} + other{i}{j}(value)\n"
            for j in range(20 + i)
        )
        head = (f"{i:064x}", "src", f"a{i % 4}/f{i}.py", f"a{i % 4}", "MIT", "test")
        found.append(Document(*head, len(text), 1000 + i, 2000, "utf-8", text, i))
    return found


@pytest.fixture
def cleaned(tmp_path: Path) -> Path:
    return clean(tmp_path / "clean", documents())


def clean(folder: Path, rows: list[Document]) -> Path:
    folder.mkdir()
    write_documents(folder / "documents.parquet", rows)
    write_json(folder / "transforms.json", [QUARTILES])
    return folder


def context(name: str, out: Path, inputs: dict[str, Path], **sections: object) -> StageContext:
    out.mkdir()
    settings: dict[str, object] = {
        "annotate": AnnotateConfig(min_agreement=0.0), "split": SplitConfig(vocab_size=400),
        "initialize": InitializeConfig(),
    }  # fmt: skip
    return StageContext(name, out, inputs, SimpleNamespace(**settings | sections), 42)  # type: ignore[arg-type]


def run_both(folder: Path, cleaned: Path, **sections: object) -> tuple[Result, Result]:
    folder.mkdir(exist_ok=True)
    inputs = {"clean": cleaned}
    first = annotate.run(context("annotate", folder / "annotate", inputs, **sections))
    inputs["annotate"] = folder / "annotate"
    return first, split.run(context("split", folder / "split", inputs, **sections))


def test_files_and_gates(cleaned: Path, tmp_path: Path) -> None:
    first, second = run_both(tmp_path / "run", cleaned)
    assert all(gate.passed for gate in [*first.gates, *second.gates])
    assert max(len(first.summary), len(second.summary)) <= 60
    out = tmp_path / "run" / "split"
    tokenizer = Tokenizer.load(out)
    seen = []
    for name in SPLITS:
        shard = Shard.open(out / name)
        rows = read_table(out / name / "documents.parquet", ["path", "text", "label_quality"])
        assert len(rows) == len(shard) >= 1
        assert shard.vocab_size == tokenizer.vocab_size
        for i, (path, text, quality) in enumerate(rows):
            ids = shard.doc(i).tolist()
            assert ids[-1] == tokenizer.eos and tokenizer.decode(ids[:-1]) == text
            assert quality in ("good", "fair", "poor", "unlabelled")
            seen.append(path)
    assert sorted(seen) == sorted(d.path for d in documents())
    placed = read_table(out / "split.parquet", ["path", "split", "reason"])
    assert [row[0] for row in placed] == [d.path for d in documents()]
    assert all(reason for _, _, reason in placed)
    assert json.loads((out / "leaks.json").read_text())["leaks"] == []


def test_only_train_is_learned_from(cleaned: Path, tmp_path: Path) -> None:
    run_both(tmp_path / "run", cleaned)
    out = tmp_path / "run" / "split"
    placed = {path: name for path, name in read_table(out / "split.parquet", ["path", "split"])}
    before = {n: (out / n).read_bytes() for n in ("tokenizer.json", "transform.json")}
    changed = [
        d if placed[d.path] == "train" else Document(
            d.id, d.source, d.path, d.area, d.licence, d.why, d.bytes, d.modified, d.retrieved_at,
            d.encoding, "zebra " * 99 + d.path, d.cluster,
        )
        for d in documents()
    ]  # fmt: skip
    run_both(tmp_path / "other", clean(tmp_path / "changed", changed), split=SplitConfig(
        vocab_size=400, leak_similarity=1.0, max_leak=10**6
    ))  # fmt: skip
    for name, data in before.items():
        assert (tmp_path / "other" / "split" / name).read_bytes() == data


def test_the_same_input_gives_the_same_bytes(cleaned: Path, tmp_path: Path) -> None:
    for name in "ab":
        run_both(tmp_path / name, cleaned)
    digests = [digest_of(describe_files(tmp_path / name)) for name in "ab"]
    assert digests[0] == digests[1]


def test_a_planted_leak_fails_the_gate(tmp_path: Path) -> None:
    rows = [
        Document(*list(_fields(d))[:10], documents()[0].text, i) for i, d in enumerate(documents())
    ]
    _, result = run_both(tmp_path / "run", clean(tmp_path / "clean", rows))
    gate = result.gates[0]
    assert not gate.passed and gate.value > 0
    assert (tmp_path / "run" / "split" / gate.file).is_file()


def _fields(document: Document) -> tuple[object, ...]:
    return tuple(getattr(document, name) for name in Document.__dataclass_fields__)


def test_a_filled_in_audit_is_used(cleaned: Path, tmp_path: Path) -> None:
    run_both(tmp_path / "run", cleaned)
    rows = list(csv.DictReader((tmp_path / "run/annotate/audit_sample.csv").open()))
    labels = read_table(tmp_path / "run/annotate/labels.parquet", ["id", "label", "source"])
    said = {id: label for id, label, source in labels if source == "vote"}
    with (tmp_path / "audit.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(r | {"label": said[r["id"]], "annotator": "me", "time": "5"} for r in rows)
    section = AnnotateConfig(min_agreement=0.0, audit=str(tmp_path / "audit.csv"))
    first, _ = run_both(tmp_path / "again", cleaned, annotate=section)
    assert [g.value for g in first.gates if g.name == "agreement with people"] == [1.0]
    facts = json.loads((tmp_path / "again/annotate/functions.json").read_text())
    assert facts["accuracy"]["n"] == len(rows)
    (tmp_path / "mine.md").write_text("another guideline")
    other = section.model_copy(update={"guideline": str(tmp_path / "mine.md")})
    with pytest.raises(DataError, match="line 2: labelled by guideline"):
        run_both(tmp_path / "other", cleaned, annotate=other)
    config = SimpleNamespace(annotate=section)
    before = annotate.fingerprint(config)  # type: ignore[arg-type]
    (tmp_path / "audit.csv").write_text("changed")
    assert annotate.fingerprint(config) != before  # type: ignore[arg-type]


@pytest.mark.parametrize(("times", "said"), [("disk", True), ("git", False)])
def test_times_that_are_not_of_git_are_told(
    times: str, said: bool, cleaned: Path, tmp_path: Path
) -> None:
    (tmp_path / "collect").mkdir()
    write_json(tmp_path / "collect" / "sources.json", [{"name": "src", "times": times}])
    annotate.run(context("annotate", tmp_path / "labels", {"clean": cleaned}))
    inputs = {"clean": cleaned, "annotate": tmp_path / "labels", "collect": tmp_path / "collect"}
    by_time = SplitConfig(vocab_size=400, by="time")
    result = split.run(context("split", tmp_path / "split", inputs, split=by_time))
    assert ("src" in result.report["numbers"].values()) == said


def test_nothing_to_annotate_needs_a_reason_and_says_it(cleaned: Path, tmp_path: Path) -> None:
    section = AnnotateConfig(task="none", skip="self-supervised")
    first, second = run_both(tmp_path / "run", cleaned, annotate=section)
    assert "self-supervised" in first.report["what"]
    assert second.gates[0].passed
    with pytest.raises(DataError, match=r"annotate\.task"):
        run_both(tmp_path / "strata", cleaned, annotate=section, split=SplitConfig(
            vocab_size=400, stratify="quality"
        ))  # fmt: skip


def test_bad_input(cleaned: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"annotate\.guideline"):
        run_both(tmp_path / "a", cleaned, annotate=AnnotateConfig(guideline="absent.md"))
    with pytest.raises(DataError, match=r"annotate\.audit"):
        run_both(tmp_path / "b", cleaned, annotate=AnnotateConfig(audit="absent.csv"))
    with pytest.raises(DataError, match="too few files to split"):
        run_both(tmp_path / "c", clean(tmp_path / "two", documents(2)))
    (cleaned / "documents.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="run the stage that writes it again"):
        run_both(tmp_path / "d", cleaned)


def test_transforms_are_quantiles_that_occur() -> None:
    rows = documents(8)
    fitted = fit_transforms([QUARTILES], rows)[0]
    sizes = sorted(len(d.text) for d in rows)
    assert fitted["values"] == [sizes[1], sizes[3]]
    assert (fitted["split"], fitted["documents"]) == ("train", 8)
    with pytest.raises(ArtifactError, match="'scale' of 'bytes'"):
        fit_transforms([QUARTILES | {"kind": "scale", "column": "bytes"}], rows)


def test_small_sources_are_repeated_in_train_alone(cleaned: Path, tmp_path: Path) -> None:
    repeated = tmp_path / "collect"
    repeated.mkdir()
    write_json(repeated / "mixture.json", {"repeats": {"src": {d.path: 3 for d in documents()}}})
    sizes, files = {}, {}
    for name, more in (("plain", {}), ("repeated", {"collect": repeated})):
        inputs = {"clean": cleaned, **more}
        annotate.run(context("annotate", tmp_path / f"{name}-labels", inputs))
        inputs["annotate"] = tmp_path / f"{name}-labels"
        result = split.run(context("split", tmp_path / name, inputs))
        (table,) = (t for t in result.report["tables"] if t["title"] == "Splits")
        files[name] = [row[1:3] for row in table["rows"]], result.summary.split(",")[0]
        sizes[name] = [len(Shard.open(tmp_path / name / part)) for part in ("train", "val", "test")]
    train, val, test = sizes["plain"]
    assert sizes["repeated"] == [3 * train, val, test]
    assert files["repeated"] == files["plain"]  # a file is one, however often it is read
