"""`gristmill explain`: a stage or an op in words, with its code."""

from __future__ import annotations

import argparse
import textwrap

from gristmill.verbs.shared import missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a stage, an op or a kernel; none: list them")


def run(args: argparse.Namespace) -> int:
    try:
        from gristmill import explaining
        from gristmill.console import listing
    except ModuleNotFoundError as error:
        raise missing(error, "run") from None
    parts = explaining.explain(args.name) if args.name else explaining.names()
    shown = []
    for part in parts:
        body = textwrap.indent(part.text or listing(part.rows, 116), "  ")
        if body.strip():
            shown.append(f"{part.title}\n{body}")
    print("\n\n".join(shown))
    return 0
