"""`gristmill compare`: tested runs on the same files, with paired intervals."""

from __future__ import annotations

import argparse
from pathlib import Path

from gristmill.verbs.shared import missing, runs_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run",
        nargs="+",
        help="run folders or names; the first is what the others are compared with, one alone is "
        "compared with methods without a network",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for compare.html and compare.json"
    )
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gristmill.runs import resolve_run

    try:
        from gristmill.selection import compare_page
        from gristmill.selection.comparing import compare
    except ModuleNotFoundError as error:
        raise missing(error, "run") from None
    comparison = compare([resolve_run(args.runs, name) for name in args.run])
    print(compare_page.text(comparison))
    if args.out is not None:
        print(f"\nreport   {compare_page.write(comparison, args.out)}")
    return 0
