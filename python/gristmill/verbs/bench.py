"""`gristmill bench`: how fast are the kernels, beside the machine's limit and other libraries?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("op", nargs="*", help="as gelu, or gelu_backward; --list shows them")
    parser.add_argument("--all", action="store_true", help="every op")
    parser.add_argument("--list", action="store_true", help="ops and peers there are")
    parser.add_argument("--quick", action="store_true", help="two cases an op, three rounds")
    parser.add_argument(
        "--shapes", type=_words, default=[], metavar="A,B", help="as 1024x1024x1024"
    )
    parser.add_argument("--dtypes", type=_words, default=[], metavar="A,B", help="float32,bfloat16")
    parser.add_argument("--peers", type=_words, default=[], metavar="A,B", help="as PyTorch,numba")
    parser.add_argument("--threads", type=_numbers, default=[], metavar="N,M", help="as 1,2")
    parser.add_argument("--isa", default="", help="table of kernels, as avx2")
    parser.add_argument("--rounds", type=_positive, default=9, help="(9)")
    parser.add_argument("--samples", type=_positive, default=3, help="the best of each round (3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")
    parser.add_argument("--against", type=Path, metavar="FILE", help="exit 1 on what became slower")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw bars and a roofline")
    parser.add_argument("--png", action="store_true", help="pictures as PNG, not SVG")
    parser.add_argument("--kernel", metavar="FILE", help="yours: mine.py:gelu, mine.cpp, mine.cu")
    parser.add_argument("--ladder", action="store_true", help="from the naive kernel to ours")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1, not {text!r}")
    return int(text)


def _numbers(text: str) -> list[int]:
    return [_positive(word) for word in _words(text)]


def run(args: argparse.Namespace) -> int:
    from gristmill.errors import ConfigError
    from gristmill.lab import benches, comparing, plots

    if args.list:
        return _list()
    if not args.op and not args.all:
        raise ConfigError(f"name an op, or --all; there are: {', '.join(benches.ops())}")
    if args.ladder:
        return _ladder(args)
    if args.against:
        comparing.read(args.against)  # an error now, not after minutes
    if args.plots:
        plots.library()
    own, wrong = _kernel(args)
    bench = _measure(args, own)
    for failure in bench.failures:
        print(f"error: wrong result: {failure}", file=sys.stderr)
    if not args.kernel:
        print(f"\n{benches.load('report').noise(bench.rows)}")
    slower = False
    if args.against:
        lines, slower = comparing.table(args.against, bench.rows)
        print("", *lines, sep="\n")
    if args.plots:
        for path in plots.write(bench.rows, args.plots, "png" if args.png else "svg"):
            print(path)
    return 1 if wrong or bench.failures or slower else 2 if bench.problems else 0


def _measure(args: argparse.Namespace, own: dict[str, Any]) -> Any:
    from gristmill.lab import benches
    from gristmill.lab.benching import Bench, Settings

    peers = benches.load("peers").installed()
    kernel = Path(args.kernel).name if own else ""
    shown = {**vars(args), "kernel": kernel}
    receipt = benches.load("receipt").Receipt(args.json, "ops", shown, peers)
    settings = Settings(
        [] if args.all else args.op, args.shapes, args.dtypes, args.peers, args.threads, args.isa,
        3 if args.quick else args.rounds, 1 if args.quick else args.samples, args.quick,
    )  # fmt: skip
    bench = Bench(settings, print, receipt, own, kernel)
    bench.run()
    return bench


def _kernel(args: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    """The user's kernels, checked in a child process, and whether something is wrong with them."""
    if not args.kernel:
        return {}, False
    from gristmill.errors import ConfigError, KernelError
    from gristmill.lab import checking, compiling, kernels

    if len(args.op) != 1:
        raise ConfigError("--kernel replaces one op: gristmill bench gelu --kernel mine.py:gelu")
    try:
        source = compiling.prepared(args.kernel, kernels.entries_of(args.op[0]))
        for report in checking.check_file(args.op[0], source):
            print(report)
        return kernels.load(args.op[0], source), False
    except KeyError as error:
        raise ConfigError(error.args[0]) from None
    except KernelError as error:
        print(f"error: {error}\nthe figures below are of the table's own kernel", file=sys.stderr)
        return {}, True


def _ladder(args: argparse.Namespace) -> int:
    from gristmill.errors import ConfigError
    from gristmill.lab import benches, ladder, steps

    for op in args.op or steps.ops():
        if op not in steps.ops():
            guess = benches.guess(op, steps.ops())
            raise ConfigError(f"no ladder of {op!r}{guess}; there are: {', '.join(steps.ops())}")
        threads = args.threads[0] if args.threads else 0
        ladder.show(op, args.rounds, threads=threads, quick=args.quick)
    return 0


def _list() -> int:
    from gristmill.lab import benches

    peers = benches.load("peers")
    here = peers.installed()
    print(f"ops    {', '.join(benches.ops())}")
    for name, how in peers.INSTALL.items():
        print(f"peer   {name} {here.get(name, f'not installed: {how}')}")
    return 0
