"""A tiny llama, data it learns in a few steps, and a training of it: shared by tests."""

import hashlib

import numpy as np

import gristmill as gm
from gristmill.models import Llama, LlamaConfig


def small(**changes):
    """Two layers, vocabulary 64, context 64, always the same first weights."""
    gm.manual_seed(7)
    base = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "max_position_embeddings": 64}  # fmt: skip
    return Llama(LlamaConfig(**{**base, **changes}))


class Patterns:
    """Ids that go up by 3: learnable in a few steps."""

    def __init__(self, batch=4, context=32, vocab=64):
        self.shape, self.vocab = (batch, context), vocab

    def batch(self, step):
        b, t = self.shape
        start = np.random.default_rng(step).integers(0, self.vocab, (b, 1))
        ids = (start + np.arange(t + 1) * 3) % self.vocab
        return ids[:, :-1].astype(np.int32), ids[:, 1:].astype(np.int32)


def settings(steps=5, **config):
    """A checkpoint after every 2 steps, a look at validation after every 4."""
    return gm.TrainerConfig(steps=steps, lr=1e-2, progress=False, eval_every=4, eval_batches=2,
                            checkpoint_every=2, **config)  # fmt: skip


def train(steps=5, out=None, data=None, **config):
    """The trained model and its history."""
    model = small()
    trainer = gm.Trainer(model, data or Patterns(), Patterns(), settings(steps, **config), out)
    return model, trainer.fit()


def digest(model):
    """sha256 of all weights."""
    h = hashlib.sha256()
    for _, p in model.named_parameters():
        h.update(p.numpy().tobytes())
    return h.hexdigest()
