"""out = a b, batched, and the linear layer y = x W^T on top of it.

Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008, is how the
kernel does it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def reference_forward(a: Floats, b: Floats) -> Floats:
    """The twin: (batch, M, K), (batch, K, N) -> (batch, M, N), out_ij = sum_k a_ik b_kj."""
    out: Floats = np.einsum("zmk,zkn->zmn", a, b)
    return out


def reference_backward(dout: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """da = dout b^T (batch, M, K) and db = a^T dout (batch, K, N)."""
    return np.einsum("zmn,zkn->zmk", dout, b), np.einsum("zmk,zmn->zkn", a, dout)
