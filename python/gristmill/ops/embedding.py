"""Rows of a table by id. Bengio et al., "A neural probabilistic language model", 2003."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array

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


def ids32(ids: npt.NDArray[np.integer]) -> Array:
    """Ids of any integer type and shape as a flat int32 array; raises when one does not fit."""
    given = np.asarray(ids)
    if given.dtype.kind not in "iu":
        raise TypeError(f"ids are {given.dtype}, allowed are integers")
    limits = np.iinfo(np.int32)
    if given.size and (given.min() < limits.min or given.max() > limits.max):
        raise IndexError(f"ids from {given.min()} to {given.max()} given, allowed is 32 bits")
    return _C.from_numpy(np.ascontiguousarray(given.reshape(-1), dtype=np.int32))


def embedding(ids: npt.NDArray[np.integer], weight: Tensor) -> Tensor:
    """ids (...), weight (V, cols) -> (..., cols). Raises IndexError for an id outside 0..V-1."""
    flat = ids32(ids)
    out = _C.empty((*np.shape(ids), weight.shape[1]), weight.dtype)
    _C.embedding_forward(rows(out), weight.array, flat)

    def backward(dout: Array, dw: Slot | None) -> None:
        if dw is not None:
            _C.embedding_backward(dw.out(), rows(dout), flat)

    return record(out, (weight,), backward)
