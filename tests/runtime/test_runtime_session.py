"""The session: prefill, decode and reuse give the same bytes; logits equal a float64 twin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import Shape, write_model

_C = pytest.importorskip("gristmill._C")
pytest.importorskip("gguf")

from rewritten import rewrite  # noqa: E402

SHAPES = {
    "tied": Shape(),
    "untied, 6/2 heads of 80": Shape(
        tied=False, heads=6, kv_heads=2, head_dim=80, hidden=96, vocab=333
    ),
    "one layer, no groups": Shape(
        layers=1, heads=3, kv_heads=3, head_dim=6, hidden=18, intermediate=17
    ),
}
Weights = dict[str, npt.NDArray[np.float32]]


def bf16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rounded to nearest even bfloat16."""
    bits = x.view(np.uint32).astype(np.uint64)
    return (((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32)).view(np.float32)


def twin(weights: Weights, shape: Shape, ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Logits (T, V) of a llama in float64, as Touvron et al. 2023 and Hugging Face define it."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    T, D = len(ids), shape.head_dim
    angle = np.arange(T)[:, None] * 10000.0 ** (-2 * np.arange(D // 2) / D)  # (T, D/2)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]

    def norm(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * w[name + ".weight"]

    def rope(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        low, high = x[..., : D // 2], x[..., D // 2 :]
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1)

    x = w["model.embed_tokens.weight"][list(ids)]  # (T, C)
    for i in range(shape.layers):
        at = f"model.layers.{i}."
        h = norm(x, at + "input_layernorm")
        q, k, v = (
            (h @ w[f"{at}self_attn.{n}_proj.weight"].T).reshape(T, -1, D) for n in "qkv"
        )  # (T, H | G, D)
        q, k = rope(q), rope(k)
        k, v = (np.repeat(a, shape.heads // shape.kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(D)
        scores[:, np.triu(np.ones((T, T), bool), 1)] = -np.inf
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + np.einsum("hts,shd->thd", p, v).reshape(T, -1) @ w[at + "self_attn.o_proj.weight"].T
        h = norm(x, at + "post_attention_layernorm")
        gate, up = h @ w[at + "mlp.gate_proj.weight"].T, h @ w[at + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[at + "mlp.down_proj.weight"].T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, "model.norm") @ head.T


def load(folder: Path, shape: Shape, dtype: str = "f32") -> tuple[Any, Weights]:
    from safetensors.numpy import load_file

    model = _C.Model(str(write_model(folder, shape, dtype=dtype)), True)
    return model, load_file(folder / "model.safetensors")


def some_ids(shape: Shape, n: int, seed: int = 3) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).integers(0, shape.vocab, n)]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_logits_equal_the_twin(name: str, dtype: str, tmp_path: Path) -> None:
    """Bound: 13 products in a row (6 per layer and the head), each of at most 480 terms and so off
    by some sqrt(480) roundings: 13 * 22 * 6e-8 = 1.7e-5 of the largest logit."""
    shape = SHAPES[name]
    model, weights = load(tmp_path, shape, dtype)
    if dtype == "bf16":
        weights = {k: bf16(v) if v.ndim > 1 else v for k, v in weights.items()}
    ids = some_ids(shape, 100)
    got = _C.Session(model, 128).eval_all(ids)
    want = twin(weights, shape, ids)
    assert got.dtype == np.float32
    assert got.shape == want.shape
    assert abs(got - want).max() <= 2e-5 * abs(want).max()


@pytest.fixture(scope="module")
def tied(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, list[int], npt.NDArray[np.float32]]:
    """Model, 120 ids, their logits in one call."""
    model, _ = load(tmp_path_factory.mktemp("tied"), Shape())
    ids = some_ids(Shape(), 120)
    return model, ids, _C.Session(model, 128).eval_all(ids)


Tied = tuple[Any, list[int], npt.NDArray[np.float32]]


def test_decode_has_the_bits_of_prefill(tied: Tied) -> None:
    model, ids, at_once = tied
    session = _C.Session(model, 128)
    for i, id in enumerate(ids):
        assert session.eval([id]).tobytes() == at_once[i].tobytes(), f"token {i}"
    assert session.length == len(ids)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=6))
def test_any_cut_into_calls_has_the_same_bits(tied: Tied, cuts: list[int]) -> None:
    model, ids, at_once = tied
    session = _C.Session(model, 128)
    at = 0
    for n in cuts:
        part = ids[at : at + n]
        if not part:
            break
        at += len(part)
        assert session.eval(part).tobytes() == at_once[at - 1].tobytes()


def test_context_length_does_not_show_in_the_bits(tied: Tied) -> None:
    model, ids, at_once = tied
    assert _C.Session(model, 70).eval(ids[:70]).tobytes() == at_once[69].tobytes()


def test_a_reused_beginning_has_the_bits_of_a_fresh_session(tied: Tied) -> None:
    model, ids, _ = tied
    reused = _C.Session(model, 128)
    reused.eval(ids[:100])
    reused.truncate(37)
    other = ids[:37] + some_ids(Shape(), 40, seed=8)
    assert reused.eval(other[37:]).tobytes() == _C.Session(model, 128).eval(other).tobytes()
    reused.truncate(0)
    assert reused.length == 0
    assert reused.eval(ids[:5]).tobytes() == tied[2][4].tobytes()


def test_two_sessions_do_not_mix(tied: Tied) -> None:
    from concurrent.futures import ThreadPoolExecutor

    model, ids, at_once = tied

    def decode(_: int) -> bytes:
        session = _C.Session(model, 128)
        return b"".join(session.eval([i]).tobytes() for i in ids[:40])

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(decode, range(8))) == {at_once[:40].tobytes()}


def test_live_tensors_give_the_bits_of_the_file(tmp_path: Path) -> None:
    shape = SHAPES["untied, 6/2 heads of 80"]
    model, weights = load(tmp_path, shape)
    ids = some_ids(shape, 70)
    config = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }
    arrays = {name: _C.from_numpy(value) for name, value in weights.items()}
    live = _C.Model.from_tensors(config, arrays)
    assert live.vocab_size == shape.vocab
    assert (
        _C.Session(live, 128).eval_all(ids).tobytes()
        == _C.Session(model, 128).eval_all(ids).tobytes()
    )
    with pytest.raises(ValueError, match="tokenizer"):
        live.tokenize(b"x", False)
    with pytest.raises(ValueError, match=r"q_proj.*expected"):
        wrong = arrays | {
            "model.layers.1.self_attn.q_proj.weight": arrays[
                "model.layers.1.self_attn.k_proj.weight"
            ]
        }
        _C.Model.from_tensors(config, wrong)
    with pytest.raises(ValueError, match=r"model\.norm\.weight"):
        _C.Model.from_tensors(config, {k: v for k, v in arrays.items() if k != "model.norm.weight"})


@pytest.mark.parametrize(
    ("ids", "reason"),
    [([], "at least one"), ([331], "outside"), ([-1], "outside"), ([0] * 129, "do not fit")],
)
def test_bad_ids_are_refused_and_change_nothing(tied: Tied, ids: list[int], reason: str) -> None:
    model, good, at_once = tied
    session = _C.Session(model, 128)
    session.eval(good[:3])
    with pytest.raises(ValueError, match=reason):
        session.eval(ids)
    assert session.length == 3
    assert session.eval(good[3:4]).tobytes() == at_once[3].tobytes()


@pytest.mark.parametrize("n_ctx", [0, -1, 129])
def test_context_out_of_range_is_refused(tied: Tied, n_ctx: int) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        _C.Session(tied[0], n_ctx)


@pytest.mark.parametrize("n", [-1, 4])
def test_truncate_out_of_range_is_refused(tied: Tied, n: int) -> None:
    session = _C.Session(tied[0], 8)
    session.eval([1, 2, 3])
    with pytest.raises(ValueError, match="cannot keep"):
        session.truncate(n)


def test_a_session_keeps_its_model_alive(tmp_path: Path) -> None:
    model, _ = load(tmp_path, Shape())
    session = _C.Session(model, 16)
    before = session.eval([1, 2, 3]).tobytes()
    del model
    session.truncate(0)
    assert session.eval([1, 2, 3]).tobytes() == before


def test_a_foreign_f16_file_runs_on_its_exact_weights(tmp_path: Path) -> None:
    _, weights = load(tmp_path, Shape())
    foreign = rewrite(tmp_path / "model.gguf", tmp_path / "foreign.gguf", f16=True)
    model = _C.Model(str(foreign), True)
    assert not any(key.startswith("gristmill.") for key in model.metadata)
    rounded = {
        k: v.astype(np.float16).astype(np.float32) if v.ndim > 1 else v for k, v in weights.items()
    }
    ids = some_ids(Shape(), 50)
    want = twin(rounded, Shape(), ids)
    assert abs(_C.Session(model, 64).eval_all(ids) - want).max() <= 2e-5 * abs(want).max()
