"""Oracle: fine-tuning a given model, against transformers and torch's AdamW on the same batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers
from tiny_llama import Patterns

import gristmill as gm
from gristmill.optim import learning_rate

STEPS, LR = 100, 1e-3
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "embd_pdrop": 0.0,
             "resid_pdrop": 0.0, "attn_pdrop": 0.0},
}  # fmt: skip


def random_model(kind: str) -> Any:
    """A model as transformers draws it, its loss far from what 100 steps reach."""
    torch.manual_seed(0)
    given = transformers.AutoConfig.for_model(kind, vocab_size=64, **SHAPES[kind])
    return transformers.AutoModelForCausalLM.from_config(given, dtype=torch.float32).eval()


def learn(model: Any) -> list[float]:
    """Decay on matrices alone, clipping at 1, the schedule wsd: what our trainer does."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.99), weight_decay=0.1)
    losses = []
    for step in range(STEPS):
        ids, targets = (torch.tensor(a.astype(np.int64)) for a in Patterns().batch(step))
        logits = model(ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, STEPS, LR, "wsd", 0.1, 0.3, 0.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", SHAPES)
def test_a_hundred_steps(tmp_path: Path, kind: str) -> None:
    """1e-3 nats at every step, in f32; and what was saved computes the same over there."""
    theirs = random_model(kind)
    theirs.save_pretrained(tmp_path / "given")
    model = gm.models.from_pretrained(tmp_path / "given")
    config = gm.TrainerConfig(
        steps=STEPS, lr=LR, schedule="wsd", warmup=0.1, decay=0.3, betas=(0.9, 0.99),
        weight_decay=0.1, grad_clip=1.0, progress=False,
    )  # fmt: skip
    ours = gm.Trainer(model, Patterns(), None, config).fit().losses
    want = learn(theirs)
    assert want[-1] < want[0] - 0.5
    assert np.abs(np.array(ours) - want).max() <= 1e-3
    model.save_pretrained(tmp_path / "ours")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    ids, _ = Patterns().batch(0)
    with torch.no_grad(), gm.no_grad():
        got = back.eval()(torch.tensor(ids.astype(np.int64))).logits.numpy()
        mine = model(ids).numpy()
    # sums of at most 128 products in 2 layers: a thousand roundings of the largest value
    assert np.abs(got - mine).max() <= 1000 * 2.0**-24 * np.abs(mine).max()
