"""The head and its loss together: cross_entropy(x weight^T, targets) without the whole logits.

Hsu et al., "Liger Kernel: efficient Triton kernels for LLM training", 2024, section 3.2: rows go in
chunks, and a chunk's logits are turned into its gradient at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Ahead, Slot, is_grad_enabled
from gristmill.backend import _C, Array
from gristmill.ops import cross_entropy as _cross_entropy
from gristmill.ops.embedding import ids32

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def reference_forward(x: Floats, weight: Floats, targets: Ints, smoothing: float = 0.0) -> Floats:
    """The twin: x (rows, cols), weight (V, cols), targets (rows), below 0 ignored -> losses."""
    return _cross_entropy.reference_forward(x @ weight.T, targets, smoothing)[0]


def reference_backward(
    scale: float, x: Floats, weight: Floats, targets: Ints, smoothing: float = 0.0
) -> tuple[Floats, Floats]:
    """dx (rows, cols) and dweight (V, cols) of sum(scale * losses)."""
    dlosses = np.full(len(x), scale, dtype=x.dtype)
    dlogits = _cross_entropy.reference_backward(dlosses, x @ weight.T, targets, smoothing)
    return dlogits @ weight, dlogits.T @ x


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: npt.NDArray[np.integer],
    compute: str = "float32",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean of cross_entropy(x weight^T, targets) over targets not below 0, shape (1,), in nats.

    x (..., cols), weight (V, cols), targets (...). The gradients are computed with the loss, while
    the logits of a chunk of rows are there. Raises as cross_entropy does.
    """
    count = _cross_entropy.counted("linear_cross_entropy", x.shape[:-1], targets)
    on = is_grad_enabled()
    dx = _C.empty(x.shape, x.dtype) if on and x.requires_grad else None
    ahead = Ahead(weight.slot) if on and weight.requires_grad else None
    dweight = None if ahead is None else ahead.array
    losses = _losses(x, weight, targets, compute, 1.0 / count, dx, dweight, label_smoothing)
    out = _cross_entropy.mean_of(losses, count)

    def backward(dout: Array, to_x: Slot | None, to_weight: Slot | None) -> None:
        factor = float(dout.numpy()[0])
        for gradient in (dx, None if ahead is None else ahead.array):
            if gradient is not None and factor != 1.0:
                _C.elementwise(gradient, gradient, None, "mul", factor)
        if to_x is not None and dx is not None:
            to_x.give(dx)
        if to_weight is not None and ahead is not None:
            ahead.give()

    return record(out, (x, weight), backward)


def token_losses(
    x: Tensor, weight: Tensor, targets: npt.NDArray[np.integer], compute: str = "float32"
) -> npt.NDArray[np.float32]:
    """The loss of each target in nats, in the shape of `targets`; 0 where it is negative."""
    losses = _losses(x, weight, targets, compute, 1.0, None, None)
    each: npt.NDArray[np.float32] = losses.numpy().reshape(np.shape(targets))
    return each


def _losses(
    x: Tensor,
    weight: Tensor,
    targets: npt.NDArray[np.integer],
    compute: str,
    scale: float,
    dx: Array | None,
    dweight: Array | None,
    smoothing: float = 0.0,
) -> Array:
    flat = rows(x.array)
    losses = _C.empty((flat.shape[0],))
    to_x = None if dx is None else rows(dx)
    ids = ids32(targets)
    _C.linear_cross_entropy(
        losses, to_x, dweight, flat, weight.array, ids, scale, compute, smoothing
    )
    return losses
