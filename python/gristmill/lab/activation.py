"""The cases that activations share whose gradient comes from their result: relu, tanh, sigmoid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gristmill.lab.case import SIZES, Case, Floats, given, wanted

LAYOUTS = [("float32", "plain"), ("float32", "gaps"), ("bfloat16", "plain"), ("bfloat16", "gaps")]

Forward = Callable[[Floats], Floats]
Backward = Callable[[Floats, Floats], Floats]


def activation_cases(
    op: str,
    twin: tuple[Forward, Backward],
    bounds: tuple[Callable[[Floats, str], Floats], Forward],
    edges: Sequence[float],
) -> Iterator[Case]:
    """Forward and backward over awkward sizes, and of a row of `edges`. `bounds` are of the forward
    pass, from x and dtype, and of the backward pass, from dx."""
    rng = np.random.default_rng(41)
    shapes = [(1, n) for n in SIZES] + [(3, 17), (17, 33), (65, 100)]
    for dtype, layout in LAYOUTS:
        drawn = {f"{rows}x{cols}": rng.normal(0, 4, (rows, cols)) for rows, cols in shapes}
        for kind, x in {**drawn, "edges": np.array([edges])}.items():
            name, (rows, cols) = f"{kind}-{dtype}-{layout}", x.shape
            sizes = {"rows": rows, "cols": cols}
            start = rng.normal(size=x.shape) if rows == 3 else None
            x_in, d_in = (given(v, dtype, layout) for v in (x, rng.normal(0, 4, x.shape)))
            with np.errstate(over="ignore"):
                y, bound = twin[0](x_in.values), bounds[0](x_in.values, dtype)
            out = wanted(x.shape, dtype, layout, start)
            yield Case(f"{op}_forward", name, {"out": out, "x": x_in, **sizes}, {"out": (y, bound)})
            y_in = given(y, dtype, layout)
            dx = twin[1](d_in.values, y_in.values)
            out = wanted(x.shape, dtype, layout, start)
            arguments = {"dx": out, "dout": d_in, "out": y_in, **sizes}
            yield Case(f"{op}_backward", name, arguments, {"dx": (dx, bounds[1](dx))})
