"""Loss on some tokens: a target weighs the same in any micro-batch; a kill changes no bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("gristmill._C")

import train_masked
from tiny_llama import settings, small

import gristmill as gm
from gristmill.data.loader import IGNORED
from gristmill.errors import TrainingError

Batch = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]


class Micro:
    """One batch of four rows cut in parts; the rows hold 1, 2, 9 and 3 targets that count."""

    def __init__(self, parts: list[slice]) -> None:
        self.parts = parts
        random = np.random.default_rng(5)
        self.x = random.integers(0, 61, (4, 12), dtype=np.int32)
        self.y = random.integers(0, 61, (4, 12), dtype=np.int32)
        for row, count in enumerate((1, 2, 9, 3)):
            self.y[row, count:] = IGNORED

    def batch(self, step: int) -> Batch:
        part = self.parts[step % len(self.parts)]
        return self.x[part], self.y[part]


WHOLE = [slice(0, 4)]
CUTS = {
    "unequal counts": [slice(0, 2), slice(2, 4)],
    "unequal rows": [slice(0, 3), slice(3, 4)],
    "nothing counts in one": [slice(0, 4), slice(0, 0)],
}


@pytest.mark.parametrize("parts", CUTS.values(), ids=CUTS)
def test_a_target_weighs_the_same_in_any_micro_batch(parts: list[slice]) -> None:
    """Only the order in which 15 losses are added differs: 15 roundings of the loss, and of a
    gradient at most 48 positions' worth, 48 * 6e-8 = 3e-6.
    """
    one_model, cut_model = small(), small()
    cut = Micro(parts)
    if parts[1] == slice(0, 0):
        rows = cut.x[:2], np.full_like(cut.y[:2], IGNORED)
        batches = [(cut.x, cut.y), rows]
        cut.batch = lambda step: batches[step % 2]  # type: ignore[method-assign]
    one = gm.Trainer(one_model, Micro(WHOLE), None, settings(1)).fit()
    two = gm.Trainer(cut_model, cut, None, settings(1, accumulate=2)).fit()
    assert two.losses[0] == pytest.approx(one.losses[0], rel=1e-6)
    for (name, p), q in zip(one_model.named_parameters(), cut_model.parameters(), strict=True):
        want, got = p.grad.numpy(), q.grad.numpy()
        assert np.linalg.norm(got - want) <= 3e-6 * np.linalg.norm(want), name


def test_no_target_at_all_is_an_error() -> None:
    data = Micro(WHOLE)
    data.y[:] = IGNORED
    with pytest.raises(ValueError, match="none counts"):
        gm.Trainer(small(), data, None, settings(1)).fit()


def test_what_does_not_count_is_not_learned(tmp_path: Path) -> None:
    """Answers count up from random questions: they are learned, the questions cannot be."""
    train_masked.write(tmp_path)
    trainer = train_masked.trainer(tmp_path, None, steps=250, accumulate=1)
    history = trainer.fit()
    assert history.losses[-1] < 0.6 * history.losses[0]
    x, y = trainer.train.batch(1000)
    asked = np.where(y == IGNORED, np.roll(x, -1, 1), IGNORED)[:, :2]
    losses = trainer.model.token_losses(x[:, :2].copy(), asked.astype(np.int32))
    assert losses.mean() > 0.9 * np.log(train_masked.V)


def _digest(folder: Path) -> tuple[bytes, list[dict[str, float]]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        del row["tokens_per_second"]
    names = ("last/model.safetensors", "best/model.safetensors")
    return b"".join((folder / name).read_bytes() for name in names), rows


def test_killed_and_resumed_on_conversations(tmp_path: Path) -> None:
    train_masked.write(tmp_path / "shard")
    script = [sys.executable, train_masked.__file__, str(tmp_path / "shard")]
    train_masked.trainer(tmp_path / "shard", tmp_path / "whole").fit()
    process = subprocess.Popen([*script, str(tmp_path / "cut")])
    metrics = tmp_path / "cut" / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and len(metrics.read_bytes().splitlines()) >= 17:
            break
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL, "the run was over before it was killed"
    subprocess.run([*script, str(tmp_path / "cut")], check=True, timeout=120)
    assert _digest(tmp_path / "cut") == _digest(tmp_path / "whole")


def test_validation_where_nothing_counts_is_an_error() -> None:
    nothing = Micro(WHOLE)
    nothing.y[:] = IGNORED
    with pytest.raises(TrainingError, match="none of the 2 batches of validation"):
        config = replace(settings(1), eval_every=1, eval_batches=2)
        gm.Trainer(small(), Micro(WHOLE), nothing, config).fit()
