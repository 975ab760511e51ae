"""`gristmill card`: write MODEL_CARD.md and DATASHEET.md of a run again."""

from __future__ import annotations

import argparse
from pathlib import Path

from gristmill.errors import StorageError
from gristmill.verbs.shared import runs_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder or its name (the latest)")
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="folder to write to, such as a model's (the run's)"
    )
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gristmill.artifacts import MANIFEST, read_json
    from gristmill.cards import Facts, write_cards
    from gristmill.runs import resolve_run

    folder = resolve_run(args.runs, args.run).resolve()
    if args.to is not None and not args.to.is_dir():
        raise StorageError(f"cannot write to {args.to}: there is no such folder")
    record = read_json(folder / "run.json")
    stages = {}
    for label in sorted(record["stages"]):
        if (folder / label / MANIFEST).is_file():
            stages[read_json(folder / label / MANIFEST)["stage"]] = folder / label
    name = record["config"]["deploy"]["name"] or record["name"]
    for path in write_cards(Facts(name, stages), args.to or folder):
        print(path)
    return 0
