"""`gristmill merge`: a model and an adapter as one model."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, help="Hugging Face folder the adapter was trained on")
    parser.add_argument("adapter", type=Path, help="folder as peft writes it")
    parser.add_argument("out", type=Path, help="folder to write")


def run(args: argparse.Namespace) -> int:
    from gristmill.checkpoint.merging import merge_folder

    merged = merge_folder(args.model, args.adapter, args.out)
    size = sum(p.size for p in merged.parameters())
    print(f"wrote {args.out}: {size:,} parameters, the adapter in them")
    return 0
