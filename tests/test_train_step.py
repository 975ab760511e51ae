"""bench.train_step: sides agree before they are timed, the profile holds every kernel call."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench is not installed

from bench.step import memory
from bench.step.profile import Profile
from bench.step.shapes import Counted, Shape, ours
from bench.step.turns import check, compare, lines

from gristmill.backend import _C

SHAPES = [Shape("gpt2", 2, 64, 97, 2, 8), Shape("llama", 2, 64, 97, 2, 8)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.kind)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pytorch_makes_the_same_steps(shape: Shape, dtype: str) -> None:
    pytest.importorskip("torch")
    row = compare(shape, dtype, ["torch"], rounds=2)
    assert set(row["peers"]) == {"torch"} and set(row["page_faults"]) == {"ours", "torch"}
    assert [name in line for name, line in zip(["ours", "torch"], lines(row), strict=True)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.kind)
def test_a_peer_of_other_weights_is_refused(shape: Shape) -> None:
    torch = pytest.importorskip("torch")
    from bench.step.torch_models import peer, theirs

    model = peer(shape.build())
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    batch = shape.random_batch()
    made = {
        "ours": Counted(ours(shape.build(), "float32"), batch),
        "torch": Counted(theirs(model, "float32"), batch),
    }
    with pytest.raises(AssertionError, match="torch: losses"):
        check(made, "float32")


def test_a_profile_counts_every_kernel_and_leaves_them_as_they_were() -> None:
    shape = SHAPES[0]
    step, before = Counted(ours(shape.build(), "float32"), shape.random_batch()), _C.matmul
    step()
    with Profile() as profile:
        step()
    assert _C.matmul is before
    # per block forward, gradients of inputs and of weights of four products
    assert sum(n for key, n in profile.calls.items() if key.startswith("matmul")) == 2 * 4 * 3
    assert {"linear_cross_entropy", "attention_backward", "adamw"} <= set(profile.calls)
    assert "adamw" in profile.table(1, 1.0) and "Python" in profile.table(1, 1.0)


def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    small = memory.measure("ours", SHAPES[0], "float32")
    large = memory.measure("ours", Shape("gpt2", 2, 64, 40000, 2, 8), "float32")
    states = 16 * (40000 - 97) * 64  # weights, gradients and two averages of the larger table
    assert large["peak_bytes"] - small["peak_bytes"] > 0.9 * states
    assert len(small["losses"]) == memory.STEPS


def test_both_sides_learn_alike_until_the_goal() -> None:
    pytest.importorskip("torch")
    from bench.step.quality import EVERY, Corpus, race

    circle = np.tile(np.arange(16, dtype=np.int32), 100)
    text = Corpus(circle, circle, 1.0)
    shape = Shape("llama", 2, 64, 16, 2, 8)
    mine, other = race(shape, "float32", text, 0, "torch", 2.0)
    assert mine.reached and other.reached
    assert np.abs(np.array(mine.curve) - other.curve).max() < 0.05
    assert text.batch(shape, 1, EVERY)[0].tolist() == text.batch(shape, 1, EVERY)[0].tolist()
    assert text.batch(shape, 1, 0)[0].tolist() != text.batch(shape, 2, 0)[0].tolist()
