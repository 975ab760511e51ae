"""`gristmill repro`: run a run again and compare every bit."""

from __future__ import annotations

import argparse

from gristmill.verbs.shared import runs_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder or its name (the latest)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the second run")
    parser.add_argument(
        "--from", dest="first", metavar="STAGE", help="take the stages before this from the run"
    )
    runs_argument(parser)


def run(args: argparse.Namespace) -> int:
    from gristmill.errors import ConfigError
    from gristmill.ledger import repro
    from gristmill.runs import resolve_run

    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise ConfigError(f"--threads {args.threads} given; allowed: 1 to 1024")
    folder = resolve_run(args.runs, args.run).resolve()
    order = repro.order(folder, args.threads, args.first)
    print(f"{folder.name} again, from {order.labels[0][3:]}; {'; '.join(order.notes)}", flush=True)
    for stage in repro.repeat(folder, folder.parent, order):
        apart = "".join(
            f"\n{'':12}{name} but for {', '.join(fields)}" for name, fields in stage.apart.items()
        )
        print(f"{stage.label[3:]:<12}{stage.files} files equal{apart}")
    digest = repro.weights(folder)
    print(f"the same bits; sha256 of the weights {digest}" if digest else "the same bits")
    return 0
