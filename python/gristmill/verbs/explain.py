"""`gristmill explain`: a stage or an op in words, with its code."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from gristmill.verbs.shared import missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a stage, an op or a kernel; none: list them")
    parser.add_argument("--page", type=Path, metavar="FILE", help="measure the ladder; write HTML")
    parser.add_argument("--quick", action="store_true", help="of the page: a small shape")


def run(args: argparse.Namespace) -> int:
    if args.page:
        return _page(args)
    from gristmill import explaining
    from gristmill.console import listing

    try:
        parts = explaining.explain(args.name) if args.name else explaining.names()
    except ModuleNotFoundError as error:  # a stage's settings
        raise missing(error, "run") from None
    shown = []
    for part in parts:
        body = textwrap.indent(part.text or listing(part.rows, 116), "  ")
        if body.strip():
            shown.append(f"{part.title}\n{body}")
    print("\n\n".join(shown))
    return 0


def _page(args: argparse.Namespace) -> int:
    from gristmill.errors import ConfigError
    from gristmill.lab import ladder, page, plots

    if not args.name:
        raise ConfigError("name the op of the page: gristmill explain matmul --page FILE")
    plots.library()  # said now, not after minutes
    page.write(ladder.show(args.name, 3, quick=args.quick), args.page)
    print(f"\nwritten: {args.page}")
    return 0
