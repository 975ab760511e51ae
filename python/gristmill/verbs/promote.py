"""`gristmill promote`: serve a run's model from now on; without a run, what was promoted so far."""

from __future__ import annotations

import argparse
from pathlib import Path

from gristmill.verbs.shared import runs_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder or its name; none: list promotions")
    parser.add_argument(
        "--reason", default="promoted by hand", metavar="TEXT", help="kept in the registry"
    )
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gristmill import registry
    from gristmill.runs import resolve_run

    if args.run is None:
        return _list(args.runs)
    before = registry.current(args.runs)
    entry = registry.promote(args.runs, resolve_run(args.runs, args.run), args.reason)
    was = f", in place of {before.run}" if before else ""
    print(f"promoted {entry.run}{was}\n{entry.path(args.runs)}  sha256 {entry.sha256[:16]}")
    print("serve    gristmill serve")
    return 0


def _list(root: Path) -> int:
    from gristmill import registry

    found = registry.entries(root)
    for entry in found:
        bits = entry.facts.get("bits_per_byte", {}).get("value")
        shown = f"{bits:.3f} b/B" if isinstance(bits, float) else ""
        print(f"{entry.time}  {entry.run}  {entry.sha256[:16]}  {shown}  {entry.reason}")
    if not found:
        print(f"nothing is promoted in {root}; `gristmill promote RUN` does it")
    return 0
