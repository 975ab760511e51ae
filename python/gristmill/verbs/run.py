"""`gristmill run`: all stages, in order; what is done is skipped."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gristmill.errors import ConfigError
from gristmill.verbs.shared import load, run_stages, stage_arguments

if TYPE_CHECKING:
    from gristmill.config import Config
    from gristmill.pipeline import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    stage_arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="STAGE", help="this stage; earlier ones must be done")
    which.add_argument("--until", metavar="STAGE", help="all stages up to this one")
    parser.add_argument("--serve", action="store_true", help="go on to serve the model")


def run(args: argparse.Namespace) -> int:
    if args.serve and (args.only or args.until):
        raise ConfigError("--serve needs the whole run; leave --only and --until out")
    config = load(args)
    run = run_stages(args, config, args.only, args.until)
    return _serve_run(run, config) if args.serve else 0


def _serve_run(run: Run, config: Config) -> int:
    from gristmill.serving import cli as serving

    parser = argparse.ArgumentParser(prog="gristmill run --serve")
    serving.add_arguments(parser)
    given = [str(run.folder), "--host", config.serve.host, "--port", str(config.serve.port)]
    given += ["--ctx", str(config.serve.ctx)] if config.serve.ctx else []
    return int(serving.run(parser.parse_args(given)))
