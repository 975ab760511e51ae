"""A small training on conversations for the kill test: python train_masked.py SHARD FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import gristmill as gm
from gristmill.data.loader import Loader
from gristmill.data.shards import Shard, write_shard

V = 61


def write(folder: Path) -> None:
    """200 questions of 2 to 6 random ids; the answer counts on from the last one; then id 0."""
    random = np.random.default_rng(3)
    docs, masks = [], []
    for _ in range(200):
        ids = random.integers(1, V, int(random.integers(2, 7))).tolist()
        docs.append([*ids, *(1 + (ids[-1] + i) % (V - 1) for i in range(len(ids))), 0])
        masks.append([False] * len(ids) + [True] * (len(ids) + 1))
    write_shard(folder, docs, V, masks)


def trainer(shard: Path, out: Path | None, steps: int = 60, accumulate: int = 3) -> gm.Trainer:
    """A trainer whose micro-batches hold unequal numbers of targets that count."""
    gm.manual_seed(7)
    config = gm.models.LlamaConfig(
        vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=16,
    )  # fmt: skip
    settings = gm.TrainerConfig(
        steps=steps, lr=1e-2, accumulate=accumulate, eval_every=10, eval_batches=2,
        checkpoint_every=5, progress=False,
    )  # fmt: skip
    data = Loader(Shard.open(shard), 2, 16, 5)
    return gm.Trainer(gm.models.Llama(config), data, data, settings, out=out)


if __name__ == "__main__":
    trainer(Path(sys.argv[1]), Path(sys.argv[2])).fit()
