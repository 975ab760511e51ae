"""`gristmill trace`: where an answer, a model, a row or a file comes from and where it went."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from gristmill.verbs.shared import runs_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", help="id of an answer, model file, id of a document (sha256), or source file"
    )
    parser.add_argument(
        "--log-file", type=Path, metavar="FILE", help="request log (RUNS/.serve/requests.jsonl)"
    )
    parser.add_argument("--json", action="store_true", help="print the blocks as JSON")
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gristmill.console import listing
    from gristmill.ledger.records import Records
    from gristmill.ledger.trace import trace

    blocks = trace(args.what, Records(args.runs, args.log_file))
    if args.json:
        print(json.dumps([asdict(block) for block in blocks], indent=1, ensure_ascii=False))
        return 0
    print("\n\n".join(f"{block.title}\n{listing(block.rows, 120)}".rstrip() for block in blocks))
    return 0
