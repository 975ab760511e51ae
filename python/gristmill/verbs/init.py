"""`gristmill init`: write a recipe as a commented file."""

from __future__ import annotations

import argparse
from pathlib import Path

from gristmill.errors import ConfigError, StorageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", default="code", help="recipe to copy (code)")
    parser.add_argument("file", nargs="?", type=Path, help="file to write (RECIPE.toml)")


def run(args: argparse.Namespace) -> int:
    from gristmill.artifacts import atomic_write
    from gristmill.config import recipe_text

    target = args.file or Path(f"{args.recipe}.toml")
    text = recipe_text(args.recipe)
    if target.exists():
        raise ConfigError(f"{target} exists; name another file: gristmill init {args.recipe} FILE")
    if not target.parent.is_dir():
        raise StorageError(f"cannot write {target}: there is no folder {target.parent}")
    atomic_write(target, text.encode())
    print(f"wrote {target}; change what you like, then: gristmill run {target}")
    return 0
