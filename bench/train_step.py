"""One optimizer step of a GPT-sized llama, beside the same model in PyTorch eager.

    python -m bench.train_step [--layers 6 --width 384 --vocab 4096 --batch 16 --context 256]

First both make the same three steps from the same weights, and their losses must agree; then they
take turns with the ceiling, fused multiply-adds from registers in the number of the step's FLOPs,
and medians are compared. PyTorch gets its fastest eager form: scaled_dot_product_attention, fused
AdamW, F.rms_norm, autocast for bfloat16. Page faults are counted in every step after the first.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for python bench/train_step.py

from bench.measure import Case, compute_ceiling, measure
from bench.receipt import Receipt

import gristmill as gm
from gristmill.training.shape import cost


class Peer(torch.nn.Module):
    """The same computation with PyTorch's own kernels; parameters by Hugging Face's names."""

    def __init__(self, model: gm.models.Llama) -> None:
        super().__init__()
        self.c = model.config
        self.w = torch.nn.ParameterDict(
            {
                name.replace(".", "/"): torch.nn.Parameter(torch.from_numpy(p.numpy().copy()))
                for name, p in model.named_parameters()
            }
        )
        self.register_buffer("cos", torch.from_numpy(model.cos.numpy().copy()))
        self.register_buffer("sin", torch.from_numpy(model.sin.numpy().copy()))

    def get(self, name: str) -> torch.Tensor:
        return self.w[name.replace(".", "/")]

    def rope(self, x: torch.Tensor) -> torch.Tensor:
        t, half = x.shape[2], x.shape[3] // 2
        cos, sin = self.cos[:t].to(x.dtype), self.sin[:t].to(x.dtype)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.get(name), self.c.rms_norm_eps)

    def forward(self, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        c = self.c
        b, t = ids.shape
        x = F.embedding(ids, self.get("model.embed_tokens.weight"))
        for i in range(c.num_hidden_layers):
            at = f"model.layers.{i}."
            y = self.norm(x, at + "input_layernorm.weight")
            q, k, v = (
                F.linear(y, self.get(f"{at}self_attn.{n}_proj.weight"))
                .view(b, t, -1, c.head_dim)
                .transpose(1, 2)
                for n in "qkv"
            )
            y = F.scaled_dot_product_attention(self.rope(q), self.rope(k), v, is_causal=True)
            y = y.transpose(1, 2).reshape(b, t, -1)
            x = x + F.linear(y, self.get(f"{at}self_attn.o_proj.weight"))
            y = self.norm(x, at + "post_attention_layernorm.weight")
            gate = F.linear(y, self.get(f"{at}mlp.gate_proj.weight"))
            up = F.linear(y, self.get(f"{at}mlp.up_proj.weight"))
            x = x + F.linear(F.silu(gate) * up, self.get(f"{at}mlp.down_proj.weight"))
        x = self.norm(x, "model.norm.weight")
        logits = F.linear(x, self.get("model.embed_tokens.weight"))
        return F.cross_entropy(logits.float().view(-1, c.vocab_size), targets.reshape(-1))


def ours(model: gm.models.Llama, dtype: str) -> Callable[[Any, Any], float]:
    """A step of gristmill: forward, backward, clipping, AdamW."""
    model.compute = dtype
    optimizer = gm.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)

    def step(ids: Any, targets: Any) -> float:
        optimizer.zero_grad()
        loss = model.loss(ids, targets)
        loss.backward()
        optimizer.clip(1.0)
        optimizer.step()
        return loss.item()

    return step


def theirs(peer: Peer, dtype: str) -> Callable[[Any, Any], float]:
    """The same step in PyTorch."""
    optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-3, weight_decay=0.1, fused=True)

    def step(ids: Any, targets: Any) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = peer(torch.from_numpy(ids).long(), torch.from_numpy(targets).long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        return float(loss.item())

    return step


class Counted:
    """A step on its batch, with the page faults of each call."""

    def __init__(self, step: Callable[[Any, Any], float], batch: tuple[Any, Any]) -> None:
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


def config_of(args: argparse.Namespace) -> gm.models.LlamaConfig:
    """The model the options ask for."""
    return gm.models.LlamaConfig(
        vocab_size=args.vocab, hidden_size=args.width, intermediate_size=args.width * 8 // 3,
        num_hidden_layers=args.layers, num_attention_heads=args.width // 64,
        num_key_value_heads=args.width // 64, head_dim=64, max_position_embeddings=args.context,
    )  # fmt: skip


def compare(args: argparse.Namespace, dtype: str, receipt: Receipt) -> None:
    """Verify, then take turns and print two lines."""
    gm.manual_seed(0)
    model = gm.models.Llama(config_of(args))
    rng = np.random.default_rng(0)
    ids = rng.integers(0, args.vocab, (args.batch, args.context + 1), dtype=np.int32)
    batch = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    peer = Counted(theirs(Peer(model), dtype), batch)
    mine = Counted(ours(model, dtype), batch)
    allowed = 1e-4 if dtype == "float32" else 2e-2

    def check() -> None:
        for _ in range(3):
            mine()
            peer()
        worst = max(abs(a - b) for a, b in zip(mine.losses, peer.losses, strict=True))
        assert worst <= allowed, f"losses differ by {worst:.2e}, allowed {allowed:g}"

    shape = model.config.to_dict()
    flops = cost(shape, args.context, args.batch).flops_per_token * args.batch * args.context
    ceiling = compute_ceiling(flops, dtype)
    # one sample a round of each: a step is long enough
    case = Case(dtype, mine, peer, check, ceiling, flops / 1e9, "GFLOP")
    row = measure(case, args.rounds, samples=1)
    faults = {"ours": mine.faults_after_the_first(), "peer": peer.faults_after_the_first()}
    print(row)
    said = (f"{name} {f['median']:g} (at most {f['most']})" for name, f in faults.items())
    print(f"{'':<10}page faults a step after the first: {', '.join(said)}", flush=True)
    receipt.add({"op": "train_step", **asdict(row), "page_faults": faults})


def main() -> None:
    """Parse the shape and compare both types."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {"layers": 6, "width": 384, "vocab": 4096, "batch": 16, "context": 256, "rounds": 7}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--json", type=Path, help="write a receipt (bench/results/README.md)")
    args = parser.parse_args()
    torch.set_num_threads(gm.get_num_threads())
    print(f"{args.layers} layers of {args.width}, vocabulary {args.vocab}, "
          f"{args.batch} x {args.context} tokens, {gm.get_num_threads()} threads, "
          f"beside PyTorch {torch.__version__}")  # fmt: skip
    receipt = Receipt(args.json, "train_step", vars(args), {"PyTorch": torch.__version__})
    for dtype in args.dtypes:
        compare(args, dtype, receipt)


if __name__ == "__main__":
    main()
