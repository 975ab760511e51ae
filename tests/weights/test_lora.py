"""Adapters: against their twin, frozen weights stay frozen, merged = unmerged, exact resume."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_llama import Patterns, digest, settings, small

import gristmill as gm
from gristmill._tensor import Tensor
from gristmill.backend import _C
from gristmill.errors import ArtifactError, ConfigError
from gristmill.models.adapters import add_adapter, load_adapter
from gristmill.models.saving import write_adapter
from gristmill.nn import lora


def adapted(rank=4, **options):
    """`small` with an adapter whose B is not zero any more: as if it had learned."""
    model = small()
    add_adapter(model, rank, 2.0 * rank, seed=3, **options)
    rng = np.random.default_rng(5)
    for _, layer in lora.lora_layers(model):
        b = layer.lora_B.weight
        b.copy_(0.1 * rng.standard_normal(b.shape))
    return model


def logits(model, ids):
    with gm.no_grad():
        return model(ids).numpy().copy()


IDS, _ = Patterns().batch(0)
# a row of 64 logits adds up 2 layers of at most 48 products each; what differs between W x + B A x
# and (W + B A) x is their rounding: 200 x 2^-24 of values of size 1
ROUNDING = 200 * 2.0**-24


def test_the_op_is_its_twin():
    """Bounds: K roundings of 2^-24 per sum of K products, K = 24 rows, 16 columns, 8 outputs."""
    rng = np.random.default_rng(0)
    x, w, a, b = (rng.standard_normal(s).astype(np.float32) for s in
                  ((2, 12, 16), (8, 16), (3, 16), (8, 3)))  # fmt: skip
    dout = rng.standard_normal((2, 12, 8)).astype(np.float32)
    tx, ta, tb = (Tensor(_C.from_numpy(v), requires_grad=True) for v in (x, a, b))
    frozen = Tensor(_C.from_numpy(w))
    out = lora.add_low_rank(gm.nn.functional.linear(tx, frozen), tx, ta, tb, 0.5)
    out.backward(Tensor(_C.from_numpy(dout)))
    wide = [v.astype(np.float64) for v in (x.reshape(24, 16), w, a, b)]
    want = lora.reference_forward(*wide, 0.5)
    grads = lora.reference_backward(dout.reshape(24, 8).astype(np.float64), *wide, 0.5)
    got = (out, tx.grad, ta.grad, tb.grad)
    for name, mine, theirs in zip(["out", "dx", "da", "db"], got, (want, *grads), strict=True):
        close = 64 * 2.0**-24 * np.abs(theirs).max()
        assert np.abs(mine.numpy().reshape(theirs.shape) - theirs).max() <= close, name


def test_the_twin_by_finite_differences():
    rng = np.random.default_rng(1)
    x, w, a, b = (rng.standard_normal(s) for s in ((5, 4), (3, 4), (2, 4), (3, 2)))
    dout, h = rng.standard_normal((5, 3)), 1e-6

    def loss(*given):
        return (lora.reference_forward(given[0], w, *given[1:], 0.7) * dout).sum()

    grads = lora.reference_backward(dout, x, w, a, b, 0.7)
    for i, grad in enumerate(grads):
        for at in np.ndindex(grad.shape):
            up, down = [x, a, b], [x, a, b]
            up[i], down[i] = up[i].copy(), down[i].copy()
            up[i][at] += h
            down[i][at] -= h
            # quadratic in each: central differences are exact but for rounding, 1e-16 / 1e-6
            assert abs((loss(*up) - loss(*down)) / (2 * h) - grad[at]) < 1e-8


def test_an_adapter_begins_as_nothing():
    plain, model = small(), small()
    add_adapter(model, 4, 8.0)
    assert np.array_equal(logits(plain, IDS), logits(model, IDS))  # B is zero: x + 0 is x
    (_, layer), *_ = lora.lora_layers(model)
    a = layer.lora_A.weight.numpy()
    assert np.abs(a).max() <= 32**-0.5 < 1.1 * np.abs(a).max()


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("recompute", [False, True])
def test_only_the_adapter_learns(dtype, recompute):
    model = small()
    before = {n: p.numpy().copy() for n, p in model.named_parameters()}
    add_adapter(model, 4, 8.0)
    config = settings(6, dtype=dtype, recompute=recompute)
    trainer = gm.Trainer(model, Patterns(), None, config)
    losses = trainer.fit().losses
    assert losses[-1] < losses[0]
    size = sum(p.size for p in model.parameters() if p.requires_grad)
    assert size == 2 * (4 * (32 + 32) + 4 * (32 + 16))  # two layers; q (32, 32), v (16, 32)
    state = trainer.optimizer.state_dict()["arrays"]
    assert sum(a.size for a in state.values()) == 2 * size
    for name, p in model.named_parameters():
        if ".lora_" in name:
            assert p.grad is not None
        else:
            assert np.array_equal(p.numpy(), before[name]), name
            assert p._slot is None or p._slot.array is None  # no memory for a gradient


def test_recomputation_gives_the_same_bits():
    def weights(recompute):
        model = small()
        add_adapter(model, 4, 8.0, dropout=0.2, targets=["all-linear"])
        gm.Trainer(model, Patterns(), None, settings(4, recompute=recompute)).fit()
        return digest(model)

    assert weights(True) == weights(False)


@pytest.mark.parametrize("targets", [(), ("all-linear",)])
def test_merged_computes_the_same(tmp_path, targets):
    model = adapted(targets=targets)
    model.save_pretrained(tmp_path / "m")
    merged = gm.models.from_pretrained(tmp_path / "m")
    assert [n for n, _ in merged.named_parameters()] == [n for n, _ in small().named_parameters()]
    want, got = logits(model, IDS), logits(merged, IDS)
    assert np.abs(want - got).max() <= ROUNDING * np.abs(want).max()
    assert np.abs(logits(small(), IDS) - want).max() > 100 * ROUNDING  # it does something


def test_written_and_read_back(tmp_path):
    model = adapted(saved=["embed_tokens"])
    model.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight.numpy() * 1.5)
    write_adapter(model, tmp_path / "a")
    again = small()
    load_adapter(again, tmp_path / "a")
    assert again.adapter == model.adapter
    assert np.array_equal(logits(again, IDS), logits(model, IDS))


def test_generating_sees_the_adapter():
    model = adapted()
    prompt = [1, 4, 7]
    greedy = list(prompt)
    for _ in range(8):
        greedy.append(int(logits(model, np.array([greedy]))[0, -1].argmax()))
    assert model.generate(prompt, 8) == greedy


class Stop(Patterns):
    def batch(self, step):
        if step == 5:
            raise KeyboardInterrupt
        return super().batch(step)


def train(out, data, rank=4):
    model = small()
    add_adapter(model, rank, 8.0, dropout=0.1, seed=1)
    gm.Trainer(model, data, Patterns(), settings(9), out).fit()
    return model


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    whole = train(tmp_path / "whole", Patterns())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", Stop())
    model = train(tmp_path / "cut", Patterns())
    assert digest(model) == digest(whole)
    names = (
        "model.safetensors",
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
    )
    for name in names:
        cut, uncut = ((tmp_path / run / "last" / name).read_bytes() for run in ("cut", "whole"))
        assert cut == uncut, name
    with pytest.raises(ArtifactError, match=r"rank=4.*now.*rank=2.*another folder"):
        train(tmp_path / "cut", Patterns(), rank=2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"targets": ["q_proj", "c_attn"]}, r"'c_attn'; allowed: .*k_proj.*all-linear"),
        ({"saved": ["wte"]}, "no module is called 'wte'"),
    ],
)
def test_names_that_fit_nothing(options, said):
    with pytest.raises(ConfigError, match=said):
        add_adapter(small(), 4, 8.0, **options)


def test_a_second_adapter_is_refused():
    model = adapted()
    with pytest.raises(ConfigError, match="merge it first"):
        add_adapter(model, 4, 8.0)


def _edit(**changes):
    def change(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


SPOILED = {
    "no adapter": (lambda f: (f / "adapter_config.json").unlink(), "is no adapter"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "is missing"),
    "pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "a pickle"
    ),
    "another kind": (_edit(peft_type="IA3"), "'IA3' given, allowed: 'LORA'"),
    "rank of no number": (_edit(r=None), r"adapter_config\.json: r = None given, allowed: whole"),
    "rank 0": (_edit(r=0), "r = 0 given, allowed: whole numbers from 1"),
    "alpha of no number": (_edit(lora_alpha="x"), "lora_alpha = 'x' given, allowed: numbers"),
    "dropout of 2": (_edit(lora_dropout=2.0), "lora_dropout = 2.0 given, allowed: 0 to below 1"),
    "targets of no name": (_edit(target_modules=5), "target_modules = 5 given, allowed: names"),
    "saved of no name": (_edit(modules_to_save=[7]), r"modules_to_save = \[7\] given, allowed"),
    "dora": (_edit(use_dora=True), "use_dora = True given"),
    "another architecture": (_edit(target_modules=["c_attn"]), "does not fit the model"),
    "another rank": (_edit(r=8), r"shape \(4, 32\) given.*give the model"),
    "other layers": (_edit(target_modules=["q_proj"]), "unknown .*v_proj"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_adapters_that_do_not_fit(tmp_path, name):
    write_adapter(adapted(), tmp_path / "a")
    load_adapter(small(), tmp_path / "a")
    change, said = SPOILED[name]
    change(tmp_path / "a")
    with pytest.raises(ArtifactError, match=said):
        load_adapter(small(), tmp_path / "a")


def test_an_adapter_of_another_size_is_refused(tmp_path):
    write_adapter(adapted(), tmp_path / "a")
    with pytest.raises(ArtifactError, match="give the model it was trained on"):
        load_adapter(small(hidden_size=64), tmp_path / "a")
