"""The models whose step is measured, and our step of them. Imports no torch: memory is measured."""

from __future__ import annotations

import argparse
import resource
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import gristmill as gm
from gristmill.training.groups import parameter_groups
from gristmill.training.shape import cost

Step = Callable[[Any, Any], float]
Batch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]

LR, DECAY, CLIP = 1e-3, 0.1, 1.0  # of AdamW on every side; vectors do not decay


@dataclass(frozen=True)
class Shape:
    """A model and the tokens of a step."""

    kind: str  # llama or gpt2
    layers: int
    width: int
    vocab: int
    batch: int
    context: int

    def __str__(self) -> str:
        return (
            f"{self.kind}, {self.layers} layers of {self.width}, vocabulary {self.vocab}, "
            f"{self.batch} x {self.context} tokens"
        )

    @property
    def tokens(self) -> int:
        """Of one step."""
        return self.batch * self.context

    @property
    def config(self) -> Any:
        """The config of our model."""
        if self.kind == "gpt2":
            return gm.models.GPT2Config(
                vocab_size=self.vocab, n_positions=max(1024, self.context), n_embd=self.width,
                n_layer=self.layers, n_head=self.width // 64,
            )  # fmt: skip
        return gm.models.LlamaConfig(
            vocab_size=self.vocab, hidden_size=self.width, intermediate_size=self.width * 8 // 3,
            num_hidden_layers=self.layers, num_attention_heads=self.width // 64,
            num_key_value_heads=self.width // 64, head_dim=64,
            max_position_embeddings=self.context,
        )  # fmt: skip

    def build(self, seed: int = 0) -> Any:
        """Our model with its first weights."""
        gm.manual_seed(seed)
        make = gm.models.GPT2 if self.kind == "gpt2" else gm.models.Llama
        return make(self.config)

    def random_batch(self) -> Batch:
        """Ids and targets without meaning."""
        rng = np.random.default_rng(0)
        ids = rng.integers(0, self.vocab, (self.batch, self.context + 1), dtype=np.int32)
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])

    @property
    def flops(self) -> float:
        """Of the products and of attention in one step, its causal half counted."""
        shape = self.config.to_dict()
        return float(cost(shape, self.context, self.batch).flops_per_token * self.tokens)


SHAPES = {
    "gpt2": Shape("gpt2", 12, 768, 50257, 4, 256),  # the smallest published, 124 M parameters
    "gpt2-long": Shape("gpt2", 12, 768, 50257, 1, 1024),
    "small": Shape("llama", 6, 384, 4096, 16, 256),
    "recipe": Shape("llama", 3, 192, 2048, 4, 256),  # the default recipe's model and batch
}


def chosen(args: argparse.Namespace) -> list[tuple[str, Shape]]:
    """The shapes the options name, with what they change."""
    sizes = {k: getattr(args, k) for k in ("layers", "width", "vocab", "batch", "context")}
    given = {k: v for k, v in sizes.items() if v is not None}
    return [(name, replace(SHAPES[name], **given)) for name in args.models]


def ours(model: Any, dtype: str, recompute: bool = False) -> Step:
    """A step of gristmill: forward, backward, clipping, AdamW."""
    model.compute, model.recompute = dtype, recompute
    optimizer = gm.optim.AdamW(parameter_groups(model, DECAY), lr=LR)

    def step(ids: Any, targets: Any) -> float:
        optimizer.zero_grad()
        loss = model.loss(ids, targets)
        loss.backward()
        optimizer.clip(CLIP)
        optimizer.step()
        return float(loss.item())

    return step


class Counted:
    """A step on its batch, with the page faults of each call."""

    def __init__(self, step: Step, batch: tuple[Any, Any]) -> None:
        self.step, self.batch = step, batch
        self.losses: list[float] = []
        self.faults: list[int] = []

    def __call__(self) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        self.losses.append(self.step(*self.batch))
        self.faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

    def faults_after_the_first(self) -> dict[str, float]:
        """Median and most of the steps from the second on."""
        rest = self.faults[1:]
        return {"median": statistics.median(rest), "most": max(rest)}
