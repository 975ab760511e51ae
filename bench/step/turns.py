"""Our step, PyTorch's and the machine's ceiling in turns; ratios with their intervals."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from bench.measure import compute_ceiling, interleave, sampler
from bench.step.shapes import Counted, Shape, ours

PEERS = ("torch", "torch-compile")
CHECKED = 3  # steps whose losses must agree
# nats in three steps: sums in another order, and in bfloat16 roundings in other places
ALLOWED = {"float32": 2e-3, "bfloat16": 5e-2}
RESAMPLES, SHARE = 10_000, 0.95


@dataclass(frozen=True)
class Ratio:
    """Median of peer / ours over the rounds, and its bootstrap interval."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f}x [{self.low:.2f}, {self.high:.2f}]"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """How many times longer the peer takes; rounds are drawn with replacement."""
    each = np.asarray(theirs) / np.asarray(ours)
    drawn = np.random.default_rng(0).choice(each, (RESAMPLES, len(each)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Ratio(float(np.median(each)), float(low), float(high))


def sides(shape: Shape, dtype: str, peers: Sequence[str]) -> dict[str, Counted]:
    """Every side's step on the same batch from the same first weights."""
    batch = shape.random_batch()
    made = {"ours": Counted(ours(shape.build(), dtype), batch)}
    for name in peers:
        from bench.step import torch_models

        model = torch_models.peer(shape.build())
        made[name] = Counted(torch_models.theirs(model, dtype, name == "torch-compile"), batch)
    return made


def check(made: Mapping[str, Counted], dtype: str) -> None:
    """Three steps of each; raises AssertionError where losses differ or nothing was compiled."""
    for name, side in made.items():
        for _ in range(CHECKED):
            side()
        worst = max(abs(a - b) for a, b in zip(side.losses, made["ours"].losses, strict=True))
        assert worst <= ALLOWED[dtype], f"{name}: losses {side.losses} differ by {worst:.2e}"
        if name == "torch-compile":
            from bench.step.torch_models import compiled_code

            assert compiled_code() > 0, "torch.compile compiled nothing: is g++ installed?"


def compare(shape: Shape, dtype: str, peers: Sequence[str], rounds: int) -> dict[str, Any]:
    """Verify, then take turns; a row for the receipt."""
    made = sides(shape, dtype, peers)
    check(made, dtype)
    timed = {"ceiling": compute_ceiling(shape.flops, dtype)}
    timed |= {name: sampler(side) for name, side in made.items()}
    taken = interleave(timed, rounds, samples=1)
    mine = statistics.median(taken["ours"])
    row: dict[str, Any] = {
        "dtype": dtype,
        "gflop": 1e-9 * shape.flops,
        "of_ceiling": statistics.median(
            c / o for c, o in zip(taken["ceiling"], taken["ours"], strict=True)
        ),
        "sides": {},
    }
    for name, side in made.items():
        seconds = taken[name]
        middle = statistics.median(seconds)
        low, _, high = statistics.quantiles(seconds, n=4) if rounds > 1 else (middle,) * 3
        row["sides"][name] = {
            "milliseconds": 1e3 * middle,
            "spread": (high - low) / 2 / middle,
            "tokens_per_second": shape.tokens / middle,
            "page_faults": side.faults_after_the_first(),
            "ratio": vars(ratio(taken["ours"], seconds)),
        }
    row["milliseconds"] = 1e3 * mine
    return row


def lines(row: Mapping[str, Any]) -> list[str]:
    """A row for the eye, one line a side."""
    out = []
    for name, side in row["sides"].items():
        kind = row["dtype"] if name == "ours" else ""
        faults = side["page_faults"]
        share = f"{100 * row['of_ceiling']:.0f} % of ceiling"
        beside = share if name == "ours" else Ratio(**side["ratio"])
        out.append(
            f"{kind:<10}{name:<15}{side['milliseconds']:9.1f} ms ±{100 * side['spread']:3.0f} %"
            f"{side['tokens_per_second']:9.0f} tokens/s  {beside!s:<22}"
            f"page faults {faults['median']:g} (at most {faults['most']:g})"
        )
    return out
