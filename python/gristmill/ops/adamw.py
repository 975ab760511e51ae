"""Adam with decoupled weight decay.

Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2, with the
learning rate applied to the decay as PyTorch does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def reference_forward(
    param: Floats,
    m: Floats,
    v: Floats,
    grad: Floats,
    step: Sequence[float],
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Floats, Floats, Floats]:
    """The twin: one update -> (param, m, v), all (n).

    step = [learning rate, gradient scale, 1 - beta1^t, 1 - beta2^t].
    """
    rate, scale, correction1, correction2 = step
    g = grad * scale
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    decayed = param * (1 - rate * weight_decay)
    return decayed - rate * (m / correction1) / (np.sqrt(v / correction2) + eps), m, v
