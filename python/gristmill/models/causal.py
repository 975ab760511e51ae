"""What training, evaluation and generation ask of a language model, whatever its architecture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Parameter, Tensor, record
from gristmill.autograd import enable_grad, is_grad_enabled, no_grad
from gristmill.backend import Array
from gristmill.nn.drop import Drop
from gristmill.nn.lora import merged_tensors
from gristmill.nn.module import Module
from gristmill.ops.linear_cross_entropy import linear_cross_entropy, token_losses
from gristmill.ops.matmul import linear

Ids = npt.NDArray[np.integer]


class ModelConfig(Protocol):
    """What every config has, under the names that most of Hugging Face's configs share."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def max_position_embeddings(self) -> int: ...
    @property
    def tie_word_embeddings(self) -> bool: ...
    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int | list[int] | None: ...

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        ...

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        """From the content of config.json; raises ValueError for what the model cannot do."""
        ...


def eos_ids(config: ModelConfig) -> list[int]:
    """Every token that ends a text."""
    eos = config.eos_token_id
    return eos if isinstance(eos, list) else [] if eos is None else [eos]


class CausalLM(Module):
    """A causal language model: embedding, blocks on a residual stream, last norm, head.

    An architecture defines what raises TypeError here, and the class variables.
    """

    config_class: ClassVar[type[Any]]
    # dotted name of the blocks, and of modules what their matrix is to the first weights:
    # embedding, position, head, residual (its product is added to the stream); others: matrix
    STACK: ClassVar[str]
    ROLES: ClassVar[Mapping[str, str]]
    # endings of what foreign folders hold beside the parameters
    BUFFERS: ClassVar[tuple[str, ...]] = ()

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.compute = "float32"  # or "bfloat16": type of the inputs of products
        self.recompute = False  # keep only each block's input, compute the rest again in backward
        self.adapter: Any = None  # a models.adapters.Adapter, once one was put in
        self.drop = Drop()  # off; the trainer turns it on for its passes

    # ---------------------------------------------------------------- by architecture
    @property
    def head(self) -> Parameter:
        """The matrix (V, C) that makes logits."""
        raise TypeError(f"{type(self).__name__} defines no head")

    def embed(self, ids: Ids) -> Tensor:
        """ids (B, T) -> (B, T, C), what the first block reads."""
        raise TypeError(f"{type(self).__name__} defines no embed")

    def blocks(self) -> list[Module]:
        """The blocks from below; each is called as block(x, *self.common())."""
        raise TypeError(f"{type(self).__name__} defines no blocks")

    def common(self) -> tuple[Any, ...]:
        """What every block is given beside the stream."""
        return self.compute, self.drop

    def last_norm(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C): from the last block to the head."""
        raise TypeError(f"{type(self).__name__} defines no last_norm")

    def initial_std(self, role: str, fan_in: int) -> float:
        """Standard deviation of the first values of a matrix by method "auto"; 0: zeros."""
        raise TypeError(f"{type(self).__name__} defines no initial_std")

    @classmethod
    def adopt(cls, config: ModelConfig, state: dict[str, Any]) -> dict[str, Any]:
        """A foreign folder's tensors under our names, without those that are no parameters."""
        unused = cls.BUFFERS + (("lm_head.weight",) if config.tie_word_embeddings else ())
        return {name: value for name, value in state.items() if not name.endswith(unused)}

    def role(self, name: str, p: Parameter) -> str:
        """What a parameter is to the first weights: norm, bias, matrix, or one of ROLES."""
        if name.endswith(".bias"):
            return "bias"
        return self.ROLES.get(name.split(".")[-2], "norm" if p.ndim < 2 else "matrix")

    def fan_in(self, name: str, p: Parameter) -> int:
        """How many inputs one output of a matrix (out, in) adds up."""
        return p.shape[-1]

    # ---------------------------------------------------------------- computing
    def hidden(self, ids: Ids) -> Tensor:
        """ids (B, T) -> (B, T, C) after the last norm."""
        ids = np.asarray(ids)
        longest = self.config.max_position_embeddings
        if ids.ndim != 2 or not 0 < ids.shape[1] <= longest:
            raise ValueError(f"ids of shape {ids.shape} given, allowed is (batch, 1 to {longest})")
        x = self.drop(self.embed(ids))
        run = checkpoint if self.recompute and is_grad_enabled() else _plain
        for block in self.blocks():
            x = run(block, x, *self.common())
        return self.last_norm(x)

    def forward(self, ids: Ids) -> Tensor:
        """ids (B, T) -> logits (B, T, V) float32."""
        return linear(self.hidden(ids), self.head, self.compute, "float32")

    def loss(self, ids: Ids, targets: Ids, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy in nats over targets (B, T) that are not negative.

        label_smoothing: share of each target that is spread over the whole vocabulary.
        """
        return self.loss_of(self.hidden(ids), targets, label_smoothing)

    def loss_of(self, hidden: Tensor, targets: Ids, label_smoothing: float = 0.0) -> Tensor:
        """The loss from what `hidden` gives."""
        return linear_cross_entropy(hidden, self.head, targets, self.compute, label_smoothing)

    def token_losses(self, ids: Ids, targets: Ids) -> npt.NDArray[np.float32]:
        """Loss of each target in nats, (B, T); 0 where the target is negative. No graph."""
        with no_grad():
            return token_losses(self.hidden(ids), self.head, targets, self.compute)

    def generate(
        self, ids: Sequence[int] | Ids, max_new_tokens: int = 64, do_sample: bool = False,
        temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0,
    ) -> list[int]:  # fmt: skip
        """Continue one sequence of ids; returns prompt and continuation, cut after eos."""
        from gristmill.models.generating import generate

        return generate(
            self, ids, max_new_tokens, temperature if do_sample else 0.0, top_k, top_p, seed
        )

    # ---------------------------------------------------------------- to the outside
    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and generation_config.json, atomically."""
        from gristmill.models.saving import save_model

        save_model(self, Path(folder))

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Every weight under its Hugging Face name, adapters added to what they adapt."""
        return merged_tensors(self)

    def first_nonfinite(self, ids: Ids) -> str:
        """Where a loss over ids that is not finite begins: a parameter, else a layer, else lm_head.

        For a gradient that is not finite see `nonfinite_gradient`.
        """
        for name, p in self.named_parameters():
            if not np.isfinite(p.numpy()).all():
                return name
        with no_grad():
            x = self.embed(ids)
            for i, block in enumerate(self.blocks()):
                x = block(x, *self.common())
                if not np.isfinite(x.numpy()).all():
                    return f"{self.STACK}.{i}"
        return "lm_head"

    def nonfinite_gradient(self) -> str | None:
        """Name of the parameter nearest to the loss whose gradient is not finite, or None."""
        for name, p in reversed(list(self.named_parameters())):
            if p.grad is not None and not np.isfinite(p.grad.numpy()).all():
                return name
        return None


def _plain(block: Module, x: Tensor, *rest: Any) -> Tensor:
    out: Tensor = block(x, *rest)
    return out


def checkpoint(block: Module, x: Tensor, *rest: Any) -> Tensor:
    """Like block(x, *rest), keeping only x: backward runs the block again (Chen et al., 2016)."""
    drops = [(one, one.place) for one in rest if isinstance(one, Drop)]
    with no_grad():
        out: Tensor = block(x, *rest)

    def backward(dout: Array, dx: Any, *_: Any) -> None:
        with enable_grad():
            for one, place in drops:
                one.place = place
            again = Tensor(x.array, requires_grad=True)
            block(again, *rest).backward(Tensor(dout))
        if dx is not None and again.grad is not None:
            dx.give(again.grad.array)

    return record(out.array, (x, *block.parameters()), backward)
