"""First weights: which rule fills which parameter, and what a first step says about it.

| method    | matrices of the layers (out, in)                  | embedding, head |
|-----------|---------------------------------------------------|-----------------|
| zero      | 0                                                 | 0               |
| constant  | value                                             | value           |
| normal    | N(0, std)                                         | N(0, std)       |
| uniform   | U(-bound, bound)                                  | U(-bound, bound)|
| truncated | N(0, std) cut at 2 std                            | the same        |
| xavier    | N(0, gain sqrt(2 / (in + out))), Glorot 2010      | N(0, std)       |
| he        | N(0, gain sqrt(2 / in)), He 2015                  | N(0, std)       |
| orthogonal| orthogonal rows or columns x gain, Saxe 2013      | N(0, std)       |
| scaled    | N(0, std); o and down: std / sqrt(2 layers), GPT-2| N(0, std)       |
| auto      | N(0, 1 / sqrt(in)); o and down: 0                 | N(0, 1), head:  |
|           |                                                   | N(0, 1/sqrt(2C))|
| ... tied  | N(0, 1 / sqrt(in)); o and down: / sqrt(2 layers)  | N(0, 1/sqrt(2C))|

Norms start at 1. Xavier, He and orthogonal speak of layers that keep a signal's variance; a tied
embedding is also the head, where their values would put the first loss far above ln V. In auto the
first logits have variance 1/2, which puts it a quarter nat above, and every block begins as the
identity (Zhang et al. 2019, Fixup, arXiv:1901.09321), because what untrained layers add to the
stream would drown the embeddings. Tied, that would be a model that predicts its own input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Parameter, Tensor
from gristmill.autograd import no_grad
from gristmill.models.llama import Llama, LlamaConfig
from gristmill.nn import init
from gristmill.ops.linear_cross_entropy import linear_cross_entropy
from gristmill.training.settings import InitializeConfig

EMBEDDING, HEAD = "embed_tokens", "lm_head"
RESIDUAL = ("o_proj", "down_proj")  # what is added to the residual stream, twice a layer
Rule = tuple[str, Callable[[Parameter], Any]]  # its words, and what it does


def fill(model: Llama, config: InitializeConfig, seed: int) -> dict[str, str]:
    """Overwrite every parameter; returns the rule of each by name, in words.

    The values are a pure function of (seed, config, shape of the model).
    """
    init.manual_seed(seed)
    used = {}
    for name, parameter in model.named_parameters():
        words, action = _rule(name, parameter, config, model.config)
        action(parameter)
        used[name] = words
    return used


def _rule(name: str, p: Parameter, c: InitializeConfig, model: LlamaConfig) -> Rule:
    if p.ndim < 2:
        return "1", lambda t: init.constant_(t, 1.0)
    if c.method == "auto":
        return _auto(name, p, model)
    same: dict[str, Rule] = {
        "zero": ("0", init.zeros_),
        "constant": (f"{c.value:g}", lambda t: init.constant_(t, c.value)),
        "normal": _normal(c.std),
        "uniform": (f"U(±{c.bound:g})", lambda t: init.uniform_(t, -c.bound, c.bound)),
        "truncated": (
            f"N(0, {c.std:g}) cut at 2 std",
            lambda t: init.trunc_normal_(t, 0.0, c.std),
        ),
    }
    if c.method in same:
        return same[c.method]
    if EMBEDDING in name or HEAD in name:
        return _normal(c.std)
    inner = math.sqrt(2.0 * model.num_hidden_layers) if _residual(name) else 1.0
    rules: dict[str, Rule] = {
        "xavier": ("Xavier", lambda t: init.xavier_normal_(t, c.gain)),
        "he": ("He", lambda t: init.kaiming_normal_(t, c.gain * math.sqrt(2.0))),
        "orthogonal": ("orthogonal", lambda t: init.orthogonal_(t, c.gain)),
        "scaled": _normal(c.std / inner),
    }
    return rules[c.method]


def _auto(name: str, p: Parameter, model: LlamaConfig) -> Rule:
    tied, width = model.tie_word_embeddings, p.shape[1]
    if EMBEDDING in name and not tied:
        return _normal(1.0)
    if EMBEDDING in name or HEAD in name:
        return _normal(1.0 / math.sqrt(2.0 * width))
    if not _residual(name):
        return _normal(1.0 / math.sqrt(width))
    if tied:
        return _normal(1.0 / math.sqrt(2.0 * width * model.num_hidden_layers))
    return "0", init.zeros_


def _residual(name: str) -> bool:
    return name.split(".")[-2] in RESIDUAL


def _normal(std: float) -> Rule:
    return f"N(0, {std:.3g})", lambda t: init.normal_(t, 0.0, std)


@dataclass(frozen=True)
class Level:
    """The residual stream at one place: variance going up, variance of its gradient coming down."""

    name: str
    activation: float
    gradient: float


@dataclass(frozen=True)
class Probe:
    """One forward and backward pass: loss in nats, levels bottom up, weights by name."""

    loss: float
    levels: list[Level]
    weights: dict[str, tuple[float, float]]  # variance of values, of gradients


def probe(model: Llama, ids: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]) -> Probe:
    """Run ids, targets (B, T) through the model layer by layer and back; gradients are cleared.

    Each block runs twice, once to find its input and once to differentiate, so that the gradient
    between blocks can be seen.
    """
    blocks = list(model.model.layers)
    rope = (model.cos, model.sin, model.compute)
    with no_grad():
        streams = [model.model.embed_tokens(ids)]
        for block in blocks:
            streams.append(block(streams[-1], *rope))
    model.zero_grad()
    top = Tensor(streams[-1].array, requires_grad=True)
    loss = linear_cross_entropy(
        model.model.norm(top, model.compute), model.head, targets, model.compute
    )
    loss.backward()
    gradients = [_gradient(top)]
    for block, stream in zip(reversed(blocks), reversed(streams[:-1]), strict=True):
        below = Tensor(stream.array, requires_grad=True)
        block(below, *rope).backward(gradients[-1])
        gradients.append(_gradient(below))
    model.model.embed_tokens(ids).backward(gradients[-1])
    names = ["embedding", *(f"layer {i}" for i in range(len(blocks)))]
    levels = [
        Level(name, _variance(stream), _variance(gradient))
        for name, stream, gradient in zip(names, streams, reversed(gradients), strict=True)
    ]
    weights = {
        name: (_variance(p), _variance(_gradient(p))) for name, p in model.named_parameters()
    }
    model.zero_grad()
    return Probe(loss.item(), levels, weights)


def _gradient(t: Tensor) -> Tensor:
    gradient = t.grad
    if gradient is None:
        raise ValueError(f"no gradient reached a tensor of shape {t.shape}")
    return gradient


def _variance(t: Tensor) -> float:
    return float(t.float().numpy().astype(np.float64).var())
