"""Initialization: every value a pure function of (seed, stream, index), the same on every table.

Each call takes the next stream, so the values of a model depend on the seed and on the order of the
calls only. Formulas: Glorot and Bengio 2010 (Xavier), He et al. 2015 (Kaiming), Saxe et al. 2013
(orthogonal).
"""

from __future__ import annotations

import math

from gristmill import autograd
from gristmill._tensor import Tensor
from gristmill.backend import _C

_seed, _stream = 0, 0


def manual_seed(seed: int) -> None:
    """Start again: the next call draws stream 0 of `seed`."""
    global _seed, _stream
    if not 0 <= seed < 2**63:
        raise ValueError(f"manual_seed: {seed} given, allowed are 0 to 2^63 - 1")
    _seed, _stream = seed, 0


def next_key() -> tuple[int, int]:
    """(seed, stream) of one more independent sequence of random numbers."""
    global _stream
    _stream += 1
    return _seed, _stream - 1


def _fill(t: Tensor, distribution: str, a: float, b: float) -> Tensor:
    if not t.is_contiguous():
        raise ValueError(f"init: strides {t.strides} have gaps; initialize the whole parameter")
    seed, stream = next_key()
    _C.random(t.array.view((t.size,), (1,), 0), seed, stream, distribution, a, b)
    t.version += 1
    return t


def zeros_(t: Tensor) -> Tensor:
    """All zero."""
    return constant_(t, 0.0)


def constant_(t: Tensor, value: float) -> Tensor:
    """All `value`."""
    autograd.fill(t.array, value)
    t.version += 1
    return t


def uniform_(t: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Uniform in [a, b)."""
    return _fill(t, "uniform", a, b)


def normal_(t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal."""
    return _fill(t, "normal", mean, std)


def trunc_normal_(t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal, cut at two standard deviations."""
    return _fill(t, "truncated_normal", mean, std)


def _fans(t: Tensor) -> tuple[int, int]:
    if t.ndim != 2:
        raise ValueError(f"init: fan in and out need a matrix (out, in), got shape {t.shape}")
    return t.shape[1], t.shape[0]


def xavier_uniform_(t: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform in ±gain sqrt(6 / (fan_in + fan_out))."""
    bound = gain * math.sqrt(6.0 / sum(_fans(t)))
    return uniform_(t, -bound, bound)


def xavier_normal_(t: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with std gain sqrt(2 / (fan_in + fan_out))."""
    return normal_(t, 0.0, gain * math.sqrt(2.0 / sum(_fans(t))))


def kaiming_uniform_(t: Tensor, gain: float = math.sqrt(2.0)) -> Tensor:
    """Uniform in ±gain sqrt(3 / fan_in)."""
    bound = gain * math.sqrt(3.0 / _fans(t)[0])
    return uniform_(t, -bound, bound)


def kaiming_normal_(t: Tensor, gain: float = math.sqrt(2.0)) -> Tensor:
    """Normal with std gain / sqrt(fan_in)."""
    return normal_(t, 0.0, gain / math.sqrt(_fans(t)[0]))


def orthogonal_(t: Tensor, gain: float = 1.0) -> Tensor:
    """Rows (or columns, where there are fewer) orthogonal, each of length `gain`."""
    _fans(t)
    normal_(t)
    _C.orthogonal(t.array, gain)
    return t
