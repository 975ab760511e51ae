"""gpt2 in the session: logits equal a float64 twin; prefill, decode and batches the same bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_gpt2 import Gpt2Shape, hf_config, random_tensors, twin

_C = pytest.importorskip("gristmill._C")

SHAPES = {
    "usual": Gpt2Shape(),
    "heads of 80": Gpt2Shape(n_embd=160, n_head=2, n_inner=77, vocab=333),
    "odd heads": Gpt2Shape(n_embd=21, n_head=3, n_layer=1, n_inner=17),
}


def live(shape: Gpt2Shape, **changed: Any) -> Any:
    tensors = {name: _C.from_numpy(value) for name, value in random_tensors(shape, 1).items()}
    return _C.Model.from_tensors(hf_config(shape, None) | changed, tensors)


def some_ids(shape: Gpt2Shape, n: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(3).integers(0, shape.vocab, n)]


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_the_twin(name: str) -> None:
    """Bound: 9 products in a row (4 per layer and the head), each of at most 160 terms and so off
    by some sqrt(160) roundings: 9 * 13 * 6e-8 = 7e-6 of the largest logit; the tanh's polynomial
    and the norms add as much again."""
    shape = SHAPES[name]
    ids = some_ids(shape, 100)
    got = _C.Session(live(shape), 128).eval_all(ids)
    want = twin(random_tensors(shape, 1), shape, ids)
    assert abs(got - want).max() <= 1.5e-5 * abs(want).max()


@pytest.mark.parametrize("name", SHAPES)
def test_decode_and_batches_have_the_bits_of_prefill(name: str) -> None:
    shape = SHAPES[name]
    model, ids = live(shape), some_ids(shape, 128)
    at_once = _C.Session(model, 128).eval_all(ids)
    one, two, three = (_C.Session(model, 128) for _ in range(3))
    two.eval(ids[:60])
    for i in range(60, 128):
        assert one.eval(ids[i - 60 : i - 59]).tobytes() == at_once[i - 60].tobytes(), i
        if three.length:
            three.truncate(0)
        got = _C.eval_batch([three, two], [ids[:70], [ids[i]]])
        assert got[0].tobytes() == at_once[69].tobytes(), i
        assert got[1].tobytes() == at_once[i].tobytes(), i


@pytest.mark.parametrize("table", _C.tables())
def test_every_table_runs_it_with_the_same_bits(table: str) -> None:
    shape, before = SHAPES["usual"], (_C.table(), _C.threads())
    ids = some_ids(shape, 90)
    want = _C.Session(live(shape), 128).eval_all(ids).tobytes()
    try:
        _C.select(table)
        for threads in (1, 2, 3, 7):
            _C.set_threads(threads)
            assert _C.Session(live(shape), 128).eval_all(ids).tobytes() == want, threads
    finally:
        _C.select(before[0])
        _C.set_threads(before[1])


def test_what_does_not_fit_is_refused() -> None:
    shape = SHAPES["usual"]
    config = hf_config(shape, None)
    good = {name: _C.from_numpy(value) for name, value in random_tensors(shape, 1).items()}
    for name in (
        "transformer.wpe.weight",
        "transformer.h.1.mlp.c_fc.bias",
        "transformer.ln_f.bias",
    ):
        with pytest.raises(ValueError, match=f"no tensor {name}"):
            _C.Model.from_tensors(config, {k: v for k, v in good.items() if k != name})
    name = "transformer.h.0.attn.c_attn.weight"
    turned = np.ascontiguousarray(random_tensors(shape, 1)[name].T)
    with pytest.raises(
        ValueError, match=r"c_attn\.weight has .*\(108, 36\), expected .*\(36, 108\)"
    ):
        _C.Model.from_tensors(config, good | {name: _C.from_numpy(turned)})
    with pytest.raises(ValueError, match="'bert' is not supported, 'llama' and 'gpt2' are"):
        _C.Model.from_tensors(config | {"model_type": "bert"}, good)
    with pytest.raises(ValueError, match="activation_function 'relu' is not supported"):
        live(shape, activation_function="relu")
    assert live(shape).architecture == "gpt2"
