"""A whole run of the process on sixty small files: seconds, not minutes."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any

from gristmill import config
from gristmill.config import Config
from gristmill.pipeline import Options, Pipeline

WORDS = (
    *("tree", "leaf", "root", "stem", "seed", "bark", "twig", "bud"),
    *("thorn", "fruit", "petal", "moss", "fern", "reed", "vine", "grass"),
)
SMALL: dict[str, Any] = {
    "project": {"name": "tiny", "gates": "record"},
    "split": {"vocab_size": 300, "min_bytes": 1000},
    "design": {"depth": 1, "hidden_size": 32, "context": 64, "steps": 12},
    "train": {"eval_every": 6, "eval_batches": 2, "checkpoint_every": 6},
    "validate": {"documents": 4, "holes": 2, "max_tokens": 8, "bootstrap": 100, "stride": 32},
    "evaluate": {"documents": 4, "holes": 2, "max_tokens": 8, "bootstrap": 100, "stride": 32},
    "deploy": {"selftest": 2, "selftest_tokens": 4},
}


def text(number: int) -> str:
    """A small module of its own words: no near-duplicate of another."""
    draw = random.Random(number)
    parts = []
    for _ in range(6):
        name, *rest = (draw.choice(WORDS) + str(draw.randrange(1000)) for _ in range(6))
        parts.append(f"def {name}({rest[0]}, {rest[1]}):\n    {rest[2]} = {rest[0]} + {rest[1]}\n")
        parts.append(f"    return {rest[3]}({rest[2]}, {draw.randrange(10**6)}, '{rest[4]}')\n\n\n")
    return "".join(parts)


def write_source(folder: Path, files: int = 60) -> Path:
    """A git tree of `files` modules in two packages, and a copy of one of them."""
    for number in range(files):
        path = folder / ("one" if number % 2 else "two") / f"f{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(number))
    (folder / "one" / "copy.py").write_text(text(1))
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    return folder


def settings(source: Path, **tables: dict[str, Any]) -> Config:
    """The configuration of a tiny run of `source`."""
    given = {"use": "files", "path": str(source), "licence": "MIT", "why": "test", "name": "woods"}
    raw: dict[str, Any] = {"collect": {"source": [given]}, **SMALL}
    for name, table in tables.items():
        raw[name] = {**raw.get(name, {}), **table}
    return config.check(raw, "tiny")


def run(root: Path, source: Path, **tables: dict[str, Any]) -> Path:
    """Run all stages and return the run's folder."""
    return Pipeline(settings(source, **tables), root, Options()).run().folder
