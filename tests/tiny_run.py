"""A folder of small Python files and a configuration that turns it into a model in seconds."""

from __future__ import annotations

import os
import random
from pathlib import Path

TOML = """
[project]
name = "tiny"
gates = "record"
[[collect.source]]
use = "files"
path = "{source}"
licence = "MIT"
why = "a test"
[[clean.step]]
use = "unicode"
form = "NFC"
[split]
by = "file"
val = 0.2
test = 0.2
vocab_size = 300
min_bytes = 1000
[design]
depth = 1
hidden_size = 32
heads = 2
context = 64
batch = 4
steps = {steps}
[train]
lr = 5e-3
dtype = "f32"
eval_every = 20
eval_batches = 2
checkpoint_every = 20
[validate]
stride = 32
holes = 2
max_tokens = 8
bootstrap = 100
[evaluate]
stride = 32
holes = 2
max_tokens = 8
bootstrap = 100
[deploy]
selftest = 1
selftest_tokens = 4
"""
WORDS = [
    "first",
    "second",
    "other",
    "value",
    "count",
    "total",
    "index",
    "width",
    "depth",
    "name",
    "path",
    "line",
    "text",
    "item",
]


def source_text(number: int, verb: str = "get") -> str:
    """A file of its own: no two are near-duplicates."""
    rng = random.Random(number)
    lines = []
    for _ in range(8):
        a, b, c = rng.sample(WORDS, 3)
        lines.append(
            f"def {verb}_{a}_{b}({c}, n={rng.randrange(1000)}):\n    return {c}.{a}({b})\n"
        )
    return "\n\n".join(lines)


def write_source(folder: Path, files: int = 30, verb: str = "get") -> Path:
    """Write `files` files, each a day newer than the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        path = folder / f"f{number:03}.py"
        path.write_text(source_text(number, verb))
        os.utime(path, (1_700_000_000 + 86_400 * number,) * 2)
    return folder


def write_config(path: Path, source: Path, steps: int = 40) -> Path:
    path.write_text(TOML.format(source=source, steps=steps))
    return path
