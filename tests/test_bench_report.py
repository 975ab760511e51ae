"""bench/report.py: several machines in one table; README's figures are those of the results."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench is not installed

from bench import goals, report

ROOT = Path(__file__).resolve().parents[1]


def result(processor: str, *rows: dict[str, Any], date: str = "2026-01-02") -> dict[str, Any]:
    about = {"processor": processor, "cores": 2, "table": "avx2", "threads": 1}
    settings = {"rounds": 9, "threads": [1, 2]}
    return {"schema": 1, "bench": "ops", "date": date, "machine": about, "settings": settings,
            "rows": list(rows)}  # fmt: skip


def row(name: str, share: float | None, **peers: float) -> dict[str, Any]:
    sides = {n: {"milliseconds": 1, "ratio": r, "low": r, "high": r} for n, r in peers.items()}
    noise = {"milliseconds": 1, "ratio": 1.01, "low": 0.99, "high": 1.02}
    return {"op": "gelu", "name": name, "threads": 2, "rate": 12.34, "unit": "GB",
            "of_ceiling": share, "peers": sides, "noise": noise}  # fmt: skip


def test_machines_stand_beside_each_other() -> None:
    table = report.merged([
        result("A", row("x", 0.5, PyTorch=2.0, NumPy=1.5), row("y", None)),
        result("B", row("x", 0.9), {"op": "gelu", "name": "y", "error": "wrong"}),
    ]).splitlines()  # fmt: skip
    assert "A, 2 cores, 2026-01-02" in table[0] and "B, 2 cores" in table[0]
    assert table[2] == "| gelu x, 2 | 12.3 GB/s | 50 %, 1.50x NumPy | 12.3 GB/s | 90 % |"
    assert table[3] == "| gelu y, 2 | 12.3 GB/s |  | | |"
    assert len({line.count("|") for line in table}) == 1


def test_figures_are_grouped_by_op_and_dtype() -> None:
    rows = row("float32 x", 0.5, PyTorch=2.0), row("y", 0.7, PyTorch=0.5), row("bfloat16 z", None)
    text = report.figures([result("A", *rows)])
    assert "`gristmill bench --all --threads 1,2`" in text
    assert "| gelu float32 | 2 | 2 | 50 to 70 % | PyTorch 1.00x (0.50) |" in text
    assert "| gelu bfloat16 | 2 | 1 |  |  |" in text


def test_the_newest_of_a_machine_counts(tmp_path: Path) -> None:
    for i, (processor, date) in enumerate(
        [("A", "2026-02-01"), ("A", "2026-01-01"), ("B", "2025")]
    ):
        (tmp_path / f"{i}.json").write_text(json.dumps(result(processor, date=date)))
    (tmp_path / "old.json").write_text('{"bench": "ops", "rows": []}')
    found = report.newest(tmp_path)
    assert [(r["machine"]["processor"], r["date"]) for r in found] == [
        ("A", "2026-02-01"),
        ("B", "2025"),
    ]


def test_readme_is_what_report_writes() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    results = report.newest(ROOT / "bench" / "results")
    assert results
    assert report.written(readme, report.figures(results)) == readme, (
        "run: python -m bench.report --readme"
    )


def test_every_result_of_the_published_form_is_valid() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "bench" / "schema.json").read_text())
    files = sorted((ROOT / "bench" / "results").glob("*.json"))
    for file in files:
        kept = json.loads(file.read_text())
        if kept.get("schema") == 1 and kept["bench"] == "ops":
            jsonschema.validate(kept, schema)


def test_noise_is_a_line() -> None:
    assert "half of 3 cases within ±1.0 %, 95 % of them within ±1.0 %" in report.noise(
        [row("x", 0.5)] * 3
    )
    assert report.noise([]).startswith("no noise floor")


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(SystemExit, match="is no result file"):
        report.read(tmp_path / "x.json")


def matmul(name: str, share: float, low: float, high: float) -> dict[str, Any]:
    beside = {"milliseconds": 1, "ratio": high, "low": low, "high": high}
    return {**row(name, share), "op": "matmul", "peers": {"PyTorch": beside}}


def goal(kind: str, aim: float, **rest: Any) -> goals.Goal:
    return goals.Goal("matmul", "^float32", kind, aim, **rest)


def test_a_ratio_counts_by_its_lower_end() -> None:
    rows = [matmul("float32 x", 0.95, 1.1, 1.5), matmul("float32 y", 0.80, 1.3, 1.4)]
    assert goal("least", 1.2).figure(rows) == "1.40x (1.30) to 1.50x (1.10), 1 of 2"
    assert goal("least", 1.1).figure(rows) == "1.40x (1.30) to 1.50x (1.10), met"
    assert goal("share", 0.9).figure(rows) == "80 % to 95 %, 1 of 2"
    assert goal("share", 0.9).figure(rows[:1]) == "95 %, met"
    assert goal("share", 0.96).figure(rows[:1]) == "95 %"
    assert goal("rate", 10).figure(rows) == "12.3, met"


def test_the_mean_of_independent_ratios_is_better_known_than_each() -> None:
    middle, end = goals.mean([(2.0, 1.0), (2.0, 1.0), (2.0, 1.0), (2.0, 1.0)])
    assert middle == pytest.approx(2.0) and end == pytest.approx(2.0 * 2**-0.5)
    rows = [matmul("float32 x", 0.9, 1.0, 1.0), matmul("float32 y", 0.9, 4.0, 4.0)]
    assert goal("mean", 2.0).figure(rows) == "2.00x (2.00), met"


def test_a_goal_takes_its_own_cases_only() -> None:
    rows = [matmul("bfloat16 x", 0.5, 1, 1), {**matmul("float32 x", 0.5, 1, 1), "threads": 1}]
    assert goal("share", 0.9).figure(rows) == ""
    assert goal("share", 0.9, threads=1).figure(rows) == "50 %"
    assert goal("least", 1.0, peer="oneDNN", threads=1).figure(rows) == ""
    assert goal("share", 0.9, threads=1).figure([{**rows[1], "of_ceiling": None}]) == ""


def test_peaks_of_memory_are_to_be_small() -> None:
    peaks = {"ours": {"peak_bytes": 2.6e9}, "ours, recomputed": {"peak_bytes": 2.3e9}}
    rows = [{"op": "matmul", "model": "float32", "name": "x", "peers": {}, "memory": peaks}]
    assert goal("memory", 2.7).figure(rows) == "2.60 GB, met"
    assert goal("memory", 2.2, recompute=True).figure(rows) == "2.30 GB"


def test_files_of_a_bench_are_runs_of_it() -> None:
    one, two = result("A", row("x", 0.5)), result("A", row("x", 0.6))
    step = {**result("A", row("y", 0.7)), "bench": "train_step"}
    names = [[r["of_ceiling"] for r in rows] for rows in report.runs([one, two, step])]
    assert names == [[0.5, 0.7], [0.6]]


def test_every_goal_is_of_an_op_that_is_measured() -> None:
    measured = {file.stem for file in (ROOT / "bench" / "ops").glob("*.py")} | {"train_step"}
    assert {g.op for g in goals.goals()} <= measured
    one = {**matmul("float32 NN 512x512x512", 0.95, 1.2, 1.3), "threads": 1}
    assert r"NN\|NT\|TN" in goals.table([[one]]) and "95 %, met" in goals.table([[one]])
