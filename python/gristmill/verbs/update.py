"""`gristmill update`: a successor of the promoted model, from what has changed since."""

from __future__ import annotations

import argparse
from pathlib import Path

from gristmill.errors import ConfigError
from gristmill.verbs.shared import missing, run_stages, runs_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--feedback", type=Path, metavar="FILE", help="votes (RUNS/.serve/feedback.jsonl)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="over the promoted run's configuration, as in update.margin=0.01",
    )  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="rehash every file of done stages")
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    try:
        from gristmill.selection.updating import update
        from gristmill.selection.voted import FEEDBACK
    except ModuleNotFoundError as error:
        raise missing(error, "run") from None
    if args.feedback is not None and not args.feedback.is_file():
        raise ConfigError(f"--feedback {args.feedback}: no such file")
    feedback = args.feedback or args.runs / ".serve" / FEEDBACK
    outcome = update(
        args.runs, args.set, feedback,
        lambda config: run_stages(args, config, None, None), lambda line: print(line, flush=True),
    )  # fmt: skip
    print(outcome.text)
    return 0
