"""Adam. Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1.

The decay is added to the gradient, as torch.optim.Adam does; adamw.py has it beside the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gristmill.ops import adamw

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
    """The twin: one update -> (param, m, v), all (n). step as in adamw."""
    rate, scale, *corrections = step
    decayed = grad * scale + weight_decay * param
    after = [rate, 1, *corrections]
    return adamw.reference_forward(param, m, v, decayed, after, beta1, beta2, eps, 0)
