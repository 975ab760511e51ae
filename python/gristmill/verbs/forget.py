"""`gristmill forget`: what a source has reached; with --run a run without it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.errors import ConfigError
from gristmill.verbs.shared import runs_argument

if TYPE_CHECKING:
    from gristmill.ledger.forget import Affected
    from gristmill.ledger.records import Records


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source", required=True, metavar="NAME|PATH", help="a source by name, a folder or a file"
    )
    parser.add_argument("--run", action="store_true", help="start a new run without it")
    parser.add_argument(
        "--delete-old", action="store_true", help="list the folders with it; --yes deletes them"
    )
    parser.add_argument("--yes", action="store_true", help="with --delete-old: delete them")
    parser.add_argument(
        "--log-file", type=Path, metavar="FILE", help="request log (RUNS/.serve/requests.jsonl)"
    )
    parser.add_argument("--json", action="store_true", help="print all that is affected as JSON")
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gristmill.console import listing
    from gristmill.ledger.forget import affected, blocks
    from gristmill.ledger.records import Records

    if args.yes and not args.delete_old:
        raise ConfigError("--yes given without --delete-old; it confirms deleting, nothing else")
    records = Records(args.runs, args.log_file)
    found = affected(args.source, records)
    if args.json:
        print(json.dumps(_plain(found), indent=1))
    else:
        told = blocks(found, records)
        print("\n\n".join(f"{b.title}\n{listing(b.rows, 120)}".rstrip() for b in told))
    if args.run:
        _run_without(args, found)
    if args.delete_old:
        _delete(args, found, records)
    elif not args.run and not args.json:
        print("\nnothing was changed; --run starts a run without it")
    return 0


def _run_without(args: argparse.Namespace, found: Affected) -> None:
    from gristmill.config import check
    from gristmill.errors import ReproError
    from gristmill.ledger.forget import without
    from gristmill.ledger.records import Records
    from gristmill.ledger.trace import documents
    from gristmill.verbs.shared import run_stages

    old, config = without(found)
    print(f"\na new run as {old.name}, without {found.target}")
    args.verify = False
    made = run_stages(args, check(config, "the run's configuration"), None, None)
    ids = sorted({row.id for row in found.rows})
    rows = documents(Records(args.runs), "list_contains(?, id)", [ids])
    left = [row.where for row in rows if any(run.name == made.folder.name for run in row.runs)]
    if left:
        raise ReproError(f"{made.folder} still has {left[0]}; its source holds it under that name")
    print(f"none of the {len(ids)} texts is in {made.folder.name}; promote it: "
          f"gristmill promote {made.folder.name}")  # fmt: skip


def _delete(args: argparse.Namespace, found: Affected, records: Records) -> None:
    from gristmill.ledger.forget import delete

    runs = [run.folder for run in (*found.runs, *found.derived)]
    print(f"\n{'deleting' if args.yes else 'would be deleted'}")
    for path in [*runs, *found.stages]:
        print(f"  {path}")
    if args.yes:
        print(f"{len(delete(found, records))} folders are gone")
    else:
        print("nothing was deleted; --yes deletes them")


def _plain(found: Affected) -> dict[str, Any]:
    def places(rows: Any) -> list[dict[str, str]]:
        return [{"place": row.where, "id": row.id, "licence": row.licence} for row in rows]

    return {
        "target": found.target,
        "rows": places(found.rows),
        "copies": places(found.copies),
        "alike": [dict(zip(("place", "why"), pair, strict=True)) for pair in found.alike],
        "runs": {run.name: {"splits": found.splits[run.name], "model": run.model}
                 for run in found.runs},
        "derived": {run.name: {"model": run.model} for run in found.derived},
        "stages": [path.name for path in found.stages],
    }  # fmt: skip
