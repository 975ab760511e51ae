"""GPT-2: parity with transformers in both directions, published folders, training, determinism."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_llama import Patterns, digest, settings

import gristmill as gm
from gristmill.backend import _C
from gristmill.errors import ArtifactError
from gristmill.models import (
    ARCHITECTURES,
    GPT2,
    GPT2Config,
    build,
    config_from_dict,
    from_pretrained,
)

SMALL = GPT2Config(vocab_size=67, n_positions=64, n_embd=48, n_layer=2, n_head=3)
SHAPES = {
    "tied": SMALL,
    "untied, own width inside, exact gelu": replace(
        SMALL, vocab_size=101, n_inner=130, tie_word_embeddings=False, activation_function="gelu"
    ),
}


def small(config=SMALL, scale=3):
    """Always the same first weights, larger than usual so that every part shows in the result."""
    gm.manual_seed(5)
    model = build(config)
    rng = np.random.default_rng(5)
    for name, p in model.named_parameters():
        noise = 0.1 * rng.normal(size=p.shape) if p.ndim == 1 else 0
        p.copy_(p.numpy() * (1 if p.ndim == 1 else scale) + noise)
        assert name.startswith(("transformer.", "lm_head."))
    return model


def theirs_of(folder):
    """The same folder in transformers, and what it says about missing and unexpected tensors."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype="float32", output_loading_info=True
    )


def same_function(ours, theirs):
    """Logits to 1e-4, the loss, and each tensor's gradient to 1e-4 of its norm."""
    torch = pytest.importorskip("torch")
    theirs.eval()
    ids = np.random.default_rng(0).integers(0, ours.config.vocab_size, (2, 33))
    with torch.no_grad():
        want = theirs(torch.tensor(ids)).logits.numpy()
    assert want.std() > 0.1
    assert np.abs(ours(ids).numpy() - want).max() <= 1e-4
    ours.zero_grad()
    loss = ours.loss(ids[:, :-1], ids[:, 1:])
    loss.backward()
    reference = theirs(torch.tensor(ids), labels=torch.tensor(ids)).loss
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), abs=1e-5)
    theirs_by_name = dict(theirs.named_parameters())
    assert theirs_by_name.keys() == ours.state_dict().keys()
    for name, p in ours.named_parameters():
        g = theirs_by_name[name].grad.numpy()
        assert np.linalg.norm(p.grad.numpy() - g) <= 1e-4 * np.linalg.norm(g), name


@pytest.mark.parametrize("name", SHAPES)
def test_a_folder_of_ours_is_the_same_model_there_and_back(name, tmp_path):
    ours = small(SHAPES[name])
    ours.save_pretrained(tmp_path / "ours")
    theirs, said = theirs_of(tmp_path / "ours")
    assert not any(said[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    same_function(ours, theirs)
    again = from_pretrained(tmp_path / "ours")
    assert again.config == ours.config
    assert digest(again) == digest(ours)
    theirs.save_pretrained(tmp_path / "theirs")
    assert digest(from_pretrained(tmp_path / "theirs")) == digest(ours)


def published(folder, how):
    """A folder as others have left it: without the prefix and with masks, or in float16."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    ours = small()
    ours.save_pretrained(folder)
    state = {n: torch.tensor(np.array(p.numpy())) for n, p in ours.named_parameters()}
    if how == "no prefix, masks":
        mask = torch.tril(torch.ones(1, 1, 64, 64))
        state = {name.removeprefix("transformer."): value for name, value in state.items()}
        state |= {f"h.{i}.attn.bias": mask.bool() if i else mask for i in range(2)}
        state |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    else:  # the tied head is written out as well
        state = {name: value.half() for name, value in state.items()}
        state["lm_head.weight"] = state["transformer.wte.weight"].clone()
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return ours


@pytest.mark.parametrize("how", ["no prefix, masks", "float16, head"])
def test_published_folders_load(how, tmp_path):
    ours = published(tmp_path, how)
    read = from_pretrained(tmp_path)
    for name, p in ours.named_parameters():
        want = p.numpy().astype(np.float16) if "float16" in how else p.numpy()
        assert (read.state_dict()[name].numpy() == want).all(), name


def test_what_a_config_leaves_out_is_what_transformers_takes():
    transformers = pytest.importorskip("transformers")
    config = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 64, "n_embd": 48,
              "n_layer": 2, "n_head": 3, "layer_norm_epsilon": 1e-5}  # fmt: skip
    got, theirs = config_from_dict(config), transformers.GPT2Config(**config)
    for key in ("n_inner", "activation_function", "tie_word_embeddings", "bos_token_id",
                "eos_token_id"):  # fmt: skip
        assert getattr(got, key) == getattr(theirs, key), key
    assert config_from_dict(config | {"vocab_size": 67}).eos_ids == []


@pytest.mark.parametrize(
    "given",
    [{"scale_attn_by_inverse_layer_idx": True}, {"reorder_and_upcast_attn": True},
     {"scale_attn_weights": False}, {"activation_function": "relu"}, {"n_embd": None},
     {"add_cross_attention": True}, {"n_head": 5}, {"bos_token_id": [1, 2]}],
    ids=lambda given: next(iter(given)),
)  # fmt: skip
def test_what_it_cannot_do_is_refused_by_name(given):
    with pytest.raises(ValueError, match=next(iter(given))):
        config_from_dict(SMALL.to_dict() | given)


def test_an_unknown_architecture_is_refused_with_the_known_ones(tmp_path):
    known = ".*".join(map(repr, ARCHITECTURES))
    with pytest.raises(ValueError, match=f"'bert' given.*{known}"):
        config_from_dict({"model_type": "bert"})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ArtifactError, match=r"config\.json: model_type 'bert' given"):
        from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'mamba' given, allowed is 'gpt2'"):
        GPT2Config.from_dict({"model_type": "mamba"})


def train(table=None, steps=5, **changes):
    model = small(replace(SMALL, vocab_size=64, **changes), scale=1)
    gm.Trainer(model, Patterns(), Patterns(), settings(steps)).fit()
    return model


def test_any_number_of_threads_and_any_table_give_the_same_weights():
    table, threads = _C.table(), _C.threads()
    digests = {}
    try:
        for name in _C.tables():
            for n in (1, 2, 3, 7) if name == table else (2,):
                _C.select(name)
                _C.set_threads(n)
                digests[name, n] = digest(train())
    finally:
        _C.select(table)
        _C.set_threads(threads)
    assert len(set(digests.values())) == 1, digests


def test_engine_and_runtime_logits_are_byte_equal_and_it_generates():
    model = train(steps=80)
    ids = np.random.default_rng(1).integers(0, 64, 40)
    live = _C.Model.from_tensors(model.config.to_dict(), dict(model.tensors()))
    whole = _C.Session(live, 64).eval_all(ids.tolist())
    assert whole.tobytes() == model(ids[None]).numpy().tobytes()
    assert model.generate([0, 3, 6, 9], max_new_tokens=6) == list(range(0, 30, 3))


def test_twenty_steps_of_adamw_are_torchs(tmp_path):
    """20 steps of 1e-3 moved each weight by up to 2e-2; 1e-5 is half a thousandth of it. Not
    compared is the bias of the keys: it adds the same to all scores of a query, so its gradient is
    roundoff, which AdamW scales up to whole steps."""
    torch = pytest.importorskip("torch")
    ours = small(scale=1)
    ours.save_pretrained(tmp_path)
    theirs = theirs_of(tmp_path)[0]
    rest = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    mine = gm.optim.AdamW(ours.parameters(), **rest)
    other = torch.optim.AdamW(theirs.parameters(), **rest)
    data = Patterns(vocab=67)
    for step in range(20):
        ids, targets = data.batch(step)
        mine.zero_grad()
        loss = ours.loss(ids, targets)
        loss.backward()
        mine.step()
        other.zero_grad()
        logits = theirs(torch.tensor(ids, dtype=torch.int64)).logits
        wanted = torch.tensor(targets, dtype=torch.int64).flatten()
        reference = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted)
        reference.backward()
        other.step()
        assert loss.item() == pytest.approx(reference.item(), abs=1e-5), step
    for name, p in theirs.named_parameters():
        off = np.abs(ours.state_dict()[name].numpy() - p.detach().numpy())
        if name.endswith("c_attn.bias"):
            off[SMALL.n_embd : 2 * SMALL.n_embd] = 0
        assert off.max() <= 1e-5, name


def test_it_has_the_published_size():
    """124,439,808 parameters (Hugging Face's gpt2), counted without building it."""
    c = GPT2Config()
    layer = 4 * c.n_embd**2 + 8 * c.n_embd**2 + 13 * c.n_embd
    total = (c.vocab_size + c.n_positions) * c.n_embd + c.n_layer * layer + 2 * c.n_embd
    assert total == 124_439_808
    one = build(replace(c, vocab_size=2, n_positions=1, n_layer=1))
    assert sum(p.size for p in one.parameters()) == 3 * c.n_embd + layer + 2 * c.n_embd
    assert isinstance(one, GPT2)
