"""Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Touvron et al., 2023).

Parameter names equal Hugging Face's LlamaForCausalLM. In bfloat16 the products take bfloat16
inputs; weights, gradients of weights and the residual stream stay float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill._tensor import Parameter, Tensor, adjacent, empty, record
from gristmill.autograd import enable_grad, is_grad_enabled, no_grad
from gristmill.backend import _C, Array
from gristmill.nn.module import Embedding, Linear, Module, ModuleList, RMSNorm
from gristmill.ops.attention import attention
from gristmill.ops.linear_cross_entropy import linear_cross_entropy, token_losses
from gristmill.ops.matmul import linear
from gristmill.ops.rope import rope
from gristmill.ops.swiglu import swiglu

Ids = npt.NDArray[np.integer]

# without a value in config.json transformers takes its own default: none is assumed here
REQUIRED = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "rms_norm_eps", "max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of the model, with Hugging Face's names."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    head_dim: int = 64
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    max_position_embeddings: int = 1024
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        h, g = self.num_attention_heads, self.num_key_value_heads
        if h % g:
            raise ValueError(
                f"num_attention_heads {h} is not a multiple of num_key_value_heads {g}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim} is odd; rotary positions turn pairs")

    @property
    def eos_ids(self) -> list[int]:
        """Every token that ends a text."""
        eos = self.eos_token_id
        return eos if isinstance(eos, list) else [] if eos is None else [eos]

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {
            **asdict(self), "model_type": "llama", "architectures": ["LlamaForCausalLM"],
            "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
            "attention_dropout": 0.0,
            "torch_dtype": "float32", "use_cache": True, "initializer_range": 0.02,
            "rope_scaling": None,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> LlamaConfig:
        """From the content of config.json; raises ValueError for what this model cannot do."""
        if config.get("model_type") != "llama":
            raise ValueError(
                f"model_type {config.get('model_type')!r} given, only 'llama' is known"
            )
        missing = [key for key in REQUIRED if config.get(key) is None]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; a llama needs {', '.join(REQUIRED)}")
        for key, allowed in (
            ("hidden_act", "silu"),
            ("attention_bias", False),
            ("mlp_bias", False),
        ):
            if config.get(key, allowed) != allowed:
                raise ValueError(f"{key} = {config[key]!r} is not supported, only {allowed!r}")
        if isinstance(config.get("bos_token_id"), list):
            raise ValueError(f"bos_token_id = {config['bos_token_id']} given, allowed is one id")
        known = {f.name for f in fields(cls)}
        chosen = {k: v for k, v in config.items() if k in known and v is not None}
        chosen["rope_theta"] = _rope_theta(config)
        chosen.setdefault("num_key_value_heads", chosen["num_attention_heads"])
        chosen.setdefault("head_dim", chosen["hidden_size"] // chosen["num_attention_heads"])
        chosen.setdefault("tie_word_embeddings", False)
        return cls(**chosen)


def _rope_theta(config: dict[str, Any]) -> float:
    """Base of the rotation; raises ValueError for positions that are scaled, or two bases."""
    bases = [config.get("rope_theta")]
    for key in ("rope_scaling", "rope_parameters"):  # transformers before 5, and since
        given = {k: v for k, v in dict(config.get(key) or {}).items() if v is not None}
        bases.append(given.pop("rope_theta", None))
        kinds = [given.pop(k, "default") for k in ("rope_type", "type")]  # "type" before 4.43
        if given or kinds != ["default", "default"]:
            raise ValueError(
                f"{key} = {config[key]} is not supported, only rope_type 'default' with rope_theta"
            )
    known = sorted({float(base) for base in bases if base is not None})
    if len(known) > 1:
        raise ValueError(f"rope_theta is given twice, as {known}; keep one")
    return known[0] if known else 10000.0


class Attention(Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, c: LlamaConfig) -> None:
        self.c = c
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = Linear(c.hidden_size, q)
        self.k_proj = Linear(c.hidden_size, kv)
        self.v_proj = Linear(c.hidden_size, kv)
        self.o_proj = Linear(q, c.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, compute: str) -> Tensor:
        c = self.c
        q, k, v = together(x, [self.q_proj, self.k_proj, self.v_proj], compute)
        q = rope(q.heads(c.num_attention_heads), cos, sin)
        k = rope(k.heads(c.num_key_value_heads), cos, sin)
        out = attention(q, k, v.heads(c.num_key_value_heads))
        flat = out.reshape(*x.shape[:2], c.num_attention_heads * c.head_dim)
        return linear(flat, self.o_proj.weight, compute, "float32")


class MLP(Module):
    """down(silu(gate(x)) * up(x)). Shazeer, "GLU variants improve transformer", 2020."""

    def __init__(self, c: LlamaConfig) -> None:
        self.gate_proj = Linear(c.hidden_size, c.intermediate_size)
        self.up_proj = Linear(c.hidden_size, c.intermediate_size)
        self.down_proj = Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x: Tensor, compute: str) -> Tensor:
        gate, up = together(x, [self.gate_proj, self.up_proj], compute)
        return linear(swiglu(gate, up), self.down_proj.weight, compute, "float32")


def together(x: Tensor, layers: Sequence[Linear], compute: str) -> list[Tensor]:
    """Several products of one x as one, where the weights lie side by side."""
    joint = adjacent([layer.weight for layer in layers])
    if joint is None:
        return [linear(x, layer.weight, compute) for layer in layers]
    return linear(x, joint, compute).split([layer.weight.shape[0] for layer in layers])


class Block(Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, c: LlamaConfig) -> None:
        self.self_attn = Attention(c)
        self.mlp = MLP(c)
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, compute: str) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x, compute), cos, sin, compute)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x, compute), compute)
        return out


class Decoder(Module):
    """Embedding, blocks, last norm."""

    def __init__(self, c: LlamaConfig) -> None:
        self.embed_tokens = Embedding(c.vocab_size, c.hidden_size)
        self.layers = ModuleList(Block(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Llama(Module):
    """A causal language model."""

    def __init__(self, config: LlamaConfig) -> None:
        self.config = config
        self.model = Decoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.compute = "float32"  # or "bfloat16": type of the inputs of products
        self.recompute = False  # keep only each block's input, compute the rest again in backward
        half = (config.max_position_embeddings, config.head_dim // 2)
        self.cos, self.sin = empty(*half), empty(*half)
        _C.rope_table(self.cos.array, self.sin.array, config.rope_theta)
        self.flatten()

    @property
    def head(self) -> Parameter:
        """The matrix (V, C) that makes logits."""
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def hidden(self, ids: Ids) -> Tensor:
        """ids (B, T) -> (B, T, C) after the last norm."""
        ids = np.asarray(ids)
        longest = self.config.max_position_embeddings
        if ids.ndim != 2 or not 0 < ids.shape[1] <= longest:
            raise ValueError(f"ids of shape {ids.shape} given, allowed is (batch, 1 to {longest})")
        x = self.model.embed_tokens(ids)
        for block in self.model.layers:
            run = checkpoint if self.recompute and is_grad_enabled() else _plain
            x = run(block, x, self.cos, self.sin, self.compute)
        out: Tensor = self.model.norm(x, self.compute)
        return out

    def forward(self, ids: Ids) -> Tensor:
        """ids (B, T) -> logits (B, T, V) float32."""
        return linear(self.hidden(ids), self.head, self.compute, "float32")

    def loss(self, ids: Ids, targets: Ids) -> Tensor:
        """Mean cross-entropy in nats over targets (B, T) that are not negative."""
        return linear_cross_entropy(self.hidden(ids), self.head, targets, self.compute)

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

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and generation_config.json, atomically."""
        from gristmill.models.saving import save_model

        save_model(self, Path(folder))

    def first_nonfinite(self, ids: Ids) -> str:
        """Where a loss over ids that is not finite begins: a parameter, else a layer, else lm_head.

        For a gradient that is not finite see `nonfinite_gradient`.
        """
        for name, p in self.named_parameters():
            if not np.isfinite(p.numpy()).all():
                return name
        with no_grad():
            x = self.model.embed_tokens(ids)
            for i, block in enumerate(self.model.layers):
                x = block(x, self.cos, self.sin, self.compute)
                if not np.isfinite(x.numpy()).all():
                    return f"model.layers.{i}"
        return "lm_head"

    def nonfinite_gradient(self) -> str | None:
        """Name of the parameter nearest to the loss whose gradient is not finite, or None."""
        for name, p in reversed(list(self.named_parameters())):
            if p.grad is not None and not np.isfinite(p.grad.numpy()).all():
                return name
        return None

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Every weight under its Hugging Face name."""
        for name, p in self.named_parameters():
            yield name, p.array


def _plain(block: Module, x: Tensor, *rest: Any) -> Tensor:
    out: Tensor = block(x, *rest)
    return out


def checkpoint(block: Module, x: Tensor, *rest: Any) -> Tensor:
    """Like block(x, *rest), keeping only x: backward runs the block again (Chen et al., 2016)."""
    with no_grad():
        out: Tensor = block(x, *rest)

    def backward(dout: Array, dx: Any, *_: Any) -> None:
        with enable_grad():
            again = Tensor(x.array, requires_grad=True)
            block(again, *rest).backward(Tensor(dout))
        if dx is not None and again.grad is not None:
            dx.give(again.grad.array)

    return record(out.array, (x, *block.parameters()), backward)
