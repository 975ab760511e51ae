"""The cases of every op, as tests take them and `kernel_check` replays them.

    python tests/cases.py OUT.bin [entry ...]

writes them all into one file (case_file.py has its format), so that the C++ program `kernel_check`
replays them under every table, under sanitizers and on other machines.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import case_file
import numpy as np

from gristmill.backend import _C
from gristmill.lab.case import (
    ENUMS,
    SIZES,
    TINY,
    UB,
    Case,
    Floats,
    Operand,
    U,
    encode,
    gamma,
    given,
    round_bf16,
    wanted,
    widen_bf16,
)

__all__ = [
    "SIZES",
    "TINY",
    "UB",
    "Case",
    "Floats",
    "Operand",
    "U",
    "all_cases",
    "encode",
    "gamma",
    "given",
    "portable",
    "round_bf16",
    "wanted",
    "widen_bf16",
]


def portable(case: Case) -> case_file.Case:
    """The same call as `kernel_check` takes it."""
    buffers, fields = {}, {}
    for f in case.fields():
        name, value = f["name"], case.arguments[f["name"]]
        if isinstance(value, Operand):
            buffers[name] = _buffer(case, name, value)
            view = case_file.View(name, value.strides, value.offset, int(value.accumulate))
            fields[name] = view if f["type"] == "View" else case_file.Pointer(name)
        elif isinstance(value, str) and value.startswith("="):
            fields[name] = fields[value[1:]]
        elif isinstance(value, str):
            names = ENUMS.get((case.entry, name), list(case_file.DTYPES))
            fields[name] = names.index(value)
        elif value is not None:
            fields[name] = float(value) if f["type"] == "float" else int(value)
    return case_file.Case(case.entry, case.name, buffers, fields, case.exact)


def _buffer(case: Case, name: str, operand: Operand) -> case_file.Buffer:
    if not operand.output:
        return case_file.Buffer(operand.storage, operand.dtype)
    value, bound = (np.full(operand.storage.size, np.nan) for _ in range(2))
    for whole, part in zip((value, bound), case.result(name), strict=True):
        operand.read(whole)[...] = part
    return case_file.Buffer(operand.storage, operand.dtype, value, bound)


def all_cases() -> Iterator[Case]:
    """Every case of every op."""
    folder = Path(__file__).resolve().parent / "ops"
    sys.path[:0] = [str(folder), str(folder.parent)]
    for file in sorted(folder.glob("test_*.py")):
        yield from getattr(importlib.import_module(file.stem), "cases", tuple)()


def main(out: str, *entries: str) -> None:
    """Write the cases of some entries (default: all) to a file."""
    chosen = [portable(c) for c in all_cases() if not entries or c.entry in entries]
    n = case_file.write(Path(out), chosen, _C.abi())
    print(f"{n} cases of {len({c.entry for c in chosen})} entries in {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
