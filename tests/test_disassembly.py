"""The micro-kernels as the compiler made them: accumulators in registers, nothing on the stack.

GRISTMILL_BUILD names a build folder with the objects of the tables; without it only the check
itself is tested, on two kernels compiled on the spot, one of which needs more registers than there
are.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from disassembly import Loop, micro_kernels

BUILD = os.environ.get("GRISTMILL_BUILD", "")
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("objdump"),
    reason="x86-64 and objdump (Debian: apt install binutils) are needed",
)

# Table, what multiplies, and accumulators of the fullest tile: 6 x 16, 12 x 32 (f32 and pairs).
TILES = [
    ("avx2", "vfmadd231ps", "ymm", 12),
    ("avx512", "vfmadd231ps", "zmm", 24),
    ("avx512bf16", "vfmadd231ps", "zmm", 24),
    ("avx512bf16", "vdpbf16ps", "zmm", 24),
]
# Accumulators of attention's fullest tile: the score and value products.
ATTENTION = {"avx2": 8, "avx512": 16, "avx512bf16": 16}


def objects(table: str) -> list[Path]:
    """The compiled files of a table."""
    found = sorted(Path(BUILD).glob(f"CMakeFiles/cpu_{table}.dir/csrc/cpu/**/*.o"))
    if not found or "aarch64" in Path(BUILD).name:
        pytest.skip(f"GRISTMILL_BUILD has no objects of table {table}")
    return found


def wrong(loops: list[Loop], name: str, register: str, accumulators: int) -> str:
    """Why no loop is a tile of `accumulators` without a detour; empty where one is."""
    tiles = [x for x in loops if {i.name for i in x.multiply_adds} == {name}]
    if not tiles or len(tiles[0].accumulators) < accumulators:
        return f"no loop keeps {accumulators} sums of {name} in registers: {list(map(str, tiles))}"
    loop = tiles[0]
    each = set(loop.accumulators.values())
    if loop.spills or len(each) != 1 or any(register not in r for r in loop.accumulators):
        return str(loop)
    # each multiply-add once per sum and turn; beside them at most a load for each, and the count
    if len(loop.multiply_adds) != each.pop() * len(loop.accumulators):
        return f"{loop}; other multiply-adds: {len(loop.multiply_adds)}"
    if len(loop.body) > 2 * len(loop.multiply_adds) + 4:
        return f"{loop}; {len(loop.body)} instructions"
    return ""


@pytest.mark.skipif(not BUILD, reason="GRISTMILL_BUILD is not set")
@pytest.mark.parametrize("table, name, register, accumulators", TILES)
def test_a_products_tile_stays_in_registers(
    table: str, name: str, register: str, accumulators: int
) -> None:
    loops = [x for o in objects(table) if o.name == "matmul.cpp.o" for x in micro_kernels(o)]
    assert not wrong(loops, name, register, accumulators)


@pytest.mark.skipif(not BUILD, reason="GRISTMILL_BUILD is not set")
@pytest.mark.parametrize("table", ATTENTION)
def test_attentions_products_stay_in_registers(table: str) -> None:
    loops = [x for o in objects(table) if o.name.startswith("attention") for x in micro_kernels(o)]
    assert len(loops[0].accumulators) >= ATTENTION[table], str(loops[0])


@pytest.mark.skipif(not BUILD, reason="GRISTMILL_BUILD is not set")
@pytest.mark.parametrize("table", ATTENTION)
def test_no_micro_kernel_of_any_op_spills(table: str) -> None:
    found = [(o.name, x) for o in objects(table) for x in micro_kernels(o)]
    assert not [f"{file}: {loop}" for file, loop in found if loop.spills]


# A tile of R x 32: 2 R sums, two vectors of b and a broadcast in 32 registers.
SOURCE = """
typedef float vf __attribute__((vector_size(64), aligned(4)));
#define EACH_SUM _Pragma("GCC unroll 32") for (int i = 0; i < R; ++i) \\
  _Pragma("GCC unroll 2") for (int v = 0; v < 2; ++v)
template <int R> void tile(float* c, const float* a, const float* b, long kc) {
  vf acc[R][2];
  EACH_SUM acc[i][v] = *(vf*)(c + 32 * i + 16 * v);
  for (long k = 0; k < kc; ++k) {
    const vf row[2] = {*(const vf*)(b + 32 * k), *(const vf*)(b + 32 * k + 16)};
    EACH_SUM acc[i][v] += a[R * k + i] * row[v];
  }
  EACH_SUM *(vf*)(c + 32 * i + 16 * v) = acc[i][v];
}
template void tile<ROWS>(float*, const float*, const float*, long);
"""


@pytest.mark.parametrize("rows, fits", [(12, True), (17, False)])
def test_a_tile_of_too_many_rows_is_found(rows: int, fits: bool, tmp_path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or pytest.skip("g++ is needed")
    source, built = tmp_path / "tile.cpp", tmp_path / "tile.o"
    source.write_text(SOURCE.replace("ROWS", str(rows)))
    options = ["-O3", "-mavx512f", "-mfma", "-ffp-contract=fast", "-c", "-o", str(built)]
    subprocess.run([compiler, *options, str(source)], check=True)
    said = wrong(micro_kernels(built), "vfmadd231ps", "zmm", 2 * rows)
    assert (said == "") == fits, said
    if not fits:
        assert any(loop.spills for loop in micro_kernels(built))
