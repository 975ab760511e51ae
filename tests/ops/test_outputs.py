"""What holds for every entry: a read-only output is refused; adding is honoured or refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from cases import Case, Operand, all_cases, wanted
from oracle import compare, table

from gristmill.backend import _C

# Adding to these has no sense: statistics of a row, and what is updated in place.
NEVER_ADDED = {
    ("attention_forward", "lse"),
    ("rmsnorm_forward", "rstd"),
    ("layernorm_forward", "mean"),
    ("layernorm_forward", "rstd"),
    ("cross_entropy_forward", "lse"),
    ("orthogonal", "out"),
    *((entry, x) for entry in ("adam", "adamw") for x in ("param", "m", "v")),
    *(("rmsprop", x) for x in ("param", "square", "mean", "velocity")),
    *(("sgd", x) for x in ("param", "velocity")),
}


@cache
def examples() -> dict[str, Case]:
    """A case of each entry: the first of those with the most outputs, none of them an input too.

    Without matmul_pack, whose binding makes its output itself.
    """
    chosen: dict[str, Case] = {}
    for case in all_cases():
        in_place = any(isinstance(v, str) and v.startswith("=") for v in case.arguments.values())
        best = chosen.get(case.entry)
        if not in_place and (best is None or len(case.outputs()) > len(best.outputs())):
            chosen[case.entry] = case
    del chosen["matmul_pack"]
    return chosen


OUTPUTS = [(entry, name) for entry, case in examples().items() for name in case.outputs()]


def test_every_entry_is_here() -> None:
    assert {e for e, _ in OUTPUTS} == {e["name"] for e in _C.entries()} - {"matmul_pack"}


@pytest.mark.parametrize(("entry", "name"), OUTPUTS)
def test_a_read_only_output_is_refused(entry: str, name: str) -> None:
    case = examples()[entry]
    operands = {n: v for n, v in case.arguments.items() if isinstance(v, Operand)}
    arrays: dict[str, Any] = {n: v.array(v.storage.copy()) for n, v in operands.items()}
    arrays[name] = arrays[name].frozen()
    with pytest.raises(ValueError, match="read-only"):
        getattr(_C, entry)(**dict(case.binding_arguments(arrays)))


@pytest.mark.parametrize("name", ["cos", "sin"])
def test_a_read_only_rope_table_is_refused(name: str) -> None:
    arrays = {x: _C.empty((4, 2)) for x in ("cos", "sin")}
    arrays[name] = arrays[name].frozen()
    with pytest.raises(ValueError, match="read-only"):
        _C.rope_table(**arrays, theta=10000.0)


@pytest.mark.parametrize("isa", _C.tables())
@pytest.mark.parametrize(("entry", "name"), OUTPUTS)
def test_an_output_is_added_to_or_refuses_it(entry: str, name: str, isa: str) -> None:
    """Ones are in it before. A chain that starts at 1 and not at 0 rounds otherwise: 1e-3 is far
    above gamma(n) of these sizes and far below the 1 that must not be lost."""
    case = examples()[entry]
    before = case.outputs()[name]
    added = wanted(before.shape, before.dtype, start=np.ones(before.shape))
    value, bound = case.expected[name]
    case = replace(
        case,
        arguments={**case.arguments, name: added},
        expected={**case.expected, name: (value, np.asarray(bound) + 1e-3)},
        _results={},
    )
    with table(isa):
        if (entry, name) in NEVER_ADDED:
            with pytest.raises(RuntimeError, match="unsupported"):
                case.run()
        else:
            compare(case, case.run(), isa)
