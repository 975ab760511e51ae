"""Oracle: the library peft loads our adapters, we load its, and both learn alike."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
import transformers
from tiny_llama import Patterns, small

import gristmill as gm
from gristmill.models.adapters import add_adapter, load_adapter
from gristmill.models.saving import write_adapter

STEPS, LR = 30, 1e-2
IDS, _ = Patterns().batch(0)
OPTIONS = {
    "llama": {}, "llama all": {"targets": ["all-linear"]}, "gpt2": {},
    "llama tied tokens": {"saved": ["embed_tokens"]}, "gpt2 tokens": {"saved": ["wte"]},
}  # fmt: skip


def tiny_gpt2():
    gm.manual_seed(7)
    config = gm.models.GPT2Config(
        vocab_size=64, n_positions=64, n_embd=32, n_layer=2, n_head=2, eos_token_id=0
    )
    return gm.models.GPT2(config)


def model_of(name):
    if name.startswith("gpt2"):
        return tiny_gpt2()
    return small(tie_word_embeddings="tied" in name)


def theirs_from(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def their_logits(model):
    with torch.no_grad():
        return model(torch.tensor(IDS.astype(np.int64))).logits.numpy()


def our_logits(model):
    with gm.no_grad():
        return model(IDS).numpy().copy()


def learn_theirs(model):
    """30 steps of torch's AdamW on the same batches, clipped like ours; loss of each."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=LR, betas=(0.9, 0.99), weight_decay=0.1)
    losses = []
    for step in range(STEPS):
        ids, targets = (torch.tensor(a.astype(np.int64)) for a in Patterns().batch(step))
        logits = model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ["llama", "llama all", "gpt2"])
def test_the_loss_curve_is_pefts(tmp_path, name):
    """The same frozen weights, A, data and optimizer: 1e-4 nats over 30 steps in f32."""
    model = model_of(name)
    model.save_pretrained(tmp_path / "base")
    add_adapter(model, 4, 8.0, seed=3, **OPTIONS[name])
    write_adapter(model, tmp_path / "a")
    theirs = peft.PeftModel.from_pretrained(
        theirs_from(tmp_path / "base"), tmp_path / "a", is_trainable=True
    )
    config = gm.TrainerConfig(
        steps=STEPS, lr=LR, schedule="constant", warmup=0.0, betas=(0.9, 0.99), weight_decay=0.1,
        grad_clip=1.0, progress=False,
    )  # fmt: skip
    ours = gm.Trainer(model, Patterns(), None, config).fit().losses
    want = learn_theirs(theirs)
    assert want[-1] < want[0] - 0.05
    assert np.abs(np.array(ours) - want).max() <= 1e-4


@pytest.mark.parametrize("name", OPTIONS)
def test_peft_loads_ours(tmp_path, name):
    model = model_of(name)
    model.save_pretrained(tmp_path / "base")
    add_adapter(model, 4, 8.0, seed=3, base=str(tmp_path / "base"), **OPTIONS[name])
    gm.Trainer(model, Patterns(), None, gm.TrainerConfig(steps=5, lr=1e-2, progress=False)).fit()
    write_adapter(model, tmp_path / "a")
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "a", dtype=torch.float32)
    want = our_logits(model)
    # 2 layers of sums of at most 128 products: a thousand roundings of values of size 1
    assert np.abs(their_logits(theirs.eval()) - want).max() <= 1000 * 2.0**-24
    merged = theirs.merge_and_unload()
    model.save_pretrained(tmp_path / "merged")
    again = theirs_from(tmp_path / "merged")
    assert np.abs(their_logits(merged) - their_logits(again)).max() <= 1000 * 2.0**-24


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_we_load_pefts(tmp_path, name):
    model_of(name).save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=3, lora_alpha=5, lora_dropout=0.1, task_type="CAUSAL_LM", use_rslora=True,
        init_lora_weights=False, modules_to_save=None if name == "gpt2" else ["lm_head"],
    )  # fmt: skip
    theirs = peft.get_peft_model(theirs_from(tmp_path / "base"), config).eval()
    theirs.save_pretrained(tmp_path / "a")
    model = gm.models.from_pretrained(tmp_path / "base")
    before = our_logits(model)
    load_adapter(model, tmp_path / "a")
    assert np.abs(their_logits(theirs) - our_logits(model)).max() <= 1e-4
    assert np.abs(before - our_logits(model)).max() > 0.01
