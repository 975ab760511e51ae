"""Module and the layers a language model is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill import autograd
from gristmill._tensor import Parameter, Tensor
from gristmill.backend import _C
from gristmill.nn import init
from gristmill.ops.dropout import dropout
from gristmill.ops.embedding import embedding
from gristmill.ops.gelu import gelu
from gristmill.ops.layernorm import layernorm
from gristmill.ops.matmul import linear
from gristmill.ops.mse import mse
from gristmill.ops.relu import relu
from gristmill.ops.rmsnorm import rmsnorm
from gristmill.ops.sigmoid import sigmoid
from gristmill.ops.silu import silu
from gristmill.ops.tanh import tanh


class Module:
    """Holds parameters and other modules; names follow the attributes, joined by dots."""

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def children(self) -> Iterator[tuple[str, Module]]:
        """Direct submodules by name."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Every parameter by dotted name, each once, in order of definition."""
        seen: set[int] = set()
        for name, value in self._walk(prefix):
            if id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def _walk(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
            elif isinstance(value, Module):
                yield from value._walk(f"{prefix}{name}.")

    def parameters(self) -> list[Parameter]:
        """Every parameter, each once."""
        return [p for _, p in self.named_parameters()]

    def state_dict(self) -> dict[str, Parameter]:
        """Name to parameter."""
        return dict(self.named_parameters())

    def load_state_dict(self, state: Mapping[str, npt.ArrayLike]) -> None:
        """Overwrite every parameter; raises KeyError listing missing and unknown names."""
        mine = self.state_dict()
        missing, unknown = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
        if missing or unknown:
            raise KeyError(f"load_state_dict: missing {missing[:5]}, unknown {unknown[:5]}")
        for name, parameter in mine.items():
            try:
                parameter.copy_(state[name])
            except ValueError as error:
                raise ValueError(f"load_state_dict: {name}: {error}") from None

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters():
            p.zero_grad()

    def train(self, mode: bool = True) -> Module:
        """Switch dropout on (or off)."""
        self.training = mode
        for _, child in self.children():
            child.train(mode)
        return self

    def eval(self) -> Module:
        """Switch dropout off."""
        return self.train(False)

    def flatten(self) -> None:
        """Move all parameters, and all gradients, into one buffer each: matrices, then vectors.

        Frozen ones stay where they are, without gradient.
        """
        learning = (p for p in self.parameters() if p.requires_grad)
        ordered = sorted(learning, key=lambda p: p.ndim < 2)
        total = sum(p.size for p in ordered)
        values, gradients = _C.empty((total,)), _C.empty((total,))
        start = 0
        for p in ordered:
            p.rehome(values.view(p.shape, None, start), gradients.view(p.shape, None, start))
            start += p.size
        _C.memory_empty_cache()  # where parameters were: sizes that nothing else has


class ModuleList(Module):
    """Modules by index."""

    def __init__(self, modules: Iterable[Module]) -> None:
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def __iter__(self) -> Iterator[Module]:
        return (m for _, m in self.children())

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __getitem__(self, i: int) -> Module:
        return list(self)[i]


class Linear(Module):
    """x (..., in_features) @ weight (out_features, in_features)^T + bias (out_features,)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.weight = Parameter(_C.empty((out_features, in_features)))
        init.normal_(self.weight, 0.0, 0.02)
        self.bias = _zeros(out_features) if bias else None

    def forward(self, x: Tensor, compute: str = "float32", out_dtype: str | None = None) -> Tensor:
        return linear(x, self.weight, compute, out_dtype, self.bias)


class Conv1D(Module):
    """x (..., in_features) @ weight (in_features, out_features) + bias: Linear as GPT-2's files
    have it. Arguments in Hugging Face's order."""

    def __init__(self, out_features: int, in_features: int) -> None:
        self.weight = Parameter(_C.empty((in_features, out_features)))
        init.normal_(self.weight, 0.0, 0.02)
        self.bias = _zeros(out_features)

    def forward(self, x: Tensor, compute: str = "float32", out_dtype: str | None = None) -> Tensor:
        return linear(x, self.weight.T, compute, out_dtype, self.bias)


def _zeros(size: int) -> Parameter:
    """A bias as it begins."""
    out = Parameter(_C.empty((size,)))
    init.zeros_(out)
    return out


class Embedding(Module):
    """Rows of weight (num_embeddings, embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        self.weight = Parameter(_C.empty((num_embeddings, embedding_dim)))
        init.normal_(self.weight, 0.0, 0.02)

    def forward(self, ids: npt.NDArray[np.integer]) -> Tensor:
        return embedding(ids, self.weight)


class RMSNorm(Module):
    """x / rms(x) * weight. Zhang and Sennrich, 2019."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        self.eps = eps
        self.weight = Parameter(_C.empty((size,)))
        init.constant_(self.weight, 1.0)

    def forward(self, x: Tensor, out_dtype: str | None = None) -> Tensor:
        return rmsnorm(x, self.weight, self.eps, out_dtype)


class LayerNorm(Module):
    """(x - mean(x)) / std(x) * weight + bias, by row. Ba, Kiros and Hinton, 2016."""

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True) -> None:
        self.eps = eps
        self.weight = Parameter(_C.empty((size,)))
        init.constant_(self.weight, 1.0)
        self.bias = _zeros(size) if bias else None

    def forward(self, x: Tensor, out_dtype: str | None = None) -> Tensor:
        return layernorm(x, self.weight, self.bias, self.eps, out_dtype)


class GELU(Module):
    """x Phi(x); `approximate`: "none", or "tanh" as GPT-2 has it."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x, self.approximate)


class SiLU(Module):
    """x * sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return silu(x)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        return sigmoid(x)


class MSELoss(Module):
    """The mean of (x - target)^2 over all elements."""

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return mse(x, target)


class Dropout(Module):
    """Zeroes elements with probability p while training; each call draws another mask."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0 or not autograd.is_grad_enabled():
            return x
        return dropout(x, self.p, *init.next_key())
