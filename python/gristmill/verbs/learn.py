"""`gristmill learn`: exercises on a ladder, each a kernel with a gap that the twin judges."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("op", nargs="?", help="as matmul; none: the ops there are")
    parser.add_argument("number", nargs="?", type=int, help="of an exercise; none: list them")
    parser.add_argument("--check", type=Path, metavar="FILE", help="is this the solution?")
    parser.add_argument("--hint", action="store_true", help="one more word on the exercise")
    parser.add_argument("--to", type=Path, default=Path(), metavar="FOLDER", help="where to write")


def run(args: argparse.Namespace) -> int:
    from gristmill.errors import ConfigError
    from gristmill.lab import learn

    if args.number is None:
        if args.check or args.hint:
            raise ConfigError("which exercise? gristmill learn OP NUMBER --check FILE")
        print("\n".join(learn.listing(args.op)))
        return 0
    exercise = learn.exercise(args.op, args.number)
    if args.hint:
        print(exercise.hint)
        return 0
    if args.check is None:
        print("\n".join(learn.begin(exercise, args.to)))
        return 0
    verdict = learn.judge(exercise, args.check)
    print(verdict.text)
    return 0 if verdict.right else 1
