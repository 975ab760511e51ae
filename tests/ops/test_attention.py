"""attention: kernels against the twin, the twin against finite differences, prefill = decode."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from cases import UB, Case, Floats, Operand, U, gamma, given, wanted
from oracle import Outputs, check_gradient, same_bytes, table, verify

from gristmill.backend import _C
from gristmill.ops.attention import reference_backward, reference_forward

BLOCK = 64  # kAttentionKeys, kAttentionQueries


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
    Setting(3, 1, 40, 4, 2, 32, start=(39, 0, 17)),  # decoding, three different lengths
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
    Setting(2, 66, 129, 2, 2, 64, causal=0, dtype="bfloat16"),
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
    bound = a.weighted(a.p * (a.relative + chain), v.values)
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
    or over the queries of the group (dk, dv)."""
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

    def to_keys(weight: Floats, x: Floats) -> Floats:
        each = np.einsum("bhts,bthd->bshd", weight, np.abs(x))
        return each.reshape(s.B, s.S, s.G, a.repeat, s.D).sum(axis=3)

    dq = a.weighted(off + keys * ds, k)
    return dq, to_keys(off + queries * ds, q), to_keys(a.p * (a.relative + queries), dout)


def cases() -> Iterator[Case]:
    for i, s in enumerate([*SETTINGS, *BF16]):
        yield forward_case(s, i, add=i % 3 == 1)
        yield backward_case(s, i, add=i % 3 == 2)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_kernels_agree_with_the_twin(case: Case) -> None:
    verify(case)


@pytest.mark.parametrize("start", [None, (2, 0)])
@pytest.mark.parametrize("causal", [False, True])
def test_gradient_of_the_twin(start: tuple[int, int] | None, causal: bool) -> None:
    rng = np.random.default_rng(31)
    q, dout = rng.normal(size=(2, 2, 3, 4, 3))
    k, v = rng.normal(size=(2, 2, 5, 2, 3))
    options = None if start is None else np.array(start), 0.6, causal

    def forward(q: Floats, k: Floats, v: Floats) -> Floats:
        return reference_forward(q, k, v, *options)[0]

    check_gradient(forward, reference_backward(dout, q, k, v, *options), [q, k, v], dout)


def run_forward(s: Setting, q: Floats, k: Floats, v: Floats) -> np.ndarray:
    where = s.dtype, s.layout
    one = forward_of(s, *(given(x, *where) for x in (q, k, v)))
    return one.outputs()["out"].read(one.run()["out"])


@pytest.mark.parametrize("name", _C.tables())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_decoding_has_the_same_bits_as_prefill(name: str, dtype: str) -> None:
    """One query at a time, or a few, against the cache of 150 keys: as all 150 at once."""
    rng = np.random.default_rng(32)
    q, k, v = rng.normal(size=(1, 150, 4, 20)), *rng.normal(size=(2, 1, 150, 2, 20))
    with table(name):
        whole = run_forward(Setting(1, 150, 150, 4, 2, 20, dtype=dtype), q, k, v)
        for first, n in [(0, 1), (1, 1), (63, 1), (64, 1), (65, 3), (127, 2), (149, 1), (100, 37)]:
            s = Setting(1, n, 150, 4, 2, 20, start=(first,), dtype=dtype)
            part = run_forward(s, q[:, first : first + n], k, v)
            same_bytes(f"queries {first}..", {"out": whole[:, first : first + n]}, {"out": part})
            # a cache that holds just the keys so far
            short = Setting(1, n, first + n, 4, 2, 20, dtype=dtype)
            so_far = k[:, : first + n], v[:, : first + n]
            part = run_forward(short, q[:, first : first + n], *so_far)
            same_bytes(f"cache {first}..", {"out": whole[:, first : first + n]}, {"out": part})


@pytest.mark.parametrize("name", _C.tables())
def test_a_sequence_has_the_same_bits_alone_and_among_64(name: str) -> None:
    rng = np.random.default_rng(33)
    q, k, v = rng.normal(size=(64, 9, 2, 12)), *rng.normal(size=(2, 64, 70, 1, 12))
    with table(name, threads=2):
        together = run_forward(Setting(64, 9, 70, 2, 1, 12), q, k, v)
        for b in (0, 30, 63):
            one = (x[b : b + 1] for x in (q, k, v))
            alone = run_forward(Setting(1, 9, 70, 2, 1, 12), *one)
            same_bytes(f"sequence {b}", {"out": together[b : b + 1]}, {"out": alone})


@pytest.mark.parametrize("name", _C.tables())
def test_large_scores_do_not_overflow(name: str) -> None:
    """Scores near 1e4 leave one key with all the weight."""
    q = np.full((1, 3, 1, 16), 100.0)
    k = np.linspace(-1, 1, 80)[None, :, None, None] * np.full((1, 80, 1, 16), 100.0)
    v = np.arange(80.0)[None, :, None, None] * np.ones((1, 80, 1, 16))
    with table(name):
        out = run_forward(Setting(1, 3, 80, 1, 1, 16, causal=0), q, k, v)
    np.testing.assert_array_equal(out, np.float32(79))


@pytest.mark.parametrize("name", _C.tables())
def test_what_lies_behind_the_last_position_is_never_read(name: str) -> None:
    """A cache is longer than its contents: NaN behind them must not show, forwards or backwards."""
    s = Setting(1, 2, 90, 1, 1, 8, start=(30,))
    for one in (forward_case(s), backward_case(s)):
        with table(name):
            clean = one.run()
            for operand in (one.arguments["k"], one.arguments["v"]):
                assert isinstance(operand, Operand)
                operand.read()[:, 32:] = np.nan
            same_bytes(one.entry, clean, one.run())


@pytest.mark.parametrize(
    "heads, groups, start, message",
    [(3, 2, None, "3 query heads"), (2, 2, 9, "exceed"), (2, 2, -1, "start -1")],
)
def test_what_does_not_fit_is_an_error(
    heads: int, groups: int, start: int | None, message: str
) -> None:
    q, kv = _C.empty((1, 2, heads, 8)), _C.empty((1, 10, groups, 8))
    where = None if start is None else _C.from_numpy(np.array([start]))
    with pytest.raises(ValueError, match=message):
        _C.attention_forward(q, None, q, kv, kv, where, 1.0, True)


@pytest.mark.parametrize("name", _C.tables())
@pytest.mark.parametrize("worst", [np.inf, np.nan])
@pytest.mark.parametrize(("T", "where"), [(2, 1), (70, 66), (70, 30), (130, 129), (130, 64)])
def test_a_key_behind_a_query_counts_nothing(name: str, worst: float, T: int, where: int) -> None:
    """One position with infinite k, v, q and dout: queries before it, and the gradients of keys
    after it, keep their bits."""
    s = Setting(1, T, T, 2, 1, 24)
    one, back = forward_case(s), backward_case(s)
    with table(name):
        clean, grads = one.run(), back.run()
        for case, spoilt in ((one, ("k", "v")), (back, ("k", "v")), (back, ("q", "dout"))):
            saved = {n: case.arguments[n].storage.copy() for n in spoilt}
            for n in spoilt:
                case.arguments[n].read()[:, where] = worst
            got = case.run()
            for n in spoilt:
                case.arguments[n].storage[:] = saved[n]
            compare_unspoilt(case, spoilt, got, clean if case is one else grads, where)


def compare_unspoilt(
    case: Case, spoilt: tuple[str, ...], got: Outputs, clean: Outputs, where: int
) -> None:
    """Spoilt keys: what comes from earlier queries. Spoilt queries: what comes from later ones."""
    keys = "v" in spoilt
    for n, operand in case.outputs().items():
        a, b = (operand.read(x[n]) for x in (got, clean))
        if n == "lse":
            a, b = a[..., :where], b[..., :where]
        elif n in ("out", "dq"):
            rows = slice(None, where) if keys else [i for i in range(a.shape[1]) if i != where]
            a, b = a[:, rows], b[:, rows]
        elif not keys:
            a, b = a[:, where + 1 :], b[:, where + 1 :]
        else:
            continue
        same_bytes(f"{case} {n}", {n: a}, {n: b})


def test_no_keys_at_all_are_an_error() -> None:
    q, kv = _C.empty((1, 2, 1, 8)), _C.empty((1, 0, 1, 8))
    with pytest.raises(ValueError, match="0 keys, at least 1 is needed"):
        _C.attention_forward(q, None, q, kv, kv, None, 1.0, False)
