"""What kernels are measured by: the twin's result within a bound, the same bits everywhere, and the
twin's own gradient by finite differences in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from cases import Case, Floats, widen_bf16

from gristmill.backend import _C

THREADS = (1, 2, 3, 7)
Outputs = dict[str, npt.NDArray[Any]]


@contextmanager
def table(name: str, threads: int = 1) -> Iterator[None]:
    """Another table and number of threads, for the duration."""
    before = _C.table(), _C.threads()
    _C.select(name)
    _C.set_threads(threads)
    try:
        yield
    finally:
        _C.select(before[0])
        _C.set_threads(before[1])


def verify(case: Case) -> None:
    """Run a case on every table with 1, 2, 3 and 7 threads.

    Each table must be within the bounds of the twin and give the same bits for every number of
    threads; tables must agree bit for bit where the case is exact (float32).
    """
    first: Outputs | None = None
    for name in _C.tables():
        with table(name):
            alone = case.run()
        compare(case, alone, name)
        for threads in THREADS[1:]:
            with table(name, threads):
                same_bytes(f"{case}: {name} with {threads} threads and 1", case.run(), alone)
        if case.exact and first is not None:
            same_bytes(f"{case}: tables {name} and {_C.tables()[0]}", alone, first)
        first = first or alone


def same_bytes(what: str, a: Outputs, b: Outputs) -> None:
    """Raise AssertionError naming the first element whose bytes differ."""
    for name in a:
        x, y = (np.ascontiguousarray(z).view(f"u{z.itemsize}") for z in (a[name], b[name]))
        wrong = np.argwhere(x != y)
        if len(wrong):
            i = tuple(map(int, wrong[0]))
            raise AssertionError(
                f"{what} differ in {name}, {len(wrong)} of {x.size} elements, first {i}: "
                f"{a[name][i]!r} and {b[name][i]!r}"
            )


def compare(case: Case, got: Outputs, where: str) -> float:
    """The worst error as a multiple of its bound; raises AssertionError when above 1."""
    worst = 0.0
    for name, operand in case.outputs().items():
        stored = operand.read(got[name])
        values = widen_bf16(stored) if operand.dtype == "bfloat16" else stored
        want, bound = case.result(name)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.abs(values.astype(np.float64) - want) / bound
        error = np.where((values == want) | (np.isnan(values) & np.isnan(want)), 0, error)
        error = np.where(np.isnan(error), np.inf, error)
        if error.size and error.max() > 1:
            i = tuple(map(int, np.unravel_index(int(error.argmax()), error.shape)))
            raise AssertionError(
                f"{case} on {where}: {name}{list(i)} is {values[i]}, twin {want[i]}, off by "
                f"{error[i]:.3g} times the bound {bound[i]:.3g}; {int((error > 1).sum())} of "
                f"{error.size} elements are wrong"
            )
        worst = max(worst, float(error.max(initial=0.0)))
        _untouched(case, name, got[name], where)
    return worst


def _untouched(case: Case, name: str, after: npt.NDArray[Any], where: str) -> None:
    """Memory between and around an output's elements has its old bytes."""
    operand = case.outputs()[name]
    inside = np.zeros(operand.storage.size, dtype=bool)
    operand.read(inside)[...] = True
    unsigned = f"u{after.itemsize}"
    changed = (after.view(unsigned) != operand.storage.view(unsigned)) & ~inside
    assert not changed.any(), f"{case} on {where}: {name} was written outside its view"


def check_gradient(
    forward: Callable[..., Any],
    gradients: Sequence[Floats],
    inputs: Sequence[Floats],
    dout: Floats,
    step: float = 1e-5,
) -> None:
    """Compare the twin's gradients of sum(dout * forward(*inputs)) with central differences.

    Central differences are off by step^2 f'''/6 + eps |f| / step: some 1e-9 for values near 1.
    """
    for k, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        assert gradient.shape == x.shape, f"gradient {k}: shape {gradient.shape}, not {x.shape}"
        numeric = np.zeros_like(x)
        for i in np.ndindex(x.shape):
            sides = []
            for sign in (1, -1):
                moved = [y.copy() for y in inputs]
                moved[k][i] += sign * step
                sides.append(float((dout * forward(*moved)).sum()))
            numeric[i] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-7, err_msg=f"input {k}")
