"""First weights: which rule fills which parameter, and what a first step says about it.

| method    | matrices of the layers                            | embedding, head |
|-----------|---------------------------------------------------|-----------------|
| zero      | 0                                                 | 0               |
| constant  | value                                             | value           |
| normal    | N(0, std)                                         | N(0, std)       |
| uniform   | U(-bound, bound)                                  | U(-bound, bound)|
| truncated | N(0, std) cut at 2 std                            | the same        |
| xavier    | N(0, gain sqrt(2 / (in + out))), Glorot 2010      | N(0, std)       |
| he        | N(0, gain sqrt(2 / in)), He 2015                  | N(0, std)       |
| orthogonal| orthogonal rows or columns x gain, Saxe 2013      | N(0, std)       |
| scaled    | N(0, std); residual: std / sqrt(2 layers), GPT-2  | N(0, std)       |
| auto      | `initial_std` of the architecture                 | the same        |

Norms start at 1, biases at 0, learned positions as the embedding. Residual is what is added to the
stream, twice a layer. Xavier, He and orthogonal speak of layers that keep a signal's variance; a
tied embedding is also the head, where their values would put the first loss far above ln V.
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
from gristmill.models.causal import CausalLM
from gristmill.nn import init
from gristmill.training.settings import InitializeConfig

Rule = tuple[str, Callable[[Parameter], Any]]  # its words, and what it does


def fill(model: CausalLM, config: InitializeConfig, seed: int) -> dict[str, str]:
    """Overwrite every parameter; returns the rule of each by name, in words.

    The values are a pure function of (seed, config, shape of the model).
    """
    init.manual_seed(seed)
    used = {}
    for name, parameter in model.named_parameters():
        words, action = _rule(model, name, parameter, config)
        action(parameter)
        used[name] = words
    return used


def _rule(model: CausalLM, name: str, p: Parameter, c: InitializeConfig) -> Rule:
    role, fan_in = model.role(name, p), model.fan_in(name, p)
    if role == "norm":
        return "1", lambda t: init.constant_(t, 1.0)
    if role == "bias":
        return "0", init.zeros_
    if c.method == "auto":
        return _normal(model.initial_std(role, fan_in))
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
    if role in ("embedding", "position", "head"):
        return _normal(c.std)
    inner = math.sqrt(2.0 * model.config.num_hidden_layers) if role == "residual" else 1.0
    he = c.gain * math.sqrt(2.0) / math.sqrt(fan_in)
    rules: dict[str, Rule] = {
        "xavier": ("Xavier", lambda t: init.xavier_normal_(t, c.gain)),
        "he": ("He", lambda t: init.normal_(t, 0.0, he)),
        "orthogonal": ("orthogonal", lambda t: init.orthogonal_(t, c.gain)),
        "scaled": _normal(c.std / inner),
    }
    return rules[c.method]


def _normal(std: float) -> Rule:
    if std == 0.0:
        return "0", init.zeros_
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


def probe(model: CausalLM, ids: npt.NDArray[np.integer], targets: npt.NDArray[np.integer]) -> Probe:
    """Run ids, targets (B, T) through the model layer by layer and back; gradients are cleared.

    Each block runs twice, once to find its input and once to differentiate, so that the gradient
    between blocks can be seen.
    """
    blocks, common = model.blocks(), model.common()
    with no_grad():
        streams = [model.embed(ids)]
        for block in blocks:
            streams.append(block(streams[-1], *common))
    model.zero_grad()
    top = Tensor(streams[-1].array, requires_grad=True)
    loss = model.loss_of(model.last_norm(top), targets)
    loss.backward()
    gradients = [_gradient(top)]
    for block, stream in zip(reversed(blocks), reversed(streams[:-1]), strict=True):
        below = Tensor(stream.array, requires_grad=True)
        block(below, *common).backward(gradients[-1])
        gradients.append(_gradient(below))
    model.embed(ids).backward(gradients[-1])
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
