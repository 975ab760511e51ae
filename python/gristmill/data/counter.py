"""Counter-based random numbers: a value is a pure function of (seed, keys).

So order and restarts cannot matter. Integers go through the splitmix64 finaliser (Steele, Lea and
Flood 2014); strings through keyed BLAKE2b.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def mix64(x: U64) -> U64:
    """Return the splitmix64 finaliser of every element; uint64 in and out, any shape."""
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


def hash64(seed: int, *keys: Any) -> U64:
    """Hash integer keys (scalars or broadcastable arrays) under `seed` into a uint64 array."""
    state = mix64(np.atleast_1d(np.asarray((seed & _MASK) ^ int(_GOLDEN), dtype=np.uint64)))
    for key in keys:
        part = np.atleast_1d(np.asarray(key)).astype(np.uint64)
        state = mix64((state + _GOLDEN) ^ mix64(part + _GOLDEN))
    return state


def uniform(seed: int, *keys: Any) -> npt.NDArray[np.float64]:
    """Return float64 in [0, 1) with 53 random bits for every broadcast key."""
    return (hash64(seed, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def string_hash(seed: int, text: str) -> int:
    """Return 64 bits of BLAKE2b of `text` keyed by `seed`; stable on every machine and Python."""
    key = (seed & _MASK).to_bytes(8, "little")
    raw = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8, key=key).digest(), "little")


def string_uniform(seed: int, text: str) -> float:
    """Return a float in [0, 1) that depends on (seed, text) only."""
    return (string_hash(seed, text) >> 11) * 2.0**-53
