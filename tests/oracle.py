"""What kernels are measured by: the twin's result within a bound, the same bits everywhere, and the
twin's own gradient by finite differences in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from cases import Case, Floats

from gristmill.backend import _C
from gristmill.lab.judging import Outputs, compare, same_bytes

THREADS = (1, 2, 3, 7)


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
