"""kernel_check itself: right cases pass, and every kind of wrong one is caught and named.

The program is built apart (cmake -DGRISTMILL_PYTHON=OFF); GRISTMILL_KERNEL_CHECK names it.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from case_file import Buffer, Case, Pointer, View, write

_C = pytest.importorskip("gristmill._C")
PROGRAM = os.environ.get("GRISTMILL_KERNEL_CHECK", "")
needs_program = pytest.mark.skipif(not PROGRAM, reason="GRISTMILL_KERNEL_CHECK is not set")

ROWS, COLS, GAP = 3, 17, 2


def silu_case() -> Case:
    """A right case: out has a gap after each row that must not be touched."""
    x = np.random.default_rng(0).standard_normal((ROWS, COLS)).astype(np.float32)
    want, bound = np.zeros((2, ROWS, COLS + GAP))
    want[:, :COLS] = x / (1 + np.exp(-x.astype(np.float64)))
    bound[:, :COLS], bound[:, COLS:] = 1e-6, np.nan
    out = Buffer(np.full((ROWS, COLS + GAP), -7, np.float32), want=want, bound=bound)
    fields = {"out": View("out", (COLS + GAP, 1)), "x": View("x", (COLS, 1))}
    sizes = {"rows": ROWS, "cols": COLS}
    return Case("silu_forward", "3x17", {"out": out, "x": Buffer(x)}, {**fields, **sizes})


def with_out(case: Case, **changed: np.ndarray) -> Case:
    return replace(case, buffers={**case.buffers, "out": replace(case.buffers["out"], **changed)})


def check(folder: Path, case: Case, *tables: str) -> subprocess.CompletedProcess[str]:
    assert write(folder / "cases", [case], _C.abi()) == 1
    command = [PROGRAM, str(folder / "cases"), *tables]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@needs_program
def test_a_right_case_passes_under_every_table(tmp_path: Path) -> None:
    done = check(tmp_path, silu_case())
    assert done.returncode == 0, done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()][:-1] == _C.tables()[::-1]
    assert "f32 bits" in done.stdout


@needs_program
def test_a_wrong_element_is_named(tmp_path: Path) -> None:
    case = silu_case()
    want = case.buffers["out"].want.copy()
    want[2, 5] += 0.5
    done = check(tmp_path, with_out(case, want=want), "scalar")
    assert done.returncode == 1
    assert f"element {2 * (COLS + GAP) + 5}: got" in done.stdout
    assert "scalar silu_forward 3x17, 1 thread" in done.stdout


@needs_program
def test_a_write_outside_the_view_is_caught(tmp_path: Path) -> None:
    case = silu_case()
    bound = case.buffers["out"].bound.copy()
    bound[1, 4] = np.nan  # declared untouchable, and the kernel does write it
    done = check(tmp_path, with_out(case, bound=bound), "scalar")
    assert done.returncode == 1
    assert "must stay -7 and became" in done.stdout


@needs_program
def test_unknown_fields_and_kinds_are_named(tmp_path: Path) -> None:
    case = silu_case()
    done = check(tmp_path, replace(case, fields={**case.fields, "colums": 3}), "scalar")
    assert done.returncode == 1 and "no field colums" in done.stdout
    done = check(tmp_path, replace(case, fields={**case.fields, "rows": 3.0}), "scalar")
    assert done.returncode == 1 and "rows is a int64_t" in done.stdout
    done = check(tmp_path, replace(case, fields={**case.fields, "x": Pointer("x")}), "scalar")
    assert done.returncode == 1 and "x is a View" in done.stdout
    done = check(tmp_path, replace(case, entry="silu"), "scalar")
    assert done.returncode == 1 and "no such entry" in done.stdout


@needs_program
def test_damaged_files_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "cases", [silu_case()], _C.abi())
    raw = (tmp_path / "cases").read_bytes()
    rng = np.random.default_rng(1)
    for cut in (0, 7, 12, 19, *rng.integers(20, len(raw), 30)):
        (tmp_path / "cases").write_bytes(raw[:cut])
        done = subprocess.run([PROGRAM, str(tmp_path / "cases")], capture_output=True, check=False)
        assert done.returncode == 2, cut
    write(tmp_path / "cases", [silu_case()], _C.abi() ^ 1)
    done = subprocess.run(
        [PROGRAM, str(tmp_path / "cases")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "argument structs" in done.stderr


@needs_program
def test_usage_names_the_tables() -> None:
    for given in ([], ["--help"], ["file", "avx3"]):
        done = subprocess.run([PROGRAM, *given], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "scalar" in done.stderr


def test_a_case_without_result_is_refused(tmp_path: Path) -> None:
    case = silu_case()
    with pytest.raises(ValueError, match="no buffer has a want"):
        write(tmp_path / "cases", [replace(case, buffers={"out": case.buffers["x"]})], 0)


def test_a_want_must_cover_its_buffer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"must have {ROWS * (COLS + GAP)} elements"):
        write(tmp_path / "cases", [with_out(silu_case(), want=np.zeros(3))], 0)
