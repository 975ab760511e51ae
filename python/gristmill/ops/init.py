"""Random numbers whose element i is a pure function of (seed, stream, i), and orthogonal matrices.

Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
Normal numbers: Box and Muller, "A note on the generation of random normal deviates", 1958, two of
two words. Truncated ones by inversion of the distribution function. Orthogonal matrices as in Saxe
et al., "Exact solutions to the nonlinear dynamics of learning in deep linear networks", 2013.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DISTRIBUTIONS = ("uniform", "normal", "truncated_normal")
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(seed: int, stream: int, n: int) -> npt.NDArray[np.uint32]:
    """(n,) words: word i is word i % 4 of block i // 4 of `stream` under the key `seed`."""
    block = np.arange(-(-n // 4), dtype=np.uint64)
    c0, c1 = block & _LOW, block >> _WORD
    c2, c3 = np.full_like(block, stream & 0xFFFFFFFF), np.full_like(block, stream >> 32)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1 = (p1 >> _WORD) ^ c1 ^ np.uint64(k0), p1 & _LOW
        c2, c3 = (p0 >> _WORD) ^ c3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).reshape(-1)[:n].astype(np.uint32)


def uniform(seed: int, stream: int, n: int) -> npt.NDArray[np.float64]:
    """(n,) numbers in [0, 1), multiples of 2^-24: the upper 24 bits of each word."""
    return (philox(seed, stream, n) >> np.uint32(8)).astype(np.float64) * 2.0**-24


def reference_forward(
    n: int, seed: int, stream: int, distribution: str, a: float, b: float
) -> npt.NDArray[np.float64]:
    """The twin: (n,) numbers; uniform in [a, b), or of mean a and deviation b.

    `truncated_normal` never leaves a ± 2 b: its uniform number maps to the central 95.45 %.
    """
    if distribution == "uniform":
        return a + (b - a) * uniform(seed, stream, n)
    words = philox(seed, stream, -(-n // 2) * 2)
    if distribution == "normal":
        return a + b * box_muller(words[::2], words[1::2])[:n]
    # the middles of 2^23 equal steps: neither -1 nor 1
    centred = ((words[:n] >> np.uint32(9)) + 0.5) * 2.0**-22 - 1
    share = math.erf(math.sqrt(2.0))
    z = np.array([NormalDist().inv_cdf((1 + share * c) / 2) for c in centred])
    return a + b * z


def box_muller(first: npt.NDArray[np.uint32], second: npt.NDArray[np.uint32]) -> Floats:
    """(n,) and (n,) words -> (2 n,) standard normal numbers, those of a pair of words neighbours.

    The first word gives the radius, by u = (w + 0.5) / 2^32 in float32, in (0, 1]. Of the second,
    two bits are the signs, the others an angle from 0 to pi / 2.
    """
    u = (first.astype(np.float32).astype(np.float64) * 2.0**-32 + 2.0**-33).astype(np.float32)
    turn = (second << np.uint32(2)).view(np.int32).astype(np.float32) * 2.0**-31
    angle = np.pi / 4 * (1 + turn.astype(np.float64))
    radius = np.sqrt(-2 * np.log(u.astype(np.float64)))
    signs = 1 - 2.0 * (second >> np.uint32(31)), 1 - 2.0 * (second >> np.uint32(30) & np.uint32(1))
    pair = radius * np.stack([signs[0] * np.cos(angle), signs[1] * np.sin(angle)])
    return np.asarray(pair.T.reshape(-1))


def reference_orthogonal(normal: Floats, gain: float) -> Floats:
    """The twin: (rows, cols) numbers -> orthonormal rows (or columns, where fewer) times gain.

    The Q of a QR decomposition with positive diagonal of R, which is what Gram-Schmidt gives.
    """
    tall = normal if normal.shape[0] > normal.shape[1] else normal.T
    q, r = np.linalg.qr(tall)
    q = gain * q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return q if tall is normal else q.T
