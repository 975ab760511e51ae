"""-log softmax(logits)[target]. Bishop, "Pattern recognition and machine learning", 2006, 4.108.

With smoothing s the target is (1 - s) one hot + s / V: Szegedy et al., "Rethinking the Inception
architecture", 2016, section 7; torch's `label_smoothing`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array
from gristmill.ops.embedding import ids32

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def reference_forward(
    logits: Floats, targets: Ints, smoothing: float = 0.0
) -> tuple[Floats, Floats]:
    """The twin: logits (rows, V), targets (rows), below 0 ignored -> losses (rows), lse (rows).

    lse is log sum_j exp(logits_j); the loss of an ignored row is 0.
    """
    top = logits.max(axis=1)
    lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    own = np.take_along_axis(logits, np.maximum(targets, 0)[:, None], axis=1)[:, 0]
    if smoothing:
        own = (1 - smoothing) * own + smoothing * logits.mean(axis=1)
    return np.where(targets >= 0, lse - own, 0), lse


def reference_backward(
    dlosses: Floats, logits: Floats, targets: Ints, smoothing: float = 0.0
) -> Floats:
    """dlogits (rows, V) = (softmax(logits) - smoothed one hot) dloss; zero in ignored rows."""
    _, lse = reference_forward(logits, targets)
    d = np.exp(logits - lse[:, None]) - smoothing / logits.shape[1]
    d[np.arange(len(d)), np.maximum(targets, 0)] -= 1 - smoothing
    gradient: Floats = d * np.where(targets >= 0, dlosses, 0)[:, None]
    return gradient


def cross_entropy(
    logits: Tensor, targets: npt.NDArray[np.integer], label_smoothing: float = 0.0
) -> Tensor:
    """logits (..., V), targets (...) -> mean loss in nats, shape (1,), over targets not below 0.

    label_smoothing: share of each target spread over all V classes, 0 <= share < 1. Raises
    IndexError for a target of V or more, ValueError when no target counts or the share is outside.
    """
    count = counted("cross_entropy", logits.shape[:-1], targets)
    flat, wanted = rows(logits.array), ids32(targets)
    losses, lse = _C.empty((flat.shape[0],)), _C.empty((flat.shape[0],))
    _C.cross_entropy_forward(losses, lse, flat, wanted, label_smoothing)
    out = mean_of(losses, count)

    def backward(dout: Array, dlogits: Slot | None) -> None:
        if dlogits is not None:
            each = _C.empty((1,))
            _C.elementwise(each, dout, None, "mul", 1.0 / count)
            spread = each.view((flat.shape[0],), (0,), 0)
            out = rows(dlogits.out())
            _C.cross_entropy_backward(out, spread, flat, lse, wanted, label_smoothing)

    return record(out, (logits,), backward)


def counted(op: str, shape: tuple[int, ...], targets: npt.NDArray[np.integer]) -> int:
    """Number of targets that count; raises ValueError when there is none or the shape differs."""
    if np.shape(targets) != shape:
        raise ValueError(f"{op}: targets have shape {np.shape(targets)}, expected {shape}")
    count = int((np.asarray(targets) >= 0).sum())
    if count == 0:
        raise ValueError(f"{op}: all {np.size(targets)} targets are negative, so none counts")
    return count


def mean_of(losses: Array, count: int) -> Array:
    """Sum of losses (n,) divided by `count`, shape (1,)."""
    out = _C.empty((1,))
    _C.reduce(out, losses.view((1, losses.size), (losses.size, 1), 0), "sum")
    _C.elementwise(out, out, None, "div", float(count))
    return out
