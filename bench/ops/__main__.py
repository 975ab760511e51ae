"""Every op's bench, one after the other: python -m bench.ops [--threads N] [--rounds N] ..."""

from __future__ import annotations

import importlib
from pathlib import Path

from bench.measure import options, receipt_of, run

if __name__ == "__main__":
    args = options()
    receipt = receipt_of(args, "ops")
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        print(f"\n{file.stem}")
        run(importlib.import_module(f"bench.ops.{file.stem}").cases, args, receipt, file.stem)
