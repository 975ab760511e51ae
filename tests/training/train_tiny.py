"""A small training for the kill test: python train_tiny.py FOLDER THREADS. Prints nothing."""

from __future__ import annotations

import sys

import numpy as np

import gristmill as gm


class Numbers:
    """Batches that are a pure function of their number."""

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.random.default_rng(step).integers(0, 61, (2, 17), dtype=np.int32)
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


def main(folder: str, threads: int) -> None:
    gm.set_num_threads(threads)
    gm.manual_seed(7)
    config = gm.models.LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=16,
    )  # fmt: skip
    settings = gm.TrainerConfig(
        steps=150, lr=1e-2, eval_every=7, eval_batches=2, checkpoint_every=3, progress=False
    )
    trainer = gm.Trainer(gm.models.Llama(config), Numbers(), Numbers(), settings, out=folder)
    trainer.fit()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
