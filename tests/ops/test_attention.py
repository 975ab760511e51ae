"""attention: kernels against the twin, the twin against finite differences, prefill = decode."""

from __future__ import annotations

import numpy as np
import pytest
from cases import Case, Floats, Operand, encode, given
from oracle import Outputs, check_gradient, same_bytes, table, verify

from gristmill.backend import _C
from gristmill.lab.cases.attention import (
    BLOCK,
    Setting,
    backward_case,
    cases,
    forward_case,
    forward_of,
)
from gristmill.ops.attention import reference_backward, reference_forward


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
    """One query at a time, or a few, against the cache of all keys: as all at once."""
    rng = np.random.default_rng(32)
    N, edge = 2 * BLOCK + 30, BLOCK
    q, k, v = rng.normal(size=(1, N, 4, 20)), *rng.normal(size=(2, 1, N, 2, 20))
    parts = [(0, 1), (1, 1), (2, 3), (63, 17), (100, 37), (edge - 1, 1), (edge, 1), (edge - 3, 8)]
    parts += [(edge - 10, 21), (edge - 11, 30), (N - 1, 1), (N - 2, 2)]
    with table(name):
        whole = run_forward(Setting(1, N, N, 4, 2, 20, dtype=dtype), q, k, v)
        for first, n in parts:
            s = Setting(1, n, N, 4, 2, 20, start=(first,), dtype=dtype)
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
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("T", "where"), [(2, 1), (7, 4), (70, 66), (70, 31), (300, 256), (300, 257), (300, 64)]
)
def test_a_key_behind_a_query_counts_nothing(
    name: str, worst: float, dtype: str, T: int, where: int
) -> None:
    """One position with infinite k, v, q and dout: queries before it, and the gradients of keys
    after it, keep their bits."""
    s = Setting(1, T, T, 2, 1, 24, dtype=dtype)
    one, back = forward_case(s), backward_case(s)
    with table(name):
        clean, grads = one.run(), back.run()
        for case, spoilt in ((one, ("k", "v")), (back, ("k", "v")), (back, ("q", "dout"))):
            saved = {n: case.arguments[n].storage.copy() for n in spoilt}
            for n in spoilt:
                case.arguments[n].read()[:, where] = encode(worst, dtype)
            got = case.run()
            for n in spoilt:
                case.arguments[n].storage[:] = saved[n]
            compare_unspoilt(case, spoilt, got, clean if case is one else grads, where)


@pytest.mark.parametrize("name", _C.tables())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("key", [32, 33, 78, 79, 80, 91])
def test_a_hidden_key_counts_nothing_when_queries_start_at_an_odd_position(
    name: str, dtype: str, key: int
) -> None:
    s = Setting(1, 61, 120, 2, 1, 24, start=(31,), dtype=dtype)
    with table(name):
        for case, output in ((forward_case(s), "out"), (backward_case(s), "dq")):
            clean = case.outputs()[output].read(case.run()[output])[:, : key - 31]
            for n in ("k", "v"):
                case.arguments[n].read()[:, key] = encode(np.inf, dtype)
            got = case.outputs()[output].read(case.run()[output])[:, : key - 31]
            same_bytes(f"{case}", {output: clean}, {output: got})


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
