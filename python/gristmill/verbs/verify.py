"""`gristmill verify`: is this run, file or folder what was written?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.errors import ArtifactError
from gristmill.verbs.shared import runs_argument

if TYPE_CHECKING:
    from gristmill.ledger.verify import Check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", nargs="?", help="run, stage or model folder, or .gguf file (the latest run)"
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gristmill.ledger.verify import verify
    from gristmill.runs import resolve_run

    path = Path(args.target) if args.target else None
    target = path if path and path.exists() else resolve_run(args.runs, args.target)
    checks: list[Check] = []
    for check in verify(target, args.runs):
        checks.append(check)
        if not args.json:
            verdict = "ok" if check.passed else "DAMAGED"
            print(f"{check.part:<14} {check.what:<29} {verdict:<8} {check.said}", flush=True)
    failed = [check for check in checks if not check.passed]
    if args.json:
        facts = {"target": str(target), "passed": not failed, "checks": [*map(asdict, checks)]}
        print(json.dumps(facts, indent=1))
    if failed:
        first = failed[0]
        raise ArtifactError(f"{first.file}: {first.said} ({first.what}); {first.advice}")
    return 0
