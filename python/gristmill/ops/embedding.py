"""Rows of a table by id. Bengio et al., "A neural probabilistic language model", 2003."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def reference_forward(weight: Floats, ids: Ints) -> Floats:
    """The twin: weight (V, cols), ids (rows) in [0, V) -> (rows, cols)."""
    return weight[ids]


def reference_backward(dout: Floats, ids: Ints, vocabulary: int) -> Floats:
    """dweight (V, cols): row v is the sum of the rows of dout (rows, cols) whose id is v."""
    dweight = np.zeros((vocabulary, dout.shape[1]), dtype=dout.dtype)
    np.add.at(dweight, ids, dout)
    return dweight
