"""The micro-kernels as the compiler made them: accumulators in registers, nothing on the stack.

GRISTMILL_BUILD names a build folder with the objects of the tables; without it only the check
itself is tested, on two kernels compiled on the spot, one of which needs more registers than there
are.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from disassembly import Loop, functions, innermost_loops, micro_kernels

BUILD = os.environ.get("GRISTMILL_BUILD", "")
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which("objdump"),
    reason="x86-64 and objdump (Debian: apt install binutils) are needed",
)

# Templates of register tiles: how a product is made (Single, Pair, Pairs), rows, vectors across.
MODE, ROWS, ACROSS = r"[\w:]+::(?P<mode>\w+)", r"(?P<rows>\d+)", r"(?P<across>\d+)"
TILES = {
    "matmul": {
        "tile": rf"\btile<{MODE}, {ROWS}, \d+, ",
        "small_tile": rf"\bsmall_tile<{MODE}, \w+, {ROWS}, ",
    },
    "attention": {
        "score_tile": rf"\bscore_tile<{MODE}, \d+l?, {ROWS}, {ACROSS}>",
        "value_tile": rf"\bvalue_tile<{MODE}, {ROWS}, {ACROSS}>",
    },
    "attention_backward": {
        "score_tile": rf"\bscore_tile<{MODE}, \d+l?, {ROWS}, {ACROSS}>",
        "query_tile": rf"\bquery_tile<{MODE}, {ROWS}, {ACROSS}>",
        "key_tile": rf"\bkey_tile<{MODE}, {ROWS}, {ACROSS}>",
    },
}
# Of a table: the kind of register, registers of 16 floats, matmul's vectors across, sums of its
# fullest tile.
TABLES = {
    "avx2": ("ymm", 2, 1, 12),
    "avx512": ("zmm", 1, 2, 24),
    "avx512bf16": ("zmm", 1, 2, 24),
}
# Instructions for each multiply-add: itself, a load, and a share of prefetching; a small product
# finds its rows by strides and pairs up columns as it goes.
PACKED, SMALL = 2.5, 4.0


def objects(table: str) -> list[Path]:
    """The compiled files of a table."""
    found = sorted(Path(BUILD).glob(f"CMakeFiles/cpu_{table}.dir/csrc/cpu/**/*.o"))
    if not found or "aarch64" in Path(BUILD).name:
        pytest.skip(f"GRISTMILL_BUILD has no objects of table {table}")
    return found


def multiplier(table: str, mode: str) -> str:
    """The instruction that a way to multiply is."""
    return "vdpbf16ps" if table == "avx512bf16" and mode != "Single" else "vfmadd231ps"


def wrong(
    loops: Sequence[Loop], name: str, register: str, accumulators: int, most: float = PACKED
) -> str:
    """Why no loop is a tile of `accumulators` without a detour; empty where one is."""
    tiles = [x for x in loops if {i.name for i in x.multiply_adds} == {name}]
    if not tiles or len(tiles[0].accumulators) != accumulators:
        return f"no loop keeps {accumulators} sums of {name} in registers: {list(map(str, tiles))}"
    loop = tiles[0]
    each = set(loop.accumulators.values())
    if loop.spills or len(each) != 1 or any(register not in r for r in loop.accumulators):
        return str(loop)
    # each multiply-add once per sum and turn; beside them at most a load for each, and the count
    if len(loop.multiply_adds) != each.pop() * len(loop.accumulators):
        return f"{loop}; other multiply-adds: {len(loop.multiply_adds)}"
    if len(loop.body) > most * len(loop.multiply_adds) + 4:
        return f"{loop}; {len(loop.body)} instructions"
    return ""


@pytest.mark.skipif(not BUILD, reason="GRISTMILL_BUILD is not set")
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("file", TILES)
def test_every_register_tile_is_its_multiply_adds(file: str, table: str) -> None:
    """Each instance of each template: one sum for each of its rows and vectors, no detour."""
    (compiled,) = (o for o in objects(table) if o.name == f"{file}.cpp.o")
    register, registers, across, fullest = TABLES[table]
    bodies, problems = list(functions(compiled)), []
    for template, pattern in TILES[file].items():
        seen: dict[str, int] = {}
        small = template == "small_tile"
        for function, body in bodies:
            found = re.search(pattern, function)
            if not found or int(found["rows"]) < 4:  # of fewer rows: bound by loads
                continue
            parts = found.groupdict()
            sums = int(parts["rows"]) * int(parts.get("across", across)) * registers
            name = multiplier(table, parts["mode"])
            loops = [x for x in innermost_loops(function, body) if x.multiply_adds]
            loops.sort(key=lambda x: (-len(x.accumulators), -len(x.multiply_adds)))
            problems.append(wrong(loops, name, register, sums, SMALL if small else PACKED))
            seen[name] = max(seen.get(name, 0), sums)
        modes = {"vfmadd231ps", multiplier(table, "Pair")}
        wanted = (
            {} if (template, table) == ("small_tile", "avx2") else dict.fromkeys(modes, fullest)
        )
        assert seen == wanted, template
    assert not [problem for problem in problems if problem]


# Few rows of a: 16 vectors of weights that lie along k are turned in registers, of others 4 rows
# are taken at once; each is multiplied once for every row of a. (Rounding while turning takes more
# registers than there are: only where bfloat16 has no instruction.)
@pytest.mark.skipif(not BUILD, reason="GRISTMILL_BUILD is not set")
@pytest.mark.parametrize("table", ["avx512", "avx512bf16"])
def test_products_of_few_rows_stay_in_registers(table: str) -> None:
    (compiled,) = (o for o in objects(table) if o.name == "matmul.cpp.o")
    seen: dict[tuple[str, str], int] = {}
    for function, body in functions(compiled):
        found = re.search(r"\bfew_(along|columns)<([\w:]*Rounded)?", function)
        if not found or found[2]:
            continue
        for loop in innermost_loops(function, body):
            assert not (loop.multiply_adds and loop.spills), str(loop)
            for name in {i.name for i in loop.multiply_adds}:
                key = found[1], re.sub(r"(?<=add)\d+", "231", name)  # whatever is overwritten
                seen[key] = max(seen.get(key, 0), len(loop.multiply_adds))
    names = {"vfmadd231ps", multiplier(table, "Pair")}
    fullest = {"along": 16 * 4, "columns": 4 * 4}
    assert seen == {(way, name): n for way, n in fullest.items() for name in names}


@pytest.mark.skipif(not BUILD, reason="GRISTMILL_BUILD is not set")
@pytest.mark.parametrize("table", TABLES)
def test_no_micro_kernel_of_any_op_spills(table: str) -> None:
    found = [(o.name, x) for o in objects(table) for x in micro_kernels(o)]
    assert len(found) > 20
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
