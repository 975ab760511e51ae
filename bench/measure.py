"""How kernels are measured: verify, then take turns with a peer and with the machine's ceiling.

    python -m bench.ops.matmul [--threads N] [--rounds N] [--only TEXT] [--json FILE]

Every result is checked against the op's NumPy twin, and the peer's against ours. Then every round
takes SAMPLES samples of ours, of each peer (PyTorch where it is installed, else NumPy; `gristmill
bench` has more of them) and of the ceiling in turns, so that a busy neighbour meets all of them,
and keeps the fastest of each; figures are medians over the rounds of these, of peer / ours and of
ceiling / ours. The ceiling of a product is fma from registers, of a memory-bound op the same number
of streams over arrays of the same size.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench.ceiling import SAMPLE, NoCompiler, aligned, stream_ceiling
from bench.ceiling import compute_ceiling as compute_ceiling
from bench.figures import Row, summary
from bench.receipt import Receipt

from gristmill.backend import _C

try:
    import torch
except ImportError:
    torch = None

SAMPLES = 3  # of each side in a round
PAUSE = 0.02  # seconds before each sample: the threads of the one before spin for a while
U, UB = 2.0**-24, 2.0**-8  # unit roundoff of float32 and bfloat16

Pairs = Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]]


@dataclass(frozen=True)
class Peer:
    """Another library at the work of a case; `check` runs both and raises where they differ.
    `around` is entered for each sample."""

    run: Callable[[], object]
    check: Callable[[], None]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass(frozen=True)
class Case:
    """One line: `ours` and `peer` do the same work; `check` raises where a result is wrong.

    `ceiling` gives the seconds the machine needs at least; `amount` of `unit` (GFLOP, GB) is done.
    `intensity` is FLOP a byte, where it is not what work.py finds.
    `beside` names `peer` where it is not the run's own; `peers` are more of them, by name.
    """

    name: str
    ours: Callable[[], object]
    peer: Callable[[], object] | None
    check: Callable[[], None]
    ceiling: Callable[[], float]
    amount: float
    unit: str
    beside: str = ""
    peers: Mapping[str, Peer] = field(default_factory=dict)
    intensity: float | None = None

    def named(self) -> dict[str, Peer]:
        """All peers, the first by the name it has in the table; `check` has verified that one."""
        if self.peer is None:
            return dict(self.peers)
        return {self.beside or next(iter(peers())): Peer(self.peer, lambda: None), **self.peers}


# ---------------------------------------------------------------- taking turns
def interleave(
    timed: Mapping[str, Callable[[], float]],
    rounds: int,
    samples: int = SAMPLES,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """One figure a round for each of `timed`, which give seconds: the least of its samples.

    `tick` is called after each round.
    """
    best: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        taken: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(samples):
            for name, sample in timed.items():
                time.sleep(PAUSE)
                taken[name].append(sample())
        for name, values in taken.items():
            best[name].append(min(values))
        tick()
    return best


def sampler(f: Callable[[], object]) -> Callable[[], float]:
    """Seconds of one call of f, the mean over a sample of SAMPLE seconds; warms up."""
    f()
    first = _seconds(f, 1)
    calls = 1 if first > SAMPLE else max(1, int(SAMPLE / max(_seconds(f, 2), 1e-7)))
    return lambda: _seconds(f, calls)


def within(
    around: Callable[[], AbstractContextManager[object]], sample: Callable[[], float]
) -> Callable[[], float]:
    """A sample that is taken inside of a context, whose own time does not count."""

    def run() -> float:
        with around():
            return sample()

    return run


def _seconds(f: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        f()
    return (time.perf_counter() - start) / calls


def measure(
    case: Case,
    rounds: int,
    samples: int = SAMPLES,
    again: bool = False,
    tick: Callable[[], object] = lambda: None,
) -> Row:
    """Verify, then interleave; `again` also ours against ours, the noise floor.

    Raises AssertionError when a result is wrong. A peer of `case.peers` that is, or that fails, is
    left out with a note; so is the ceiling where there is no compiler for it.
    """
    case.check()
    timed: dict[str, Callable[[], float]] = {"ours": sampler(case.ours)}
    notes = []
    try:
        case.ceiling()
        timed["ceiling"] = case.ceiling
    except NoCompiler as error:
        notes.append(str(error))
    for name, peer in case.named().items():
        try:
            peer.check()
            timed[name] = within(peer.around, sampler(peer.run))
        except Exception as error:  # whatever another library raises must not end the table
            notes.append(f"{name} left out: {type(error).__name__}: {error}")
    if again:
        timed["again"] = sampler(case.ours)
    taken = interleave(timed, rounds, samples, tick)
    return summary(
        case.name, taken, case.amount, case.unit, intensity=case.intensity, notes=tuple(notes)
    )


# ---------------------------------------------------------------- the command line
def options() -> argparse.Namespace:
    """The command line every bench has."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=_C.threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", type=Path, help="write a receipt (bench/results/README.md)")
    return parser.parse_args()


def peers() -> dict[str, str]:
    """Name and version of what ops are compared with."""
    return {"NumPy": np.__version__} if torch is None else {"PyTorch": torch.__version__}


def receipt_of(args: argparse.Namespace, bench: str) -> Receipt:
    """Set the threads of both sides, say so, and open the receipt the options ask for."""
    _C.set_threads(args.threads)
    if torch is not None:
        torch.set_num_threads(args.threads)
    beside = " ".join(*peers().items())
    print(f"table {_C.table()}, {args.threads} threads, {args.rounds} rounds, beside {beside}")
    return Receipt(args.json, bench, vars(args), peers())


def run(
    cases: Callable[[], Iterable[Case]],
    args: argparse.Namespace | None = None,
    receipt: Receipt | None = None,
    op: str = "",
) -> None:
    """Measure and print the cases of one op as they are built."""
    args = args or options()
    op = op or Path(sys.argv[0]).stem
    receipt = receipt or receipt_of(args, f"ops.{op}")
    for case in cases():
        if args.only not in case.name:
            continue
        row = measure(case, args.rounds)
        print(row, flush=True)
        receipt.add({"op": op, **asdict(row)})


# ---------------------------------------------------------------- arrays both sides share
def normal(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random float32 (zeros would draw less power and run faster)."""
    out = aligned(int(np.prod(shape))).reshape(shape)
    out[...] = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return out


def bf16(x: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of x as bfloat16, rounded to nearest even."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def wide(x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """For a twin: the values in float64; uint16 is bfloat16."""
    if x.dtype == np.uint16:
        x = (x.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(x, np.float64)


def array(x: npt.NDArray[Any]) -> Any:
    """For a binding; uint16 is bfloat16."""
    return _C.from_numpy(x, x.dtype == np.uint16)


def tensor(x: npt.NDArray[Any]) -> Any:
    """For PyTorch, on the same memory."""
    if x.dtype == np.uint16:
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


# ---------------------------------------------------------------- verifying
def close(got: npt.NDArray[Any], want: npt.NDArray[Any], tolerance: float, what: str) -> None:
    """Raises AssertionError when results differ by more than `tolerance` of the largest value."""
    got, want = wide(got), wide(want)
    assert got.shape == want.shape, f"{what}: shapes {got.shape} and {want.shape}"
    worst = float(np.abs(got - want).max())
    allowed = tolerance * float(np.abs(want).max())
    assert worst <= allowed, f"{what} differ by {worst:.3g}, allowed is {allowed:.3g}"


def agreement(
    ours: Callable[[], object],
    twin: Callable[[], Pairs],
    tolerance: float,
    peer: Callable[[], object] | None,
    results: Callable[[], Pairs],
    peer_tolerance: float | None = None,
) -> Callable[[], None]:
    """A check: ours against the twin, then the peer against ours, each run once.

    `twin` gives pairs (ours, twin's), which may be parts where the twin is slow; `results` gives
    pairs (ours, peer's). `tolerance` is ours; a peer that composes the op of more roundings has
    four times that, or `peer_tolerance`.
    """

    def check() -> None:
        ours()
        for mine, want in twin():
            close(mine, want, tolerance, "ours and the twin")
        if peer is not None:
            peer()
            allowed = 4 * tolerance if peer_tolerance is None else peer_tolerance
            for mine, other in results():
                close(mine, other, allowed, "ours and the peer")

    return check


def streaming(
    name: str,
    ours: Callable[[], object],
    peer: Callable[[], object] | None,
    check: Callable[[], None],
    streams: tuple[int, int],
    elements: float,
    in_place: bool = False,
) -> Case:
    """A memory-bound case: (reads, writes) of arrays of `elements` float32, or float32's worth."""
    gigabytes = 4e-9 * sum(streams) * elements
    ceiling = stream_ceiling(*streams, elements, in_place)
    return Case(name, ours, peer, check, ceiling, gigabytes, "GB")
