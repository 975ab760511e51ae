"""softmax(scale q k^T) v, causal or not, with fewer key/value heads than query heads.

Vaswani et al., "Attention is all you need", 2017, equation 1; Ainslie et al., "GQA", 2023, for the
groups; Dao, "FlashAttention-2", 2023, is how the kernel does it without a (T, S) matrix.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def _scores(
    q: Floats, k: Floats, start: Ints | None, scale: float, causal: bool
) -> tuple[Floats, Floats]:
    """(B, H, T, S) scaled scores, -inf where a query may not see a key; and k by query head."""
    t, s, group = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    keys = np.repeat(k, group, axis=2)  # query head h reads key/value head h // group
    scores = scale * np.einsum("bthd,bshd->bhts", q, keys)
    if causal:
        first = np.full(q.shape[0], s - t) if start is None else start
        position = np.asarray(first)[:, None] + np.arange(t)  # (B, T), absolute
        hidden = np.arange(s) > position[:, :, None]
        scores = np.where(hidden[:, None], -np.inf, scores)
    return scores, keys


def reference_forward(
    q: Floats, k: Floats, v: Floats, start: Ints | None, scale: float, causal: bool
) -> tuple[Floats, Floats]:
    """The twin: q (B, T, H, D), k and v (B, S, G, D) -> out (B, T, H, D), lse (B, H, T).

    start (B) is the absolute position of query 0 in the keys, S - T when None. A query that sees no
    key gives out 0 and lse -inf.
    """
    scores, _ = _scores(q, k, start, scale, causal)
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    p = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = p.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + np.where(np.isfinite(top), top, 0))[..., 0]
    p = p / np.where(total > 0, total, 1)
    values = np.repeat(v, q.shape[2] // v.shape[2], axis=2)
    return np.einsum("bhts,bshd->bthd", p, values), lse


def reference_backward(
    dout: Floats,
    q: Floats,
    k: Floats,
    v: Floats,
    start: Ints | None,
    scale: float,
    causal: bool,
) -> tuple[Floats, Floats, Floats]:
    """dq (B, T, H, D), dk and dv (B, S, G, D).

    With P the softmax and dP = dout v^T: dS = P (dP - rowsum(P dP)), dq = scale dS k,
    dk = scale dS^T q, dv = P^T dout; key/value heads sum over their query heads.
    """
    _, lse = reference_forward(q, k, v, start, scale, causal)
    scores, keys = _scores(q, k, start, scale, causal)
    p = np.exp(scores - np.where(np.isfinite(lse), lse, 0)[..., None])
    values = np.repeat(v, q.shape[2] // v.shape[2], axis=2)
    dp = np.einsum("bthd,bshd->bhts", dout, values)
    ds = scale * p * (dp - (p * dp).sum(axis=-1, keepdims=True))
    b, s, g, d = k.shape
    dk = np.einsum("bhts,bthd->bshd", ds, q).reshape(b, s, g, -1, d).sum(axis=3)
    dv = np.einsum("bhts,bthd->bshd", p, dout).reshape(b, s, g, -1, d).sum(axis=3)
    return np.einsum("bhts,bshd->bthd", ds, keys), dk, dv


def attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = True, scale: float | None = None
) -> Tensor:
    """q (B, T, H, D), k and v (B, S, G, D) -> (B, T, H, D), H a multiple of G, D at most 256.

    `scale` is 1 / sqrt(D) by default. Raises ValueError for shapes that do not fit.
    """
    b, t, h, d = q.shape
    factor = d**-0.5 if scale is None else scale
    out, lse = _C.empty(q.shape, q.dtype), _C.empty((b, h, t))
    _C.attention_forward(out, lse, q.array, k.array, v.array, None, factor, causal)

    def backward(dout: Array, dq: Slot | None, dk: Slot | None, dv: Slot | None) -> None:
        to_q, to_k, to_v = (
            _C.empty(x.shape, x.dtype) if slot is None else slot.out()
            for slot, x in ((dq, q), (dk, k), (dv, v))
        )
        given = (dout, q.array, k.array, v.array, out, lse, None, factor, causal)
        _C.attention_backward(to_q, to_k, to_v, *given)

    return record(out, (q, k, v), backward)
