"""Low-rank adapters: a frozen matrix W learns W + s B A, with A (r, in) and B (out, r) alone.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685); s is
alpha / r. Names and first values are those of the library peft.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Parameter, Tensor, record, rows
from gristmill.autograd import Slot
from gristmill.backend import _C, Array
from gristmill.nn import init
from gristmill.nn.drop import Drop
from gristmill.nn.module import Conv1D, Linear, Module
from gristmill.ops.matmul import into, linear, swapped

Floats = npt.NDArray[np.float64]


def reference_forward(x: Floats, weight: Floats, a: Floats, b: Floats, scale: float) -> Floats:
    """The twin: x (rows, in), weight (out, in), a (r, in), b (out, r) -> (rows, out)."""
    return x @ weight.T + scale * (x @ a.T) @ b.T


def reference_backward(
    dout: Floats, x: Floats, weight: Floats, a: Floats, b: Floats, scale: float
) -> tuple[Floats, Floats, Floats]:
    """dx (rows, in), da (r, in) and db (out, r); weight is frozen."""
    down = scale * dout @ b
    return dout @ weight + down @ a, down.T @ x, scale * dout.T @ (x @ a.T)


def add_low_rank(
    out: Tensor, x: Tensor, a: Tensor, b: Tensor, scale: float, compute: str = "float32"
) -> Tensor:
    """out (..., n) + scale (x A^T) B^T, written into `out`, which nothing else may read.

    x (..., in), a (r, in), b (n, r). The product with the frozen matrix gives `out`; nothing in its
    backward pass asks for what it gave, so it may be overwritten.
    """
    to, flat = rows(out.array), rows(x.array)
    down = _C.empty((flat.shape[0], a.shape[0]))  # s x A^T
    into(down, flat, swapped(a.array), compute)
    _C.elementwise(down, down, None, "mul", scale)
    into(to.accumulating(), down, swapped(b.array), compute)

    def backward(
        dout: Array, to_out: Slot | None, dx: Slot | None, da: Slot | None, db: Slot | None
    ) -> None:
        d = rows(dout)
        if to_out is not None:
            to_out.give(dout)
        if db is not None:
            into(db.out(), swapped(d), down, compute)
        ddown = _C.empty(down.shape)
        into(ddown, d, b.array, compute)
        _C.elementwise(ddown, ddown, None, "mul", scale)
        if da is not None:
            into(da.out(), swapped(ddown), flat, compute)
        if dx is not None:
            into(rows(dx.out()), ddown, a.array, compute)

    return record(out.array, (out, x, a, b), backward)


class LoraLinear(Module):
    """A frozen Linear or Conv1D with an adapter; dropout is of what the adapter reads."""

    def __init__(
        self, base: Linear | Conv1D, rank: int, alpha: float, p: float = 0.0,
        drop: Drop | None = None,
    ) -> None:  # fmt: skip
        self.weight, self.bias = base.weight, base.bias
        self.transposed = isinstance(base, Conv1D)
        out_features, in_features = self.matrix.shape
        self.lora_A = Linear(in_features, rank, bias=False)
        self.lora_B = Linear(rank, out_features, bias=False)
        bound = 1.0 / math.sqrt(in_features)  # kaiming_uniform_(a=sqrt(5)), as peft begins
        init.uniform_(self.lora_A.weight, -bound, bound)
        init.zeros_(self.lora_B.weight)
        self.scale, self.p, self.drop = alpha / rank, p, drop

    @property
    def matrix(self) -> Tensor:
        """The frozen weight as (out, in)."""
        return self.weight.T if self.transposed else self.weight

    def forward(self, x: Tensor, compute: str = "float32", out_dtype: str | None = None) -> Tensor:
        out = linear(x, self.matrix, compute, out_dtype, self.bias)
        read = x if self.drop is None else self.drop.masked(x, self.p)
        a, b = self.lora_A.weight, self.lora_B.weight
        return add_low_rank(out, read, a, b, self.scale, compute)

    def merged(self) -> Array:
        """W + s B A in float32, laid out as the frozen weight."""
        out = _C.empty(self.weight.shape)
        _C.elementwise(out, self.weight.array, None, "copy", 0.0)
        scaled = _C.empty(self.lora_B.weight.shape)
        _C.elementwise(scaled, self.lora_B.weight.array, None, "mul", self.scale)
        to = swapped(out) if self.transposed else out
        into(to.accumulating(), scaled, self.lora_A.weight.array, "float32")
        return out


def merged_tensors(model: Module) -> Iterator[tuple[str, Array]]:
    """Every weight by name as a model without adapters would have it."""
    adapted = {id(layer.weight): layer for _, layer in lora_layers(model)}
    for name, p in model.named_parameters():
        if ".lora_" not in name:
            layer = adapted.get(id(p))
            yield name, p.array if layer is None else layer.merged()


def lora_layers(module: Module, prefix: str = "") -> Iterator[tuple[str, LoraLinear]]:
    """Every adapted layer by dotted name."""
    for name, child in module.children():
        if isinstance(child, LoraLinear):
            yield prefix + name, child
        else:
            yield from lora_layers(child, f"{prefix}{name}.")


def freeze(p: Parameter) -> None:
    """Let a parameter stay as it is: no gradient is computed for it, and it keeps no memory."""
    p.requires_grad = False
    p._slot = None
