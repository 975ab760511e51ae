"""`gristmill report`: write report.html of a run again."""

from __future__ import annotations

import argparse

from gristmill.verbs.shared import runs_argument, write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder or its name (the latest)")
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gristmill.runs import resolve_run

    folder = resolve_run(args.runs, args.run)
    write_report(folder)
    print(folder / "report.html")
    return 0
