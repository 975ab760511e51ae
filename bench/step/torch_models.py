"""The same models and step in PyTorch, in the fastest form its own kernels allow.

scaled_dot_product_attention, F.layer_norm and F.rms_norm, F.gelu with tanh; queries, keys and
values as one product, gate and up too; fused AdamW; autocast for bfloat16. The same objects run
eagerly and through torch.compile.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from bench.step.shapes import CLIP, DECAY, LR, Step
from torch import nn
from torch.utils.checkpoint import checkpoint


class Model(nn.Module):
    """Blocks over embeddings, the head tied or not; `recompute` keeps only each block's input."""

    recompute = False

    def through(self, x: torch.Tensor, blocks: Any, *rest: Any) -> torch.Tensor:
        """x after all blocks."""
        for block in blocks:
            if self.recompute:
                x = checkpoint(block, x, *rest, use_reentrant=False)
            else:
                x = block(x, *rest)
        return x


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(B, H, T, D) each -> (B, T, H * D)."""
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return out.transpose(1, 2).reshape(out.shape[0], out.shape[2], -1)


def heads(x: torch.Tensor, n: int) -> torch.Tensor:
    """(B, T, H * D) -> (B, H, T, D)."""
    return x.view(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


class GPT2Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, c: Any) -> None:
        super().__init__()
        width, self.n = c.n_embd, c.n_head
        self.ln_1 = nn.LayerNorm(width, c.layer_norm_epsilon)
        self.ln_2 = nn.LayerNorm(width, c.layer_norm_epsilon)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (heads(y, self.n) for y in self.qkv(self.ln_1(x)).split(x.shape[-1], -1))
        x = x + self.out(attend(q, k, v))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT2(Model):
    """GPT-2, its weights as nn.Linear has them, (out, in)."""

    NAMES = (("attn.c_attn", "qkv"), ("attn.c_proj", "out"), ("mlp.c_fc", "up"),
             ("mlp.c_proj", "down"))  # fmt: skip

    def __init__(self, c: Any) -> None:
        super().__init__()
        self.wte = nn.Embedding(c.vocab_size, c.n_embd)
        self.wpe = nn.Embedding(c.n_positions, c.n_embd)
        self.h = nn.ModuleList(GPT2Block(c) for _ in range(c.n_layer))
        self.ln_f = nn.LayerNorm(c.n_embd, c.layer_norm_epsilon)

    @classmethod
    def state(cls, ours: Any) -> dict[str, torch.Tensor]:
        """Our weights under these names."""
        out = {}
        for name, p in ours.named_parameters():
            value = torch.from_numpy(p.numpy().copy())
            name = name.removeprefix("transformer.")
            if ".c_" in name and value.ndim == 2:
                value = value.T.contiguous()
            for theirs, mine in cls.NAMES:
                name = name.replace(theirs, mine)
            out[name] = value
        return out

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        x = self.ln_f(self.through(x, self.h))
        logits = F.linear(x, self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class LlamaBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, c: Any) -> None:
        super().__init__()
        width, inner, self.n, self.eps = (
            c.hidden_size, c.intermediate_size, c.num_attention_heads, c.rms_norm_eps,
        )  # fmt: skip
        self.norm_1, self.norm_2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        width = (x.shape[-1],)
        q, k, v = self.qkv(F.rms_norm(x, width, self.norm_1, self.eps)).chunk(3, -1)
        q, k = (rotate(heads(y, self.n), cos, sin) for y in (q, k))
        x = x + self.out(attend(q, k, heads(v, self.n)))
        gate, up = self.gate_up(F.rms_norm(x, width, self.norm_2, self.eps)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions on (B, H, T, D)."""
    cos, sin = cos[: x.shape[2]].to(x.dtype), sin[: x.shape[2]].to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Llama(Model):
    """A llama whose heads are as many as its key/value heads."""

    JOINED: ClassVar[dict[str, tuple[str, ...]]] = {
        "qkv": ("q_proj", "k_proj", "v_proj"),
        "gate_up": ("gate_proj", "up_proj"),
    }
    NAMES = (("self_attn.o_proj", "out"), ("mlp.down_proj", "down"),
             ("input_layernorm.weight", "norm_1"), ("post_attention_layernorm.weight", "norm_2"),
             ("embed_tokens.weight", "embedding"), ("lm_head.weight", "head"),
             ("norm.weight", "norm"), ("layers.", "h."))  # fmt: skip

    def __init__(self, c: Any, cos: torch.Tensor, sin: torch.Tensor) -> None:
        super().__init__()
        self.eps = c.rms_norm_eps
        self.embedding = nn.Parameter(torch.empty(c.vocab_size, c.hidden_size))
        tied = c.tie_word_embeddings
        self.head = None if tied else nn.Parameter(torch.empty(c.vocab_size, c.hidden_size))
        self.h = nn.ModuleList(LlamaBlock(c) for _ in range(c.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(c.hidden_size))
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @classmethod
    def state(cls, ours: Any) -> dict[str, torch.Tensor]:
        """Our weights under these names, those of joined products one below the other."""
        out: dict[str, torch.Tensor] = {}
        parts: dict[str, list[torch.Tensor]] = {}
        for name, p in ours.named_parameters():
            value = torch.from_numpy(p.numpy().copy())
            name = name.removeprefix("model.")
            for theirs, mine in cls.NAMES:
                name = name.replace(theirs, mine)
            words = name.split(".")
            joint = [k for k, members in cls.JOINED.items() if set(members) & set(words)]
            if joint:
                parts.setdefault(".".join([*words[:2], joint[0], "weight"]), []).append(value)
            else:
                out[name] = value
        return out | {name: torch.cat(values) for name, values in parts.items()}

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        x = self.through(F.embedding(ids, self.embedding), self.h, self.cos, self.sin)
        x = F.rms_norm(x, (x.shape[-1],), self.norm, self.eps)
        logits = F.linear(x, self.embedding if self.head is None else self.head)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def peer(ours: Any) -> Model:
    """The PyTorch model with the weights of ours."""
    c = ours.config
    if hasattr(c, "n_embd"):
        model: Model = GPT2(c)
    else:
        tables = (torch.from_numpy(np.array(t.numpy())) for t in (ours.cos, ours.sin))
        model = Llama(c, *tables)
    model.load_state_dict(type(model).state(ours))
    return model


def theirs(model: Model, dtype: str, compiled: bool = False, recompute: bool = False) -> Step:
    """A step of PyTorch: forward, backward, clipping, AdamW."""
    model.recompute = recompute
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, fused=True)
    forward = torch.compile(model) if compiled else model

    def step(ids: Any, targets: Any) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = forward(torch.from_numpy(ids).long(), torch.from_numpy(targets).long())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP, foreach=True)
        optimizer.step()
        return float(loss.item())

    return step


def compiled_code() -> int:
    """How many C++ kernels inductor made in this process; 0 means that nothing was compiled."""
    from torch._inductor import metrics

    return int(metrics.generated_kernel_count)
