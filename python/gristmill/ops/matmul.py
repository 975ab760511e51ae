"""out = a b, batched, and the linear layer y = x W^T on top of it.

Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, is how the
kernel does it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, kept, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]


def reference_forward(a: Floats, b: Floats) -> Floats:
    """The twin: (batch, M, K), (batch, K, N) -> (batch, M, N), out_ij = sum_k a_ik b_kj."""
    out: Floats = np.einsum("zmk,zkn->zmn", a, b)
    return out


def reference_backward(dout: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """da = dout b^T (batch, M, K) and db = a^T dout (batch, K, N)."""
    return np.einsum("zmn,zkn->zmk", dout, b), np.einsum("zmk,zmn->zkn", a, dout)


def into(out: Array, a: Array, b: Array, compute: str) -> None:
    """out = a b for (..., M, K) and (..., K, N) with any strides and at most one dimension before;
    a transposed out is computed as b^T a^T."""
    if out.strides[-1] != 1 and out.shape[-1] > 1:
        out, a, b = swapped(out), swapped(b), swapped(a)
    _C.matmul(_lifted(out), _lifted(a), _lifted(b), compute)


def _lifted(x: Array) -> Array:
    return x if len(x.shape) == 3 else x.view((1, *x.shape), (0, *x.strides), 0)


def swapped(x: Array) -> Array:
    """The transpose of the last two dimensions, without a copy."""
    (*batch, m, n), (*steps, down, across) = x.shape, x.strides
    return x.view((*batch, n, m), (*steps, across, down), 0)


def linear(
    x: Tensor, weight: Tensor, compute: str = "float32", out_dtype: str | None = None,
    bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """x (..., K), weight (N, K), bias (N,) -> (..., N) of `out_dtype`, by default `compute`.

    `compute` is the type of the operands: "float32", or "bfloat16", to which float32 operands are
    rounded; sums are float32 either way, and the bias is added to what is stored. Raises
    ValueError when the widths differ.
    """
    k, n = x.shape[-1], weight.shape[0]
    if weight.ndim != 2 or weight.shape[1] != k:
        raise ValueError(f"linear: x {x.shape} and weight {weight.shape} do not multiply")
    if bias is not None and bias.shape != (n,):
        raise ValueError(f"linear: bias {bias.shape} given, allowed is ({n},)")
    out = _C.empty((*x.shape[:-1], n), out_dtype or compute)
    to, values = rows(out), kept(x)
    into(to, rows(x.array), swapped(weight.array), compute)
    if bias is not None:
        _C.elementwise(to, to, bias.array.view(to.shape, (0, 1), 0), "add", 0.0)

    def backward(dout: Array, dx: Slot | None, dw: Slot | None, db: Slot | None = None) -> None:
        d = rows(dout)
        if dx is not None:
            into(rows(dx.out()), d, weight.array, compute)
        if dw is not None:
            into(dw.out(), swapped(d), rows(values()), compute)
        if db is not None:
            _C.reduce(db.out(), swapped(d), "sum")

    return record(out, (x, weight) if bias is None else (x, weight, bias), backward)


def matmul(a: Tensor, b: Tensor, compute: str = "float32") -> Tensor:
    """a (M, K) b (K, N) -> (M, N), or with one equal leading batch dimension in all three.

    Raises ValueError when shapes do not multiply or dtypes differ.
    """
    fits = a.ndim == b.ndim and a.ndim in (2, 3) and a.shape[:-2] == b.shape[:-2]
    if not fits or a.shape[-1] != b.shape[-2] or a.dtype != b.dtype:
        raise ValueError(
            f"matmul: {a.dtype} {a.shape} and {b.dtype} {b.shape} do not multiply; "
            "allowed is (M, K) and (K, N), or both with the same batch in front, of one dtype"
        )
    out = _C.empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    into(out, a.array, b.array, compute)

    def backward(dout: Array, da: Slot | None, db: Slot | None) -> None:
        if da is not None:
            into(da.out(), dout, swapped(b.array), compute)
        if db is not None:
            into(db.out(), swapped(a.array), dout, compute)

    return record(out, (a, b), backward)
