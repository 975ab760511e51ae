"""Oracle: twenty steps of every optimizer beside torch.optim's, in float64 there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import gristmill as gm

STEPS, RATE = 20, 0.0625
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {},
        {"momentum": 0.9, "dampening": 0.25, "weight_decay": 0.125},
        {"momentum": 0.9, "nesterov": True},
    ],
    "RMSprop": [
        {},
        {"alpha": 0.9, "weight_decay": 0.125, "momentum": 0.75},
        {"centered": True, "eps": 1e-3},
        {"centered": True, "momentum": 0.9},
    ],
    "Adam": [{}, {"betas": (0.75, 0.9375), "weight_decay": 0.125, "eps": 1e-6}],
    "AdamW": [{}, {"betas": (0.75, 0.9375), "weight_decay": 0.125, "eps": 1e-6}],
}


@pytest.mark.parametrize(
    ("name", "options"), [(n, o) for n, all_of in OPTIONS.items() for o in all_of], ids=str
)
def test_twenty_steps_are_those_of_torch(name: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    start = rng.normal(size=37).astype(np.float32)
    mine = gm.nn.Parameter(gm.tensor(start.copy()).array)
    theirs = torch.nn.Parameter(torch.from_numpy(start.astype(np.float64)))
    ours = getattr(gm.optim, name)([mine], RATE, **options)
    peer = getattr(torch.optim, name)([theirs], RATE, **options)
    for _ in range(STEPS):
        factor = rng.normal(size=37).astype(np.float32) + 2  # far from 0, as float32 needs for sign
        ours.zero_grad()
        (mine * gm.tensor(factor)).sum().backward()
        ours.step()
        theirs.grad = torch.from_numpy(factor.astype(np.float64))
        peer.step()
    moved = np.abs(theirs.detach().numpy() - start).sum()
    off = np.abs(mine.numpy() - theirs.detach().numpy()).max()
    # 20 roundings of values of 8 at most, of moves of 1 at most a step those of the kernels' cases
    assert moved > 1 and off < STEPS * 2.0**-24 * (8 + 40), off


@pytest.mark.parametrize("name", [*OPTIONS, "AdamW bfloat16"])
def test_a_saved_state_goes_on_where_it_was(name: str) -> None:
    kind, *dtype = name.split()
    options: dict[str, Any] = {"momentum": 0.5} if kind in ("SGD", "RMSprop") else {}
    if dtype:
        options["state_dtype"] = dtype[0]
    rng = np.random.default_rng(4)
    factors = rng.normal(size=(6, 5)).astype(np.float32)

    def fresh(values: Any) -> tuple[Any, Any]:
        p = gm.nn.Parameter(gm.tensor(np.array(values, np.float32)).array)
        return p, getattr(gm.optim, kind)([p], RATE, **options)

    def steps(p: Any, optimizer: Any, rows: Any) -> None:
        for row in rows:
            optimizer.zero_grad()
            (p * gm.tensor(row)).sum().backward()
            optimizer.step()

    whole, optimizer = fresh(np.ones(5))
    steps(whole, optimizer, factors)
    first, before = fresh(np.ones(5))
    steps(first, before, factors[:3])
    state = before.state_dict()
    state["arrays"] = {k: v.copy() for k, v in state["arrays"].items()}
    second, after = fresh(first.numpy())
    after.load_state_dict(state)
    steps(second, after, factors[3:])
    np.testing.assert_array_equal(second.numpy(), whole.numpy())


def test_a_state_of_another_dtype_is_refused() -> None:
    p = gm.nn.Parameter(gm.zeros(5).array)
    short, long = (gm.optim.AdamW([p], state_dtype=d) for d in ("bfloat16", "float32"))
    with pytest.raises(ValueError, match=r"uint16.*float32"):
        long.load_state_dict(short.state_dict())


def test_an_unknown_dtype_of_the_state_lists_those_there_are() -> None:
    p = gm.nn.Parameter(gm.zeros(5).array)
    with pytest.raises(ValueError, match="'float16', allowed are float32 and bfloat16"):
        gm.optim.Adam([p], state_dtype="float16")
