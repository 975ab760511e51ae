"""Cases of elementwise: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.lab.case import SIZES, TINY, Case, Floats, Operand, U, given, wanted
from gristmill.ops.elementwise import reference_forward

UNARY = ("copy", "neg", "exp", "log", "sqrt", "square")

BINARY = ("add", "sub", "mul", "div", "maximum")

POSITIVE = ("log", "sqrt")

# roundings of a result: one where IEEE rounds correctly, 3 ulp = 6 U for our exp and log
ROUNDINGS = {
    "exp": 6,
    "log": 6,
    "copy": 0,
    "neg": 0,
    "maximum": 0,
}


def case(name: str, out: Operand, op: str, a: Operand, b: Operand | float | None = None) -> Case:
    y = b if b is None else b.values if isinstance(b, Operand) else np.asarray(np.float32(b))
    with np.errstate(all="ignore"):
        value = reference_forward(op, a.values, None if y is None else y.astype(np.float64))
    return Case(
        "elementwise",
        name,
        {
            "out": _padded(out),
            "a": _padded(a),
            "b": _padded(b) if isinstance(b, Operand) else None,
            **dict(
                zip(("n0", "n1", "n2", "n3"), (1,) * (4 - len(out.shape)) + out.shape, strict=True)
            ),
            "op": op,
            "alpha": float(b) if isinstance(b, float) else 0.0,
        },
        {"out": (value.reshape(_padded(out).shape), _bound(op, value).reshape(_padded(out).shape))},
    )


def _bound(op: str, value: Floats) -> Floats:
    size = np.where(np.isfinite(value), np.abs(value), 0)
    return ROUNDINGS.get(op, 1) * U * size + (TINY if op == "exp" else 0)


def _padded(a: Operand) -> Operand:
    """With ones in front, up to the contract's four dimensions."""
    extra = 4 - len(a.shape)
    shape, strides = (1,) * extra + a.shape, (0,) * extra + a.strides
    return Operand(a.storage, shape, strides, a.offset, a.dtype, a.output, a.accumulate)


def operand(rng: np.random.Generator, op: str, shape: tuple[int, ...], *where: str) -> Operand:
    x = rng.normal(0, 3, shape)
    return given(np.abs(x) + 1e-3 if op in POSITIVE else x, *where)


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(13)
    for op in UNARY + BINARY:
        for dtype, layout in [
            ("float32", "plain"),
            ("bfloat16", "spread"),
            ("float32", "transposed"),
        ]:
            for shape in [(n,) for n in SIZES] if layout == "plain" else [(3, 17), (2, 3, 5, 33)]:
                a = operand(rng, op, shape, dtype, layout)
                b = operand(rng, op, shape, dtype) if op in BINARY else None
                start = np.ones(shape) if shape == (3, 17) else None
                name = f"{op}-{'x'.join(map(str, shape))}-{dtype}-{layout}"
                yield case(name, wanted(shape, dtype, "gaps", start), op, a, b)
    for op in BINARY:
        a = operand(rng, op, (5, 17))
        yield case(f"{op}-number", wanted((5, 17)), op, a, 1.7)
    long = operand(rng, "add", (2, 40000))  # more than one piece of 16384
    yield case("exp-long", wanted((2, 40000)), "exp", long)
    yield from conversions(rng)


def conversions(rng: np.random.Generator) -> Iterator[Case]:
    whole = rng.integers(0, 200, (3, 19))
    for source in ("float32", "bfloat16", "int32", "int64", "uint8"):
        for target in ("float32", "bfloat16", "int32", "int64", "uint8"):
            out = given(np.full((3, 19), 77), target, "gaps")
            out.output = True
            yield case(f"{source}-to-{target}", out, "copy", given(whole, source, "spread"))
