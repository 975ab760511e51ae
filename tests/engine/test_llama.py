"""Llama: parity with transformers, determinism, recomputation, training, resume."""

import hashlib
import json

import numpy as np
import pytest

import gristmill as gm
from gristmill.backend import _C
from gristmill.errors import ArtifactError, TrainingError
from gristmill.models import Llama, LlamaConfig, from_pretrained

CONFIGS = {
    "gqa": {"vocab_size": 101, "hidden_size": 96, "intermediate_size": 130,
            "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
            "head_dim": 16},
    "wide head, untied": {"vocab_size": 67, "hidden_size": 160, "intermediate_size": 96,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            "head_dim": 80, "tie_word_embeddings": False},
}  # fmt: skip


def small(**changes):
    gm.manual_seed(7)
    base = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "max_position_embeddings": 64}  # fmt: skip
    return Llama(LlamaConfig(**{**base, **changes}))


class Patterns:
    """Short cycles of ids: learnable in a few steps."""

    def __init__(self, batch=4, context=32, vocab=64):
        self.shape, self.vocab = (batch, context), vocab

    def batch(self, step):
        b, t = self.shape
        start = np.random.default_rng(step).integers(0, self.vocab, (b, 1))
        ids = (start + np.arange(t + 1) * 3) % self.vocab
        return ids[:, :-1].astype(np.int32), ids[:, 1:].astype(np.int32)


def digest(model):
    h = hashlib.sha256()
    for _, p in model.named_parameters():
        h.update(p.numpy().tobytes())
    return h.hexdigest()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_loss_and_gradients_equal_transformers(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    gm.manual_seed(3)
    ours = Llama(LlamaConfig(max_position_embeddings=64, **CONFIGS[name]))
    for _, p in ours.named_parameters():
        p.copy_(p.numpy() * (3 if p.ndim == 2 else 1))
    ours.save_pretrained(tmp_path / "model")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", attn_implementation="eager", torch_dtype=torch.float32
    )
    ids = np.random.default_rng(0).integers(0, CONFIGS[name]["vocab_size"], (2, 33))
    with torch.no_grad():
        want = theirs(torch.tensor(ids)).logits.numpy()
    assert np.abs(ours(ids).numpy() - want).max() <= 1e-4

    loss = ours.loss(ids[:, :-1], ids[:, 1:])
    loss.backward()
    reference = theirs(torch.tensor(ids), labels=torch.tensor(ids)).loss
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), abs=1e-5)
    theirs_by_name = dict(theirs.named_parameters())
    for key, p in ours.named_parameters():
        g = theirs_by_name[key].grad.numpy()
        assert np.linalg.norm(p.grad.numpy() - g) <= 1e-4 * np.linalg.norm(g), key


def test_a_model_of_transformers_loads_here(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
        tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config)
    theirs.save_pretrained(tmp_path / "hf")
    ours = from_pretrained(tmp_path / "hf")
    ids = np.arange(40).reshape(2, 20)
    with torch.no_grad():
        want = theirs(torch.tensor(ids)).logits.numpy()
    assert np.abs(ours(ids).numpy() - want).max() <= 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputation_changes_no_bit(dtype):
    grads = []
    for recompute in (False, True):
        model = small()
        model.compute, model.recompute = dtype, recompute
        model.loss(*Patterns().batch(0)).backward()
        grads.append({n: p.grad.numpy().tobytes() for n, p in model.named_parameters()})
    assert grads[0] == grads[1]


def test_bfloat16_is_near_float32():
    model = small()
    batch = Patterns().batch(0)
    exact = model.loss(*batch).item()
    model.compute = "bfloat16"
    assert model.loss(*batch).item() == pytest.approx(exact, rel=2e-2)


def test_a_row_does_not_depend_on_its_batch():
    model = small()
    ids, _ = Patterns(batch=5).batch(1)
    together = model(ids).numpy()
    for i in range(5):
        assert model(ids[i : i + 1]).numpy().tobytes() == together[i : i + 1].tobytes()


def train(steps=5, out=None, **config):
    model = small()
    c = gm.TrainerConfig(steps=steps, lr=1e-2, progress=False, eval_every=4, eval_batches=2,
                         checkpoint_every=2, **config)  # fmt: skip
    history = gm.Trainer(model, Patterns(), Patterns(), c, out).fit()
    return model, history


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


def test_the_loss_falls():
    _, history = train(steps=40)
    assert history.losses[-1] < 0.5 * history.losses[0]


def test_accumulation_equals_a_larger_batch():
    one, _ = train(steps=1, schedule="constant", warmup=0.0)
    model = small()

    class Halves(Patterns):
        def batch(self, step):
            x, y = super().batch(step // 2)
            part = slice(0, 2) if step % 2 == 0 else slice(2, 4)
            return x[part], y[part]

    c = gm.TrainerConfig(
        steps=1, lr=1e-2, accumulate=2, schedule="constant", warmup=0.0, progress=False
    )
    gm.Trainer(model, Halves(), None, c).fit()
    a, b = one.model.norm.weight.numpy(), model.model.norm.weight.numpy()
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    whole, _ = train(steps=9, out=tmp_path / "whole")

    class Stop(Patterns):
        def batch(self, step):
            if step == 5:
                raise KeyboardInterrupt
            return super().batch(step)

    c = gm.TrainerConfig(
        steps=9, lr=1e-2, progress=False, eval_every=4, eval_batches=2, checkpoint_every=2
    )
    with pytest.raises(KeyboardInterrupt):
        gm.Trainer(small(), Stop(), Patterns(), c, tmp_path / "cut").fit()
    model = small()
    gm.Trainer(model, Patterns(), Patterns(), c, tmp_path / "cut").fit()
    assert digest(model) == digest(whole)
    rows = [
        json.loads(x)["step"] for x in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()
    ]
    assert rows == list(range(9))


def test_a_resumed_run_with_another_config_is_refused(tmp_path):
    train(steps=3, out=tmp_path)
    with pytest.raises(ArtifactError, match="other steps"):
        train(steps=4, out=tmp_path)


def test_a_loss_that_is_not_finite_names_the_layer_and_keeps_the_checkpoint(tmp_path):
    train(steps=3, out=tmp_path)
    kept = (tmp_path / "last/model.safetensors").read_bytes()
    model = small()
    broken = model.model.layers[1].mlp.up_proj.weight
    broken.copy_(np.full(broken.shape, np.nan))
    with pytest.raises(TrainingError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        gm.Trainer(model, Patterns(), None, gm.TrainerConfig(steps=2, progress=False)).fit()
    assert (tmp_path / "last/model.safetensors").read_bytes() == kept


def test_generation_follows_the_pattern_and_equals_the_engine():
    model, _ = train(steps=60)
    ids = model.generate([0, 3, 6, 9], max_new_tokens=6)
    assert len(ids) == 10
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


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sharded_half_precision_folders_load_widened(tmp_path, dtype):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    ours = gm.models.from_pretrained(tmp_path)
    for name, p in theirs.named_parameters():
        assert (ours.state_dict()[name].numpy() == p.detach().float().numpy()).all()
