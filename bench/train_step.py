"""A whole training step (forward, backward, clipping, AdamW), beside PyTorch's.

    python -m bench.train_step [--models gpt2 gpt2-long small] [--peers torch,torch-compile]
                               [--memory] [--profile]
    python -m bench.train_step --to-bpb X [--seeds 3]

First all sides make the same three steps from the same weights, and their losses must agree; then
they take turns with the ceiling, fused multiply-adds from registers in the number of the step's
FLOPs. Printed are medians over the rounds, peer / ours with its 95 % bootstrap interval and page
faults of every step after the first; with --memory also the peak of each side in its own process,
with --profile where our step's time goes. --to-bpb trains a small model instead, on the standard
library of Python, until X bits per byte of validation: `bench/step/quality.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for python bench/train_step.py

from bench.measure import peers as versions
from bench.receipt import Receipt
from bench.step import memory
from bench.step.profile import profile
from bench.step.shapes import SHAPES, Counted, Shape, chosen, ours
from bench.step.turns import PEERS, compare, lines

import gristmill as gm


def peer_names(text: str) -> list[str]:
    """--peers torch,torch-compile; an empty text: none."""
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} given, allowed are {', '.join(PEERS)}")
    return names


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=SHAPES, default=["gpt2", "gpt2-long", "small"]
    )
    for name in ("layers", "width", "vocab", "batch", "context"):
        parser.add_argument(f"--{name}", type=int, help="instead of the model's own")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--peers", type=peer_names, default=["torch"], help=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="peak memory, with recomputation too")
    parser.add_argument("--profile", action="store_true", help="time by op, of our step alone")
    parser.add_argument("--to-bpb", type=float, metavar="X", help="train until X bits per byte")
    parser.add_argument("--seeds", type=int, default=3, help="of --to-bpb")
    parser.add_argument("--json", type=Path, help="write a receipt (bench/results/README.md)")
    return parser.parse_args()


def peak_memory(shape: Shape, dtype: str, peers: list[str]) -> dict[str, Any]:
    """Print and return the peaks of all sides, with and without recomputation."""
    out = {}
    for side in ["ours", *peers]:
        for recompute in (False, True):
            told = memory.measure(side, shape, dtype, recompute)
            kind = f"{side}{', recomputed' if recompute else ''}"
            out[kind] = told
            print(f"{dtype:<10}{kind:<27}{1e-9 * told['peak_bytes']:6.2f} GB "
                  f"({1e-9 * told['before_bytes']:.2f} before)", flush=True)  # fmt: skip
    return out


def main() -> None:
    """Measure what the options ask for."""
    args = options()
    if args.peers:
        import torch

        torch.set_num_threads(gm.get_num_threads())
    about = versions() if args.peers else {}
    receipt = Receipt(args.json, "train_step", vars(args), about)
    beside = f", beside {' '.join(*about.items())}" if about else ""
    print(f"table {gm._C.table()}, {gm.get_num_threads()} threads{beside}")
    if args.to_bpb is not None:
        args.models = ["recipe"]
    for name, shape in chosen(args):
        print(f"\n{name}: {shape}")
        for dtype in args.dtypes:
            if args.to_bpb is not None:
                from bench.step.quality import to_quality

                told = to_quality(shape, dtype, args.peers, args.to_bpb, args.seeds)
                receipt.add({"op": "to_bpb", "model": name, **told})
                continue
            if args.profile:
                print(f"\n{dtype}")
                print(profile(Counted(ours(shape.build(), dtype), shape.random_batch())))
                continue
            row = {"op": "train_step", "model": name}
            row |= compare(shape, dtype, args.peers, args.rounds)
            print("\n".join(lines(row)), flush=True)
            if args.memory:
                row["memory"] = peak_memory(shape, dtype, args.peers)
            receipt.add(row)


if __name__ == "__main__":
    main()
