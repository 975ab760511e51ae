"""`gristmill bench`: how fast are the kernels, beside the machine's limit and other libraries?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result")


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
    from gristmill.lab import benches
    from gristmill.lab.benching import Bench, Settings

    if args.list:
        return _list()
    if not args.op and not args.all:
        raise ConfigError(f"name an op, or --all; there are: {', '.join(benches.ops())}")
    peers = benches.load("peers").installed()
    receipt = benches.load("receipt").Receipt(args.json, "ops", vars(args), peers)
    settings = Settings(
        [] if args.all else args.op, args.shapes, args.dtypes, args.peers, args.threads, args.isa,
        3 if args.quick else args.rounds, 1 if args.quick else 3, args.quick,
    )  # fmt: skip
    bench = Bench(settings, print, receipt)
    bench.run()
    for failure in bench.failures:
        print(f"error: wrong result: {failure}", file=sys.stderr)
    return 1 if bench.failures else 2 if bench.problems else 0


def _list() -> int:
    from gristmill.lab import benches

    peers = benches.load("peers")
    here = peers.installed()
    print(f"ops    {', '.join(benches.ops())}")
    for name, how in peers.INSTALL.items():
        print(f"peer   {name} {here.get(name, f'not installed: {how}')}")
    return 0
