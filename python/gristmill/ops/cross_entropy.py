"""-log softmax(logits)[target]. Bishop, "Pattern recognition and machine learning", 2006, 4.108."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def reference_forward(logits: Floats, targets: Ints) -> tuple[Floats, Floats]:
    """The twin: logits (rows, V), targets (rows), below 0 ignored -> losses (rows), lse (rows).

    lse is log sum_j exp(logits_j); the loss of an ignored row is 0.
    """
    top = logits.max(axis=1)
    lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    own = np.take_along_axis(logits, np.maximum(targets, 0)[:, None], axis=1)[:, 0]
    return np.where(targets >= 0, lse - own, 0), lse


def reference_backward(dlosses: Floats, logits: Floats, targets: Ints) -> Floats:
    """dlogits (rows, V) = (softmax(logits) - one hot) dloss; zero in ignored rows."""
    _, lse = reference_forward(logits, targets)
    d = np.exp(logits - lse[:, None])
    d[np.arange(len(d)), np.maximum(targets, 0)] -= 1
    return d * np.where(targets >= 0, dlosses, 0)[:, None]
