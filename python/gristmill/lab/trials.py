"""One call of an op with its arguments, its twin's result, and how much work it is.

What a ladder is verified and timed on. A bound covers the slowest step too: sums one after the
other, so that n terms are off by gamma(n).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.backend import _C
from gristmill.errors import ConfigError
from gristmill.lab import benches
from gristmill.lab.case import (
    TINY,
    UB,
    Floats,
    U,
    WrongResult,
    encode,
    gamma,
    round_bf16,
    widen_bf16,
)
from gristmill.lab.cases.adamw import CONSTANTS, bounds, step_of
from gristmill.lab.cases.attention import Analysis, Setting
from gristmill.ops import adamw, attention, init, layernorm

Stored = npt.NDArray[np.float32]
_KERNELS: Any = _C  # called with lists of arrays
Result = tuple[str, Stored, Floats, Floats]  # name, what was computed, the twin's, the bound


@dataclass(frozen=True)
class Trial:
    """`run` calls the active kernel; `start` puts the arguments back where a call changes them.

    `ceiling` gives the seconds that the machine needs at least for `amount` of `unit`, and
    `bound_by` says of what: compute or memory.
    """

    op: str
    shape: tuple[int, ...]
    run: Callable[[], None]
    start: Callable[[], None]
    wanted: Callable[[], list[Result]]
    amount: float
    unit: str
    ceiling: Callable[[], Callable[[], float]]
    bytes: float  # read and written at least
    bound_by: str = "compute"

    def verify(self) -> float:
        """Run once; the worst error as a multiple of its bound. Raises WrongResult above 1."""
        self.start()
        self.run()
        worst = 0.0
        for name, got, want, bound in self.wanted():
            error = np.abs(got.astype(np.float64) - want) / bound
            error = np.where(np.isnan(error), np.inf, error)
            if error.size and error.max() > 1:
                i = tuple(map(int, np.unravel_index(int(error.argmax()), error.shape)))
                raise WrongResult(
                    f"{self.op} of shape {'x'.join(map(str, self.shape))}: {name}{list(i)} is "
                    f"{got[i]}, the twin's {want[i]:.8g}: {error[i]:.3g} times the allowed error; "
                    f"{int((error > 1).sum())} of {error.size} elements are wrong"
                )
            worst = max(worst, float(error.max(initial=0.0)))
        return worst


def _ceilings() -> Any:
    return benches.load("ceiling")


# ------------------------------------------------------------------------------ the ops


def of_matmul(m: int, n: int, k: int, dtype: str = "float32") -> Trial:
    """out (M, N) = a (M, K) b (K, N); "bfloat16" rounds a and b while they are packed."""
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((1, *s), dtype=np.float32) for s in ((m, k), (k, n)))
    out = np.full((1, m, n), np.nan, np.float32)
    arrays: list[Any] = [_C.from_numpy(x) for x in (out, a, b)]
    rows = np.unique(np.linspace(0, m - 1, 48).astype(int))

    def wanted() -> list[Result]:
        values = [widen_bf16(round_bf16(x)) if dtype == "bfloat16" else x for x in (a[:, rows], b)]
        x, y = (v.astype(np.float64) for v in values)
        bound = gamma(2 * k + 2) * np.matmul(np.abs(x), np.abs(y)) + TINY
        return [("out", out[:, rows], np.matmul(x, y), bound)]

    def start() -> None:
        out[...] = np.nan

    flops = 2.0 * m * n * k
    return Trial(
        "matmul", (m, n, k), lambda: _KERNELS.matmul(*arrays, dtype), start, wanted, flops / 1e9,
        "GFLOP", lambda: _ceilings().compute_ceiling(flops, dtype), 4.0 * (m * n + m * k + k * n),
    )  # fmt: skip


def of_attention(b: int, t: int, h: int, d: int, dtype: str = "float32") -> Trial:
    """Causal self-attention of T queries in B x H heads of D; the work is that of visible keys.

    "bfloat16" stores q, k, v and the result as that; weights may be rounded to it as well.
    """
    rng, half = np.random.default_rng(2), dtype == "bfloat16"
    drawn = (rng.standard_normal((b, t, h, d), dtype=np.float32) for _ in range(3))
    q, k, v = (encode(x, dtype) for x in drawn)
    out, lse = encode(np.full(q.shape, np.nan), dtype), np.full((b, h, t), np.nan, np.float32)
    arrays: list[Any] = [_C.from_numpy(x, half and x is not lse) for x in (out, lse, q, k, v)]
    scale = float(np.float32(d**-0.5))

    def wanted() -> list[Result]:
        got, *given = (w[-1:, :, -1:] for w in (out, q, k, v))  # the last head
        if half:
            got, *given = (widen_bf16(w) for w in (got, *given))
        x, y, z = (w.astype(np.float64) for w in given)
        want = attention.reference_forward(x, y, z, None, scale, True)[0]
        setting = Setting(1, t, t, 1, 1, d)
        found = Analysis.of(setting, x, y)
        # rescaled after every key at worst, where the analysis has it once in 64
        relative = found.relative + U * 8 * t + gamma(t + 4)
        bound = found.weighted(found.p * (relative + UB * half), z)
        mean = (found.p * relative).sum(axis=-1).transpose(0, 2, 1)[..., None]
        bound = bound + np.abs(want) * mean
        return [("out", got, want, bound + UB * half * (np.abs(want) + bound))]

    def start() -> None:
        out[...] = encode(np.nan, dtype)

    flops = 2.0 * b * h * d * t * (t + 1)
    return Trial(
        "attention", (b, t, h, d),
        lambda: _KERNELS.attention_forward(*arrays, None, scale, True), start, wanted,
        flops / 1e9, "GFLOP", lambda: _ceilings().compute_ceiling(flops, dtype), 4.0 * q.nbytes,
    )  # fmt: skip


def of_layernorm(rows: int, cols: int) -> Trial:
    """Rows normalized, with weight and bias."""
    rng = np.random.default_rng(3)
    x = rng.normal(0.5, 2, (rows, cols)).astype(np.float32)
    weight, bias = (rng.normal(z, 0.3, cols).astype(np.float32) for z in (1, 0))
    out = np.full(x.shape, np.nan, np.float32)
    arrays: list[Any] = [_C.from_numpy(z) for z in (out, x, weight, bias)]
    some = np.unique(np.linspace(0, rows - 1, 64).astype(int))
    eps = float(np.float32(1e-5))

    def wanted() -> list[Result]:
        z, w, c = (v.astype(np.float64) for v in (x[some], weight, bias))
        want, mean, rstd = layernorm.reference_forward(z, w, c, eps)
        hat = np.abs(z - mean[:, None]) * rstd[:, None]
        off = gamma(cols + 4) * (hat + np.abs(z).mean(axis=1, keepdims=True) * rstd[:, None])
        return [("out", out[some], want, np.abs(w) * off + 4 * U * np.abs(want))]

    def start() -> None:
        out[...] = np.nan

    def run() -> None:
        _KERNELS.layernorm_forward(arrays[0], None, None, *arrays[1:], eps)

    return Trial(
        "layernorm", (rows, cols), run, start, wanted, 8e-9 * x.size, "GB",
        lambda: _ceilings().stream_ceiling(1, 1, x.size), 8.0 * x.size, "memory",
    )  # fmt: skip


def of_adamw(n: int) -> Trial:
    """One update of n parameters."""
    rng = np.random.default_rng(4)
    begin = [rng.standard_normal(n, dtype=np.float32), rng.standard_normal(n, dtype=np.float32)]
    begin += [rng.random(n, dtype=np.float32), rng.standard_normal(n, dtype=np.float32)]
    arrays = [x.copy() for x in begin]
    step = step_of(10)
    handles: list[Any] = [_C.from_numpy(x) for x in (*arrays, step.astype(np.float32))]
    ends = np.linspace(0, n - 1, 4096).astype(int), np.arange(max(0, n - 64), n)
    some = np.unique(np.concatenate(ends))

    def start() -> None:
        for x, y in zip(arrays, begin, strict=True):
            x[...] = y

    def wanted() -> list[Result]:
        before = [x[some].astype(np.float64) for x in begin]
        given: list[Any] = [*before, step]
        after = adamw.reference_forward(*given, *CONSTANTS)
        limits = bounds("adamw", *given)
        names = ("param", "m", "v")
        return [(names[i], arrays[i][some], after[i], limits[i] + TINY) for i in range(3)]

    return Trial(
        "adamw", (n,), lambda: _C.adamw(*handles, *CONSTANTS), start, wanted, 28e-9 * n, "GB",
        lambda: _ceilings().stream_ceiling(4, 3, n, True), 28.0 * n, "memory",
    )  # fmt: skip


def of_init(n: int) -> Trial:
    """n normal numbers; the ceiling is how fast memory takes them."""
    out = np.full(n, np.nan, np.float32)
    array, few = _C.from_numpy(out), min(n, 2048)
    mean, deviation = 0.1, 0.02
    a, b = float(np.float32(mean)), float(np.float32(deviation))

    def start() -> None:
        out[...] = np.nan

    def run() -> None:
        _C.random(array, 3, 5, "normal", a, b)

    def wanted() -> list[Result]:
        want = init.reference_forward(few, 3, 5, "normal", a, b)
        exact = ("out", out[:few], want, U * (12 * np.abs(want - a) + 2 * abs(a)))
        whole = out.astype(np.float64)  # the others: by their moments, six standard errors
        off = np.array([abs(whole.mean() - a), abs(whole.std() - b)], np.float32)
        return [exact, ("moments", off, np.zeros(2), np.full(2, 6 * b / np.sqrt(n)))]

    return Trial(
        "init", (n,), run, start, wanted, 4e-9 * n, "GB",
        lambda: _ceilings().stream_ceiling(0, 1, n), 4.0 * n, "memory",
    )  # fmt: skip


TRIALS: dict[str, Callable[..., Trial]] = {
    "matmul": of_matmul,
    "attention": of_attention,
    "layernorm": of_layernorm,
    "adamw": of_adamw,
    "init": of_init,
}
# what a ladder is timed on, and in quick mode
SHAPES = {
    "matmul": ((1000, 1000, 1000), (90, 100, 70)),
    "attention": ((1, 1024, 12, 64), (1, 100, 2, 16)),
    "layernorm": ((8192, 1024), (50, 100)),
    "adamw": ((1 << 24,), (5000,)),
    "init": ((1 << 24,), (5000,)),
}
SIZES = {
    "matmul": "M x N x K",
    "attention": "B x T x H x D",
    "layernorm": "rows x cols",
    "adamw": "n",
    "init": "n",
}


def trial(op: str, shape: Sequence[int] = (), dtype: str = "float32", quick: bool = False) -> Trial:
    """The trial of an op; of the ladder's own shape where none is given.

    Raises ConfigError when the shape has not as many sizes as the op.
    """
    chosen = tuple(shape) or SHAPES[op][1 if quick else 0]
    if len(chosen) != len(SHAPES[op][0]) or min(chosen) < 1:
        given = "x".join(map(str, chosen))
        raise ConfigError(f"shape {given} given for {op}, expected {SIZES[op]}")
    return TRIALS[op](*chosen, **({"dtype": dtype} if dtype != "float32" else {}))
