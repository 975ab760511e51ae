"""The command `gristmill`: verbs, options, messages, exit codes. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.errors import ConfigError, GristmillError, MissingExtraError, StorageError

if TYPE_CHECKING:
    from gristmill.config import Config
    from gristmill.pipeline import Run

Arguments = Callable[[argparse.ArgumentParser], None]
Action = Callable[[argparse.Namespace], int]

STAGE_VERBS = {
    "collect": "take the sources in: content-addressed, with licence and quality report",
    "clean": "repair, filter, deduplicate, hide personal data; a ledger of every removed file",
    "annotate": "label documents and holes by a written guideline",
    "split": "train, validation and test; tokenizer and shards; leak check",
    "design": "shape of the model, cost predicted, baselines measured",
    "initialize": "first weights, checked layer by layer",
    "train": "train; goes on exactly where it was interrupted",
    "validate": "choose the checkpoint, with intervals and a verdict",
    "save": "Hugging Face folder, reloaded and compared in a fresh process",
    "test": "open the sealed test split and measure",
    "deploy": "one GGUF file with self-test, lineage and report inside",
}


@dataclass(frozen=True)
class Verb:
    """One verb: its line of help, its options, what it does."""

    help: str
    arguments: Arguments
    action: Action


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser(given).parse_args(given)
        return int(arguments.action(arguments))
    except GristmillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser; only the verb that was given gets its options (keeps --help quick)."""
    parser = argparse.ArgumentParser(
        prog="gristmill",
        description="From your own files to a served code completer, in eleven stages.",
        epilog="Exit codes: 0 done, 2 input or configuration, 3 gate, 4 not reproducible, "
        "5 cannot write, 6 training stopped, 7 folder in use, 130 interrupted.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    chosen = next((word for word in given if not word.startswith("-")), None)
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.help, description=verb.help)
        if name == chosen:
            verb.arguments(sub)
        sub.set_defaults(action=verb.action)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from gristmill import __version__

        print(f"gristmill {__version__}")
        parser.exit()


# ------------------------------------------------------------------------- run and stages


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", default="code", help="recipe or file.toml (code)")
    parser.add_argument("--source", metavar="PATH", help="your files instead of the recipe's")
    parser.add_argument("--quick", action="store_true", help="tiny and fast; gates only record")
    parser.add_argument("--minutes", type=float, metavar="N", help="time for the whole run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as in train.lr=3e-4"
    )
    _runs_argument(parser)


def _runs_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of the runs (runs)"
    )


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _stage_arguments(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--only", metavar="STAGE", help="this stage; earlier ones must be done")
    which.add_argument("--until", metavar="STAGE", help="all stages up to this one")
    parser.add_argument("--serve", action="store_true", help="go on to serve the model")


def _stage_arguments(parser: argparse.ArgumentParser) -> None:
    _config_arguments(parser)
    parser.add_argument("--verify", action="store_true", help="rehash every file of done stages")


def _load(args: argparse.Namespace) -> Config:
    try:
        from gristmill import config
    except ModuleNotFoundError as error:
        raise _missing(error, "run") from None
    return config.load(
        args.recipe,
        overrides=args.set,
        path=args.source,
        quick=args.quick,
        minutes=args.minutes,
    )


def _missing(error: ModuleNotFoundError, extra: str) -> GristmillError:
    if (error.name or "").split(".")[0] == "gristmill":
        raise error
    return MissingExtraError(
        f"the package {error.name} is missing; install it with: pip install 'gristmill[{extra}]'"
    )


def _run(args: argparse.Namespace) -> int:
    if args.serve and (args.only or args.until):
        raise ConfigError("--serve needs the whole run; leave --only and --until out")
    config = _load(args)
    run = _run_stages(args, config, args.only, args.until)
    return _serve_run(run, config) if args.serve else 0


def _stage_verb(name: str) -> Action:
    def action(args: argparse.Namespace) -> int:
        _run_stages(args, _load(args), name, None)
        return 0

    return action


def _run_stages(
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
        on_report=_write_report,
    )
    console.line(f"gristmill {config.project.name}, seed {config.project.seed}, in {args.runs}/")
    run = Pipeline(config, args.runs, options).run()
    if _is_stale(run.folder / "report.html", run.folder / "run.json"):
        _write_report(run.folder)
    if only is None:
        for line in closing(run, config.serve.host, config.serve.port):
            console.line(line)
    return run


def _is_stale(report: Path, record: Path) -> bool:
    """Whether a process was killed between the record of a run and its page."""
    return not report.is_file() or report.stat().st_mtime_ns < record.stat().st_mtime_ns


def _write_report(run: Path) -> None:
    try:
        from gristmill.reporting import write_report
    except ModuleNotFoundError as error:
        raise _missing(error, "run") from None
    write_report(run)


def _serve_run(run: Run, config: Config) -> int:
    from gristmill.serving import cli as serving

    parser = argparse.ArgumentParser(prog="gristmill run --serve")
    serving.add_arguments(parser)
    given = [str(run.folder), "--host", config.serve.host, "--port", str(config.serve.port)]
    given += ["--ctx", str(config.serve.ctx)] if config.serve.ctx else []
    return int(serving.run(parser.parse_args(given)))


# ---------------------------------------------------------------------------- other verbs


def _init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", default="code", help="recipe to copy (code)")
    parser.add_argument("file", nargs="?", type=Path, help="file to write (RECIPE.toml)")


def _init(args: argparse.Namespace) -> int:
    from gristmill.artifacts import atomic_write
    from gristmill.config import recipe_text

    target = args.file or Path(f"{args.recipe}.toml")
    text = recipe_text(args.recipe)
    if target.exists():
        raise ConfigError(f"{target} exists; name another file: gristmill init {args.recipe} FILE")
    if not target.parent.is_dir():
        raise StorageError(f"cannot write {target}: there is no folder {target.parent}")
    atomic_write(target, text.encode())
    print(f"wrote {target}; change what you like, then: gristmill run {target}")
    return 0


def _plan(args: argparse.Namespace) -> int:
    from gristmill.plan import describe

    print(describe(_load(args), args.runs))
    return 0


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder or its name (the latest)")
    _runs_argument(parser)


def _report(args: argparse.Namespace) -> int:
    from gristmill.runs import resolve_run

    folder = resolve_run(args.runs, args.run)
    _write_report(folder)
    print(folder / "report.html")
    return 0


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    from gristmill.serving import generate

    generate.add_arguments(parser)


def _generate(args: argparse.Namespace) -> int:
    from gristmill.serving import generate

    return int(generate.run(args))


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    from gristmill.serving import cli as serving

    serving.add_arguments(parser)


def _serve(args: argparse.Namespace) -> int:
    from gristmill.serving import cli as serving

    return int(serving.run(args))


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def _doctor(args: argparse.Namespace) -> int:
    del args
    from gristmill.doctor import report

    print(report())
    return 0


VERBS: dict[str, Verb] = {
    "run": Verb("all stages: what is done is skipped", _run_arguments, _run),
    "init": Verb("write a recipe as a commented file", _init_arguments, _init),
    "plan": Verb("what a run would do and cost", _config_arguments, _plan),
    **{name: Verb(text, _stage_arguments, _stage_verb(name)) for name, text in STAGE_VERBS.items()},
    "report": Verb("write report.html of a run again", _report_arguments, _report),
    "generate": Verb("complete a text with a deployed model", _generate_arguments, _generate),
    "serve": Verb("serve a deployed model over HTTP", _serve_arguments, _serve),
    "doctor": Verb("what is active on this machine, and why", _no_arguments, _doctor),
}
