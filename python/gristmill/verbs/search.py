"""`gristmill search`: trials of a space of settings, chosen on validation, resumable."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gristmill.errors import ConfigError
from gristmill.verbs.shared import config_arguments, missing

if TYPE_CHECKING:
    from gristmill.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument(
        "--space", required=True, metavar="FILE",
        help='TOML, as in "train.lr" = { low = 1e-4, high = 1e-2, log = true }',
    )  # fmt: skip
    parser.add_argument(
        "--trials", type=int, metavar="N", help="in all, those of earlier calls too (grid: all)"
    )
    parser.add_argument("--method", default="tpe", help="grid, random or tpe (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the method's choices (project.seed)")
    parser.add_argument("--name", default="", help="of its folder in RUNS/.search (by its content)")


def run(args: argparse.Namespace) -> int:
    try:
        from gristmill import config
        from gristmill.selection import search_page, searching
        from gristmill.selection.space import read_space
    except ModuleNotFoundError as error:
        raise missing(error, "search" if error.name == "optuna" else "run") from None

    def make(overrides: Sequence[str]) -> Config:
        return config.load(
            args.recipe, overrides=[*args.set, *overrides], path=args.source, quick=args.quick,
            minutes=args.minutes,
        )  # fmt: skip

    if args.name and not args.name.replace("-", "").replace("_", "").isalnum():
        raise ConfigError(f"--name {args.name} given; allowed: letters, digits, - and _")
    base = make([])
    seed = base.project.seed if args.seed is None else args.seed
    ranges = read_space(args.space, make)
    search = searching.Search(make, ranges, args.method, seed, args.name)
    folder = search.folder(args.runs)
    print(f"gristmill search {folder.name}, {args.method}, seed {seed}, in {folder}")
    if base.design.steps is None and all(one.key != "design.steps" for one in ranges):
        print("note: steps follow from minutes and this machine; for figures that repeat give "
              "--set design.steps=N")  # fmt: skip

    def told(trial: searching.Trial, all: list[searching.Trial]) -> None:
        print(searching.line(trial), flush=True)

    trials = searching.run_search(search, args.runs, args.trials, on_trial=told)
    search_page.write(search, trials, folder)
    print(search_page.text(search, trials, folder))
    searching.best(trials)  # no figure at all: the reasons, and an exit code
    return 0
