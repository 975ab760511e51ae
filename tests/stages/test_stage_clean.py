"""Stage clean: its files, its gate, its report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("duckdb")
pytest.importorskip("rensa")

from gristmill.artifacts import StageContext, describe_files, digest_of, sha256_bytes
from gristmill.data.document import Document, read_documents, read_removals, write_documents
from gristmill.data.private import AUDIT_SCHEMA
from gristmill.data.settings import CleanConfig
from gristmill.data.table import read_table
from gristmill.errors import DataError
from gristmill.stages import clean


def document(path: str, text: str) -> Document:
    digest = sha256_bytes(path.encode())
    return Document(digest, "s", path, ".", "MIT", "test", len(text), 1, 1, "utf-8", text)


def body(start: int) -> str:
    return "".join(f"value{i} = other{i} * {i}\n" for i in range(start, start + 30))


TEXTS = {
    "a.py": body(0),
    "b.py": body(0),
    "c.py": body(0) + "z = 1\n",
    "d.py": "# mail ann@uni.de\r\n" + body(90),
    "e.py": "def broken(:\n" + body(200),
}


@pytest.fixture
def ctx(tmp_path: Path) -> StageContext:
    (tmp_path / "collect").mkdir()
    (tmp_path / "out").mkdir()
    rows = [document(path, text) for path, text in TEXTS.items()]
    write_documents(tmp_path / "collect" / "documents.parquet", rows, cluster=False)
    config = cast(Any, SimpleNamespace(clean=CleanConfig()))
    return StageContext("clean", tmp_path / "out", {"collect": tmp_path / "collect"}, config, 42)


def test_files_gate_and_report(ctx: StageContext) -> None:
    result = clean.run(ctx)
    assert result.summary == "5 in, 2 kept, 3 removed, 1 values masked"
    assert [(g.value, g.passed, g.file) for g in result.gates] == [(0, True, "removed.parquet")]
    kept = read_documents(ctx.out / "documents.parquet")
    assert [(d.path, d.cluster) for d in kept] == [("c.py", 0), ("d.py", 1)]
    removed = read_removals(ctx.out / "removed.parquet")
    assert {r.path: r.rule for r in removed} == {"b.py": "exact", "a.py": "near", "e.py": "parses"}
    audit = read_table(ctx.out / "audit.parquet", list(AUDIT_SCHEMA))
    assert [(row[2], row[3], row[5]) for row in audit] == [("d.py", "email", len("ann@uni.de"))]
    assert kept[1].text[audit[0][4] :].startswith(audit[0][6])
    repairs = read_table(ctx.out / "repairs.parquet", ["path", "repair", "places"])
    assert repairs == [("d.py", "line ends", 1)]
    transforms = json.loads((ctx.out / "transforms.json").read_text())
    assert [t["name"] for t in transforms] == ["length"]
    steps = json.loads((ctx.out / "steps.json").read_text())
    assert sum(s["removed"] for s in steps) == 3
    for table in result.report["tables"]:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    for plot in result.report["plots"]:
        assert all(len(s["x"]) == len(s["y"]) for s in plot["series"])
    assert sum(result.report["plots"][1]["series"][0]["y"]) >= 1
    json.dumps(result.report, allow_nan=False)


def test_no_file_holds_a_masked_value(ctx: StageContext) -> None:
    result = clean.run(ctx)
    for name in ("documents", "audit", "removed", "repairs"):
        path = ctx.out / f"{name}.parquet"
        assert "ann@uni.de" not in repr(_everything(path))
    assert "ann@uni.de" not in json.dumps(result.report)


def _everything(path: Path) -> Any:
    from gristmill.data.table import connect, quote

    with connect() as connection:
        return connection.execute(f"FROM read_parquet({quote(path)})").fetchall()


def test_the_same_input_gives_the_same_bytes(ctx: StageContext, tmp_path: Path) -> None:
    clean.run(ctx)
    (tmp_path / "again").mkdir()
    other = StageContext("clean", tmp_path / "again", ctx.inputs, ctx.config, 42)
    clean.run(other)
    assert digest_of(describe_files(ctx.out)) == digest_of(describe_files(other.out))


def test_no_steps_keep_everything(ctx: StageContext) -> None:
    config = cast(Any, SimpleNamespace(clean=CleanConfig(step=[])))
    result = clean.run(StageContext("clean", ctx.out, ctx.inputs, config, 42))
    assert result.summary == "5 in, 5 kept, 0 removed"
    assert read_removals(ctx.out / "removed.parquet") == []
    assert len({d.cluster for d in read_documents(ctx.out / "documents.parquet")}) == 5


def test_named_evaluation_sets(ctx: StageContext, tmp_path: Path) -> None:
    example = tmp_path / "set.jsonl"
    example.write_text(json.dumps({"text": body(0)}))
    sets = [{"name": "mine", "path": str(example)}]
    table = {"step": [{"use": "contamination", "set": sets}]}
    config = cast(Any, SimpleNamespace(clean=CleanConfig.model_validate(table)))
    before = clean.fingerprint(config)
    result = clean.run(StageContext("clean", ctx.out, ctx.inputs, config, 42))
    assert result.summary == "5 in, 2 kept, 3 removed"
    rows = read_table(ctx.out / "contamination.parquet", ["set", "example", "path"])
    assert rows == [("mine", "set.jsonl:1", name) for name in ("a.py", "b.py", "c.py")]
    shown = {table["title"].partition(" (")[0]: table for table in result.report["tables"]}
    assert shown["Named evaluation sets"]["rows"][0][1:2] == ["mine"]
    assert len(shown["Contaminated examples"]["rows"]) == 3
    json.dumps(result.report, allow_nan=False)
    example.write_text(json.dumps({"text": "another"}))
    assert clean.fingerprint(config) != before
    example.unlink()
    with pytest.raises(DataError, match="evaluation set mine: no file"):
        clean.fingerprint(config)


def test_missing_and_damaged_input(ctx: StageContext) -> None:
    table = ctx.input("collect") / "documents.parquet"
    data = table.read_bytes()
    table.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="run the stage that writes it again"):
        clean.run(ctx)
    table.unlink()
    with pytest.raises(DataError, match="cannot read"):
        clean.run(ctx)
