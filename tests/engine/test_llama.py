"""Llama: determinism, recomputation, generation, damaged folders. Parity: test_transformers.py."""

import json

import numpy as np
import pytest
from tiny_llama import Patterns, digest, settings, small, train

import gristmill as gm
from gristmill.backend import _C
from gristmill.errors import ArtifactError, TrainingError
from gristmill.models import LlamaConfig, from_pretrained


def test_any_number_of_threads_and_any_table_give_the_same_weights():
    table, threads = _C.table(), _C.threads()
    digests = {}
    try:
        for name in _C.tables():
            for n in (1, 2, 3, 7) if name == table else (2,):
                _C.select(name)
                _C.set_threads(n)
                digests[name, n] = digest(train()[0])
    finally:
        _C.select(table)
        _C.set_threads(threads)
    assert len(set(digests.values())) == 1, digests


def test_generation_follows_the_pattern_and_equals_the_engine():
    model, _ = train(steps=60)
    ids = model.generate([0, 3, 6, 9], max_new_tokens=6)
    assert ids == list(range(0, 30, 3))
    for n in range(4, 10):
        logits = model(np.array([ids[:n]])).numpy()[0, -1]
        assert int(logits.argmax()) == ids[n]


def test_engine_and_runtime_logits_are_byte_equal():
    model = small()
    ids = np.random.default_rng(1).integers(0, 64, 40)
    live = _C.Model.from_tensors(model.config.to_dict(), dict(model.tensors()))
    whole = _C.Session(live, 64).eval_all(ids.tolist())
    assert whole.tobytes() == model(ids[None]).numpy().tobytes()
    session = _C.Session(live, 64)
    each = np.stack([session.eval([int(i)]) for i in ids])
    assert each.tobytes() == whole.tobytes()


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "shape"])
def test_a_damaged_folder_is_refused_with_its_name(tmp_path, damage):
    small().save_pretrained(tmp_path / "m")
    weights, config = tmp_path / "m/model.safetensors", tmp_path / "m/config.json"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        c = json.loads(config.read_text())
        c.update({"model_type": "gpt2"} if damage == "foreign" else {"vocab_size": 65})
        config.write_text(json.dumps(c))
    with pytest.raises(ArtifactError, match=r"m/|m has no"):
        from_pretrained(tmp_path / "m")


def test_ids_out_of_range_are_refused():
    with pytest.raises(IndexError, match="allowed is 0 to 63"):
        small()(np.array([[64]]))
    with pytest.raises(ValueError, match="1 to 64"):
        small()(np.zeros((1, 65), np.int32))


FOREIGN = {
    "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 2, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 64,
}  # fmt: skip


@pytest.mark.parametrize("key", [k for k in FOREIGN if k != "model_type"])
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_a_config_without_a_size_is_refused_by_its_name(key, absent):
    config = {k: v for k, v in FOREIGN.items() if k != key} | ({} if absent else {key: None})
    with pytest.raises(ValueError, match=f"^{key} missing"):
        LlamaConfig.from_dict(config)


def test_what_a_config_leaves_out_is_what_transformers_takes():
    got = LlamaConfig.from_dict(FOREIGN)
    assert (got.num_key_value_heads, got.head_dim, got.rms_norm_eps) == (2, 16, 1e-6)
    assert (got.rope_theta, got.tie_word_embeddings) == (10000.0, False)


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize(
    "rope",
    [{"type": "linear", "factor": 4.0}, {"rope_type": "llama3", "factor": 8.0}, {"factor": 4.0},
     {"rope_type": "default", "type": "dynamic"}, {"rope_theta": 5e5, "type": "yarn"}],
)  # fmt: skip
def test_scaled_positions_are_refused(key, rope):
    with pytest.raises(ValueError, match=f"{key} = .* is not supported"):
        LlamaConfig.from_dict(FOREIGN | {key: rope})


def test_the_base_of_the_rotation_is_read_from_old_and_new_configs():
    for config in (
        {"rope_theta": 5e5, "rope_scaling": None},
        {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
    ):
        assert LlamaConfig.from_dict(FOREIGN | config).rope_theta == 5e5
    with pytest.raises(ValueError, match="rope_theta is given twice"):
        LlamaConfig.from_dict(FOREIGN | {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5}})


@pytest.mark.parametrize(("eos", "ids"), [(None, []), (0, [0]), ([5], [5]), ([5, 18], [5, 18])])
def test_every_token_that_ends_a_text_ends_it_and_is_saved_as_it_came(tmp_path, eos, ids):
    config = LlamaConfig.from_dict(FOREIGN | {"eos_token_id": eos})
    assert config.eos_ids == ids
    small(eos_token_id=eos).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == eos
    assert from_pretrained(tmp_path).config.eos_token_id == eos


def test_generation_stops_at_any_of_several_tokens():
    model, _ = train(steps=60)
    object.__setattr__(model.config, "eos_token_id", [50, 18])
    assert model.generate([0, 3, 6, 9], max_new_tokens=6) == [0, 3, 6, 9, 12, 15, 18]


def test_several_beginnings_are_refused():
    with pytest.raises(ValueError, match="bos_token_id"):
        LlamaConfig.from_dict(FOREIGN | {"bos_token_id": [1, 2]})


def poison(model, name, value):
    """Between two micro-batches a gradient gets a value; the losses stay finite."""
    loss, calls = model.loss, []

    def poisoned(*given):
        calls.append(given)
        if len(calls) % 2 == 0:
            model.state_dict()[name].grad.numpy()[:] = value
        return loss(*given)

    model.loss = poisoned


@pytest.mark.parametrize(
    ("value", "want"),
    [(np.nan, "step 0: the gradient is not finite, first in {name}"),
     (1e30, "step 0: the norm of the gradient is not finite, first in the sum of squares")],
)  # fmt: skip
@pytest.mark.parametrize("name", ["model.norm.weight", "model.layers.0.mlp.down_proj.weight"])
def test_a_gradient_that_is_not_finite_is_named(name, value, want):
    model = small()
    poison(model, name, value)
    with pytest.raises(TrainingError) as caught:
        gm.Trainer(model, Patterns(), config=settings(2, accumulate=2)).fit()
    assert str(caught.value).startswith(want.format(name=name))


def test_the_gradient_nearest_to_the_loss_is_named():
    model = small()
    assert model.nonfinite_gradient() is None
    model.loss(*Patterns().batch(0)).backward()
    assert model.nonfinite_gradient() is None
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"):
        model.state_dict()[name].grad.numpy()[0, 0] = np.inf
        assert model.nonfinite_gradient() == name
