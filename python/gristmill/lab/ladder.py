"""Ladders: from the definition of an op to the kernel of the table, one idea a step, measured here.

    gristmill bench matmul --ladder      or      python -m gristmill.lab.ladder matmul

Every step is verified against the twin before it is timed. A round times each step once, and the
machine's ceiling beside them; figures are medians over the rounds, shares those of the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gristmill.backend import _C
from gristmill.errors import GristmillError
from gristmill.lab.case import WrongResult
from gristmill.lab.steps import Step, address, ops, steps, swapped
from gristmill.lab.trials import SIZES, Trial, trial

SAMPLE = 0.02  # seconds a sample lasts at least
PAUSE = 0.02  # seconds before each: the threads of the one before spin for a while
SLOW = 0.3  # seconds; a step that takes longer is timed in the first rounds only
ROUNDS_OF_SLOW = 2


@dataclass(frozen=True)
class Rung:
    """One line of the table; `problem` says why a step was not measured.

    `spread` is half the distance of the quartiles over the median, `factor` how many times as fast
    as the rung before, `taught` what the head of the step says of it.
    """

    number: int
    name: str
    taught: str
    dtype: str
    threads: int
    milliseconds: float = 0.0
    spread: float = 0.0
    rate: float = 0.0
    of_ceiling: float = 0.0
    factor: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Climb:
    """A ladder measured: what on, and its rungs from the slowest to the table's own kernel."""

    op: str
    shape: tuple[int, ...]
    table: str
    unit: str
    amount: float
    ceilings: dict[str, float]  # GFLOP/s or GB/s for "float32, 1 thread" and so on
    rungs: list[Rung]
    quick: bool = False


@dataclass
class _Candidate:
    """A step, or the table's own kernel (without a step), while it is being measured."""

    step: Step | None
    dtype: str
    threads: int
    where: int | None = None
    problem: str = ""

    def __post_init__(self) -> None:
        self.trial: Trial | None = None
        self.calls = 1
        self.seconds: list[float] = []
        self.shares: list[float] = []

    @property
    def ceiling(self) -> str:
        return f"{self.dtype}, {self.threads} thread{'' if self.threads == 1 else 's'}"


def climb(
    op: str,
    rounds: int = 7,
    shape: Sequence[int] = (),
    threads: int = 0,
    quick: bool = False,
    tick: Callable[[str], None] = lambda _: None,
) -> Climb:
    """Verify and time every step of a ladder, the table's kernel last.

    `threads` is for the steps that use more than one (0: as many as kernels do). Raises ConfigError
    for an op without a ladder or another shape than the op's.
    """
    before = _C.threads()
    candidates = _candidates(op, threads or before)
    try:
        for candidate in candidates:
            tick(candidate.step.name if candidate.step else "the table's kernel")
            _prepare(op, candidate, shape, quick)
        right = [c for c in candidates if not c.problem]
        ceilings = _rounds(op, right, 2 if quick else rounds, tick)
    finally:
        _C.set_threads(before)
    one = trial(op, shape, quick=quick)
    rates = {name: one.amount / statistics.median(taken) for name, taken in ceilings.items()}
    rungs = _rungs(candidates, one)
    return Climb(op, one.shape, _C.table(), one.unit, one.amount, rates, rungs, quick)


def _candidates(op: str, threads: int) -> list[_Candidate]:
    found = [_Candidate(s, s.dtype, threads if s.threaded else 1) for s in steps(op)]
    dtypes = dict.fromkeys(c.dtype for c in found)
    return [*found, *(_Candidate(None, dtype, threads) for dtype in dtypes)]


def _prepare(op: str, candidate: _Candidate, shape: Sequence[int], quick: bool) -> None:
    """Compile, verify, and find out how many calls make a sample."""
    made = trial(op, shape, candidate.dtype, quick)
    candidate.trial = made
    try:
        if candidate.step is not None:
            candidate.where = address(op, candidate.step.file)
        with swapped(op, candidate.where):
            _C.set_threads(candidate.threads)
            made.verify()
            once = _seconds(made, 1)
    except (GristmillError, RuntimeError, WrongResult) as error:
        candidate.problem = str(error)
        return
    candidate.seconds.append(once)
    candidate.calls = max(1, round((0.001 if quick else SAMPLE) / max(once, 1e-7)))


def _rounds(
    op: str, candidates: list[_Candidate], rounds: int, tick: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds of the ceilings, a figure a round; the candidates keep theirs."""
    measure: dict[str, tuple[int, Callable[[], float]]] = {}
    for c in candidates:
        assert c.trial is not None
        if c.ceiling not in measure:
            measure[c.ceiling] = c.threads, c.trial.ceiling()
    taken: dict[str, list[float]] = {name: [] for name in measure}
    for done in range(rounds):
        tick(f"round {done + 1} of {rounds}")
        for name, (threads, sample) in measure.items():
            _C.set_threads(threads)
            time.sleep(PAUSE)
            taken[name].append(min(sample(), sample()))
        for c in candidates:
            assert c.trial is not None
            if done >= ROUNDS_OF_SLOW and c.seconds[0] > SLOW:
                continue
            _C.set_threads(c.threads)
            with swapped(op, c.where):
                time.sleep(PAUSE)
                taken_here = _seconds(c.trial, c.calls)
            c.seconds = [*c.seconds, taken_here] if done else [taken_here]
            c.shares.append(taken[c.ceiling][-1] / taken_here)
    return taken


def _seconds(made: Trial, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        made.run()
    return (time.perf_counter() - start) / calls


def _rungs(candidates: list[_Candidate], one: Trial) -> list[Rung]:
    rungs: list[Rung] = []
    before = 0.0
    for c in candidates:
        name = c.step.name if c.step else f"the table's kernel{', bf16' * (c.dtype != 'float32')}"
        taught = c.step.taught if c.step else f"csrc/cpu/{one.op}.cpp"
        number = c.step.number if c.step else 0
        if c.problem:
            rungs.append(Rung(number, name, taught, c.dtype, c.threads, problem=c.problem))
            continue
        middle = statistics.median(c.seconds)
        low, _, high = statistics.quantiles(c.seconds, n=4) if len(c.seconds) > 1 else [middle] * 3
        rungs.append(
            Rung(
                number, name, taught, c.dtype, c.threads,
                1e3 * middle, (high - low) / 2 / middle, one.amount / middle,
                statistics.median(c.shares), before / middle if before else 0.0,
            )
        )  # fmt: skip
        before = middle
    return rungs


# --------------------------------------------------------------------------- the table


def lines(climbed: Climb) -> list[str]:
    """The table as text: a line of figures for each rung, and under it what it taught."""
    sizes = "x".join(map(str, climbed.shape))
    found = [f"ladder of {climbed.op}, {SIZES[climbed.op]} = {sizes}, table {climbed.table}"]
    for name, rate in climbed.ceilings.items():
        found.append(f"ceiling, {name}: {rate:.1f} {climbed.unit}/s")
    if climbed.quick:
        found.append("a small shape: what caches, memory and threads do shows without --quick")
    for rung in climbed.rungs:
        number = f"{rung.number:2}" if rung.number else "  "
        found.append("")
        if rung.problem:
            found.append(f"{number} {rung.name}: not measured: {rung.problem}")
            continue
        factor = f"{rung.factor:6.2f}x" if rung.factor else " " * 7
        many = f"  {rung.threads} threads" if rung.threads > 1 else ""
        stored = f"  {rung.dtype}" if rung.dtype != "float32" else ""
        found.append(
            f"{number} {rung.name:<25}{rung.milliseconds:10.3f} ms ±{100 * rung.spread:3.0f} %"
            f"{rung.rate:8.1f} {climbed.unit}/s{100 * rung.of_ceiling:6.1f} % of ceiling"
            f"{factor}{many}{stored}"
        )
        found.append(f"   {rung.taught}")
    return found


def show(
    op: str,
    rounds: int = 7,
    shape: Sequence[int] = (),
    threads: int = 0,
    quick: bool = False,
    say: Callable[[str], None] = print,
) -> Climb:
    """Climb a ladder and print its table."""

    def tick(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r{op}: {text:<40}", end="\r", file=sys.stderr, flush=True)

    climbed = climb(op, rounds, shape, threads, quick, tick)
    tick("")
    for line in lines(climbed):
        say(line)
    return climbed


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m gristmill.lab.ladder OP`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="gristmill.lab.ladder", description=show.__doc__)
    parser.add_argument("op", choices=ops())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shape", default="", metavar="AxBxC")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small shape, two rounds")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(argv)
    shape = [int(size) for size in args.shape.split("x") if size]
    climbed = show(args.op, args.rounds, shape, args.threads, args.quick)
    if args.json:
        args.json.write_text(json.dumps(asdict(climbed), indent=1) + "\n")
    return 1 if any(rung.problem for rung in climbed.rungs) else 0


if __name__ == "__main__":
    sys.exit(main())
