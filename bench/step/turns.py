"""Our step, PyTorch's and the machine's ceiling in turns; ratios with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.figures import summary
from bench.measure import compute_ceiling, interleave, sampler
from bench.step.shapes import Counted, Shape, ours

PEERS = ("torch", "torch-compile")
CHECKED = 3  # steps whose losses must agree
# nats in three steps: sums in another order, and in bfloat16 roundings in other places
ALLOWED = {"float32": 2e-3, "bfloat16": 5e-2}


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
    row = asdict(summary(dtype, taken, 1e-9 * shape.flops, "GFLOP"))
    row["tokens_per_second"] = 1e3 * shape.tokens / row["milliseconds"]
    row["page_faults"] = {name: side.faults_after_the_first() for name, side in made.items()}
    return row


def lines(row: Mapping[str, Any]) -> list[str]:
    """A row for the eye, one line a side."""
    tokens = 1e-3 * row["tokens_per_second"] * row["milliseconds"]
    share = f"±{100 * row['spread']:2.0f} %, {100 * row['of_ceiling']:.0f} % of the ceiling"
    beside = {"ours": (row["milliseconds"], share)}
    for name, p in row["peers"].items():
        beside[name] = p["milliseconds"], f"{p['ratio']:.2f}x ({p['low']:.2f} to {p['high']:.2f})"
    out = []
    for name, (milliseconds, said) in beside.items():
        kind, faults = row["name"] if name == "ours" else "", row["page_faults"][name]
        out.append(
            f"{kind:<10}{name:<15}{milliseconds:9.1f} ms{1e3 * tokens / milliseconds:9.0f} tokens/s"
            f"   {said:<28}page faults {faults['median']:g} (at most {faults['most']:g})"
        )
    return out
