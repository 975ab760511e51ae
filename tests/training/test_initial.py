"""First weights and the probe, against the formulas and the ordinary backward pass."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("gristmill._C")
pytest.importorskip("pydantic")

import gristmill as gm
from gristmill.models import GPT2, GPT2Config, Llama, LlamaConfig
from gristmill.training.estimate import measure_speed, peak_flops, seconds_for, steps_for
from gristmill.training.initial import fill, probe
from gristmill.training.settings import InitializeConfig
from gristmill.training.shape import cost
from gristmill.training.trainer import TrainerConfig

SHAPE = LlamaConfig(
    vocab_size=500, hidden_size=128, intermediate_size=320, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=64,
)  # fmt: skip


def filled(seed: int = 3, tied: bool = False, **config: object) -> Llama:
    model = Llama(replace(SHAPE, tie_word_embeddings=tied))
    fill(model, InitializeConfig(**config), seed)  # type: ignore[arg-type]
    return model


def batch(rows: int = 4) -> tuple[np.ndarray, np.ndarray]:
    ids = np.random.default_rng(0).integers(0, 500, (rows, 65)).astype(np.int32)
    return ids[:, :-1], ids[:, 1:]


UP, DOWN = "model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("method", "name", "std"),
    [
        ("normal", UP, 0.02),
        ("uniform", UP, 0.05 / math.sqrt(3)),
        ("truncated", UP, 0.02 * 0.8796),  # of a normal cut at two standard deviations
        ("xavier", UP, math.sqrt(2 / (128 + 320))),
        ("he", UP, math.sqrt(2 / 128)),
        ("orthogonal", UP, 1 / math.sqrt(320)),  # columns of length 1
        ("scaled", UP, 0.02),
        ("scaled", DOWN, 0.02 / 2),
        ("auto", UP, 1 / math.sqrt(128)),
        ("auto", DOWN, 0.0),
        ("auto", "model.embed_tokens.weight", 1.0),
        ("auto", "lm_head.weight", 1 / 16),
        ("he", "model.embed_tokens.weight", 0.02),
        ("zero", UP, 0.0),
        ("constant", UP, 0.0),
    ],
)
def test_standard_deviations(method: str, name: str, std: float) -> None:
    values = filled(method=method).state_dict()[name].numpy()
    assert values.std() == pytest.approx(std, rel=0.03)  # 4 sigma of 40,960 draws is 1.4 %


GPT2_SHAPE = GPT2Config(vocab_size=500, n_positions=64, n_embd=128, n_layer=2, n_head=4)


@pytest.mark.parametrize(
    ("method", "name", "std"),
    [
        ("auto", "transformer.wte.weight", 0.02),
        ("auto", "transformer.wpe.weight", 0.01),
        ("auto", "transformer.h.1.attn.c_attn.weight", 0.02),
        ("auto", "transformer.h.1.mlp.c_proj.weight", 0.02 / 2),
        ("auto", "transformer.h.1.mlp.c_proj.bias", 0.0),
        ("he", "transformer.h.1.mlp.c_proj.weight", math.sqrt(2 / 512)),  # Conv1D: (in, out)
        ("he", "transformer.wpe.weight", 0.02),
        ("scaled", "transformer.h.0.attn.c_proj.weight", 0.02 / 2),
    ],
)
def test_standard_deviations_of_gpt2(method: str, name: str, std: float) -> None:
    model = GPT2(GPT2_SHAPE)
    fill(model, InitializeConfig(method=method), 3)  # type: ignore[arg-type]
    assert model.state_dict()[name].numpy().std() == pytest.approx(std, rel=0.03)
    assert (model.state_dict()["transformer.ln_f.weight"].numpy() == 1).all()


def test_gpt2_is_probed_by_the_same_code_and_costs_what_it_has() -> None:
    model = GPT2(GPT2_SHAPE)
    fill(model, InitializeConfig(), 3)
    seen = probe(model, *batch())
    loss = model.loss(*batch())
    loss.backward()
    assert seen.loss == loss.item() == pytest.approx(math.log(500), abs=0.1)
    for name, p in model.named_parameters():
        assert p.grad is not None
        expected = np.asarray(p.grad.numpy(), np.float64).var()
        assert seen.weights[name][1] == pytest.approx(float(expected), rel=1e-6), name
    assert cost(GPT2_SHAPE.to_dict(), 64, 4).parameters == sum(p.size for p in model.parameters())


def test_auto_of_a_tied_model_has_no_zeros() -> None:
    state = filled(tied=True).state_dict()
    expected = {"model.embed_tokens.weight": 1 / 16, DOWN: 1 / math.sqrt(320) / 2}
    for name, std in expected.items():
        assert state[name].numpy().std() == pytest.approx(std, rel=0.03)


def test_a_pure_function_of_seed_and_norms_are_one() -> None:
    a, b, c = filled(3), filled(3), filled(4)
    for (name, x), y, z in zip(a.named_parameters(), b.parameters(), c.parameters(), strict=True):
        assert np.array_equal(x.numpy(), y.numpy())
        if x.ndim == 1:
            assert (x.numpy() == 1).all()
        elif a.role(name, x) == "residual":
            assert not x.numpy().any()
        else:
            assert not np.array_equal(x.numpy(), z.numpy()), name
    assert (filled(method="constant", value=0.5).state_dict()[UP].numpy() == 0.5).all()


def test_the_probe_equals_one_backward_pass() -> None:
    model = filled()
    ids, targets = batch()
    seen = probe(model, ids, targets)
    assert all(p.grad is None for p in model.parameters())  # it leaves nothing behind
    loss = model.loss(ids, targets)
    loss.backward()
    assert seen.loss == loss.item()
    for name, p in model.named_parameters():
        values, gradients = seen.weights[name]
        assert values == pytest.approx(float(np.asarray(p.numpy(), np.float64).var()))
        assert p.grad is not None
        expected = np.asarray(p.grad.numpy(), np.float64).var()
        assert gradients == pytest.approx(float(expected), rel=1e-6), name
    with gm.no_grad():
        embedded = model.model.embed_tokens(ids).numpy().astype(np.float64)
    assert seen.levels[0].activation == pytest.approx(float(embedded.var()))
    assert [level.name for level in seen.levels] == ["embedding", "layer 0", "layer 1"]
    assert all(level.gradient > 0 for level in seen.levels)


@pytest.mark.parametrize("tied", [False, True])
def test_first_loss_of_auto_is_a_quarter_above_ln_v(tied: bool) -> None:
    seen = probe(filled(tied=tied), *batch(16))
    assert seen.loss - math.log(500) == pytest.approx(0.25, abs=0.1)


def test_speed_and_what_follows_from_it() -> None:
    class Same:
        def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
            return batch(2)

    speed = measure_speed(filled(), Same(), TrainerConfig(accumulate=2), seconds=0.1)
    assert speed.timed >= 5
    assert speed.tokens_per_second == pytest.approx(2 * 2 * 64 / speed.seconds_per_step)
    assert steps_for(1.0, 0.1) == 576
    assert steps_for(0.001, 0.1) == 10
    assert seconds_for(steps_for(4.0, 0.08), 0.08) == pytest.approx(240, rel=0.01)
    assert peak_flops("f32", 0.05) > 1e8
