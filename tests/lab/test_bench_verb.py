"""gristmill bench: what is asked for and not there is said, the rest is measured; regressions."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from sources import RIGHT, written

from gristmill.cli import main
from gristmill.lab import benches, comparing, plots
from gristmill.lab.benching import selected

QUICK = ["--quick", "--peers", "NumPy", "--dtypes", "float32"]
FORWARD = "float32 forward 4096x1024"


@pytest.fixture(autouse=True)
def without_other_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch takes seconds to import; numba is taken for not installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n in ("numba", "torch") else find(n, *a)
    )
    for name in [n for n in sys.modules if n == "bench" or n.startswith("bench.")]:
        monkeypatch.delitem(sys.modules, name)


def row(name: str = "a", milliseconds: float = 1.0, **rest: Any) -> dict[str, Any]:
    side = {"milliseconds": 1.0, "ratio": 1.0, "low": 0.97, "high": 1.03}
    return {
        **{"op": "silu", "name": name, "table": "avx2", "threads": 1, "unit": "GB", "rate": 8.0},
        **{"milliseconds": milliseconds, "spread": 0.01, "of_ceiling": 0.5 / milliseconds},
        **{"peers": {"NumPy": dict(side, ratio=2.0)}, "noise": side, "intensity": 0.5, **rest},
    }


def result(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"schema": 1, "rows": rows}))
    return path


def test_the_table_is_printed_whatever_else_was_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    file = tmp_path / "r.json"
    asked = ["silu", "sliu", "--quick", "--shapes", "forward,7x7", "--dtypes", "float32,flaot32"]
    code = main(["bench", *asked, "--peers", "numpy,numba,onedn", "--json", str(file)])
    out, err = capsys.readouterr()
    assert code == 2
    assert "no bench of 'sliu', did you mean 'silu'?; there are: adam" in err
    assert f"no case of silu has '7x7'; there are: {FORWARD}" in err
    assert "no dtype 'flaot32', did you mean 'float32'?" in err
    assert "numba is not installed: pip install 'gristmill[lab]'" in err
    assert "no peer 'onedn', did you mean 'onednn'?" in err
    assert FORWARD in out and "% of ceiling  NumPy " in out and "noise floor" in out
    kept = json.loads(file.read_text())
    jsonschema.validate(kept, json.loads((benches.folder() / "schema.json").read_text()))
    assert [r["name"] for r in kept["rows"]] == [FORWARD]
    assert kept["rows"][0]["noise"]["low"] <= 1.2 and kept["rows"][0]["intensity"] > 0
    assert str(tmp_path) not in file.read_text()


def test_a_case_that_cannot_be_called_is_a_note(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silu = benches.load("ops.silu")
    good = next(iter(silu.cases()))
    broken = dataclasses.replace(good, name="float32 broken", ours=lambda: math.sqrt(-1.0))
    monkeypatch.setattr(silu, "cases", lambda: iter([broken, good]))
    assert main(["bench", "silu", *QUICK]) == 2
    out, err = capsys.readouterr()
    assert "silu, float32 broken: cannot be called: ValueError: math domain error" in err
    assert good.name in out and "broken" not in out


def test_without_a_compiler_the_ceiling_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert main(["bench", "silu_forward", *QUICK]) == 2
    out, err = capsys.readouterr()
    assert f"{FORWARD}" in out and "no ceiling" in out
    assert err.count("no C++ compiler found, so there is no ceiling; install one") == 1


def test_a_users_kernel_has_the_table_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path, RIGHT)
    assert main(["bench", "silu", *QUICK, "--kernel", str(source)]) == 0
    out = capsys.readouterr().out
    assert "silu_forward: 24 cases right on 1, 2, 3 threads" in out
    (line,) = (line for line in out.splitlines() if line.startswith("float32"))
    assert "forward" in line and line.index("gristmill ") < line.index("NumPy ")
    assert "silu, ours is mine.cpp" in out


def test_a_wrong_kernel_is_reported_and_the_table_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path, RIGHT.replace("1.0f +", "1.5f +"))
    assert main(["bench", "silu_forward", *QUICK, "--kernel", str(source)]) == 1
    out, err = capsys.readouterr()
    assert "times the bound" in err and "the figures below are of the table's own" in err
    assert FORWARD in out


def test_pictures_without_matplotlib_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["bench", "silu", *QUICK, "--plots", str(tmp_path)]) == 2
    assert main(["explain", "matmul", "--page", str(tmp_path / "page.html"), "--quick"]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("pip install 'gristmill[lab]'") == 2


def test_against_a_faster_result_exits_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    assert main(["bench", "silu_forward", *QUICK, "--json", str(file)]) == 0
    kept = json.loads(file.read_text())
    kept["rows"][0]["of_ceiling"] *= 1e6  # more than any noise
    file.write_text(json.dumps(kept))
    assert main(["bench", "silu_forward", *QUICK, "--against", str(file)]) == 1
    assert "1 slower than the noise explains" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "worse"),
    [
        (row(), row(), False),
        (row(), row(milliseconds=1.05), False),  # both have noise of 3 %: 6 % together
        (row(), row(milliseconds=1.08), True),
        (row(milliseconds=1.08), row(), False),
        (row(), row(milliseconds=2.0, of_ceiling=0.5), False),  # the machine was slower, too
        (row(of_ceiling=None), row(milliseconds=2.0), True),
        (row(), row("another", milliseconds=9.0), False),
        (row(), {"op": "silu", "name": "a", "error": "wrong"}, False),
    ],
)
def test_what_counts_as_a_regression(
    old: dict[str, Any], new: dict[str, Any], worse: bool, tmp_path: Path
) -> None:
    assert comparing.table(result(tmp_path / "old.json", old), [new])[1] == worse


@pytest.mark.parametrize("text", ["", "[]", '{"rows": []}', '{"rows": [{"op": "x"}]}'])
def test_a_file_that_is_no_result(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    file.write_text(text)
    assert main(["bench", "silu", *QUICK, "--against", str(file)]) == 2
    assert "is no result of gristmill bench" in capsys.readouterr().err


def test_an_unknown_table_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "silu", "--isa", "scalr"]) == 2
    assert "no table 'scalr' on this machine, did you mean 'scalar'?" in capsys.readouterr().err
    with selected("scalar"):
        pass


def test_no_op_lists_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert "name an op, or --all; there are: adam" in capsys.readouterr().err
    assert main(["bench", "--list"]) == 0
    assert "not installed: pip install torch" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_pictures(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [row(), row("b", unit="GFLOP"), row("bfloat16 c", of_ceiling=None), {"error": "x"}]
    files = plots.write(rows, tmp_path, kind)
    assert [f.name for f in files] == [f"silu-1-bars.{kind}", f"roofline-1.{kind}"]
    assert all(f.stat().st_size > 5000 for f in files)
