"""A verb per stage, `run --only` in short: `gristmill train` runs stage train of a done run."""

from __future__ import annotations

import argparse

from gristmill.verbs.shared import load, run_stages
from gristmill.verbs.shared import stage_arguments as add_arguments

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    """Run the stage the verb names; those before it must be done."""
    run_stages(args, load(args), args.verb, None)
    return 0
