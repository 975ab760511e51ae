"""The head and its loss together: cross_entropy(x weight^T, targets) without the whole logits.

Hsu et al., "Liger Kernel: efficient Triton kernels for LLM training", 2024, section 3.2: rows go in
chunks, and a chunk's logits are turned into its gradient at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill.ops import cross_entropy as _cross_entropy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def reference_forward(x: Floats, weight: Floats, targets: Ints) -> Floats:
    """The twin: x (rows, cols), weight (V, cols), targets (rows), below 0 ignored -> losses."""
    return _cross_entropy.reference_forward(x @ weight.T, targets)[0]


def reference_backward(
    scale: float, x: Floats, weight: Floats, targets: Ints
) -> tuple[Floats, Floats]:
    """dx (rows, cols) and dweight (V, cols) of sum(scale * losses)."""
    dlosses = np.full(len(x), scale, dtype=x.dtype)
    dlogits = _cross_entropy.reference_backward(dlosses, x @ weight.T, targets)
    return dlogits @ weight, dlogits.T @ x
