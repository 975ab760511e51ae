"""One optimizer step of a LoRA adapter, beside the library peft on transformers.

    python -m bench.lora [--layers 6 --width 384 --vocab 4096 --batch 8 --context 256 --rank 8]

First both make the same three steps from the same weights and the same A, and their losses must
agree; then they take turns, and with them our step that trains all weights. Medians are compared.
peft gets torch's fused AdamW over A and B, and scaled_dot_product_attention.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for python bench/lora.py

from bench.measure import Case, compute_ceiling, measure
from bench.receipt import Receipt
from bench.step.shapes import Counted, Shape

import gristmill as gm
from gristmill.models.adapters import add_adapter
from gristmill.models.saving import write_adapter
from gristmill.training.groups import parameter_groups
from gristmill.training.shape import cost

ALLOWED = 1e-4  # nats, of three steps in f32


def ours(model: gm.models.CausalLM, dtype: str = "float32") -> Any:
    """A step of what learns in `model`."""
    model.compute = dtype
    optimizer = gm.optim.AdamW(parameter_groups(model, 0.1), lr=1e-3)

    def step(ids: Any, targets: Any) -> float:
        optimizer.zero_grad()
        loss = model.loss(ids, targets)
        loss.backward()
        optimizer.clip(1.0)
        optimizer.step()
        return float(loss.item())

    return step


def theirs(model: Any) -> Any:
    """The same step of a PeftModel."""
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-3, weight_decay=0.1, fused=True)

    def step(ids: Any, targets: Any) -> float:
        optimizer.zero_grad(set_to_none=True)
        logits = model(torch.from_numpy(ids).long()).logits.flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets).long().flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        return float(loss.item())

    return step


def shape_of(args: argparse.Namespace) -> Shape:
    """The model the options ask for."""
    return Shape("llama", args.layers, args.width, args.vocab, args.batch, args.context)


def twins(args: argparse.Namespace) -> tuple[gm.models.CausalLM, Any]:
    """Our model with an adapter, and the same in peft, through the files both write and read."""
    gm.manual_seed(0)
    model = gm.models.Llama(shape_of(args).config)
    with tempfile.TemporaryDirectory() as place:
        base, adapter = Path(place) / "base", Path(place) / "adapter"
        model.save_pretrained(base)
        add_adapter(model, args.rank, 2.0 * args.rank, targets=args.targets)
        write_adapter(model, adapter)
        frozen = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        peer = peft.PeftModel.from_pretrained(frozen, adapter, is_trainable=True)
    return model, peer.train()


def main() -> None:
    """Parse the shape, verify, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = {"layers": 6, "width": 384, "vocab": 4096, "batch": 8, "context": 256, "rounds": 7,
                "rank": 8}  # fmt: skip
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--targets", nargs="*", default=[], help="as in train.lora.targets")
    parser.add_argument("--json", type=Path, help="write a receipt (bench/results/README.md)")
    args = parser.parse_args()
    torch.set_num_threads(gm.get_num_threads())
    versions = {"PyTorch": torch.__version__, "peft": peft.__version__}
    print(f"{args.layers} layers of {args.width}, vocabulary {args.vocab}, rank {args.rank}, "
          f"{args.batch} x {args.context} tokens, {gm.get_num_threads()} threads, "
          f"beside peft {peft.__version__}")  # fmt: skip
    receipt = Receipt(args.json, "lora", vars(args), versions)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, args.vocab, (args.batch, args.context + 1), dtype=np.int32)
    batch = np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])
    model, peer = twins(args)
    mine, other = Counted(ours(model), batch), Counted(theirs(peer), batch)

    def check() -> None:
        for _ in range(3):
            mine()
            other()
        worst = max(abs(a - b) for a, b in zip(mine.losses, other.losses, strict=True))
        assert worst <= ALLOWED, f"losses differ by {worst:.2e}, allowed {ALLOWED:g}"

    full = Counted(ours(gm.models.Llama(shape_of(args).config)), batch)
    flops = cost(model.config.to_dict(), args.context, args.batch).flops_per_token
    work = flops * args.batch * args.context
    rows = [
        Case("lora", mine, other, check, compute_ceiling(work * 2 / 3, "float32"),
             work * 2 / 3e9, "GFLOP"),
        Case("all weights", full, mine, lambda: None, compute_ceiling(work, "float32"),
             work / 1e9, "GFLOP", "ours, lora"),
    ]  # fmt: skip
    for case in rows:
        row = measure(case, args.rounds, samples=1)
        print(row, flush=True)
        receipt.add({"op": "lora", **asdict(row)})


if __name__ == "__main__":
    main()
