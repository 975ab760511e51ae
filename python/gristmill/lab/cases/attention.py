"""Cases of attention: calls with the twin's result and how far off a kernel may be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gristmill.lab.case import UB, Case, Floats, Operand, U, gamma, given, wanted
from gristmill.ops.attention import reference_backward, reference_forward

BLOCK = 256  # kAttentionKeys


@dataclass(frozen=True)
class Setting:
    """Sizes as in the contract; start: the position of query 0, None for S - T."""

    B: int
    T: int
    S: int
    H: int
    G: int
    D: int
    causal: int = 1
    start: tuple[int, ...] | None = None
    dtype: str = "float32"
    layout: str = "plain"

    @property
    def scale(self) -> float:
        return float(np.float32(1 / math.sqrt(self.D)))

    @property
    def options(self) -> tuple[np.ndarray | None, float, bool]:
        start = None if self.start is None else np.array(self.start)
        return start, self.scale, bool(self.causal)

    def sizes(self) -> dict[str, int]:
        return {n: getattr(self, n) for n in "BTSHGD"}

    def fields(self) -> dict[str, Operand | float | int | None]:
        """Start, sizes and options, as both entries have them."""
        start = None if self.start is None else given(self.start, "int64")
        return {"start": start, **self.sizes(), "scale": self.scale, "causal": self.causal}

    def __str__(self) -> str:
        where = "" if self.start is None else "-at-" + "-".join(map(str, self.start))
        sizes = "-".join(f"{k}{v}" for k, v in self.sizes().items())
        return f"{sizes}{'-causal' * self.causal}{where}-{self.dtype}-{self.layout}"


SETTINGS = [
    Setting(1, 1, 1, 1, 1, 1),
    Setting(2, 7, 7, 2, 1, 8),
    Setting(1, 17, 17, 4, 2, 15, layout="gaps"),
    Setting(1, 63, 63, 2, 2, 16, layout="gaps"),
    Setting(1, BLOCK, BLOCK, 2, 1, 33),
    Setting(2, BLOCK + 1, BLOCK + 1, 3, 1, 17),
    Setting(1, 130, 130, 2, 1, 64),
    Setting(1, 5, 70, 2, 2, 31),  # the last queries of 70
    Setting(1, 8, BLOCK + 40, 6, 2, 24, start=(251,)),  # few of them, over the edge of a block
    Setting(1, 1, 2 * BLOCK + 9, 30, 2, 40),  # decoding: more heads in a group than rows in a strip
    Setting(1, 70, 2 * BLOCK + 3, 2, 1, 48, start=(235,)),
    Setting(3, 1, 40, 4, 2, 32, start=(39, 0, 17)),  # decoding, three different lengths
    Setting(5, 1, 300, 51, 17, 40),  # decoding: some heads together, some left
    Setting(2, 9, 200, 2, 1, 16, start=(70, 191)),
    Setting(1, 13, 13, 2, 1, 16, causal=0),
    Setting(2, 66, 129, 2, 2, 24, causal=0, layout="gaps"),
    Setting(1, 70, 5, 1, 1, 16, causal=0),  # more queries than keys
    Setting(1, 3, 3, 1, 1, 256),
]

BF16 = [
    Setting(2, 7, 7, 2, 1, 8, dtype="bfloat16"),
    Setting(2, BLOCK + 1, BLOCK + 1, 4, 2, 17, dtype="bfloat16", layout="gaps"),
    Setting(3, 1, 40, 4, 2, 32, start=(39, 0, 17), dtype="bfloat16"),
    Setting(5, 1, 300, 51, 17, 40, dtype="bfloat16"),
    Setting(2, 66, 129, 2, 2, 64, causal=0, dtype="bfloat16"),
    Setting(1, 3, 3, 1, 1, 1, dtype="bfloat16"),
    Setting(1, 8, BLOCK + 40, 6, 2, 24, start=(251,), dtype="bfloat16"),
    Setting(1, 1, 2 * BLOCK + 9, 30, 2, 40, dtype="bfloat16"),
    Setting(2, 70, 2 * BLOCK + 3, 2, 1, 47, start=(235, 236), dtype="bfloat16", layout="gaps"),
]


def draw(s: Setting, seed: int) -> tuple[Operand, Operand, Operand, Operand]:
    """q, k, v and dout."""
    rng = np.random.default_rng(seed)
    queries, keys = (s.B, s.T, s.H, s.D), (s.B, s.S, s.G, s.D)
    where = s.dtype, s.layout
    q, k, v, dout = (given(rng.normal(size=n), *where) for n in (queries, keys, keys, queries))
    return q, k, v, dout


@dataclass
class Analysis:
    """Probabilities (B, H, T, S) and how far off each may be, relatively.

    A score is off by a chain over D and the scale; exp by 6 U and the rounding of its argument;
    each block of keys before the last rescales (8 U); sums run over the lanes and the blocks.
    """

    p: Floats
    relative: Floats
    repeat: int

    @staticmethod
    def of(s: Setting, q: Floats, k: Floats, extra: Floats | float = 0) -> Analysis:
        start, scale, causal = s.options
        group = s.H // s.G
        size = scale * np.einsum("bthd,bshd->bhts", np.abs(q), np.abs(np.repeat(k, group, axis=2)))
        # Unit vectors as values make the twin give the probabilities themselves.
        unit = np.broadcast_to(np.eye(s.S)[None, :, None, :], (s.B, s.S, s.G, s.S))
        p, _ = reference_forward(q, k, unit, start, scale, causal)
        p = p.transpose(0, 2, 1, 3)
        with np.errstate(divide="ignore"):
            argument = np.where(p > 0, np.abs(np.log(p)), 0)
        blocks = -(-s.S // BLOCK)
        relative = gamma(s.D + 2) * size + U * (8 + 2 * argument + 8 * blocks) + extra
        return Analysis(p, relative, group)

    def heads(self, x: Floats) -> Floats:
        """Key/value heads repeated for their query heads."""
        return np.repeat(x, self.repeat, axis=2)

    def weighted(self, weight: Floats, x: Floats) -> Floats:
        """sum_s weight |x|: (B, T, H, D)."""
        return np.einsum("bhts,bshd->bthd", weight, self.heads(np.abs(x)))


def forward_case(s: Setting, seed: int = 0, add: bool = False) -> Case:
    q, k, v, _ = draw(s, seed)
    return forward_of(s, q, k, v, add)


def forward_of(s: Setting, q: Operand, k: Operand, v: Operand, add: bool = False) -> Case:
    out, lse = reference_forward(q.values, k.values, v.values, *s.options)
    a = Analysis.of(s, q.values, k.values)
    mean = (a.p * a.relative).sum(axis=-1)  # (B, H, T): of the denominator
    chain = gamma(s.S + 4)
    # With bfloat16 the weights are rounded to it (where the table has its product).
    weights = a.relative + chain + (UB if s.dtype == "bfloat16" else 0)
    bound = a.weighted(a.p * weights, v.values)
    bound += np.abs(out) * (mean.transpose(0, 2, 1)[..., None] + chain)
    start = np.ones(out.shape) if add else None
    return Case(
        "attention_forward",
        str(s),
        {
            "out": wanted(out.shape, s.dtype, s.layout, start),
            "lse": wanted(lse.shape),
            **{"q": q, "k": k, "v": v},
            **s.fields(),
        },
        {"out": (out, bound), "lse": (lse, mean + chain + 8 * U * (1 + np.abs(lse)))},
    )


def backward_case(s: Setting, seed: int = 0, add: bool = False) -> Case:
    q, k, v, dout = draw(s, seed)
    values = q.values, k.values, v.values
    exact, lse = reference_forward(*values, *s.options)
    out = given(exact, s.dtype, s.layout)
    grads = reference_backward(dout.values, *values, *s.options)
    bounds = backward_bounds(s, *values, dout.values, exact, lse)
    names = ("dq", "dk", "dv")
    ones = [np.ones(g.shape) if add else None for g in grads]
    outputs = {
        n: wanted(g.shape, s.dtype, s.layout, o) for n, g, o in zip(names, grads, ones, strict=True)
    }
    return Case(
        "attention_backward",
        str(s),
        {
            **outputs,
            **{"dout": dout, "q": q, "k": k, "v": v, "out": out, "lse": given(lse)},
            **s.fields(),
        },
        dict(zip(names, zip(grads, bounds, strict=True), strict=True)),
    )


def backward_bounds(
    s: Setting, q: Floats, k: Floats, v: Floats, dout: Floats, out: Floats, lse: Floats
) -> tuple[Floats, Floats, Floats]:
    """p as in the forward pass, from an lse off by U |lse|. dS = scale p (dP - rowsum(dout out)):
    dP and the sum are chains over D, of an out that is itself rounded; then chains over keys (dq)
    or over the queries of the group (dk, dv). With bfloat16, p and dS are rounded to it before
    (where the table has its product)."""
    a = Analysis.of(s, q, k, 2 * U * (1 + np.abs(lse))[..., None])
    dp = np.einsum("bthd,bshd->bhts", dout, a.heads(v))
    size_dp = np.einsum("bthd,bshd->bhts", np.abs(dout), a.heads(np.abs(v)))
    delta = np.einsum("bthd,bthd->bht", dout, out)[..., None]
    size_delta = np.einsum("bthd,bthd->bht", np.abs(dout), np.abs(out))[..., None]
    stored = UB if s.dtype == "bfloat16" else U
    off = a.relative * np.abs(dp - delta) + gamma(s.D + 4) * (size_dp + size_delta)
    off = s.scale * a.p * (off + stored * size_delta)
    ds = s.scale * a.p * np.abs(dp - delta)
    keys, queries = gamma(s.S + 2), gamma(s.T * a.repeat + 2)
    if s.dtype == "bfloat16":
        off = off + UB * (ds + off)
        probabilities = a.relative + UB * (1 + a.relative)
    else:
        probabilities = a.relative

    def to_keys(weight: Floats, x: Floats) -> Floats:
        each = np.einsum("bhts,bthd->bshd", weight, np.abs(x))
        return each.reshape(s.B, s.S, s.G, a.repeat, s.D).sum(axis=3)

    dq = a.weighted(off + keys * ds, k)
    return dq, to_keys(off + queries * ds, q), to_keys(a.p * (probabilities + queries), dout)


def cases() -> Iterator[Case]:
    for i, s in enumerate([*SETTINGS, *BF16]):
        yield forward_case(s, i, add=i % 3 == 1)
        yield backward_case(s, i, add=i % 3 == 2)
