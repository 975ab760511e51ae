"""What verbs share: options of a configuration, running its stages, writing the report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.errors import GristmillError, MissingExtraError

if TYPE_CHECKING:
    from gristmill.config import Config
    from gristmill.pipeline import Run


# a run that ends before these has no verdict to act on
AFTER_VALIDATE = ("save", "test", "evaluate", "deploy")


def config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", default="code", help="recipe or file.toml (code)")
    parser.add_argument("--source", metavar="PATH", help="your files instead of the recipe's")
    parser.add_argument("--quick", action="store_true", help="tiny and fast; gates only record")
    parser.add_argument("--minutes", type=float, metavar="N", help="time for the whole run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as in train.lr=3e-4"
    )
    runs_argument(parser)


def runs_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of the runs (runs)"
    )


def stage_arguments(parser: argparse.ArgumentParser) -> None:
    config_arguments(parser)
    parser.add_argument("--verify", action="store_true", help="rehash every file of done stages")


def load(args: argparse.Namespace) -> Config:
    try:
        from gristmill import config
    except ModuleNotFoundError as error:
        raise missing(error, "run") from None
    return config.load(
        args.recipe,
        overrides=args.set,
        path=args.source,
        quick=args.quick,
        minutes=args.minutes,
    )


def missing(error: ModuleNotFoundError, extra: str) -> GristmillError:
    if (error.name or "").split(".")[0] == "gristmill":
        raise error
    return MissingExtraError(
        f"the package {error.name} is missing; install it with: pip install 'gristmill[{extra}]'"
    )


def run_stages(
    args: argparse.Namespace, config: Config, only: str | None, until: str | None
) -> Run:
    from gristmill.console import Console, closing
    from gristmill.pipeline import Options, Pipeline

    console = Console()
    options = Options(
        only=only,
        until=until,
        verify=args.verify,
        on_done=console.done,
        on_progress=console.progress,
        on_report=write_report,
    )
    console.line(f"gristmill {config.project.name}, seed {config.project.seed}, in {args.runs}/")
    if config.validate.react and only is None and until in (None, *AFTER_VALIDATE):
        from gristmill.reacting import run_reacting

        run = run_reacting(config, args.runs, options, console.line)
    else:
        run = Pipeline(config, args.runs, options).run()
    if is_stale(run.folder / "report.html", run.folder / "run.json"):
        write_report(run.folder)
    if only is None:
        for line in closing(run, config.serve.host, config.serve.port):
            console.line(line)
    return run


def write_report(run: Path) -> None:
    try:
        from gristmill.reporting import write_report
    except ModuleNotFoundError as error:
        raise missing(error, "run") from None
    write_report(run)


def is_stale(report: Path, record: Path) -> bool:
    """Whether a process was killed between the record of a run and its page."""
    return not report.is_file() or report.stat().st_mtime_ns < record.stat().st_mtime_ns
