"""The command `gristmill`: verbs, messages, exit codes. A verb's own file is in `verbs/`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.errors import GristmillError

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
    """One verb: its line of help, and the module with `add_arguments(parser)` and `run(args)`."""

    help: str
    module: str

    def load(self) -> Any:
        """Import the module: only the verb that is given costs its imports."""
        return importlib.import_module(f"gristmill.{self.module}")


VERBS: dict[str, Verb] = {
    "run": Verb("all stages: what is done is skipped", "verbs.run"),
    "init": Verb("write a recipe as a commented file", "verbs.init"),
    "plan": Verb("what a run would do and cost", "verbs.plan"),
    **{name: Verb(text, "verbs.stage") for name, text in STAGE_VERBS.items()},
    "report": Verb("write report.html of a run again", "verbs.report"),
    "search": Verb("try settings from a space; chosen on validation", "verbs.search"),
    "compare": Verb("runs on the same test files: paired intervals, cost", "verbs.compare"),
    "promote": Verb("serve this run from now on, if its gates and self-test pass", "verbs.promote"),
    "update": Verb("a successor from what changed, promoted if not worse", "verbs.update"),
    "merge": Verb("a model and an adapter as one model", "verbs.merge"),
    "generate": Verb("complete a text with a deployed model", "serving.generate"),
    "serve": Verb("serve a deployed model over HTTP", "serving.cli"),
    "verify": Verb("is this run, file or folder what was written?", "verbs.verify"),
    "repro": Verb("run a run again and compare every bit", "verbs.repro"),
    "trace": Verb("where an answer, model, row or file comes from, and went", "verbs.trace"),
    "replay": Verb("answer a logged request again and compare every byte", "verbs.replay"),
    "forget": Verb("what a source has reached; a run without it", "verbs.forget"),
    "card": Verb("write MODEL_CARD.md and DATASHEET.md of a run again", "verbs.card"),
    "bench": Verb("kernels beside the machine's limit and other libraries", "verbs.bench"),
    "explain": Verb("a stage or an op: what, why, formula, twin, sources", "verbs.explain"),
    "learn": Verb("exercises: a kernel with a gap, judged by its twin", "verbs.learn"),
    "doctor": Verb("what is active on this machine, and why", "verbs.doctor"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser(given).parse_args(given)
        return int(VERBS[arguments.verb].load().run(arguments))
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
        epilog="Exit codes: 0 done, 1 slower or a wrong kernel (bench), 2 input or configuration, "
        "3 gate, 4 not reproducible, 5 cannot write, 6 training stopped, 7 folder in use, 8 alert, "
        "130 interrupted.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    chosen = next((word for word in given if not word.startswith("-")), None)
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.help, description=verb.help)
        if name == chosen:
            verb.load().add_arguments(sub)
        sub.set_defaults(verb=name)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *rest: object) -> None:
        from gristmill import __version__

        print(f"gristmill {__version__}")
        parser.exit()
