"""`gristmill plan`: what a run would do and cost."""

from __future__ import annotations

import argparse

from gristmill.verbs.shared import config_arguments as add_arguments
from gristmill.verbs.shared import load

__all__ = ["add_arguments", "run"]


def run(args: argparse.Namespace) -> int:
    from gristmill.plan import describe

    print(describe(load(args), args.runs))
    return 0
