"""Is a result right? Within the twin's bound, its memory's gaps untouched, the same bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gristmill.lab.case import Case, Stored, WrongResult, widen_bf16

Outputs = dict[str, Stored]


def same_bytes(what: str, a: Outputs, b: Outputs) -> None:
    """Raise WrongResult naming the first element whose bytes differ."""
    for name in a:
        x, y = (np.ascontiguousarray(z).view(f"u{z.itemsize}") for z in (a[name], b[name]))
        wrong = np.argwhere(x != y)
        if len(wrong):
            i = tuple(map(int, wrong[0]))
            raise WrongResult(
                f"{what} differ in {name}, {len(wrong)} of {x.size} elements, first {i}: "
                f"{a[name][i]!r} and {b[name][i]!r}"
            )


class Worst(NamedTuple):
    """The largest error as a multiple of its bound, and where it is."""

    ratio: float
    place: str


def compare(case: Case, got: Outputs, where: str) -> Worst:
    """The worst error; raises WrongResult when it is above its bound, or memory between the
    elements changed."""
    worst = Worst(0.0, str(case))
    for name, operand in case.outputs().items():
        _untouched(case, name, got[name], where)
        stored = operand.read(got[name])
        values = widen_bf16(stored) if operand.dtype == "bfloat16" else stored
        want, bound = case.result(name)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(values.astype(np.float64) - want) / bound
        error = np.where((values == want) | (np.isnan(values) & np.isnan(want)), 0, error)
        error = np.where(np.isnan(error), np.inf, error)
        if not error.size:
            continue
        i = tuple(map(int, np.unravel_index(int(error.argmax()), error.shape)))
        if error[i] > 1:
            raise WrongResult(
                f"{case} on {where}: {name}{list(i)} is {values[i]}, twin {want[i]}, off by "
                f"{error[i]:.3g} times the bound {bound[i]:.3g}; {int((error > 1).sum())} of "
                f"{error.size} elements are wrong"
            )
        worst = max(worst, Worst(float(error[i]), f"{case}: {name}{list(i)}"))
    return worst


def _untouched(case: Case, name: str, after: Stored, where: str) -> None:
    """Memory between and around an output's elements has its old bytes."""
    operand = case.outputs()[name]
    inside = np.zeros(operand.storage.size, dtype=bool)
    operand.read(inside)[...] = True
    unsigned = f"u{after.itemsize}"
    changed = (after.view(unsigned) != operand.storage.view(unsigned)) & ~inside
    if changed.any():
        at = int(np.flatnonzero(changed)[0])
        raise WrongResult(
            f"{case} on {where}: {name} was written outside its view, element {at} of its memory"
        )
