"""Adam with decoupled weight decay.

Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2, with the
learning rate applied to the decay as PyTorch does. The averages may be bfloat16, rounded at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gristmill.ops.init import philox

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


def bytes_of(seed: int, stream: int, n: int) -> npt.NDArray[np.uint32]:
    """(n,) numbers below 2^8: of each 64 words of philox the lowest bytes, then the next ones."""
    words = philox(seed, stream, -(-n // 256) * 64).reshape(-1, 1, 64)
    parts = [words >> np.uint32(8 * i) & np.uint32(0xFF) for i in range(4)]
    return np.concatenate(parts, axis=1).reshape(-1)[:n]


def rounded(x: npt.NDArray[np.float32], seed: int, stream: int) -> npt.NDArray[np.uint16]:
    """Bits of bfloat16, up with the probability of the rest, for m and v alike.

    The element's byte chooses one of 256 thresholds, in their middles.
    """
    byte = bytes_of(seed, stream, len(x))
    return ((x.view(np.uint32) + (byte << np.uint32(8)) + np.uint32(0x80)) >> 16).astype(np.uint16)
